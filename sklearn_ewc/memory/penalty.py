"""The penalty on a module that is being trained: its value, its gradient, a step that is exact.

A step down the gradient of (λ/2) (θ − c)ᵀS(θ − c) overshoots once the rate η exceeds
2/(λS). The proximal step solves for the end of the step instead,

    θ⁺ = argmin_θ (θ − θ')²/2η + (λ/2) (θ − c)ᵀS(θ − c)  =  c + (I + ηλS)⁻¹ (θ' − c),

which is right for every λ from 0 to ∞ (Parikh & Boyd, "Proximal algorithms",
2014, sections 4.2 and 6.1.1). η is the rate, per parameter, at which the optimizer
goes down the criterion: the two then agree on where the sum has its minimum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..tensors import Tensors
from .quadratic import Quadratic
from .rates import GroupRates, has_known_rates
from .turning import Turning

PenaltyStep: TypeAlias = Literal["proximal", "gradient"]
PENALTY_STEPS: tuple[str, ...] = get_args(PenaltyStep)


class Penalty:
    """λ times a memory's penalty on the parameters of one module, for many cheap steps.

    The same value and gradient as :meth:`Memory.penalty`, times λ, without a graph,
    and none of it computed where nobody asks for it.

    Attributes
    ----------
    lambda_range : tuple of float
        The smallest and the largest λ that there was.
    n_summed : float, default=1.0
        How many samples' losses the criterion adds up, which the penalty then counts
        as often: 1 where it is their mean. May be changed between steps.
    """

    def __init__(
        self, quadratic: Quadratic, params: Mapping[str, Tensor], ewc_lambda: float = 1.0
    ) -> None:
        self.quadratic = quadratic
        self.params = {name: params[name] for name in quadratic.centre}
        self.lambda_range = ewc_lambda, ewc_lambda
        self.ewc_lambda = ewc_lambda
        self.n_summed = 1.0
        dtypes = {p.dtype for p in self.params.values()}
        self._has_resolvent = len(dtypes) < 2 and quadratic.curvature.resolvent([], 1.0) is not None
        self._scratch = quadratic.scratch()  # a malloc of this size may cost more than the sum
        self._pulls: list[_Pull] = []
        self._has_bases = bool(quadratic.curvature.bases)
        self._turning: Turning | None = None

    @property
    def ewc_lambda(self) -> float:
        """λ; may be changed between steps."""
        return self._ewc_lambda

    @ewc_lambda.setter
    def ewc_lambda(self, value: float) -> None:
        smallest, largest = self.lambda_range
        self.lambda_range = min(smallest, value), max(largest, value)
        self._ewc_lambda = value

    @torch.no_grad()
    def value(self) -> Tensor:
        """Return the penalty."""
        return self._factor * self._value()

    @torch.no_grad()
    def amount(self) -> float:
        """Return the penalty as a number, which λ may take beyond what the dtype holds."""
        if self.ewc_lambda == 0 or not self.params:
            return 0.0
        return self._factor * float(self._value())

    @property
    def _factor(self) -> float:
        return self.ewc_lambda * self.n_summed * self.quadratic.unit

    def _value(self) -> Tensor:
        return self.quadratic.value_and_gradient(self.params.values(), self._scratch)[0]

    @torch.no_grad()
    def add_gradient(self) -> None:
        """Add λ S (θ − c) to the ``.grad`` of every parameter that is being trained."""
        gradients = {}
        for name, p in self.params.items():
            if not p.requires_grad:
                continue
            if p.grad is None:  # the step has not used it
                p.grad = torch.zeros_like(p)
            elif p.grad.is_sparse:
                p.grad = p.grad.to_dense()
            gradients[name] = p.grad
        if not gradients:
            return
        way = self.quadratic.distance(self.params)
        dtype = max((value.dtype for value in way.values()), key=lambda dtype: dtype.itemsize)
        factor = min(self._factor, torch.finfo(dtype).max)
        self.quadratic.curvature.add_times(gradients, way, factor)

    def can_pull(self, optimizer: Optimizer) -> bool:
        """Tell whether :meth:`pull` may follow a step of the optimizer."""
        return (
            self._has_resolvent
            and has_known_rates(optimizer)
            and (not self._has_bases or self._turning_of(optimizer).is_whole)
        )

    @torch.no_grad()
    def turn(self, optimizer: Optimizer) -> None:
        """Put the coordinates of the curvature in the place of parameters and gradients.

        A step of the optimizer, and the pull after it, are to be taken there, as far as
        it goes number by number; :meth:`turn_back` puts the parameters back.
        """
        if self._has_bases and has_known_rates(optimizer):
            self._turning_of(optimizer).turn()

    @torch.no_grad()
    def turn_back(self, optimizer: Optimizer) -> None:
        """Put parameters in the place of coordinates; see :meth:`turn`."""
        if self._has_bases and has_known_rates(optimizer):
            self._turning_of(optimizer).turn_back()

    def _turning_of(self, optimizer: Optimizer) -> Turning:
        turning = self._turning
        if turning is None or turning.groups is not optimizer.param_groups or not turning.holds():
            turning = self._turning = Turning(self.quadratic, self.params, optimizer)
            self._pulls = []
        return turning

    @torch.no_grad()
    def pull(self, optimizer: Optimizer) -> None:
        """Take the proximal step that follows a step of `optimizer` down the criterion.

        For an optimizer of which :meth:`can_pull` is true, between :meth:`turn` and
        :meth:`turn_back`.
        """
        if not self._pulls or not all(pull.holds(self._factor) for pull in self._pulls):
            turned = self._turning_of(optimizer) if self._has_bases else self.quadratic
            centre = turned.centre
            self._pulls = [_Pull(group, self, centre) for group in optimizer.param_groups]
        for pull in self._pulls:
            pull.take(optimizer)


class _Pull:
    """The proximal steps of one group of parameters, as long as its settings stay."""

    def __init__(self, group: dict[str, Any], penalty: Penalty, centre: Tensors) -> None:
        self.factor = penalty._factor
        self.rates = GroupRates(group)
        self.trained = [p.requires_grad for p in group["params"]]
        names = {p: name for name, p in penalty.params.items() if p.requires_grad}
        held = [(p, names[p]) for p in group["params"] if p in names]
        self.params = [p for p, _ in held]
        self.centre = [centre[name] for _, name in held]
        self.resolvent = penalty.quadratic.curvature.resolvent(
            [name for _, name in held], self.factor * self.rates.reach
        )
        self.n_taken = self.n_due = 0

    def holds(self, factor: float) -> bool:
        """Tell whether what the step depends on is as it was."""
        return (
            factor == self.factor
            and self.rates.hold()
            and [p.requires_grad for p in self.rates.group["params"]] == self.trained
        )

    def take(self, optimizer: Optimizer) -> None:
        """Take one step."""
        if self.resolvent is None or not self.params:
            return
        if self.n_taken == self.n_due:
            self.rates.write_slowness(optimizer, self.params, out=self.resolvent.slowness)
            self.resolvent.renew()
            self.n_due += self.rates.n_lasting(self.n_taken) or 0
        self.n_taken += 1
        self.resolvent.pull(self.params, self.centre)
