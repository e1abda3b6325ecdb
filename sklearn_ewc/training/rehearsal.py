"""What is tried before a task is trained, so that it fails before anything has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..curvature.criterion import (
    check_shapes,
    has_curvature,
    is_mean_over_samples,
    total_loss,
)
from ..data.batches import mean_weight
from ..tensors import Tensors, call, copied
from .seeding import draws_random_numbers, seeded, task_seed
from .skorch_parts import nothing_held_out
from .steps import inputs, targets


@dataclass(frozen=True)
class Rehearsal:
    """What is known of a task before it is trained.

    Attributes
    ----------
    is_random : bool
        Whether the module draws random numbers in training.
    loss : float
        The mean criterion on the first batch.
    state : dict of str to Tensor
        A copy of the module's parameters and buffers.
    """

    is_random: bool
    loss: float
    state: Tensors


def rehearse(net: Any, dataset: Any, validation: Any) -> Rehearsal:
    """Try the first batch.

    Raises
    ------
    ValueError
        If there is nothing to train on, the module's output or the criterion is
        not what a Fisher can be made of, or a callback waits for a validation loss
        that there will not be.
    """
    if mean_weight(dataset) == 0:
        raise ValueError("sample_weight must be positive for some sample that is trained on")
    X, output, y = _first_batch(net, dataset)
    if not any(p.requires_grad for p in net.bare_module_.parameters()):
        raise ValueError("module has no parameter with requires_grad=True: nothing can be learned")
    _check_criterion(net, output, y)
    if validation is None:
        _check_monitors(net)
    else:
        _first_batch(net, validation)
    net._set_training(True)
    is_random = draws_random_numbers(net.bare_module_, X, net.device)
    module = net.bare_module_
    state = copied({**dict(module.named_parameters()), **dict(module.named_buffers())})
    loss = float(total_loss(net.criterion_, output, y)) / len(y)
    return Rehearsal(is_random, loss, state)


def check_still_bound(module: nn.Module, params: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a callback has put others in the place of the parameters trained."""
    now = dict(module.named_parameters())
    changed = [name for name in params.keys() | now.keys() if now.get(name) is not params.get(name)]
    if changed:
        raise ValueError(
            f"a callback exchanged the parameters {sorted(changed)} in mid-task: the new ones were "
            "neither trained nor held to the memory"
        )


def _first_batch(net: Any, dataset: Any) -> tuple[Any, Tensor, Tensor]:
    """Return the first batch of a dataset, checked, with the module's output between X and y."""
    batch = next(iter(net.get_iterator(dataset, training=False)), None)
    if batch is None:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    X, y = inputs(net, batch[0]), targets(net, batch[1])
    net._set_training(False)
    # a lazy module draws its parameters now
    with seeded(task_seed(net.seed_, 0), net.device), torch.no_grad():
        output = call(net.bare_module_, X)
    if output.shape[:1] != y.shape[:1]:
        raise ValueError(
            f"module returned shape {tuple(output.shape)} for a batch of {len(y)} samples; "
            "the first axis must hold the samples"
        )
    check_shapes(net.criterion_, output, y)
    return X, output, y


def _check_criterion(net: Any, output: Tensor, y: Tensor) -> None:
    """Raise ValueError where the Fisher of the criterion would mean nothing."""
    name = net.criterion_name_
    if not is_mean_over_samples(net.criterion_, output, y):
        raise ValueError(
            f"{name} of a batch is not the mean over its samples, so there is no Fisher of it"
        )
    if net.fisher in ("exact", "sampled") and not has_curvature(net.criterion_, output, y):
        raise ValueError(
            f"{name} has no curvature, so fisher={net.fisher!r} would "
            "remember nothing; use fisher='empirical'"
        )


def _check_monitors(net: Any) -> None:
    """Raise if a callback waits for a validation loss that there will not be."""
    for name, callback in net.callbacks_:
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor.startswith("valid_loss"):
            raise nothing_held_out(name, f"monitors {monitor!r}")
