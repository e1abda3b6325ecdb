"""Snapshots of objects: before a block that may fail, all that is reached from some objects.

A snapshot is a list of functions, each of which puts back in place what one object
held. In place, because others may hold the same object.
"""

from __future__ import annotations

import copy
import threading
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

Undo = partial[Any]
Saved = tuple[Undo | None, Iterable[Any]]  # how to put an object back, and what it holds
Saver = Callable[[Any], Saved]


def saved_modes() -> list[Undo]:
    """Save torch's grad mode and, in the main thread, what all threads share."""
    grad_mode = partial(torch.set_grad_enabled, torch.is_grad_enabled())
    if threading.current_thread() is not threading.main_thread():
        return [grad_mode]
    cudnn: Any = torch.backends.cudnn
    flags = [
        partial(setattr, cudnn, name, getattr(cudnn, name))
        for name in ("enabled", "benchmark", "deterministic")
    ]
    generators = (torch.default_generator, *torch.cuda.default_generators)
    return [grad_mode, *flags, *(_of_generator(generator)[0] for generator in generators)]


def saved(
    objects: Iterable[Any],
    unchanged: tuple[type, ...],
    saver_of: Callable[[type], Saver | None] | None = None,
    copies_unknown: bool = False,
) -> list[Undo]:
    """Walk through all that the objects hold, and return how to put each of it back.

    Parameters
    ----------
    objects : iterable
    unchanged : tuple of types
        What is known to stay as it is.
    saver_of : callable, default=None
        Returns what saves objects of a kind; None if the kind is unknown. By default
        torch's kinds and plain containers are known.
    copies_unknown : bool, default=False
        Whether `objects` of an unknown kind, and what they hold, are copied.
    """
    saver_of = saver_of or saver_of_torch
    empty: list[Any] = []
    undos: list[Undo] = [partial(_clear, empty)]
    seen: dict[int, Any] = {}
    unknown: list[Any] = []
    pending: list[tuple[Iterable[Any], bool]] = [(objects, copies_unknown)]
    while pending:
        held, copies = pending.pop()
        for one in held:
            kind: Any = type(one)
            if kind in _ATOMS or id(one) in seen or isinstance(one, unchanged):
                continue
            if kind in _PLAIN and not one:  # as most dicts of hooks are
                empty.append(one)
                continue
            seen[id(one)] = one
            save = saver_of(kind)
            if save is None:
                unknown += [one] * copies
                continue
            undo, parts = save(one)
            if undo is not None:
                undos.append(undo)
            if parts:
                pending.append((parts, _COPIES.get(save, copies)))
    # last, since what has been saved itself is not to be copied with them
    return undos + [undo for one in unknown for undo in _of_unknown(one, seen)]


@lru_cache(maxsize=1024)
def saver_of_torch(kind: type) -> Saver | None:
    """Return what saves objects of torch's kinds, arrays, generators and plain containers."""
    return next((save for kinds, save in _SAVERS if issubclass(kind, kinds)), None)


def of_nothing(one: Any) -> Saved:
    """Save nothing of an object."""
    return None, ()


def of_holder(one: Any) -> Saved:
    """Save the attributes of an object, and leave those of an unknown kind alone."""
    attributes = dict(getattr(one, "__dict__", ()))
    held = list(attributes.values())
    if isinstance(one, nn.Module) and not isinstance(attributes.get("_parameters"), dict):
        held += [*one.parameters(), *one.buffers()]  # scripted ones keep them elsewhere
    return partial(_put_back_holder, one, type(one), attributes), held


def of_copied_holder(one: Any) -> Saved:
    """Save the attributes of an object, and copies of those of an unknown kind."""
    return of_holder(one)


def _put_back_holder(one: Any, kind: type, attributes: dict[str, Any]) -> None:
    if type(one) is not kind:  # a lazy module has become another
        one.__class__ = kind
    put_back_items(getattr(one, "__dict__", {}), attributes)


def _clear(empty: Iterable[Any]) -> None:
    for items in empty:
        items.clear()


def _of_dict(items: dict[Any, Any]) -> Saved:
    saved = dict(items)
    return partial(put_back_items, items, saved), saved.values()


def put_back_items(items: dict[Any, Any], saved: dict[Any, Any]) -> None:
    """Give a dict the items that it had, in the order they had."""
    if len(items) == len(saved) and all(
        map(is_, chain(items, items.values()), chain(saved, saved.values()))
    ):
        return  # as nearly always
    items.update(saved)
    for key in [key for key in items if key not in saved]:
        del items[key]
    if any(one is not other for one, other in zip(items, saved, strict=True)):
        for key in saved:  # layers run in their order
            items[key] = items.pop(key)


def _of_list(items: list[Any]) -> Saved:
    saved = list(items)
    return partial(list.__setitem__, items, slice(None), saved), saved


def _of_tuple(items: tuple[Any, ...]) -> Saved:
    return None, items


def _of_set(items: set[Any]) -> Saved:
    saved = set(items)
    return partial(_put_back_set, items, saved), saved


def _put_back_set(items: set[Any], saved: set[Any]) -> None:
    items.update(saved)
    items.intersection_update(saved)


def _of_deque(items: deque[Any]) -> Saved:
    saved = list(items)
    return partial(_put_back_deque, items, saved), saved


def _put_back_deque(items: deque[Any], saved: list[Any]) -> None:
    items.extend(saved)
    while len(items) > len(saved):
        items.popleft()


def _of_tensor(tensor: Tensor) -> Saved:
    data = tensor.data
    values = None if is_lazy(tensor) else _unrepeated(data).clone()
    settings = _settings_of(tensor) if tensor.is_leaf else ()
    attributes = dict(vars(tensor))
    undo = partial(_put_back_tensor, tensor, type(tensor), data, values, settings, attributes)
    return undo, (*settings, *attributes.values())


def _put_back_tensor(
    tensor: Tensor,
    kind: type[Tensor],
    data: Tensor,
    values: Tensor | None,
    settings: tuple[Any, ...],
    attributes: dict[str, Any],
) -> None:
    is_dense = values is not None and data.layout is torch.strided
    if not (is_dense and tensor.data.is_set_to(data)):
        tensor.data = data  # the storage that others may share
    if type(tensor) is not kind:  # a lazy one has been materialised
        tensor.__class__ = kind
    if values is not None:
        _unrepeated(data).copy_(values)
    if settings:
        for name, value, now in zip(_SETTINGS, settings, _settings_of(tensor), strict=True):
            if now is not value:
                if isinstance(now, dict):  # autograd goes on calling hooks in it
                    now.clear()
                setattr(tensor, name, value)
    put_back_items(vars(tensor), attributes)


def _unrepeated(data: Tensor) -> Tensor:
    """Return a view without the axes along which an expanded tensor repeats its values."""
    if data.layout is torch.strided and 0 in data.stride():
        for axis, step in enumerate(data.stride()):
            data = data[(slice(None),) * axis + (slice(1 if step == 0 else None),)]
    return data


def _of_array(array: np.ndarray) -> Saved:
    held = array.ravel().tolist() if array.dtype == object else ()
    undo = partial(np.copyto, array, array.copy()) if array.flags.writeable else None
    return undo, held


def _of_random_state(generator: np.random.RandomState) -> Saved:
    return partial(np.random.RandomState.set_state, generator, generator.get_state()), ()


def _of_numpy_generator(generator: np.random.Generator) -> Saved:
    bits = generator.bit_generator
    return partial(setattr, bits, "state", bits.state), ()


def _of_generator(generator: torch.Generator) -> tuple[Undo, Iterable[Any]]:
    return partial(torch.Generator.set_state, generator, generator.get_state()), ()


def _of_unknown(one: Any, seen: dict[int, Any]) -> list[Undo]:
    """Copy the state of an object as ``copy.deepcopy`` does, all of it or, if it refuses, none."""
    try:
        reduced = one.__reduce_ex__(4)
        state = None if isinstance(reduced, str) or len(reduced) < 3 else reduced[2]
        state = copy.deepcopy(state, dict(seen))
    except Exception:  # an open file, a lock, a thread: others have them too
        return []
    if state is None:
        return []
    if hasattr(one, "__setstate__"):
        return [partial(type(one).__setstate__, one, state)]
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    # what its __getstate__ leaves out stays
    attributes = {**getattr(one, "__dict__", {}), **(attributes or {})}
    return [partial(_put_back_unknown, one, attributes, slots or {})]


def _put_back_unknown(one: Any, attributes: dict[str, Any], slots: dict[str, Any]) -> None:
    put_back_items(getattr(one, "__dict__", {}), attributes)
    for name, value in slots.items():
        setattr(one, name, value)


_SETTINGS = ("requires_grad", "grad", "_backward_hooks", "_post_accumulate_grad_hooks")
_settings_of = attrgetter(*_SETTINGS)  # of a leaf

_PLAIN = frozenset({dict, OrderedDict, list, set})

# left alone at once, being what most attributes are
_ATOMS = frozenset(
    {bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device}
    | {types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType}
)

_COPIES: dict[Saver, bool] = {of_holder: False, of_copied_holder: True}

_SAVERS: tuple[tuple[Any, Saver], ...] = (
    ((type, torch.utils.data.Dataset), of_nothing),
    (Tensor, _of_tensor),
    (np.ndarray, _of_array),
    (dict, _of_dict),
    (list, _of_list),
    (tuple, _of_tuple),
    (set, _of_set),
    (deque, _of_deque),
    (np.random.RandomState, _of_random_state),
    (np.random.Generator, _of_numpy_generator),
    (torch.Generator, _of_generator),
    ((nn.Module, Optimizer, LRScheduler), of_holder),
)
