"""How a net's module is built, and what a change of parameters does to a net that is built."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from sklearn.base import clone
from torch import nn

from ..arguments import naming, shown
from ..data.checks import TORCH_DTYPES
from .seeding import seeded, task_seed
from .settings import check_device

_OF_REPLAY = "replay__"


def built_module(net: Any) -> nn.Module:
    """Return a new module, seeded, in the sizes and the dtype of the data.

    Raises
    ------
    ValueError, TypeError
        If there is no module of those sizes.
    """
    with naming("module"):
        kwargs = {**_sizes_left_open(net), **net.get_params_for("module")}
        try:
            with seeded(task_seed(net.seed_, 0), net.device):
                module = net.initialized_instance(net.module, kwargs)
        except RuntimeError as error:  # torch has no memory for it, for example
            sizes = ", ".join(f"{name}={shown(value)}" for name, value in kwargs.items())
            raise ValueError(f"it cannot be built with {sizes}: {error}") from error
        if not isinstance(module, nn.Module):
            raise TypeError(f"it must make a torch.nn.Module, not {shown(module)}")
    return module.to(TORCH_DTYPES[net.dtype_])


def outlined_module(net: Any) -> nn.Module | None:
    """Return what :func:`built_module` would, on the meta device, where no size takes memory.

    None where a module cannot be built there, which computes with its numbers.
    """
    try:
        with torch.device("meta"):
            return built_module(net)
    except (RuntimeError, ValueError, TypeError):
        return None


def check_made(net: Any, name: str, made: Any, *methods: str) -> None:
    """Raise TypeError where a component has made what lacks the methods it is there for."""
    if not all(hasattr(made, method) for method in methods):
        parameter = shown(getattr(net, name))
        raise TypeError(f"{name} must make what has {', '.join(methods)}: {parameter} does not")


def _sizes_left_open(net: Any) -> dict[str, Any]:
    """Return the sizes of the data under the names that the module's signature knows."""
    if isinstance(net.module, nn.Module):
        return {}
    n_features = getattr(net, "n_features_in_", None)
    n_outputs = net.targets_.n_outputs
    sizes = {
        "n_features": n_features,
        "in_features": n_features,
        "n_outputs": n_outputs,
        "out_features": n_outputs,
        "hidden_layer_sizes": net.hidden_layer_sizes,
    }
    filled_in = getattr(net.module, "keywords", {})  # by functools.partial
    known = inspect.signature(net.module).parameters.keys() - filled_in.keys()
    return {name: size for name, size in sizes.items() if name in known and size is not None}


def check_module_settings(net: Any) -> None:
    """Raise if parameters of the module were changed since it was built."""
    if net.superseded_:
        raise ValueError(
            f"{', '.join(sorted(net.superseded_))} changed since the module was built, and "
            "a new module would lose what it has learned; set it back, or call fit to start "
            "anew"
        )


def put_into_effect(net: Any, params: dict[str, Any]) -> None:
    """Set parameters that are known to exist, and let a net that is built follow them."""
    params = _with_nested(net, params)
    net._params_to_validate = net._params_to_validate | {name for name in params if "__" in name}
    if net.initialized_:
        if params.get("device") is not None:
            check_device(params["device"])
        net._validate_params()
        net.superseded_ = _superseded(net, params)
        net._apply_virtual_params(params)
    net.__dict__.update({k: v for k, v in params.items() if not _is_momentary(k)})
    if net.initialized_:
        if any(name.startswith("callbacks") for name in params):
            _initialize_callbacks(net)
        if any(name.startswith("criterion") for name in params):
            net._initialize_criterion()
        if "device" in params:
            move(net, net.device)


def _with_nested(net: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Return parameters of which those of `replay` are set in a copy of it.

    It is an estimator, and not a component that a net builds; the user's stays as it is.
    """
    nested = {name: value for name, value in params.items() if name.startswith(_OF_REPLAY)}
    if not nested:
        return params
    replay = params.get("replay", net.replay)
    if not hasattr(replay, "set_params"):
        raise ValueError(f"{', '.join(nested)}: replay={shown(replay)} has no parameters")
    changed = clone(replay)
    changed.set_params(**{name[len(_OF_REPLAY) :]: value for name, value in nested.items()})
    others = {name: value for name, value in params.items() if name not in nested}
    return {**others, "replay": changed}


def _initialize_callbacks(net: Any) -> None:
    try:
        net._initialize_callbacks()
    except AttributeError as error:  # skorch looks for their methods
        raise TypeError(f"callbacks holds what is no callback: {error}") from error


def move(net: Any, device: Any) -> None:
    """Move what has been learned to another device."""
    for name in net._modules + net._criteria:
        part = getattr(net, f"{name}_")
        if isinstance(part, nn.Module):
            part.to(device)
    net.memory_ = net.memory_.to(device)


def _superseded(net: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Return the values that the module was built with, of those that no longer hold."""
    superseded = dict(net.superseded_)
    for name, value in params.items():
        if not _shapes_module(name):
            continue
        built_with = superseded.pop(name, vars(net).get(name))
        if not _same(value, built_with):
            superseded[name] = built_with
    return superseded


def _shapes_module(name: str) -> bool:
    return name.startswith(("module", "compile")) or name == "hidden_layer_sizes"


def is_of_optimizer(name: str) -> bool:
    """Tell the settings that take effect at once, and touch no module."""
    return name == "lr" or name.startswith("optimizer__")


def _is_momentary(name: str) -> bool:
    """Tell the settings of one group of a live optimizer, which the next one does not take."""
    return name.startswith("optimizer__param_groups__")


def _same(a: Any, b: Any) -> bool:
    try:
        return a is b or bool(a == b)
    except (TypeError, ValueError, RuntimeError):  # arrays have no single truth
        return False
