"""How long a task is trained, and how its rate falls at the end."""

from __future__ import annotations

import math
from typing import Any

from skorch.callbacks import LRScheduler
from torch.optim import LBFGS

AUTO = "auto"
N_EPOCHS = 200  # where no bound on the steps is in force
FEWEST_STEPS, MOST_STEPS = 500, 50_000
FEWEST_EPOCHS = 10
FALLING = 0.25  # the part of the epochs in which the rate falls


def n_epochs(net: Any, batches: Any, share: float = 1.0) -> int:
    """Return for how many epochs a net is to train on batches, or a share of them.

    An integer `max_epochs` is the answer. "auto" bounds the number of steps, which
    is what an optimizer needs, whatever the number of samples; an epoch of LBFGS
    is many steps of its own, and what has no length has no bounds.
    """
    whole = _n_epochs(net, batches)
    return whole if share == 1 else min(whole, max(1, round(share * whole)))


def _n_epochs(net: Any, batches: Any) -> int:
    if net.max_epochs != AUTO:
        return int(net.max_epochs)
    if isinstance(net.optimizer_, LBFGS) or not hasattr(batches, "__len__"):
        return N_EPOCHS
    steps = max(len(batches), 1)
    fewest = max(N_EPOCHS, math.ceil(FEWEST_STEPS / steps))
    return min(fewest, max(FEWEST_EPOCHS, MOST_STEPS // steps))


def let_rate_fall(net: Any, epoch: int, of: int) -> None:
    """Set the optimizers' rates for an epoch (from 0), where training is to end by itself.

    They are multiplied, so that what a callback does to them in between remains. A
    schedule of the user's own takes the place of this one; LBFGS searches along
    its lines, and needs none.
    """
    if net.max_epochs != AUTO or any(
        isinstance(callback, LRScheduler) for _, callback in net.callbacks_
    ):
        return
    ratio = _share_of_rate(epoch, of) / _share_of_rate(epoch - 1, of)
    for name in net._optimizers:
        optimizer = getattr(net, f"{name}_")
        if ratio != 1 and not isinstance(optimizer, LBFGS):
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * ratio


def _share_of_rate(epoch: int, of: int) -> float:
    """Return 1, but in the last quarter of the epochs a line that falls to 0 at their end."""
    return min(1.0, (of - epoch - 0.5) / (FALLING * of))
