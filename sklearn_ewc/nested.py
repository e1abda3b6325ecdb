"""Inputs that are one tensor, or dicts and sequences of them: mapped, listed, joined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

_JOINED_ROWS, _JOINED_NUMBERS = 512, 2**18


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


def joined(batches: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Join batches of flat tables that are small enough for one to cost less than two.

    For what does not depend on the other rows of a batch. Images and sequences
    stay as they are, and so do batches that differ in more than their number of rows.
    """
    pending: list[tuple[Any, ...]] = []
    for batch in batches:
        if pending and not (_kind(batch) == _kind(pending[0]) and _is_small([*pending, batch])):
            yield _concatenated(pending)
            pending = []
        pending.append(batch)
        if _kind(batch) is None or not _is_small(pending):
            yield _concatenated(pending)
            pending = []
    if pending:
        yield _concatenated(pending)


def _is_small(batches: list[tuple[Any, ...]]) -> bool:
    n_rows = sum(len(batch[1]) for batch in batches)
    n_numbers = sum(part.numel() for part in leaves(batches))
    return n_rows <= _JOINED_ROWS and n_numbers <= _JOINED_NUMBERS


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
