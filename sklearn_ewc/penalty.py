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
        factor = min(ewc_lambda, torch.finfo(self.quadratic.stiffness.dtype).max)
        torch._foreach_addcmul_(gradients, shift, chosen(self._stiffness), value=factor)

    def pull(self, optimizer: torch.optim.Optimizer, ewc_lambda: float) -> None:
        """Take the proximal step that follows a step of `optimizer` down the criterion.

        For an optimizer of which :func:`has_known_rates` is true.
        """
        with torch.no_grad():
            if not self._pulls or not all(pull.holds(ewc_lambda) for pull in self._pulls):
                terms = zip(self.params, self._centre, self._stiffness, strict=True)
                by_parameter = {p: term for p, *term in terms if p.requires_grad}
                self._pulls = [
                    _Pull(group, by_parameter, ewc_lambda) for group in optimizer.param_groups
                ]
            for pull in self._pulls:
                pull.take(optimizer)


class _Pull:
    """The proximal steps of one group of parameters, as long as its settings stay.

    Adam's rates are averages over its last 1/(1 − β₂) steps; α follows them.
    """

    def __init__(
        self, group: dict[str, Any], by_parameter: dict[Tensor, list[Tensor]], ewc_lambda: float
    ) -> None:
        self.group = group
        self.ewc_lambda, self.lr = ewc_lambda, float(group["lr"])
        self.momentum, self.betas = group.get("momentum", 0), group.get("betas")
        self.trained = [p.requires_grad for p in group["params"]]
        self.params = [p for p in group["params"] if p in by_parameter]
        self.centre = [by_parameter[p][0] for p in self.params]
        stiffness = flat(by_parameter[p][1] for p in self.params)
        reach = min(ewc_lambda * self.rate, torch.finfo(stiffness.dtype).max)
        self.resistance = 1 / (stiffness * reach)  # 1/(ηλS), ∞ at S = 0
        self.share = torch.empty_like(stiffness)
        self.shares = parts(self.share, self.params)
        self.n_taken = self.n_due = 0

    @property
    def rate(self) -> float:
        """η, but for what Adam divides it by: the step where the gradient is, and stays, 1.

        SGD's momentum adds up the gradients of many steps.
        """
        if self.momentum == 0:
            return self.lr
        return self.lr * (1 - self.group["dampening"]) / (1 - self.momentum)

    def holds(self, ewc_lambda: float) -> bool:
        """Tell whether what α depends on is as it was; a callback may change it."""
        return (
            self.group["lr"] == self.lr
            and ewc_lambda == self.ewc_lambda
            and self.group.get("momentum", 0) == self.momentum
            and self.group.get("betas") is self.betas
            and [p.requires_grad for p in self.group["params"]] == self.trained
        )

    def take(self, optimizer: torch.optim.Optimizer) -> None:
        if not self.params:
            return
        if self.n_taken == self.n_due:
            self.renew(optimizer)
            self.n_due += self.n_lasting
        self.n_taken += 1
        torch._foreach_lerp_(self.params, self.centre, self.shares)

    @property
    def n_lasting(self) -> int:
        """How many steps α holds: a fiftieth of those that Adam averages over, fewer at first."""
        if not self.betas:
            return 0
        return int(min(1 + self.n_taken // 5, max(1, 0.02 / (1 - self.betas[1]))))

    def renew(self, optimizer: torch.optim.Optimizer) -> None:
        """Set α = 1 / (1 + 1/(ηλS)): 0 at S = 0, and 1 where ηλS overflows."""
        if self.betas:
            name = "max_exp_avg_sq" if self.group["amsgrad"] else "exp_avg_sq"
            states = [optimizer.state.get(p, {}) for p in self.params]  # {}: not used so far
            pairs = zip(states, self.params, strict=True)
            squares = [state[name] if state else torch.zeros_like(p) for state, p in pairs]
            n_steps = next((state["step"] for state in states if state), 1)
            torch.cat([square.reshape(-1) for square in squares], out=self.share)
            self.share.div_(1 - self.betas[1] ** n_steps)
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
