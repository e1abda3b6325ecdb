"""What is tried before a task is trained, so that it fails before anything has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..curvature import Fisher
from ..curvature.criterion import (
    check_shapes,
    has_curvature,
    is_mean_over_samples,
)
from ..data.batches import mean_weight
from ..tensors import Tensors, call, copied
from .buffers import are_remembered, at_rest, moving_parts
from .refusals import check_dtype, check_size, explained_dtypes, first_batch
from .seeding import draws_random_numbers, seeded, task_seed
from .sizes import batch_sizes, counted, tried, with_rows
from .skorch_parts import nothing_held_out
from .steps import inputs, targets
from .targeting import check_can_teach

_OTHER_LAYER = "take a layer that does without the other samples, such as LayerNorm"
# numbers per sample beyond which "exact", a pass for each, would cost what training does
_MANY_OUTPUTS = 10


@dataclass(frozen=True)
class Rehearsal:
    """What is known of a task before it is trained.

    Attributes
    ----------
    is_random : bool
        Whether the module draws random numbers in training.
    at_rest : tuple of torch.nn.Module
        Parts of the module that stay in evaluation, so that their buffers stay.
    fisher : str
        The estimator of the Fisher, where "auto" has been decided.
    state : dict of str to Tensor
        A copy of the module's parameters and buffers.
    """

    is_random: bool
    at_rest: tuple[nn.Module, ...]
    fisher: Fisher
    state: Tensors


def rehearse(net: Any, dataset: Any, validation: Any) -> Rehearsal:
    """Try the first batch, and smaller ones where the task will have some.

    Raises
    ------
    ValueError
        If there is nothing to train on, the module's output or the criterion is
        not what a Fisher can be made of, a batch is too small for a layer, or a
        callback waits for a validation loss that there will not be.
    """
    known = net.memory_.quadratic
    if known.centre and known.curvature.kind != net.curvature:
        raise ValueError(
            f"curvature is {net.curvature!r}, the memory has {known.curvature.kind!r} of the tasks "
            "before: set it back, or call fit to start anew"
        )
    if mean_weight(dataset) == 0:
        raise ValueError("sample_weight must be positive for some sample that is trained on")
    X, y, output = _evaluated(net, dataset)
    if not any(p.requires_grad for p in net.bare_module_.parameters()):
        raise ValueError("module has no parameter with requires_grad=True: nothing can be learned")
    _check_criterion(net, output, y)
    if net.replay is not None:
        check_can_teach(net, output, y)
    if validation is None:
        _check_monitors(net)
    else:
        _evaluated(net, validation)
    sizes = _training_sizes(net, dataset, len(y))
    parts: tuple[nn.Module, ...] = ()
    if are_remembered(net):
        several, _ = with_rows((X, y), max(sizes[0], 2))  # a single row has no spread to move by
        parts = moving_parts(net.bare_module_, several, net.device)
    with at_rest(net, parts):
        is_random = tried(
            lambda batch: draws_random_numbers(net.bare_module_, batch[0], net.device),
            (X, y),
            [share for size in sizes for share in net.processes_.share_sizes(size)],
            _why_in_training(sizes, len(dataset)),
        )
    module = net.bare_module_
    state = copied({**dict(module.named_parameters()), **dict(module.named_buffers())})
    return Rehearsal(is_random, parts, _fisher_for(net, output), state)


def check_still_bound(module: nn.Module, params: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a callback has put others in the place of the parameters trained."""
    now = dict(module.named_parameters())
    changed = [name for name in params.keys() | now.keys() if now.get(name) is not params.get(name)]
    if changed:
        raise ValueError(
            f"a callback exchanged the parameters {sorted(changed)} in mid-task: the new ones were "
            "neither trained nor held to the memory"
        )


def _evaluated(net: Any, dataset: Any) -> tuple[Any, Tensor, Tensor]:
    """Return X and y of a dataset's first batch, and the module's output on it, checked."""
    iterator = net.get_iterator(dataset, training=False)
    batch = first_batch(iterator)
    if batch is None:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    X, y = inputs(net, batch[0]), targets(net, batch[1])
    net._set_training(False)
    told = batch_sizes(iterator, len(dataset))
    sizes = told if told[:1] == [len(y)] else [len(y)]
    output = tried(
        lambda batch: _output(net, batch[0]),
        (X, y),
        sizes if net.fisher == "batch" else [len(y), 1],
        _why_in_evaluation(net, sizes, len(dataset)),
    )
    if output.shape[:1] != y.shape[:1]:
        raise ValueError(
            f"module returned shape {tuple(output.shape)} for a batch of {len(y)} samples; "
            "the first axis must hold the samples"
        )
    check_shapes(net.criterion_, output, y)
    check_dtype(net, output, y)
    check_size(net, dataset, output, y)
    return X, y, output


@torch.no_grad()
def _output(net: Any, X: Any) -> Tensor:
    # a lazy module draws its parameters now
    with seeded(task_seed(net.seed_, 0), net.device), explained_dtypes(net):
        return call(net.bare_module_, X)


def _training_sizes(net: Any, dataset: Any, first: int) -> list[int]:
    """Return the sizes of batches in training, `first` being that of the first in evaluation."""
    evaluated, trained = (
        batch_sizes(net.get_iterator(dataset, training=training), len(dataset))
        for training in (False, True)
    )
    is_told = evaluated[:1] == [first]  # else the iterators make rows of their own
    return trained if is_told and trained else [first]


def _why_in_training(sizes: Sequence[int], n_samples: int) -> str:
    """Return why there are small batches in training, and what to do about them."""
    reason = f"training takes {counted(n_samples)} in batches of {sizes[0]}"
    if n_samples == 1:
        return f"{reason}: learn more samples at a time, or {_OTHER_LAYER}"
    drop = "leave the last batch out by iterator_train__drop_last=True, " * (len(sizes) > 1)
    return f"{reason}: choose another batch_size, {drop}or {_OTHER_LAYER}"


def _why_in_evaluation(net: Any, sizes: Sequence[int], n_samples: int) -> str:
    """Return why there are small batches in evaluation, and what to do about them."""
    if net.fisher != "batch":
        return f"fisher={net.fisher!r} takes each by itself in evaluation: {_OTHER_LAYER}"
    reason = f"evaluation takes {counted(n_samples)} in batches of {sizes[0]}"
    return f"{reason}: choose another batch_size, or {_OTHER_LAYER}"


def _fisher_for(net: Any, output: Tensor) -> Fisher:
    """Return the estimator that a net asks for, "auto" being decided."""
    if net.fisher != "auto":
        return net.fisher
    return "exact" if output[0].numel() <= _MANY_OUTPUTS else "sampled"


def _check_criterion(net: Any, output: Tensor, y: Tensor) -> None:
    """Raise ValueError where the Fisher of the criterion would mean nothing."""
    name = net.criterion_name_
    if not is_mean_over_samples(net.criterion_, output, y):
        raise ValueError(
            f"{name} of a batch is not the mean over its samples, so there is no Fisher of it"
        )
    if net.fisher in ("auto", "exact", "sampled") and not has_curvature(net.criterion_, output, y):
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
