"""The settings of a net, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from ..arguments import (
    check_callable,
    check_choice,
    check_not_negative,
    check_switch,
    check_verbose,
    is_count,
    is_integer,
    naming,
    shown,
)
from ..curvature import FISHERS, KINDS, Diagonal
from ..memory import MODES, PENALTY_STEPS, WEIGH_BY
from .epochs import AUTO

# what "auto" stands for, by kind of curvature
MODE_OF = {"diagonal": "offline", "kronecker": "online"}
DAMPING_OF = {"diagonal": 0.01, "kronecker": 0.1}

_SPLIT = "train_split=skorch.dataset.ValidSplit(10)"
_SGD = "optimizer=torch.optim.SGD"
# parameters of MLPRegressor that have another name here
NAMES_HERE = {
    "activation": "module__activation=torch.nn.Tanh",
    "alpha": "optimizer__weight_decay=1e-4",
    "beta_1": "optimizer__betas=(0.9, 0.999)",
    "beta_2": "optimizer__betas=(0.9, 0.999)",
    "early_stopping": f"callbacks=[skorch.callbacks.EarlyStopping()] with {_SPLIT}",
    "epsilon": "optimizer__eps=1e-8",
    "learning_rate": "callbacks=[skorch.callbacks.LRScheduler()]",
    "learning_rate_init": "lr=1e-3",
    "loss": "criterion=torch.nn.MSELoss",
    "max_fun": "optimizer=torch.optim.LBFGS with optimizer__max_eval",
    "max_iter": "max_epochs=200",
    "momentum": f"optimizer__momentum=0.9 with {_SGD}",
    "n_iter_no_change": "callbacks=[skorch.callbacks.EarlyStopping('train_loss', patience=10)]",
    "nesterovs_momentum": f"optimizer__nesterov=True with {_SGD}",
    "power_t": "callbacks=[skorch.callbacks.LRScheduler()]",
    "shuffle": "iterator_train__shuffle=False",
    "solver": "optimizer=torch.optim.Adam",
    "tol": "callbacks=[skorch.callbacks.EarlyStopping('train_loss', threshold=1e-4)]",
    "validation_fraction": _SPLIT,
}


def check_settings(net: Any) -> None:
    """Raise ValueError or TypeError where a parameter has a value that means nothing."""
    for name in net._params_to_validate:
        if name.endswith("_") or name in NAMES_HERE:  # skorch lets the first pass, as its own
            raise ValueError(f"{type(net).__name__} has no parameter {name!r}{name_here(name)}")
    for name, check in CHECKS.items():
        with naming(name):
            check(name, getattr(net, name))
    _check_curvature(net)
    if net.gamma > 1:
        raise ValueError(f"gamma must be at most 1, got {net.gamma!r}")
    for name in ("sampler", "batch_sampler", "shuffle"):
        if net.get_params_for("iterator_valid").get(name):
            raise ValueError(
                f"iterator_valid__{name} would mix up predictions, or leave rows out of the "
                f"Fisher: set iterator_train__{name}"
            )
    net.processes_.check()


def _check_curvature(net: Any) -> None:
    """Raise ValueError where a kind of curvature does not go with another setting."""
    if net.curvature == Diagonal.kind:
        return
    if net.mode == "offline":
        raise ValueError(
            f"mode='offline' adds up quadratics around every task's parameters, which "
            f"curvature={net.curvature!r} cannot: set mode='auto' or 'online'"
        )
    if net.fisher == "batch":
        raise ValueError(
            f"fisher='batch' squares one gradient, of which curvature={net.curvature!r} has "
            "nothing to keep: set another, or curvature='diagonal'"
        )


def damping_of(net: Any) -> float:
    """Return the floor under a task's curvature, where "auto" is decided by its kind."""
    return DAMPING_OF[net.curvature] if net.damping == AUTO else net.damping


def name_here(name: str) -> str:
    """Return what to say of a parameter of MLPRegressor that has another name; else nothing."""
    return f": set {NAMES_HERE[name]}" if name in NAMES_HERE else ""


def check_device(device: Any) -> None:
    """Raise ValueError unless torch knows the device, and it is there."""
    try:
        is_there = not torch.zeros(1, device=torch.device(device)).is_meta
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"device {device!r} is unknown to torch, or not there: {error}") from error
    if not is_there:
        raise ValueError("device 'meta' holds no numbers")


def _check_batch_size(name: str, value: Any) -> None:
    if not (is_integer(value) and (value > 0 or value == -1)):
        is_auto = isinstance(value, str) and value == "auto"
        hint = "; for MLPRegressor 'auto' is min(200, n_samples)" if is_auto else ""
        raise ValueError(f"{name} must be positive, or -1 for all, got {shown(value)}{hint}")


def check_widths(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a width, or a sequence of them."""
    is_vector = isinstance(value, np.ndarray) and value.ndim == 1
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    widths = value if is_vector or is_sequence else (value,)
    if not all(is_count(width) and width > 0 for width in widths):
        raise ValueError(
            f"{name} must be positive integers: one, or a sequence of them, got {shown(value)}"
        )


def _check_widths(name: str, value: Any) -> None:
    if value is not None:  # else left to the module
        check_widths(name, value)


def _check_component(name: str, value: Any) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be a class or an instance of one, got {shown(value)}")


def _check_split(name: str, value: Any) -> None:
    check_callable(name, value, None)


def _check_nonlinearity(name: str, value: Any) -> None:
    check_callable(name, value, None, "auto")


def _check_callbacks(name: str, value: Any) -> None:
    if value is None or (isinstance(value, str) and value == "disable"):
        return
    if not isinstance(value, list):
        raise TypeError(f"{name} must be None, 'disable' or a list, got {shown(value)}")
    for item in value:
        is_named = isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], str)
        callback = item[1] if is_named else item
        if callback is not None and not all(hasattr(callback, part) for part in _OF_CALLBACKS):
            raise TypeError(f"{name} must hold callbacks of skorch, got {shown(item)}")


def _check_options(name: str, value: Any) -> None:
    is_dict = isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if not (value is None or is_dict):
        raise TypeError(f"{name} must be None or a dict of options, got {shown(value)}")


def _check_caching(name: str, value: Any) -> None:
    if not (isinstance(value, str) and value == "auto"):
        check_switch(name, value)


def _check_normalize_y(name: str, value: Any) -> None:
    if not (isinstance(value, bool | np.bool_) or (isinstance(value, str) and value == "auto")):
        raise ValueError(f"{name} must be True, False or 'auto', got {shown(value)}")


def _check_not_negative_or_auto(name: str, value: Any) -> None:
    if isinstance(value, str) and value != AUTO:
        raise ValueError(f"{name} must be a finite number >= 0, or 'auto', got {shown(value)}")
    if not isinstance(value, str):
        check_not_negative(name, value)


def _check_epochs(name: str, value: Any) -> None:
    if not (is_count(value) or (isinstance(value, str) and value == AUTO)):
        raise ValueError(f"{name} must be 'auto' or an integer >= 0, got {shown(value)}")


def _check_replay(name: str, value: Any) -> None:
    if value is None or (isinstance(value, str) and value == AUTO):
        return
    makes_draws = all(callable(getattr(value, method, None)) for method in ("fit", "sample"))
    if isinstance(value, type) or not makes_draws:
        raise TypeError(
            f"{name} must be None, 'auto' or an estimator with fit and sample, got {shown(value)}"
        )


def _check_device(_: str, value: Any) -> None:
    check_device(value)


def _check_seed(_: str, value: Any) -> None:
    check_random_state(value)


_OF_CALLBACKS = ("initialize", "set_params", "on_train_begin", "on_epoch_end")

CHECKS: dict[str, Callable[[str, Any], None]] = {
    "module": _check_component,
    "hidden_layer_sizes": _check_widths,
    "ewc_lambda": _check_not_negative_or_auto,
    "replay": _check_replay,
    "weigh_by": partial(check_choice, known=WEIGH_BY),
    "curvature": partial(check_choice, known=KINDS),
    "fisher": partial(check_choice, known=("auto", *FISHERS)),
    "damping": _check_not_negative_or_auto,
    "store_tasks": check_switch,
    "remember_buffers": check_switch,
    "normalize_y": _check_normalize_y,
    "mode": partial(check_choice, known=("auto", *MODES)),
    "gamma": check_not_negative,
    "penalty_step": partial(check_choice, known=PENALTY_STEPS),
    "criterion": _check_component,
    "optimizer": _check_component,
    "lr": check_not_negative,
    "max_epochs": _check_epochs,
    "batch_size": _check_batch_size,
    "iterator_train": _check_component,
    "iterator_valid": _check_component,
    "dataset": _check_component,
    "train_split": _check_split,
    "callbacks": _check_callbacks,
    "predict_nonlinearity": _check_nonlinearity,
    "warm_start": check_switch,
    "verbose": check_verbose,
    "device": _check_device,
    "compile": check_switch,
    "use_caching": _check_caching,
    "torch_load_kwargs": _check_options,
    "random_state": _check_seed,
}
