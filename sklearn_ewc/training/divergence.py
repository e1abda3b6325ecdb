"""Trainings that went out of bounds: told by their loss, also where it ends finite."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.func import functional_call

from ..curvature.criterion import total_loss
from ..tensors import Tensors, as_arguments

_FACTOR = 1e3  # far beyond what a penalty, noise or a bad rate do to a loss


def diverged(net: Any, loss: float) -> FloatingPointError:
    """Return the error that tells of it."""
    return FloatingPointError(
        f"training diverged: loss {loss} in epoch {len(net.history)}, task "
        f"{net.n_tasks_ + 1}, with lr={net.lr} and ewc_lambda={net.ewc_lambda}; "
        "lower one of them. The estimator is as it was before the call"
    )


def check_loss(
    net: Any,
    loss: float,
    expected: float,
    start: Tensors,
    batches: Iterable[tuple[Any, ...]],
) -> None:
    """Raise FloatingPointError if a loss is absurd where training ended.

    It is, if it is not finite, or a thousand times that of the module as it was
    before the task, of outputs that are all zero, and of 1.

    Parameters
    ----------
    net : EWCNet
    loss : float
        The criterion on the task at its end.
    expected : float
        The same on the first batch at its start: `batches` are looked at only if
        `loss` is far beyond it.
    start : dict of str to Tensor
        The module's parameters and buffers then.
    batches : iterable of (X, y) or (X, y, sample_weight)
    """
    if not math.isfinite(loss):
        raise diverged(net, loss)
    if loss <= _FACTOR * max(expected, 1.0):
        return
    module = net.bare_module_
    at_start = at_zero = total = 0.0
    with torch.no_grad():
        for X, y, *weight in batches:
            output = functional_call(module, start, *as_arguments(X))
            weights = weight[0] if weight else None
            at_start += float(total_loss(net.criterion_, output, y, weights))
            at_zero += float(total_loss(net.criterion_, torch.zeros_like(output), y, weights))
            total += len(y) if weights is None else float(weights.sum())
    if loss > _FACTOR * max(at_start / total, at_zero / total, 1.0):
        raise diverged(net, loss)
