"""The quadratic that any number of tasks add up to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..curvature import Curvature, Diagonal
from ..tensors import Tensors, are_finite, cached_property, flat, moved, one_vector, parts


@dataclass(frozen=True, eq=False)
class Quadratic:
    """A quadratic around one place, ½ (θ − c)ᵀ S (θ − c) + ½ C, with S and C ≥ 0.

    The sum of any number of anchored diagonal quadratics is of this form, exactly,
    c being the mean of the anchors weighted by their curvatures: a memory of 1,000
    tasks pulls with the arithmetic of one.

    `centre` is c in the dtype of the parameters; `remainder`, in float64, what
    that rounding leaves over, so that c keeps its digits where training moves by
    less than they are worth. `curvature` is S, in float64. All of it is in units of
    `unit`, which is 1 but where the dtype of the parameters could not hold S.
    """

    centre: Tensors
    remainder: Tensors
    curvature: Curvature
    constant: float = 0.0
    unit: float = 1.0

    @classmethod
    def zero(cls) -> Quadratic:
        """Return the quadratic over no parameters."""
        return cls({}, {}, Diagonal({}))

    def added(self, anchor: Tensors, curvature: Curvature) -> Quadratic:
        """Return this plus ½ (θ − anchor)ᵀ A (θ − anchor), `curvature` A being in float64.

        Raises
        ------
        ValueError
            If two curvatures of this kind do not add up to one.
        """
        zeros = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in anchor.items()}
        if not self.centre:
            return Quadratic(dict(anchor), zeros, curvature)
        means = {
            name: self.centre[name].double() + self.remainder[name]
            for name in anchor
            if name in self.centre
        }
        found = self.curvature.meeting(
            curvature, {name: anchor[name].double() - mean for name, mean in means.items()}
        )
        if found is None:
            raise ValueError(
                f"the sum of quadratics with {curvature.kind} curvature around different "
                "anchors is not one of them: use mode='online'"
            )
        steps, values = found
        centre, remainder = {**anchor, **self.centre}, {**zeros, **self.remainder}
        for name, step in steps.items():
            mean = means[name] + step
            centre[name] = mean.to(anchor[name].dtype)
            remainder[name] = mean - centre[name].double()
        order = [*self.centre, *(name for name in anchor if name not in self.centre)]
        return Quadratic(
            {name: centre[name] for name in order},
            {name: remainder[name] for name in order},
            self.curvature + curvature,
            sum(values, start=self.constant),
        )

    def is_finite(self) -> bool:
        """Tell whether no number in it is NaN or infinite."""
        tensors = (self.centre, self.remainder, self.curvature.state_dict())
        return math.isfinite(self.constant) and all(are_finite(t.values()) for t in tensors)

    def moved(self, anchor: Tensors) -> Quadratic:
        """Return this with its minimum, of value 0, at `anchor`."""
        centre = {**self.centre, **{name: anchor[name] for name in anchor if name in self.centre}}
        remainder = {
            name: torch.zeros_like(value) if name in anchor else value
            for name, value in self.remainder.items()
        }
        return Quadratic(centre, remainder, self.curvature)

    def scaled(self, factor: float) -> Quadratic:
        """Return this times a factor."""
        return Quadratic(
            self.centre, self.remainder, self.curvature * factor, factor * self.constant
        )

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Quadratic:
        """Return the same quadratic on another device, or all of it in one dtype."""
        return Quadratic(
            moved(self.centre, device, dtype),
            moved(self.remainder, device, dtype),
            self.curvature.to(device, dtype),
            self.constant,
        )

    def for_training(self) -> Quadratic:
        """Return the same in the dtype of the parameters, without a remainder that is zero."""
        dtypes = {value.dtype for value in self.centre.values()}
        dtype = max(dtypes, key=lambda dtype: dtype.itemsize, default=torch.float32)
        exact = not any(bool(value.any()) for value in self.remainder.values())
        unit = self._unit_for(dtype)
        working = self.scaled(1 / unit).to(dtype=dtype)
        remainder = {} if exact else working.remainder
        return Quadratic(working.centre, remainder, working.curvature, working.constant, unit)

    def _unit_for(self, dtype: torch.dtype) -> float:
        """Return a power of two, by which no digit is lost, that brings S within a dtype."""
        values = self.curvature.diagonal().values()
        largest = max((float(value.max()) for value in values if value.numel()), default=0.0)
        limit = math.sqrt(torch.finfo(dtype).max)
        if largest == 0 or 1 / limit < largest < limit:
            return 1.0
        return 2.0 ** round(math.log2(largest))

    def distance(self, params: Mapping[str, Tensor]) -> Tensors:
        """Return θ − c, for those parameters that `params` has, without a graph."""
        names = [name for name in self.centre if name in params]
        way = torch._foreach_sub(
            [params[name] for name in names], [self.centre[name] for name in names]
        )
        if self.remainder:
            torch._foreach_sub_(way, [self.remainder[name] for name in names])
        return dict(zip(names, way, strict=True))

    def value_and_gradient(
        self, params: Iterable[Tensor], scratch: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return both at the parameters, given in the order of `centre`, without a graph.

        The gradient is one vector of the numbers of all parameters. With `scratch`, two
        vectors as long, nothing large is allocated.
        """
        position, product = scratch or (None, None)
        way = flat(params, out=position).sub_(self._centre)
        if self._remainder is not None:
            way -= self._remainder
        gradient = self.curvature.times(way, out=product)
        return 0.5 * (gradient @ way + self.constant), gradient

    def scratch(self) -> tuple[Tensor, Tensor]:
        """Return what :meth:`value_and_gradient` may write into, again and again."""
        return torch.empty_like(self._centre), torch.empty_like(self._centre)

    def check_names(self, params: Mapping[str, Tensor]) -> None:
        """Raise ValueError where `params` lacks any of these parameters."""
        missing = [name for name in self.centre if name not in params]
        if missing:
            raise ValueError(f"params lacks parameters that the memory holds: {missing}")

    def __call__(self, params: Mapping[str, Tensor]) -> Tensor:
        """Return the value at `params`, differentiable once."""
        self.check_names(params)
        form = _QuadraticForm.apply(self, *(params[name] for name in self.centre))
        return form if self.unit == 1 else form * self.unit

    @cached_property
    def _centre(self) -> Tensor:
        return one_vector(self.centre.values())

    @cached_property
    def _remainder(self) -> Tensor | None:
        return one_vector(self.remainder.values()) if self.remainder else None


class _QuadraticForm(torch.autograd.Function):
    """One node in the graph for all parameters, value and gradient in one pass."""

    @staticmethod
    def forward(ctx: Any, quadratic: Quadratic, *params: Tensor) -> Tensor:
        value, gradient = quadratic.value_and_gradient(params)
        ctx.save_for_backward(gradient, *params)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient, *params = ctx.saved_tensors
        slopes = parts(gradient * upstream, params)
        return None, *(slope.to(p.dtype) for slope, p in zip(slopes, params, strict=True))
