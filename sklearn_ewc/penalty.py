"""The penalty on a module that is being trained: its value, its gradient, a step that is exact.

A step down the gradient of λ/2 · S (θ − c)² overshoots once the rate η exceeds
2/(λS). The proximal step solves for the end of the step instead,

    θ⁺ = argmin_θ (θ − θ')²/2η + λ/2 · S (θ − c)²  =  θ' + α (c − θ'),   α = ηλS / (1 + ηλS),

which is right for every λ from 0 to ∞ and one pass over the parameters
(Parikh & Boyd, "Proximal algorithms", 2014, sections 4.2 and 6.1.1). η is the
rate, per parameter, at which the optimizer goes down the criterion: the two
then agree on where the sum has its minimum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from .quadratic import FlatQuadratic, flat, parts

PENALTY_STEPS = ("proximal", "gradient")


class BoundPenalty:
    """A memory's penalty on the parameters of one module, for many cheap steps.

    The same value and gradient as :meth:`Memory.penalty`, without a graph, and
    none of it computed where nobody asks for it.
    """

    def __init__(self, quadratic: FlatQuadratic, params: Mapping[str, Tensor]) -> None:
        self.quadratic = quadratic
        self.params = [params[name] for name in quadratic.names]
        remainder = quadratic.remainder
        self._centre = parts(quadratic.centre, self.params)
        self._remainder = [] if remainder is None else parts(remainder, self.params)
        self._stiffness = parts(quadratic.stiffness, self.params)
        self._pulls: list[_Pull] = []

    @torch.no_grad()
    def value(self) -> Tensor:
        """Return the penalty, without λ."""
        return self.quadratic.value_and_gradient(flat(self.params))[0]

    @torch.no_grad()
    def add_gradient(self, ewc_lambda: float) -> None:
        """Add λ S (θ − c) to the ``.grad`` of every parameter that is being trained."""
        trained = [index for index, p in enumerate(self.params) if p.requires_grad]
        if not trained:
            return
        gradients = []
        for p in (self.params[index] for index in trained):
            if p.grad is None:  # the step has not used it
                p.grad = torch.zeros_like(p)
            gradients.append(p.grad)

        def chosen(tensors: list[Tensor]) -> list[Tensor]:
            return [tensors[index] for index in trained]

        shift = torch._foreach_sub(chosen(self.params), chosen(self._centre))
        if self._remainder:
            torch._foreach_sub_(shift, chosen(self._remainder))
        torch._foreach_addcmul_(gradients, shift, chosen(self._stiffness), value=ewc_lambda)

    @torch.no_grad()
    def pull(self, optimizer: torch.optim.Optimizer, ewc_lambda: float) -> None:
        """Take the proximal step that follows a step of `optimizer` down the criterion.

        For an optimizer of which :func:`has_known_rates` is true.
        """
        groups = optimizer.param_groups
        settings = [(ewc_lambda, float(g["lr"]), *map(g.get, _RATE_SETTINGS)) for g in groups]
        if [pull.settings for pull in self._pulls] != settings:
            terms = zip(self.params, self._centre, self._stiffness, strict=True)
            by_parameter = {p: term for p, *term in terms if p.requires_grad}
            self._pulls = [
                _Pull(group, by_parameter, one) for group, one in zip(groups, settings, strict=True)
            ]
        for pull in self._pulls:
            pull.take(optimizer)


_RATE_SETTINGS = ("momentum", "dampening", "betas", "eps")


class _Pull:
    """The proximal steps of one group of parameters, as long as its settings stay.

    Adam's rates are averages over its last 1,000 steps; α follows them at every
    step first, at every twentieth in the end.
    """

    def __init__(
        self, group: dict[str, Any], by_parameter: dict[Tensor, list[Tensor]], settings: Any
    ) -> None:
        self.group = group
        self.settings = settings
        self.params = [p for p in group["params"] if p in by_parameter]
        self.centre = [by_parameter[p][0] for p in self.params]
        stiffness = flat(by_parameter[p][1] for p in self.params)
        reach = min(settings[0] * _rate(group), torch.finfo(stiffness.dtype).max)
        self.resistance = 1 / (stiffness * reach)  # 1/(ηλS), ∞ at S = 0
        self.share = torch.empty_like(stiffness)
        self.shares = parts(self.share, self.params)
        self.n_taken = self.n_due = 0

    def take(self, optimizer: torch.optim.Optimizer) -> None:
        if not self.params:
            return
        if self.n_taken == self.n_due:
            self.renew(optimizer)
            self.n_due += min(1 + self.n_taken // 5, 20) if "betas" in self.group else 0
        self.n_taken += 1
        torch._foreach_lerp_(self.params, self.centre, self.shares)

    def renew(self, optimizer: torch.optim.Optimizer) -> None:
        """Set α = 1 / (1 + 1/(ηλS)): 0 at S = 0, and 1 where ηλS overflows."""
        if "betas" in self.group:
            name = "max_exp_avg_sq" if self.group["amsgrad"] else "exp_avg_sq"
            states = [optimizer.state.get(p, {}) for p in self.params]  # {}: not used so far
            pairs = zip(states, self.params, strict=True)
            squares = [state[name] if state else torch.zeros_like(p) for state, p in pairs]
            n_steps = next((state["step"] for state in states if state), 1)
            torch.cat([square.reshape(-1) for square in squares], out=self.share)
            self.share.div_(1 - self.group["betas"][1] ** n_steps)
            self.share.sqrt_().add_(self.group["eps"]).mul_(self.resistance)
        else:
            self.share.copy_(self.resistance)
        self.share.add_(1).reciprocal_()


def has_known_rates(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether :meth:`BoundPenalty.pull` knows how far a step of the optimizer goes."""
    if type(optimizer) not in (SGD, Adam, AdamW):
        return False
    for group in optimizer.param_groups:
        if group["maximize"] or group.get("momentum", 0) >= 1:
            return False
    return True


def _rate(group: dict[str, Any]) -> float:
    """Return η, but for what Adam divides it by: the step where the gradient is, and stays, 1.

    SGD's momentum adds up the gradients of many steps.
    """
    momentum = group.get("momentum", 0)
    if momentum == 0:
        return group["lr"]
    return group["lr"] * (1 - group["dampening"]) / (1 - momentum)
