"""What is kept of a task's inputs to draw inputs like them: a density, not a row.

A table of inputs has a row per sample and a column per number. A :class:`Mixture` of
normal distributions, or an estimator of the user's own, draws the columns; those that
take few values are then rounded to combinations that there were, so that one-hot
columns, integers and constants are drawn as what they are. Rounding keeps the
correlations with the other columns and, within the noise of a sample, how often each
value comes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..arguments import check_count, check_not_negative, shown
from ..tensors import cached_property
from .sources import Mixture, Sampler, check_numbers

_NUMBERS_AT_ONCE = 2**22  # of the distances to levels


@dataclass(frozen=True, eq=False)
class Levels:
    """The combinations of values that some columns take together.

    Parameters
    ----------
    columns : tuple of int
        Which columns of the table.
    values : Tensor of shape (n_levels, n_columns), float64
        One combination per row; of a single column in ascending order.
    """

    columns: tuple[int, ...]
    values: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        check_numbers("values", self.values)
        if self.values.ndim != 2 or self.values.shape[1] != len(self.columns) or not self.columns:
            raise ValueError(
                f"values has shape {tuple(self.values.shape)} for {len(self.columns)} columns"
            )
        if not len(self.values):
            raise ValueError("values has no row")
        if len(self.columns) == 1 and bool((self.values.diff(dim=0) <= 0).any()):
            raise ValueError("values must ascend")

    def nearest(self, rows: Tensor) -> Tensor:
        """Return the level next to each row, rows having these columns alone.

        Distances are in units of each column's range.
        """
        if len(self.values) == 1:
            return self.values.expand(len(rows), -1)
        if len(self.columns) == 1:
            flat = self.values[:, 0]
            bounds = flat[:-1] + flat.diff() / 2
            return self.values[torch.bucketize(rows[:, 0].contiguous(), bounds)]
        span = self.values.amax(0) - self.values.amin(0)
        span[span == 0] = 1.0
        levels, size = self.values / span, max(_NUMBERS_AT_ONCE // len(self.values), 1)
        parts = (rows / span).split(size)
        return self.values[torch.cat([torch.cdist(part, levels).argmin(1) for part in parts])]

    def to(self, device: str | torch.device) -> Levels:
        """Return the same on another device."""
        return replace(self, values=self.values.to(device))


@dataclass(frozen=True, eq=False)
class Density:
    """A density of a task's inputs, as a table of `n_columns`.

    Parameters
    ----------
    n_columns : int
    source : Mixture or Sampler
        Draws the columns named in `drawn`.
    drawn : tuple of int
        All that take more than one value; the others are single levels.
    levels : tuple of Levels
        What columns of few values are rounded to, no column twice.

    Raises
    ------
    ValueError, TypeError
        If a column is drawn by none, or these do not fit each other.
    """

    n_columns: int
    source: Mixture | Sampler = field(repr=False)
    drawn: tuple[int, ...] = field(repr=False)
    levels: tuple[Levels, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        check_count("n_columns", self.n_columns)
        if not isinstance(self.source, Mixture | Sampler):
            raise TypeError(f"source must be a Mixture or a Sampler, got {shown(self.source)}")
        width = self.source.n_columns
        if width != len(self.drawn):
            raise ValueError(f"source draws {width} columns, drawn names {len(self.drawn)}")
        rounded = [column for block in self.levels for column in block.columns]
        for name, columns in (("drawn", self.drawn), ("levels", rounded)):
            known = all(type(one) is int and 0 <= one < self.n_columns for one in columns)
            if not known or len(set(columns)) < len(columns):
                raise ValueError(f"{name} names columns that there are not, or one twice")
        single = [k for block in self.levels if len(block.values) == 1 for k in block.columns]
        if len({*self.drawn, *single}) < self.n_columns:
            raise ValueError("drawn lacks a column that has several values")

    def draw(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Return rows like the task's inputs, in float64, shape (n_rows, n_columns).

        Parameters
        ----------
        n_rows : int
        generator : torch.Generator
            Of the CPU, whatever the device: draws are the same on all of them.
        """
        rows = self.source.draw(n_rows, generator).to(self.device)
        table = rows.new_zeros(n_rows, self.n_columns)
        table[:, list(self.drawn)] = rows
        for block in self.levels:
            table[:, list(block.columns)] = block.nearest(table[:, list(block.columns)])
        return table

    @cached_property
    def device(self) -> torch.device:
        """Where rows are drawn."""
        of_source = [self.source.means] if isinstance(self.source, Mixture) else []
        tensors = [*of_source, *(block.values for block in self.levels)]
        return tensors[0].device if tensors else torch.device("cpu")

    @property
    def n_bytes(self) -> int:
        """How many bytes it takes."""
        return self.source.n_bytes + sum(block.values.nbytes for block in self.levels)

    def to(self, device: str | torch.device) -> Density:
        """Return the same on another device."""
        levels = tuple(block.to(device) for block in self.levels)
        return replace(self, source=self.source.to(device), levels=levels)


@dataclass(frozen=True, eq=False)
class OldInputs:
    """The inputs of one task learned, and how much the task counts.

    Parameters
    ----------
    density : Density
    weight : float, default=1.0
        w, the task's weight; times its number of samples, where tasks count by them.
    """

    density: Density
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.density, Density):
            raise TypeError(f"density must be a Density, got {shown(self.density)}")
        check_not_negative("weight", self.weight)

    def scaled(self, factor: float) -> OldInputs:
        """Return the same with another weight."""
        return replace(self, weight=factor * self.weight)

    def to(self, device: str | torch.device) -> OldInputs:
        """Return the same on another device."""
        return replace(self, density=self.density.to(device))
