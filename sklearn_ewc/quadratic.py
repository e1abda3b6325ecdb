"""The quadratic penalty that any number of tasks add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Quadratic:
    """A diagonal quadratic, ½ Σ_i [S_i (θ_i − r_i)² − 2 M_i (θ_i − r_i)] + ½ C.

    The sum of any number of anchored quadratics is of this form, exactly: a
    memory of 1,000 tasks pulls with the arithmetic of one. The reference r
    follows the last anchor, so that S (θ − r) and M stay small where training
    happens and their difference keeps its digits.
    """

    reference: Tensors
    stiffness: Tensors
    pull: Tensors
    constant: float = 0.0

    def added(self, anchor: Tensors, curvature: Tensors) -> Quadratic:
        """Return this plus ½ Σ_i curvature_i (θ_i − anchor_i)², referred to `anchor`.

        Parameters that `anchor` lacks (frozen since) keep their reference.
        """
        reference, stiffness, pull = dict(self.reference), dict(self.stiffness), dict(self.pull)
        constant = self.constant
        for name, position in anchor.items():
            if name in reference:
                shift = position.double() - reference[name].double()
                constant += float(((stiffness[name] * shift - 2 * pull[name]) * shift).sum())
                pull[name] = pull[name] - stiffness[name] * shift
                stiffness[name] = stiffness[name] + curvature[name]
            else:
                pull[name] = torch.zeros_like(curvature[name])
                stiffness[name] = curvature[name]
            reference[name] = position
        return Quadratic(reference, stiffness, pull, max(constant, 0.0))

    def rounded(self) -> Quadratic:
        """Return the same quadratic with S and M in the dtype of each parameter."""
        stiffness, pull = (
            {name: value.to(self.reference[name].dtype) for name, value in values.items()}
            for values in (self.stiffness, self.pull)
        )
        return Quadratic(self.reference, stiffness, pull, self.constant)

    def __call__(self, params: Mapping[str, Tensor]) -> Tensor:
        """Return the value at `params`, differentiable once."""
        names = self.reference.keys()
        missing = [name for name in names if name not in params]
        if missing:
            raise ValueError(f"params lacks parameters that the memory holds: {missing}")
        if not names:
            return torch.zeros(())
        return _QuadraticForm.apply(self, *(params[name] for name in names))


class _QuadraticForm(torch.autograd.Function):
    """One node in the graph for all parameters, value and gradient in one pass."""

    @staticmethod
    def forward(ctx: Any, quadratic: Quadratic, *params: Tensor) -> Tensor:
        pull = list(quadratic.pull.values())
        shift = torch._foreach_sub(params, list(quadratic.reference.values()))
        gradient = torch._foreach_mul(shift, list(quadratic.stiffness.values()))
        torch._foreach_sub_(gradient, pull)
        ctx.save_for_backward(*gradient)
        terms = torch._foreach_mul(torch._foreach_sub(gradient, pull), shift)
        total = torch.cat([term.flatten() for term in terms]).sum()
        return 0.5 * (total + quadratic.constant)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, *torch._foreach_mul(ctx.saved_tensors, upstream)


class BoundPenalty:
    """A memory's penalty on the parameters of one module, added to their gradients directly.

    The same value and gradient as :meth:`Memory.penalty`, without a graph: three
    passes over the parameters a step, and none for a value that nobody asks for.
    """

    def __init__(self, quadratic: Quadratic, params: Mapping[str, Tensor]) -> None:
        self.quadratic = quadratic
        self.params = params
        self.terms = [
            (params[name], reference, quadratic.stiffness[name], quadratic.pull[name])
            for name, reference in quadratic.reference.items()
        ]

    @torch.no_grad()
    def value(self) -> Tensor:
        """Return the penalty, without λ."""
        return self.quadratic(self.params)

    @torch.no_grad()
    def add_gradient(self, ewc_lambda: float) -> None:
        """Add λ (S (θ − r) − M) to the ``.grad`` of every parameter that is being trained."""
        terms = [term for term in self.terms if term[0].requires_grad]
        if not terms:
            return
        params, reference, stiffness, pull = (list(column) for column in zip(*terms, strict=True))
        for p in params:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        gradients = [p.grad for p in params]
        shift = torch._foreach_sub(params, reference)
        torch._foreach_addcmul_(gradients, shift, stiffness, value=ewc_lambda)
        torch._foreach_sub_(gradients, pull, alpha=ewc_lambda)
