"""The inputs of a task as one table, a row per sample, and rows of such a table as inputs again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..tensors import leaves, mapped
from .steps import inputs


@dataclass(frozen=True)
class Layout:
    """How a row of a table is cut into one sample's inputs.

    Parameters
    ----------
    like : Tensor, or dict or sequence of them
        No rows of inputs as the module gets them.
    """

    like: Any

    @classmethod
    def of(cls, X: Any) -> Layout:
        """Return that of a batch."""
        return cls(mapped(_in_order(X), lambda part: part[:0]))

    @property
    def widths(self) -> list[int]:
        """How many columns each part takes."""
        return [part.shape[1:].numel() for part in leaves(self.like)]

    @property
    def whole(self) -> list[int]:
        """The columns that hold whole numbers, by their dtype."""
        parts = zip(leaves(self.like), self.widths, strict=True)
        are = [not part.is_floating_point() for part, width in parts for _ in range(width)]
        return [column for column, is_whole in enumerate(are) if is_whole]

    def table(self, X: Any) -> Tensor:
        """Return a batch as rows, in the widest dtype of its parts.

        Raises
        ------
        ValueError
            If its samples are of other shapes.
        """
        parts, known = leaves(_in_order(X)), leaves(self.like)
        if [part.shape[1:] for part in parts] != [part.shape[1:] for part in known]:
            raise ValueError("replay needs samples of one shape, X has several")
        columns = zip(parts, self.widths, strict=True)
        return torch.cat([part.reshape(len(part), width) for part, width in columns], dim=1)

    def inputs(self, rows: Tensor) -> Any:
        """Return rows of a table as the module gets them."""
        pieces = iter(rows.split(self.widths, dim=1))

        def cut(part: Tensor) -> Tensor:
            piece = next(pieces).reshape(len(rows), *part.shape[1:])
            return (
                piece.to(part.dtype) if part.is_floating_point() else piece.round().to(part.dtype)
            )

        return mapped(self.like, cut)


def layout_of(net: Any, dataset: Any) -> Layout:
    """Return the layout of a dataset, told by its first batch."""
    for X, *_ in net.get_iterator(dataset, training=False):
        return Layout.of(inputs(net, X))
    raise ValueError("there is no batch")


def table_of(
    net: Any, dataset: Any, layout: Layout, generator: torch.Generator, most_rows: int
) -> Tensor:
    """Return the inputs of a dataset as the module gets them, in float64.

    They are a sample of `most_rows` where there are more. Where samples have
    weights, rows are drawn in proportion to them: one of weight 0 is not among them.
    """
    rows, weights = [], []
    for X, _, *weight in net.get_iterator(dataset, training=False):
        rows.append(layout.table(inputs(net, X)).cpu())
        weights += weight
    table = torch.cat(rows)
    if weights:
        probabilities = torch.cat([torch.as_tensor(one).cpu() for one in weights]).double()
        table = table[_in_proportion(probabilities, generator, most_rows)]
    elif len(table) > most_rows:
        table = table[torch.randperm(len(table), generator=generator)[:most_rows]]
    return table.double()


def _in_proportion(weights: Tensor, generator: torch.Generator, most_rows: int) -> Tensor:
    """Return rows in proportion to their weights, each as often as it can be told beforehand."""
    held = weights.nonzero()[:, 0]
    n_rows = min(len(held), most_rows)
    start = torch.rand((), generator=generator, dtype=torch.float64)
    shares = weights[held].cumsum(0) / weights.sum()
    points = (torch.arange(n_rows) + start) / n_rows
    return held[torch.searchsorted(shares, points).clamp(max=len(held) - 1)]


def _in_order(X: Any) -> Any:
    """Return inputs with the keys of every dict in one order, whatever theirs is."""
    if isinstance(X, Mapping):
        return {key: _in_order(X[key]) for key in sorted(X, key=str)}
    if isinstance(X, tuple | list):
        return type(X)(_in_order(one) for one in X)
    return X
