"""Targets of any scale: when they are scaled to be trained on, and losses in their own units."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from ..curvature.criterion import is_sum, unreduced_loss
from ..data.batches import targets_and_weights
from ..data.checks import TaskData
from ..data.targets import SCALE_Y
from ..tensors import uncompiled

_LARGEST = 1e150  # squares of it are finite
# criteria of the residual alone, and the power of its unit that they grow with, if their
# threshold does too
_POWERS: dict[type, int] = {nn.MSELoss: 2, nn.L1Loss: 1, nn.SmoothL1Loss: 1, nn.HuberLoss: 2}


def with_scale(net: Any, first: TaskData) -> Any:
    """Return the net's targets as those of the first task scale them, if they are to be scaled."""
    if not scales_targets(net):
        return net.targets_
    if first.y is None:
        targets = net.targets_.scaled_to(*_numbers_in(first.X))
    else:
        targets = net.targets_.scaled_to(first.y, first.sample_weight)
    if max(targets.scale) > _LARGEST:
        raise ValueError(f"y has a standard deviation of {max(targets.scale):.3g}: {SCALE_Y}")
    return targets


def _numbers_in(dataset: Any) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        targets, weights = targets_and_weights(dataset)
        targets = targets.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise TypeError(f"X is a Dataset whose targets are no numbers: {error}") from error
    if not np.isfinite(targets).all():
        raise ValueError("X is a Dataset whose targets hold what is no finite number")
    return targets, weights


def scales_targets(net: Any) -> bool:
    """Tell whether a net scales its targets.

    By itself where it changes nothing but the units of the criterion: for one of the
    residual alone, without a threshold in the units of y.
    """
    if net.normalize_y != "auto":
        return bool(net.normalize_y)
    criterion = uncompiled(net.criterion_)
    thresholds = (getattr(criterion, name, 1.0) for name in ("beta", "delta"))
    return type(criterion) in _POWERS and all(one == 1.0 for one in thresholds)


def check_scale_is_known(net: Any) -> None:
    """Raise NotFittedError if a module's outputs are in a scale that no task has told."""
    if net.n_tasks_ == 0 and net.targets_.n_outputs is None and scales_targets(net):
        raise NotFittedError(
            f"this {type(net).__name__} has learned no task, so the scale of y is not known: load "
            "parameters that save_params has written, or f_memory beside them, or set "
            "normalize_y=False for parameters that were learned in the units of y"
        )


def unit_of_loss(net: Any) -> float:
    """Return the mean over the outputs of what a loss of 1 is in the units of y."""
    scale, power = net.targets_.scale, _POWERS.get(type(uncompiled(net.criterion_)))
    if scale is None or power is None:
        return 1.0
    return sum(one**power for one in scale) / len(scale)


def has_several_units(net: Any) -> bool:
    """Tell whether losses of single outputs differ in their units."""
    return len(set(net.targets_.scale or ())) > 1 and type(uncompiled(net.criterion_)) in _POWERS


@torch.no_grad()
def loss_by_units(
    net: Any, output: Tensor, target: Tensor, sample_weight: Tensor | None, is_shared: bool
) -> Tensor:
    """Return the criterion on a batch, each output weighted by its unit over the mean unit.

    `output` is that of this process's rows alone where they are shared out.
    """
    criterion, n_samples = uncompiled(net.criterion_), len(target)
    if is_shared:
        target = net.processes_.share(target)
        sample_weight = None if sample_weight is None else net.processes_.share(sample_weight)
    losses: Any = unreduced_loss(criterion, output, target)
    weights = _weights(net.targets_.scale, _POWERS[type(criterion)], losses.dtype, losses.device)
    by_sample = torch.mv(losses.flatten(1), weights)
    total = by_sample.sum() if sample_weight is None else by_sample @ sample_weight.to(by_sample)
    total = net.processes_.summed(total) if is_shared else total
    return total if is_sum(criterion) else total / (n_samples * len(weights))


@lru_cache(maxsize=64)
def _weights(
    scale: tuple[float, ...], power: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    units = [one**power for one in scale]
    mean = sum(units) / len(units)
    return torch.tensor([unit / mean for unit in units], dtype=dtype, device=device)
