"""Tensors by name, and inputs that are one tensor or dicts and sequences of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
Found = TypeVar("Found")

_JOINED_ROWS, _JOINED_NUMBERS = 512, 2**18


def flat(tensors: Iterable[Tensor], out: Tensor | None = None) -> Tensor:
    """Return the numbers of all tensors in one vector: a new one, or `out`."""
    vectors = [tensor.reshape(-1) for tensor in tensors]
    return torch.cat(vectors, out=out) if vectors else torch.zeros(0)


def parts(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the views of a vector that :func:`flat` made of tensors such as `like`."""
    pieces = vector.split([tensor.numel() for tensor in like])
    return [piece.view_as(tensor) for piece, tensor in zip(pieces, like, strict=True)]


def one_vector(tensors: Iterable[Tensor]) -> Tensor:
    """Return what :func:`flat` does; of views of one vector, as from :func:`moved`, the vector."""
    values = list(tensors)
    base = values[0]._base if values else None
    if base is None or base.numel() != sum(value.numel() for value in values):
        return flat(values)
    offset, in_order = 0, True
    for value in values:
        in_order &= value._base is base and value.storage_offset() == offset
        offset += value.numel()
    return base if in_order and base.ndim == 1 else flat(values)


def copied(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return copies that share nothing with the tensors, nor with their graph."""
    return {name: value.detach().clone() for name, value in tensors.items()}


def moved(
    tensors: Mapping[str, Tensor],
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Tensors:
    """Return the tensors on another device; in one dtype, as views of one new vector."""
    if dtype is None:
        return {name: value.to(device) for name, value in tensors.items()}
    values = list(tensors.values())
    vector = flat(value.to(device=device, dtype=dtype) for value in values)
    return dict(zip(tensors, parts(vector, values), strict=True))


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a module that are trained, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Tell whether no number in any of the tensors is NaN or infinite."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def mapped(data: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to a tensor, or to each part of a dict or sequence of them."""
    if isinstance(data, Mapping):
        return {key: mapped(value, function) for key, value in data.items()}
    if isinstance(data, tuple | list):
        return type(data)(mapped(value, function) for value in data)
    return function(data)


def leaves(data: Any) -> list[Any]:
    """Return what :func:`mapped` would apply its function to."""
    if isinstance(data, Mapping):
        return leaves(list(data.values()))
    if isinstance(data, tuple | list):
        return [leaf for value in data for leaf in leaves(value)]
    return [data]


def as_arguments(X: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the inputs as a module gets them: a dict by keyword, anything else alone."""
    return ((), dict(X)) if isinstance(X, Mapping) else ((X,), {})


def call(module: nn.Module, X: Any) -> Tensor:
    """Return the module's output on one batch, which has to be a single tensor."""
    args, kwargs = as_arguments(X)
    return one_tensor(module(*args, **kwargs))


def one_tensor(output: Any) -> Tensor:
    """Return what a module has returned, if it is a tensor."""
    if not isinstance(output, Tensor):
        raise TypeError(f"module must return one tensor, got {type(output).__name__}")
    return output


def uncompiled(part: Any) -> Any:
    """Return a module or criterion without what torch.compile has wrapped it in."""
    return getattr(part, "_orig_mod", part)


def joined(batches: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Join batches of flat tables that are small enough for one to cost less than two.

    For what does not depend on the other rows of a batch. Images and sequences
    stay as they are, and so do batches that differ in more than their number of rows.
    """
    pending: list[tuple[Any, ...]] = []
    pending_kind, n_rows, n_numbers = None, 0, 0
    for batch in batches:
        kind, size = _kind(batch), len(batch[1])
        numbers = sum(part.numel() for part in leaves(batch)) if kind else 0
        fits = n_rows + size <= _JOINED_ROWS and n_numbers + numbers <= _JOINED_NUMBERS
        if pending and not (fits and kind == pending_kind):
            yield _concatenated(pending)
            pending, n_rows, n_numbers = [], 0, 0
        if kind is None or size > _JOINED_ROWS // 2 or numbers > _JOINED_NUMBERS // 2:
            yield batch
            continue
        pending.append(batch)
        pending_kind, n_rows, n_numbers = kind, n_rows + size, n_numbers + numbers
    if pending:
        yield _concatenated(pending)


def _kind(batch: tuple[Any, ...]) -> Any:
    """Return what two batches must share to be joined; None where there is more than tables."""
    X, *rest = batch
    tables = [*(X.values() if isinstance(X, Mapping) else [X]), *rest]
    if not all(isinstance(table, Tensor) and table.ndim in (1, 2) for table in tables):
        return None
    names = tuple(X) if isinstance(X, Mapping) else None
    return names, [(table.shape[1:], table.dtype, table.device) for table in tables]


def _concatenated(batches: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    if len(batches) == 1:
        return batches[0]
    X, *rest = zip(*batches, strict=True)
    if isinstance(X[0], Mapping):
        inputs: Any = {key: torch.cat([one[key] for one in X]) for key in X[0]}
    else:
        inputs = torch.cat(X)
    return inputs, *(torch.cat(part) for part in rest)


class cached_property(Generic[Found]):  # noqa: N801
    """A property that is found once, of objects that do not change.

    In place of functools', until Python 3.12 is the oldest: before that it holds a lock, one
    for all objects of a class. Threads would wait for each other, and a process forked in that
    moment for ever.
    """

    def __init__(self, find: Callable[[Any], Found]) -> None:
        self.find = find
        self.__doc__ = find.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Found:
        if instance is None:
            return self  # type: ignore[return-value]
        found = vars(instance)[self.name] = self.find(instance)
        return found
