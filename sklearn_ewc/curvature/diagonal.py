"""The diagonal of a curvature: one number per parameter, as in elastic weight consolidation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..tensors import Tensors, cached_property, flat, moved, one_vector, parts, trained
from .base import Cotangents
from .per_sample import Add, Rule, fastest_rule, summed_gradient


@dataclass(frozen=True, eq=False)
class Diagonal:
    """A curvature of which only the diagonal is kept.

    Parameters
    ----------
    values : dict of str to Tensor
        The diagonal, by name of the parameter and of its shape, ≥ 0.

    Examples
    --------
    >>> import torch
    >>> from sklearn_ewc.curvature import Diagonal
    >>> curvature = 2.0 * Diagonal({"w": torch.tensor([3.0, 1.0])})
    >>> curvature.trace()
    8.0
    >>> curvature.times(torch.tensor([1.0, 10.0]))
    tensor([ 6., 20.])
    """

    kind: ClassVar[str] = "diagonal"

    values: Tensors = field(repr=False)

    @classmethod
    def sums(cls, module: nn.Module, fisher: str) -> DiagonalSums:
        """Return an accumulator over the batches of a task."""
        return DiagonalSums(module, squared_at_the_end=fisher == "batch")

    def __add__(self, other: Diagonal) -> Diagonal:
        values = dict(self.values)
        for name, value in other.values.items():
            values[name] = values[name] + value if name in values else value
        return Diagonal(values)

    def __mul__(self, factor: float) -> Diagonal:
        return Diagonal({name: factor * value for name, value in self.values.items()})

    __rmul__ = __mul__

    def plus_identity(self, value: float) -> Diagonal:
        """Return the same with `value` more in every place."""
        return Diagonal({name: own + value for name, own in self.values.items()})

    def trace(self) -> float:
        """Return the sum of all values, in float64."""
        return math.fsum(float(value.double().sum()) for value in self.values.values())

    def turned(self, tensors: Tensors) -> Tensors:
        """Return parameters as they are: they are their own coordinates."""
        return tensors

    def turned_back(self, tensors: Tensors) -> Tensors:
        """Return coordinates as they are."""
        return tensors

    @property
    def bases(self) -> tuple[()]:
        """No layer has a basis of its own."""
        return ()

    def times(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the product with a vector of the numbers of all parameters."""
        return torch.mul(self._vector, vector, out=out)

    def add_times(self, into: Tensors, vector: Tensors, factor: float) -> None:
        """Add `factor` times the product with a vector, in place."""
        if into:
            torch._foreach_addcmul_(
                list(into.values()),
                [vector[name] for name in into],
                [self.values[name] for name in into],
                value=factor,
            )

    def meeting(self, other: Diagonal, distance: Tensors) -> tuple[Tensors, list[float]]:
        """Return where ½ vᵀAv + ½ (v − d)ᵀB(v − d) is least, and summands of twice its value.

        The step is a share of the distance, as in the one-pass update of a
        weighted mean (Chan, Golub & LeVeque 1983), so no digits cancel.
        """
        steps, values = {}, []
        for name, way in distance.items():
            mine, others = self.values[name], other.values[name]
            total = mine + others
            share = torch.where(total > 0, others / total, 0.0)
            steps[name] = share * way
            values.append(float((mine * share * way * way).sum()))
        return steps, values

    def resolvent(self, names: Sequence[str], reach: float) -> DiagonalResolvent:
        """Return the proximal step for some parameters."""
        return DiagonalResolvent([self.values[name] for name in names], reach)

    def diagonal(self) -> Tensors:
        """Return the values by name."""
        return dict(self.values)

    def dense(self) -> Tensor:
        """Return the diagonal matrix, in float64."""
        return torch.diag(self._vector.double())

    def over(self, like: Mapping[str, Tensor]) -> Diagonal:
        """Return the same in the order of `like`; ValueError if it is not over those."""
        if like.keys() != self.values.keys():
            differing = sorted(like.keys() ^ self.values.keys())
            raise ValueError(f"anchor and curvature name different parameters: {differing}")
        for name, value in self.values.items():
            if value.shape != like[name].shape:
                raise ValueError(
                    f"anchor and curvature differ in shape at {name!r}: "
                    f"{tuple(like[name].shape)} and {tuple(value.shape)}"
                )
            if not value.isfinite().all():
                raise ValueError(f"curvature is not finite at {name!r}")
            if (value < 0).any():
                raise ValueError(f"curvature is negative at {name!r}")
        return (
            self
            if list(self.values) == list(like)
            else Diagonal({name: self.values[name] for name in like})
        )

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Diagonal:
        """Return the same on another device, in another dtype."""
        return Diagonal(moved(self.values, device, dtype))

    def state_dict(self) -> Tensors:
        """Return the values by name."""
        return dict(self.values)

    @classmethod
    def from_state_dict(cls, state: Tensors) -> Diagonal:
        """Return what :meth:`state_dict` was taken of."""
        return cls(dict(state))

    @cached_property
    def _vector(self) -> Tensor:
        return one_vector(self.values.values())


class DiagonalSums:
    """Sums of squared per-sample gradients, or of gradients that are squared at the end.

    The rule that adds them up is chosen on the first batch; see
    :mod:`~sklearn_ewc.curvature.per_sample`.
    """

    def __init__(
        self,
        module: nn.Module,
        names: Iterable[str] | None = None,
        squared_at_the_end: bool = False,
    ) -> None:
        self.module = module
        params = trained(module)
        self.params = {name: params[name] for name in (params if names is None else names)}
        self.values = {
            name: torch.zeros_like(p, requires_grad=False) for name, p in self.params.items()
        }
        self.squared_at_the_end = squared_at_the_end
        self._add: Add | None = None

    def add(self, X: Any, cotangents: Cotangents, sample_weight: Tensor | None = None) -> None:
        """Add what one batch contributes; the weights are in the vectors already."""
        if self._add is None:
            rule: Rule = summed_gradient
            if not self.squared_at_the_end:
                rule = fastest_rule(self.module, self.params, X)
            self._add = rule(self.module, self.params, self.values)
        self._add(X, cotangents)

    def tensors(self) -> Tensors:
        """Return the sums by name of the parameter."""
        return self.values

    def result(self, sums: Tensors, total: float) -> Diagonal:
        """Return the mean over samples, squared where that comes last."""
        means = {name: value / total for name, value in sums.items()}
        if self.squared_at_the_end:
            means = {name: value.square() for name, value in means.items()}
        return Diagonal(means)


class DiagonalResolvent:
    """θ ↦ θ + α (c − θ) with α = ηA / (1 + ηA) = 1 / (1 + 1/(ηA)), for every ηA from 0 to ∞."""

    def __init__(self, values: Sequence[Tensor], reach: float) -> None:
        stiffness = flat(values)
        reach = min(reach, torch.finfo(stiffness.dtype).max)
        self.resistance = 1 / (stiffness * reach)  # ∞ where nothing is stiff
        self.slowness = torch.empty_like(stiffness)
        self.shares = parts(self.slowness, values)

    def renew(self) -> None:
        """Set α: 0 where A is 0, and 1 where ηA overflows."""
        self.slowness.mul_(self.resistance).add_(1).reciprocal_()

    def pull(self, params: list[Tensor], centre: list[Tensor]) -> None:
        """Take the step: one pass over the parameters."""
        torch._foreach_lerp_(params, centre, self.shares)
