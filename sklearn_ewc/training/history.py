"""The history of a net that learns task after task: what of it is kept, and for how long."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import chain, groupby
from typing import Any

import numpy as np
from skorch.history import History


class TaskHistory(History):
    """skorch's history, which can let go of what belongs to earlier tasks.

    Rows that were let go still count: ``len`` and positions are those of all
    epochs, as callbacks that act at an epoch expect, and the last of them can still
    be read. A row costs the same after many tasks as after one, where skorch's
    copies the whole list for each.

    Parameters
    ----------
    rows : iterable of dict, default=()
        A row per epoch, from that on which the first of them tells by its "epoch".

    Attributes
    ----------
    n_let_go : int
        Number of rows that were let go.
    """

    n_let_go = 0
    last_let_go: dict[str, Any] | None = None

    def __init__(self, rows: Iterable[dict[str, Any]] = ()) -> None:
        super().__init__(rows)
        first = self[0].get("epoch", 1) if self else 1
        if not (type(first) is int and 0 < first < sys.maxsize):
            raise ValueError(f"the first epoch is {first!r}")
        self.n_let_go = first - 1

    def __len__(self) -> int:
        return self.n_let_go + super().__len__()

    def __getitem__(self, index: Any) -> Any:
        epoch, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(epoch, int):
            row = self._row(range(len(self))[epoch])
            return History([row])[(0, *rest)] if rest else row
        if isinstance(epoch, slice):
            kept = (number for number in range(len(self))[epoch] if number >= self.n_let_go)
            rows = History(map(self._row, kept))
            return rows[(slice(None), *rest)] if rest else rows.to_list()
        return super().__getitem__(index)

    def _row(self, number: int) -> dict[str, Any]:
        if number == self.n_let_go - 1 and self.last_let_go is not None:
            return self.last_let_go
        if number < self.n_let_go:
            raise IndexError(f"row {number} is of an earlier task, whose rows are not kept")
        return list.__getitem__(self, number - self.n_let_go)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), _packed(self.to_list()), vars(self))

    def begin_task(self, keeps_rows: bool) -> None:
        """Let go of the batches of the task before, and of all its rows unless they are kept."""
        if not keeps_rows:
            self.last_let_go = {**self[-1], "batches": []} if self else None
            self.n_let_go = len(self)
            self.clear()
        for position in reversed(range(super().__len__())):
            row: dict[str, Any] = list.__getitem__(self, position)
            if not row["batches"]:
                return
            self[position] = {**row, "batches": []}  # the row itself may be put back


def _unpickled(kind: type[TaskHistory], packed: Any, attributes: dict[str, Any]) -> TaskHistory:
    history = kind(())
    history.extend(_unpacked(packed))
    history.__dict__.update(attributes)
    return history


def _packed(rows: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """Return rows column by column, in which a pickle takes less than half the room."""
    alike = ((names, list(group)) for names, group in groupby(rows, tuple))
    return [
        (len(group), {name: _packed_column([row[name] for row in group]) for name in names})
        for names, group in alike
    ]


def _packed_column(values: list[Any]) -> Any:
    kinds = set(map(type, values))
    if kinds == {list} and all(type(one) is dict for one in chain.from_iterable(values)):
        return [len(value) for value in values], _packed(list(chain.from_iterable(values)))
    if kinds not in ({float}, {bool}, {int}):
        return values
    column = np.array(values)
    if column.dtype.kind == "i":  # as narrow as its numbers are
        column = column.astype(np.result_type(*map(np.min_scalar_type, (min(values), max(values)))))
    return values if column.dtype.hasobject else column


def _unpacked(packed: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for n_rows, columns in packed:
        values = {name: _unpacked_column(column) for name, column in columns.items()}
        rows += [{name: column[row] for name, column in values.items()} for row in range(n_rows)]
    return rows


def _unpacked_column(column: Any) -> list[Any]:
    if isinstance(column, np.ndarray):
        return column.tolist()
    if not isinstance(column, tuple):
        return column
    lengths, packed = column
    rows = iter(_unpacked(packed))
    return [[next(rows) for _ in range(length)] for length in lengths]
