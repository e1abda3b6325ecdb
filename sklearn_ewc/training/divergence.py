"""Trainings that went out of bounds: told by what they minimise, also where it ends finite."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.func import functional_call

from ..curvature.criterion import total_loss
from ..memory import Penalty
from ..memory.quadratic import Quadratic
from ..tensors import Tensors, as_arguments

_FACTOR = 10.0  # beyond what noise, few epochs or a rate that makes the end jitter do
_LARGEST = 1e300  # some λ are larger: what they make of a penalty is to stay a number


def diverged(net: Any, loss: float, penalty: float = 0.0) -> FloatingPointError:
    """Return the error that tells of it."""
    found = f"loss {loss}" + (f" and penalty {penalty:.3g}" if penalty else "")
    return FloatingPointError(
        f"training diverged: {found} in epoch {len(net.history)}, task "
        f"{net.n_tasks_ + 1}, with lr={net.lr} and ewc_lambda={net.lambda_in_force_}; "
        "lower one of them. The estimator is as it was before the call"
    )


def check_objective(
    net: Any,
    loss: float,
    penalty: Penalty,
    start: Tensors,
    batches: Iterable[tuple[Any, ...]],
    replayed: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> None:
    """Raise FloatingPointError if what was minimised, L + λ P + R, has grown out of bounds.

    It has, if it is more than ten times as large as it was at the start, as it is of a
    module that knows nothing, and as 1. Such a module has outputs that are all zero, as
    far as L and R go, and parameters that are all zero, as far as P does: a large λ makes
    much of the least jitter, but no jitter goes that far. 1 is what the outputs of a new
    module are about, whatever the unit of y.

    A criterion may be negative: then its size counts. Where a callback has changed λ,
    its smallest value counts at the end and its largest elsewhere.

    Parameters
    ----------
    net : EWCNet
        Trained; its memory is still that of the tasks before.
    loss : float
        L, the criterion on the task at its end.
    penalty : Penalty
        What the net was trained under.
    start : dict of str to Tensor
        The module's parameters and buffers at the start.
    batches : iterable of (X, y) or (X, y, sample_weight)
        The task; looked at only where the end leaves room for doubt.
    replayed : tuple of three floats
        R, the replayed loss, at the end, at the start, and of outputs that are all zero.
    """
    if not math.isfinite(loss):
        raise diverged(net, loss)
    smallest, largest = penalty.lambda_range
    amount = _times(smallest, penalty.quadratic, penalty.params)
    end = loss + amount + replayed[0]
    if not math.isfinite(end):
        raise diverged(net, loss + replayed[0], amount)
    if end <= _FACTOR:  # times 1
        return
    at_start, at_zero = _losses(net, start, batches)
    zero = {name: torch.zeros_like(p) for name, p in penalty.params.items()}
    at_start += _times(largest, penalty.quadratic, start) + replayed[1]
    at_zero += _times(largest, penalty.quadratic, zero) + replayed[2]
    if end > _FACTOR * max(abs(at_start), abs(at_zero)):
        raise diverged(net, loss + replayed[0], amount)


def _times(ewc_lambda: float, quadratic: Quadratic, params: Tensors) -> float:
    """Return λ times the memory's quadratic at parameters, which their dtype need not hold."""
    if ewc_lambda == 0:
        return 0.0
    with torch.no_grad():
        return min(ewc_lambda * float(quadratic(params)), _LARGEST)


def _losses(net: Any, params: Tensors, batches: Iterable[tuple[Any, ...]]) -> tuple[float, float]:
    """Return the criterion of the module with other parameters, and of outputs all zero."""
    of_params = of_zero = n_samples = 0.0
    with torch.no_grad():
        for X, y, *weight in batches:
            output = functional_call(net.bare_module_, params, *as_arguments(X))
            weights = weight[0] if weight else None
            of_params += float(total_loss(net.criterion_, output, y, weights))
            of_zero += float(total_loss(net.criterion_, torch.zeros_like(output), y, weights))
            n_samples += len(y) if weights is None else float(weights.sum())
    return of_params / n_samples, of_zero / n_samples
