"""How far an optimizer goes in a step: the rates at which a proximal step must follow it.

Per number, an optimizer goes η = reach / slowness along a gradient that stays as
it is. What it is pulled against at these rates is another matter:
:class:`~sklearn_ewc.curvature.Resolvent`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer


def has_known_rates(optimizer: Optimizer) -> bool:
    """Tell whether :class:`GroupRates` knows how far a step of the optimizer goes."""
    if type(optimizer) not in (SGD, Adam, AdamW):
        return False
    for group in optimizer.param_groups:
        if group["maximize"] or group.get("momentum", 0) >= 1:
            return False
    return True


class GroupRates:
    """The rates of one group of parameters, as long as its settings stay.

    Adam's are averages over its last 1/(1 − β₂) steps, and change as slowly.
    """

    def __init__(self, group: dict[str, Any]) -> None:
        self.group = group
        self.lr = float(group["lr"])
        self.momentum, self.betas = group.get("momentum", 0), group.get("betas")

    @property
    def reach(self) -> float:
        """How far a step goes where the slowness is 1.

        SGD's momentum adds up the gradients of many steps.
        """
        if self.momentum == 0:
            return self.lr
        return self.lr * (1 - self.group["dampening"]) / (1 - self.momentum)

    def hold(self) -> bool:
        """Tell whether what :attr:`reach` depends on is as it was; a callback may change it."""
        return (
            self.group["lr"] == self.lr
            and self.group.get("momentum", 0) == self.momentum
            and self.group.get("betas") is self.betas
        )

    def n_lasting(self, n_taken: int) -> int | None:
        """Return for how many steps the slowness is good enough after `n_taken` steps.

        A fiftieth of those that Adam averages over, fewer at first; None: for all.
        """
        if not self.betas:
            return None
        return int(min(1 + n_taken // 5, max(1, 0.02 / (1 - self.betas[1]))))

    def write_slowness(self, optimizer: Optimizer, params: Sequence[Tensor], out: Tensor) -> None:
        """Write the slowness of all numbers of `params` into one vector."""
        if not self.betas:
            out.fill_(1)
            return
        name = "max_exp_avg_sq" if self.group["amsgrad"] else "exp_avg_sq"
        states = [optimizer.state.get(p, {}) for p in params]  # {}: not used so far
        pairs = zip(states, params, strict=True)
        squares = [state[name] if state else torch.zeros_like(p) for state, p in pairs]
        n_steps = next((state["step"] for state in states if state), 1)
        torch.cat([square.reshape(-1) for square in squares], out=out)
        out.div_(1 - self.betas[1] ** n_steps)
        # roots of exact zeros, as dead units have, may take ten times as long as others;
        # and what has overflowed must leave something for λ to be held against
        limits = torch.finfo(out.dtype)
        out.clamp_(limits.tiny, limits.max).sqrt_().add_(self.group["eps"])
