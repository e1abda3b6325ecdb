"""The epochs of one task."""

from __future__ import annotations

import math
from typing import Any

import torch
from skorch.dataset import get_len
from skorch.utils import to_tensor
from torch import Tensor

from ..curvature.criterion import is_sum
from ..data.batches import mean_weight
from ..memory import Penalty
from .divergence import diverged
from .epochs import let_rate_fall, n_epochs
from .interrupts import stoppable
from .seeding import draw_seed, task_generator
from .skorch_parts import is_heard
from .steps import penalised, targets
from .teaching import Teaching
from .units import has_several_units, loss_by_units, unit_of_loss


def train(
    net: Any,
    dataset: Any,
    validation: Any,
    penalty: Penalty,
    is_random: bool,
    teaching: Teaching | None = None,
    share: float = 1.0,
) -> None:
    """Train a net for its number of epochs, or until a callback stops it.

    Parameters
    ----------
    net : EWCNet
    dataset, validation : Dataset
        What to train on, and what to score each epoch on (None: nothing).
    penalty : Penalty
        Bound to the parameters of the net's module.
    is_random : bool
        Whether the module draws random numbers, and so needs a seed for each step.
    teaching : Teaching, default=None
        What is replayed of old tasks.
    share : float, default=1.0
        The part of the epochs to train for, at least one of them.
    """
    generator = task_generator(net.seed_, net.n_tasks_ + 1)
    vars(net)["_generator"] = generator  # skorch's signature of get_iterator has no place for it
    batches = net.get_iterator(dataset, training=True)
    del vars(net)["_generator"]
    held_out = None if validation is None else net.get_iterator(validation, training=False)
    of_training: dict[str, Any] = {
        # of a stream of its own: whether there are any does not change the order of the batches
        "seeds": task_generator(net.seed_, net.n_tasks_ + 1, stream=1) if is_random else None,
        "weight_unit": mean_weight(dataset),
    }
    of_validation = {"weight_unit": None if validation is None else mean_weight(validation)}
    datasets = {"dataset_train": dataset, "dataset_valid": validation}
    with stoppable(), penalised(net, penalty, teaching) as step:
        of = n_epochs(net, batches, share)
        for epoch in range(of):
            let_rate_fall(net, epoch, of)
            net.notify("on_epoch_begin", **datasets)
            net.history.record("task", net.n_tasks_ + 1)
            net.run_single_epoch(batches, True, "train", step, penalty=penalty, **of_training)
            net.run_single_epoch(held_out, False, "valid", net.validation_step, **of_validation)
            net.history.record("penalty", _amount(net, penalty))
            net.history.record("ewc_lambda", float(penalty.ewc_lambda))
            if teaching is not None:
                net.history.record("replay_loss", teaching.epoch_loss())
            net.notify("on_epoch_end", **datasets)


def run_single_epoch(
    net: Any,
    iterator: Any,
    training: bool,
    prefix: str,
    step_fn: Any,
    seeds: torch.Generator | None = None,
    weight_unit: float | None = None,
    penalty: Penalty | None = None,
    **fit_params: Any,
) -> None:
    """Run skorch's epoch over batches that may carry weights.

    Parameters
    ----------
    net, iterator, training, prefix, step_fn, **fit_params
        As in :meth:`skorch.NeuralNet.run_single_epoch`, which it replaces.
    seeds : torch.Generator, default=None
        Where each step of a module with dropout gets its seed from.
    weight_unit : float, default=None
        The mean weight of the samples.
    penalty : Penalty, default=None
        Told of every batch how many losses the criterion adds up in it.
    """
    if iterator is None:
        return
    if net.module_.training != training:
        net._set_training(training)
    losses_are_awaited = is_heard(net, "on_batch_end")
    adds_up, is_scaled = is_sum(net.criterion_), net.targets_.scale is not None
    shows_units, unit = has_several_units(net), unit_of_loss(net)
    history, losses, shown = net.history, [], []
    for X, y, *weight in iterator:
        batch = trained = (X, y)
        if is_scaled:
            trained = (X, targets(net, y))
        if weight:
            weights = to_tensor(weight[0], device=net.device)
            fit_params["sample_weight"] = weights / (weight_unit or 1.0)
        if seeds is not None:
            fit_params["seed"] = draw_seed(seeds)
        net.notify("on_batch_begin", batch=batch, training=training)
        size = len(X) if isinstance(X, Tensor) else get_len(X)
        if penalty is not None and adds_up:
            penalty.n_summed = size
        step = step_fn(trained, **fit_params)
        history.record_batch(f"{prefix}_batch_size", size)
        losses.append(step["loss"].detach())
        if shows_units:
            weights = fit_params.get("sample_weight")
            shown.append(loss_by_units(net, step["y_pred"], trained[1], weights, training))
        if losses_are_awaited:  # else no batch waits for its loss to leave the device
            loss = (shown or losses)[-1].item() * unit
            history.record_batch(f"{prefix}_loss", loss)
        net.notify("on_batch_end", batch=batch, training=training, **step)
    if training and not losses:
        raise ValueError(
            f"there is no batch to train on: batch_size={net.batch_size!r} with drop_last leaves "
            "out all samples of the task"
        )
    values = _numbers(losses)
    if training and not all(map(math.isfinite, values)):
        raise diverged(net, next(value for value in values if not math.isfinite(value)))
    _record_losses(net, f"{prefix}_loss", _numbers(shown) if shown else values, unit)
    history.record(f"{prefix}_batch_count", len(losses))


def _amount(net: Any, penalty: Penalty) -> float:
    """Return the penalty at the end of an epoch, beside the epoch's mean of the criterion."""
    penalty.ewc_lambda = net.lambda_in_force_
    if is_sum(net.criterion_):
        rows = net.history[-1]["batches"]
        sizes = [row["train_batch_size"] for row in rows if "train_batch_size" in row]
        penalty.n_summed = sum(size * size for size in sizes) / sum(sizes)
    return penalty.amount() * unit_of_loss(net)


def _numbers(losses: list[Tensor]) -> list[float]:
    return torch.stack(losses).tolist() if losses else []


def _record_losses(net: Any, name: str, values: list[float], unit: float) -> None:
    rows = net.history[-1]["batches"]
    for row, value in zip(rows[len(rows) - len(values) :], values, strict=True):
        row[name] = value * unit
