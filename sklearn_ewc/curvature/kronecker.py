"""A curvature kept layer by layer in a basis of its own: eigenvalue-corrected Kronecker factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..tensors import Tensors, cached_property, flat, parts
from .basis import Basis
from .diagonal import Diagonal, DiagonalResolvent
from .pairs import PairSums


@dataclass(frozen=True, eq=False)
class Kronecker:
    """A curvature that is diagonal in a basis of each layer (EKFAC [1]_).

    Linear layers and convolutions have a :class:`Basis`, the eigenvectors of a pair of
    small matrices; all other parameters are their own coordinates, as in
    :class:`Diagonal`. The diagonal in these coordinates is exact for one task. Of a
    sum it is the diagonal of the sum in the basis of both: two matrices have no
    eigenvectors in common, so a running sum of any number of tasks is as large as one.

    Parameters
    ----------
    values : Diagonal
        The diagonal in the coordinates, under the names of the parameters.
    bases : tuple of Basis
        One for each layer that has one.

    References
    ----------
    .. [1] George et al., "Fast approximate natural gradient descent in a
       Kronecker-factored eigenbasis", NeurIPS (2018), section 3.

    Examples
    --------
    >>> import torch
    >>> from sklearn_ewc.curvature import curvature_of
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> X, y = torch.tensor([[1.0, 1.0], [2.0, 2.0]]), torch.zeros(2, 1)
    >>> curvature = curvature_of(layer, torch.nn.MSELoss(), [(X, y)], kind="kronecker")
    >>> curvature.dense()  # 2 E[x xᵀ]
    tensor([[5., 5.],
            [5., 5.]], dtype=torch.float64)
    """

    kind: ClassVar[str] = "kronecker"

    values: Diagonal = field(repr=False)
    bases: tuple[Basis, ...] = field(repr=False)

    @classmethod
    def sums(cls, module: nn.Module, fisher: str) -> PairSums:
        """Return an accumulator over the batches of a task, for the first of its passes."""
        if fisher == "batch":
            raise ValueError("fisher='batch' is the square of one gradient: kind='diagonal' alone")
        return PairSums(module, cls.of)

    @classmethod
    def of(cls, values: Tensors, bases: tuple[Basis, ...]) -> Kronecker:
        """Return the curvature of these values."""
        return cls(Diagonal(values), bases)

    def __add__(self, other: Kronecker) -> Kronecker:
        mine, others = dict(self.values.values), dict(other.values.values)
        known = {basis.names[0]: basis for basis in other.bases}
        pairs = [(basis, known.pop(basis.names[0], None)) for basis in self.bases]
        bases = []
        for first, second in [*pairs, *((None, basis) for basis in known.values())]:
            common = _common(first, second, mine, others)
            for values, own in ((mine, first), (others, second)):
                values.update(_carried(values, own, common))
            bases += [] if common is None else [common]
        return Kronecker(Diagonal(mine) + Diagonal(others), tuple(bases))

    def __mul__(self, factor: float) -> Kronecker:
        return Kronecker(self.values * factor, tuple(basis * factor for basis in self.bases))

    __rmul__ = __mul__

    def plus_identity(self, value: float) -> Kronecker:
        """Return the same with `value` more in every place: the identity is so in any basis."""
        return Kronecker(self.values.plus_identity(value), self.bases)

    def trace(self) -> float:
        """Return the sum of all values, in float64."""
        return self.values.trace()

    def turned(self, tensors: Tensors) -> Tensors:
        """Return the coordinates of parameters."""
        coordinates = dict(tensors)
        for basis in self.bases:
            coordinates.update(basis.turned(tensors))
        return coordinates

    def turned_back(self, tensors: Tensors) -> Tensors:
        """Return the parameters whose coordinates these are."""
        params = dict(tensors)
        for basis in self.bases:
            params.update(basis.turned_back(tensors))
        return params

    def times(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the product with a vector of the numbers of all parameters."""
        names, like = list(self.values.values), list(self.values.values.values())
        by_name = dict(zip(names, parts(vector, like), strict=True))
        product = self._product(by_name)
        return flat((product[name] for name in names), out=out)

    def add_times(self, into: Tensors, vector: Tensors, factor: float) -> None:
        """Add `factor` times the product with a vector, in place."""
        if into:
            product = self._product({name: vector[name] for name in self.values.values})
            torch._foreach_add_(list(into.values()), [product[name] for name in into], alpha=factor)

    def _product(self, vector: Tensors) -> Tensors:
        scaled = self.turned(vector)
        own = self.values.values
        return self.turned_back({name: own[name] * value for name, value in scaled.items()})

    def meeting(self, other: Kronecker, distance: Tensors) -> tuple[Tensors, list[float]] | None:
        """Return the place itself where both quadratics have their minimum there, else None."""
        if any(bool(way.any()) for way in distance.values()):
            return None
        return dict(distance), []

    def resolvent(self, names: Sequence[str], reach: float) -> DiagonalResolvent:
        """Return the proximal step for some parameters, in their coordinates."""
        return self.values.resolvent(names, reach)

    def diagonal(self) -> Tensors:
        """Return the diagonal over the parameters themselves."""
        return dict(self._diagonal)

    @cached_property
    def _diagonal(self) -> Tensors:
        values = dict(self.values.values)
        for basis in self.bases:
            values.update(basis.carried(values, None))
        return values

    def dense(self) -> Tensor:
        """Return the matrix, in float64."""
        A = self.to(dtype=torch.float64)
        n_numbers = sum(value.numel() for value in A.values.values.values())
        rows = [A.times(unit) for unit in torch.eye(n_numbers, dtype=torch.float64)]
        return torch.stack(rows) if rows else torch.zeros(0, 0, dtype=torch.float64)

    def over(self, like: Mapping[str, Tensor]) -> Kronecker:
        """Return the same in the order of `like`; ValueError if it is not over those."""
        values = self.values.over(like)
        seen = [name for basis in self.bases for name in basis.names]
        if len(set(seen)) < len(seen):
            raise ValueError(f"curvature has several bases for one of {seen}")
        for basis in self.bases:
            basis.check(values.values)
        return self if values is self.values else Kronecker(values, self.bases)

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Kronecker:
        """Return the same on another device, in another dtype."""
        bases = tuple(basis.to(device, dtype) for basis in self.bases)
        return Kronecker(self.values.to(device, dtype), bases)

    def state_dict(self) -> Tensors:
        """Return the values by name, and the bases by the names of their weights."""
        state = self.values.state_dict()
        for basis in self.bases:
            state.update(basis.state_dict())
        return state

    @classmethod
    def from_state_dict(cls, state: Tensors) -> Kronecker:
        """Return what :meth:`state_dict` was taken of."""
        state, bases = dict(state), []
        for key in list(state):
            weight, _, part = key.rpartition("@")
            if part == "inputs" and weight in state:
                bias = f"{weight.removesuffix('weight')}bias"
                bases.append(Basis.from_state_dict(state, weight, bias))
        return cls(Diagonal(state), tuple(bases))


def _common(
    first: Basis | None, second: Basis | None, mine: Tensors, others: Tensors
) -> Basis | None:
    """Return the basis of a layer for two curvatures; None: its parameters as they are.

    That of both where both have one of the same parameters, and that of one where the
    other has all of these without a basis, or none.
    """
    if first is not None and second is not None:
        return first.joined(second) if first.fits(second) else None
    alone: Any = first or second
    rest = mine if first is None else others
    n_there = sum(name in rest for name in alone.names)
    return alone if n_there in (0, len(alone.names)) else None


def _carried(values: Tensors, own: Basis | None, common: Basis | None) -> Tensors:
    """Return a layer's values in the common basis, where these are others than in its own."""
    if own is common:
        return {}
    if own is not None:
        return own.carried(values, common)
    if common is None or common.names[0] not in values:
        return {}
    return common.taken_up(values)
