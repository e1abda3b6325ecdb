"""What a trained task leaves behind: its curvature and loss where it ended."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from skorch.utils import to_tensor

from ..curvature import curvature_and_loss
from ..memory import Task
from ..tensors import are_finite
from .divergence import check_loss, diverged
from .rehearsal import Rehearsal
from .seeding import task_generator
from .steps import inputs, targets


def finished_task(net: Any, dataset: Any, task_weight: float, rehearsal: Rehearsal) -> Task:
    """Return the task that a net has just been trained on.

    Raises
    ------
    FloatingPointError
        If training has diverged.
    ValueError
        If the Fisher is zero, so that nothing would be remembered.
    """
    module = net.bare_module_
    if not are_finite(module.parameters()):
        raise diverged(net, math.nan)
    net._set_training(False)
    curvature, loss = curvature_and_loss(
        module,
        net.criterion_,
        _shares(net, dataset),
        fisher=net.fisher,
        reduce=None if net.processes_.accelerator is None else net.processes_.summed,
        generator=task_generator(net.seed_, net.n_tasks_ + 1),
    )
    check_loss(net, loss, rehearsal.loss, rehearsal.state, _batches(net, dataset))
    if net.fisher in ("exact", "sampled") and curvature.trace() == 0:
        raise ValueError(
            f"the {net.fisher} Fisher of this task is zero: {net.criterion_name_} has no "
            "curvature at its residuals; use fisher='empirical'"
        )
    return Task(
        anchor={name: p for name, p in module.named_parameters() if p.requires_grad},
        curvature=curvature,
        weight=float(task_weight),
        damping=net.damping,
        n_samples=len(dataset),
        loss=loss,
    )


def _batches(net: Any, dataset: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the batches of a dataset as the criterion takes them."""
    for X, y, *weight in net.get_iterator(dataset, training=False):
        weights = (to_tensor(part, device=net.device) for part in weight)
        yield inputs(net, X), targets(net, y), *weights


def _shares(net: Any, dataset: Any) -> Iterator[tuple[Any, ...]]:
    """Yield this process's rows of the batches, but for batches too small to give it some."""
    shares = map(net.processes_.share, _batches(net, dataset))
    return (batch for batch in shares if len(batch[1]))
