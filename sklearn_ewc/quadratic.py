"""The quadratic penalty that any number of tasks add up to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Quadratic:
    """A diagonal quadratic, ½ Σ_i S_i (θ_i − c_i)² + ½ C, S and C ≥ 0.

    The sum of any number of anchored quadratics is of this form, exactly, c
    being the mean of the anchors weighted by their curvatures: a memory of 1,000
    tasks pulls with the arithmetic of one.

    `centre` is c in the dtype of the parameters; `remainder`, in float64, what
    that rounding leaves over, so that c keeps its digits where training moves by
    less than they are worth. `stiffness` is S, in float64.
    """

    centre: Tensors
    remainder: Tensors
    stiffness: Tensors
    constant: float = 0.0

    def added(self, anchor: Tensors, curvature: Tensors) -> Quadratic:
        """Return this plus ½ Σ_i curvature_i (θ_i − anchor_i)², curvature in float64.

        Weighted means and sums of squares are updated in one pass, as those of a
        sample are (Chan, Golub & LeVeque 1983), so no digits cancel.
        """
        centre, remainder, stiffness = dict(self.centre), dict(self.remainder), dict(self.stiffness)
        constant = self.constant
        for name, position in anchor.items():
            if name not in centre:
                centre[name] = position
                remainder[name] = torch.zeros_like(curvature[name])
                stiffness[name] = curvature[name]
                continue
            mean = centre[name].double() + remainder[name]
            total = stiffness[name] + curvature[name]
            share = torch.where(total > 0, curvature[name] / total, 0.0)
            shift = position.double() - mean
            mean = mean + share * shift
            constant += float((stiffness[name] * share * shift * shift).sum())
            centre[name] = mean.to(position.dtype)
            remainder[name] = mean - centre[name].double()
            stiffness[name] = total
        return Quadratic(centre, remainder, stiffness, constant)

    def is_finite(self) -> bool:
        """Tell whether no number in it is NaN or infinite."""
        tensors = (*self.centre.values(), *self.remainder.values(), *self.stiffness.values())
        return math.isfinite(self.constant) and all(bool(t.isfinite().all()) for t in tensors)

    def moved(self, anchor: Tensors) -> Quadratic:
        """Return this with its minimum, of value 0, at `anchor`."""
        centre = {**self.centre, **{name: anchor[name] for name in anchor if name in self.centre}}
        remainder = {
            name: torch.zeros_like(value) if name in anchor else value
            for name, value in self.remainder.items()
        }
        return Quadratic(centre, remainder, self.stiffness)

    def scaled(self, factor: float) -> Quadratic:
        """Return this times a factor."""
        stiffness = {name: factor * value for name, value in self.stiffness.items()}
        return Quadratic(self.centre, self.remainder, stiffness, factor * self.constant)

    def to(self, device: str | torch.device) -> Quadratic:
        """Return the same quadratic on another device."""
        centre, remainder, stiffness = (
            {name: value.to(device) for name, value in values.items()}
            for values in (self.centre, self.remainder, self.stiffness)
        )
        return Quadratic(centre, remainder, stiffness, self.constant)

    def flattened(self) -> FlatQuadratic:
        """Return the same quadratic in the form and the dtype that training works in."""
        dtypes = {value.dtype for value in self.centre.values()}
        dtype = max(dtypes, key=lambda dtype: dtype.itemsize, default=torch.float32)
        centre, remainder, stiffness = (
            flat(values.values()).to(dtype)
            for values in (self.centre, self.remainder, self.stiffness)
        )
        return FlatQuadratic(
            names=tuple(self.centre),
            centre=centre,
            remainder=remainder if bool(remainder.any()) else None,
            stiffness=stiffness,
            constant=self.constant,
        )


@dataclass(frozen=True, eq=False)
class FlatQuadratic:
    """A :class:`Quadratic` with the numbers of all parameters in one vector.

    One operation for all parameters, however many tensors they are. `remainder`
    is None where the centre needed no rounding, as after a single task.
    """

    names: tuple[str, ...]
    centre: Tensor
    remainder: Tensor | None
    stiffness: Tensor
    constant: float

    def value_and_gradient(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return both at `position`, a vector of all parameters, which is overwritten."""
        shift = position.sub_(self.centre)
        if self.remainder is not None:
            shift -= self.remainder
        gradient = self.stiffness * shift
        return 0.5 * (gradient @ shift + self.constant), gradient

    def __call__(self, params: Mapping[str, Tensor]) -> Tensor:
        """Return the value at `params`, differentiable once."""
        missing = [name for name in self.names if name not in params]
        if missing:
            raise ValueError(f"params lacks parameters that the memory holds: {missing}")
        return _QuadraticForm.apply(self, *(params[name] for name in self.names))


class _QuadraticForm(torch.autograd.Function):
    """One node in the graph for all parameters, value and gradient in one pass."""

    @staticmethod
    def forward(ctx: Any, quadratic: FlatQuadratic, *params: Tensor) -> Tensor:
        value, gradient = quadratic.value_and_gradient(flat(params))
        ctx.save_for_backward(gradient, *params)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient, *params = ctx.saved_tensors
        return None, *parts(gradient * upstream, params)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Return the numbers of all tensors in one vector."""
    vectors = [tensor.reshape(-1) for tensor in tensors]
    return torch.cat(vectors) if vectors else torch.zeros(0)


def parts(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the views of a vector that :func:`flat` made of tensors such as `like`."""
    pieces = vector.split([tensor.numel() for tensor in like])
    return [piece.view_as(t).to(t.dtype) for piece, t in zip(pieces, like, strict=True)]
