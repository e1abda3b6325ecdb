"""Whether what a file holds fits an estimator: memory, module, optimizer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import LBFGS, Optimizer

from ..memory import Memory

_OF_PARAMETERS = re.compile(r"^(centre|remainder|tasks\.\d+\.anchor)\.")
_MOST_UNHELD = 2**26  # numbers: 256 MB in float32
# what the schedulers of torch add to the groups of an optimizer
_OF_SCHEDULERS = {"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}


def check_memory(memory: Memory, params: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a memory does not fit the parameters of a module."""
    unknown = sorted(memory.quadratic.centre.keys() - params.keys())
    if unknown:
        raise ValueError(f"it remembers parameters that the module lacks: {unknown}")
    quadratic = memory.quadratic
    check_tensors(quadratic.centre, params, "centre.")
    check_tensors(quadratic.remainder, params, "remainder.", torch.float64)
    # of what shapes a curvature consists is for its kind to check
    dtypes = {p.dtype for p in params.values()}
    check_plain(quadratic.curvature.state_dict(), "curvature.", {torch.float64})
    for k, task in enumerate(memory.tasks):
        check_tensors(task.anchor, params, f"tasks.{k}.anchor.")
        check_plain(task.curvature.state_dict(), f"tasks.{k}.curvature.", dtypes)


def check_memory_outline(tensors: Mapping[str, Tensor], params: Mapping[str, Tensor]) -> None:
    """Raise ValueError where tensors of a memory's file are not of their parameters' shapes.

    What the tensors of a curvature must be is for its kind to check.
    """
    for full_name, value in tensors.items():
        name = _OF_PARAMETERS.sub("", full_name)
        is_known = name != full_name and name in params and not is_lazy(params[name])
        if is_known and value.shape != params[name].shape:
            shapes = f"{tuple(value.shape)}, the estimator's {tuple(params[name].shape)}"
            raise ValueError(f"{full_name} has shape {shapes}")


def check_bounded(tensors: Mapping[str, Tensor], params: Mapping[str, Tensor]) -> None:
    """Raise ValueError where much would be built of which a memory's file holds nothing."""
    unheld = [
        name
        for name, p in params.items()
        if p.requires_grad and not is_lazy(p) and f"centre.{name}" not in tensors
    ]
    n_numbers = sum(params[name].numel() for name in unheld)
    if n_numbers > _MOST_UNHELD:
        raise ValueError(
            f"its sizes make {n_numbers} numbers in {unheld}, of which it holds none; to load it "
            "all the same, call initialize() first"
        )


def check_tensors(
    tensors: Mapping[str, Any],
    like: Mapping[str, Any],
    prefix: str = "",
    dtype: torch.dtype | None = None,
) -> None:
    """Raise ValueError where tensors differ from others in shape or dtype, or are not finite.

    Those of the meta device, which stand for what is not read yet, have no numbers.
    """
    for name, value in tensors.items():
        expected = like[name]
        if not isinstance(expected, Tensor):  # what a module's get_extra_state gave
            continue
        if is_lazy(expected):
            expected = value
        check_plain({name: value}, prefix, {dtype or expected.dtype})
        if value.shape != expected.shape:
            shapes = f"{tuple(value.shape)}, the estimator's {tuple(expected.shape)}"
            raise ValueError(f"{prefix}{name} has shape {shapes}")
        # a buffer may hold infinities, a mask for example
        if not value.is_meta and not (value.isfinite() | ~expected.isfinite().cpu()).all():
            raise ValueError(f"{prefix}{name} is not finite")


def check_plain(tensors: Mapping[str, Any], prefix: str, dtypes: set[torch.dtype]) -> None:
    """Raise ValueError where something is no plain tensor of one of these dtypes."""
    for name, value in tensors.items():
        if type(value) is not Tensor or value.layout != torch.strided:
            raise ValueError(f"{prefix}{name} is not a plain tensor")
        if value.dtype not in dtypes:
            expected = " or ".join(sorted(map(str, dtypes)))
            raise ValueError(f"{prefix}{name} has dtype {value.dtype}, not {expected}")


def check_distinct(tensors: Iterable[Tensor]) -> None:
    """Raise ValueError where one tensor stands for several, each of which may be copied."""
    listed = list(tensors)
    if len({id(tensor) for tensor in listed}) < len(listed):
        raise ValueError("it has one tensor in several places")


def check_state(state: Any, module: nn.Module) -> None:
    """Raise ValueError where a state does not fit a module."""
    expected = module.state_dict()
    if not isinstance(state, Mapping):
        raise ValueError("it does not hold tensors by name")
    differing = {
        "lacks": sorted(expected.keys() - state.keys()),
        "has unexpected": sorted(map(str, state.keys() - expected.keys())),
    }
    for what, names in differing.items():
        if names:
            raise ValueError(f"it {what} tensors: {names}")
    check_tensors(state, expected)


def check_optimizer_state(state: Any, optimizer: Optimizer) -> None:
    """Raise ValueError where a state does not fit an optimizer.

    The moments in it are compared with the parameters only for torch's own
    optimizers; others may keep anything.
    """
    if not (isinstance(state, dict) and {"state", "param_groups"} <= state.keys()):
        raise ValueError("it does not hold the state of an optimizer")
    groups, expected = state["param_groups"], optimizer.state_dict()["param_groups"]
    if [group["params"] for group in groups] != [group["params"] for group in expected]:
        raise ValueError("its groups of parameters are not the estimator's")
    for group, own in zip(groups, expected, strict=True):
        if unexpected := sorted(group.keys() - own.keys() - _OF_SCHEDULERS):
            raise ValueError(f"its options {unexpected} are of another optimizer")
        for name, value in group.items():
            if name in _OF_SCHEDULERS - own.keys() and type(value) not in (int, float):
                raise ValueError(f"its {name} is {value!r}, no number")
            if not all(math.isfinite(number) for number in _numbers(value)):
                raise ValueError(f"its {name} is not finite")
    params = [p for group in optimizer.param_groups for p in group["params"]]
    own_kind = is_torch_s_own(optimizer)
    if own_kind:
        states = [value for values in state["state"].values() for value in values.values()]
        check_distinct(tensor for value in states for tensor in _tensors_in(value))
    for index, values in state["state"].items():
        if index not in range(len(params)):
            raise ValueError(f"it has a state for parameter {index!r}, of {len(params)}")
        for name, value in values.items():
            for tensor in _tensors_in(value):
                shape, known = tensor.shape, params[index].shape
                if own_kind and not isinstance(optimizer, LBFGS) and not _fits(shape, known):
                    shapes = f"{tuple(shape)}, the parameter {tuple(known)}"
                    raise ValueError(f"{name} of parameter {index} has shape {shapes}")
                if not tensor.is_meta and not tensor.isfinite().all():
                    raise ValueError(f"{name} of parameter {index} is not finite")


def is_torch_s_own(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer is one of torch, whose states are known."""
    return type(optimizer).__module__.startswith("torch.optim.")


def _fits(shape: torch.Size, known: torch.Size) -> bool:
    """Tell whether a moment may belong to a parameter: a number, its shape, or means along axes."""
    same = len(shape) == len(known) and all(a in (1, b) for a, b in zip(shape, known, strict=True))
    return shape.numel() == 1 or same


def _numbers(value: Any) -> list[Any]:
    values = value if isinstance(value, tuple | list) else [value]
    return [number for number in values if isinstance(number, float)]


def _tensors_in(value: Any) -> list[Tensor]:
    values = value if isinstance(value, tuple | list) else [value]
    return [tensor for tensor in values if isinstance(tensor, Tensor)]
