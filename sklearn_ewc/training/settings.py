"""The settings of a net, checked before anything is trained."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from ..curvature import FISHERS
from ..memory import MODES, PENALTY_STEPS
from .epochs import AUTO

COMPONENTS = ("module", "criterion", "optimizer", "iterator_train", "iterator_valid")


def check_settings(net: Any) -> None:
    """Raise ValueError or TypeError where a parameter has a value that means nothing."""
    check_not_negative("ewc_lambda", net.ewc_lambda)
    check_not_negative("damping", net.damping)
    for name in net._params_to_validate:
        if name.endswith("_"):  # skorch lets them pass, as its own attributes
            raise ValueError(f"{type(net).__name__} has no parameter {name!r}")
    check_not_negative("gamma", net.gamma)
    if net.gamma > 1:
        raise ValueError(f"gamma must be at most 1, got {net.gamma!r}")
    choices = (("fisher", ("auto", *FISHERS)), ("mode", MODES), ("penalty_step", PENALTY_STEPS))
    for name, known in choices:
        value = getattr(net, name)
        if not (isinstance(value, str) and value in known):
            listed = ", ".join(map(repr, known))
            raise ValueError(f"{name} must be one of {listed}, got {value!r}")
    if not (isinstance(net.normalize_y, bool) or net.normalize_y == "auto"):
        raise ValueError(f"normalize_y must be True, False or 'auto', got {net.normalize_y!r}")
    _check_training_settings(net)


def _check_training_settings(net: Any) -> None:
    """Raise where a parameter of skorch's or torch's would fail later, unnamed."""
    check_not_negative("lr", net.lr)
    if net.max_epochs != AUTO and not _is_count(net.max_epochs):
        raise ValueError(f"max_epochs must be 'auto' or an integer >= 0, got {net.max_epochs!r}")
    size = net.batch_size
    if not (isinstance(size, int | np.integer) and (size > 0 or size == -1)):
        raise ValueError(f"batch_size must be positive, or -1 for all, got {size!r}")
    widths = net.hidden_layer_sizes
    if widths is not None:  # left to the module
        widths = (widths,) if isinstance(widths, int | np.integer | str) else tuple(widths)
        if not all(_is_count(width) and width > 0 for width in widths):
            raise ValueError(f"hidden_layer_sizes must be positive integers, got {widths!r}")
    for name in COMPONENTS:
        if not callable(value := getattr(net, name)):
            raise TypeError(f"{name} must be a class or an instance of one, got {value!r}")
    if net.train_split is not None and not callable(net.train_split):
        raise TypeError(f"train_split must be None or callable, got {net.train_split!r}")
    check_device(net.device)
    net.processes_.check()


def check_device(device: Any) -> None:
    """Raise ValueError unless torch knows the device."""
    try:
        torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device {device!r} is unknown to torch") from error


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and bool(value >= 0)


def check_not_negative(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a finite number that is not negative."""
    is_real = isinstance(value, int | float | np.integer | np.floating)
    if not (is_real and 0 <= value <= sys.float_info.max):  # NaN is neither
        raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
