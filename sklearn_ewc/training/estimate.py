"""What a trained task leaves behind: its curvature and loss where it ended."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from skorch.utils import to_tensor
from torch import Tensor

from ..curvature import curvature_and_loss, random_signs
from ..memory import Penalty, Task
from ..tensors import are_finite
from ..tensors import trained as trained_parameters
from .divergence import check_objective, diverged
from .rehearsal import Rehearsal
from .seeding import task_generator
from .settings import damping_of
from .steps import inputs, targets
from .teaching import Teaching

_SILENT_SECONDS = 3.0


@dataclass(frozen=True)
class Trained:
    """A task whose training has ended: the dataset, how it began, what it was trained under."""

    dataset: Any
    rehearsal: Rehearsal
    penalty: Penalty
    teaching: Teaching | None = None


def finished_task(net: Any, trained: Trained, task_weight: float) -> Task:
    """Return the task that a net has just been trained on.

    Raises
    ------
    FloatingPointError
        If training has diverged.
    ValueError
        If the Fisher is zero, so that nothing would be remembered.
    """
    module, rehearsal = net.bare_module_, trained.rehearsal
    if not are_finite(module.parameters()):
        raise diverged(net, math.nan)
    net._set_training(False)
    iterator = net.get_iterator(trained.dataset, training=False)
    batches = _Shares(net, iterator)
    curvature, loss = curvature_and_loss(
        module,
        net.criterion_,
        batches,
        fisher=rehearsal.fisher,
        kind=net.curvature,
        signs=batches.signs,
        reduce=None if net.processes_.accelerator is None else net.processes_.summed,
    )
    check_ended(net, trained, loss)
    if rehearsal.fisher in ("exact", "sampled") and curvature.trace() == 0:
        raise ValueError(
            f"the {rehearsal.fisher} Fisher of this task is zero: {net.criterion_name_} has no "
            "curvature at its residuals; use fisher='empirical'"
        )
    return Task(
        anchor={**trained_parameters(module)},
        curvature=curvature,
        weight=float(task_weight),
        damping=damping_of(net),
        n_samples=len(trained.dataset),
        loss=loss,
    )


def check_ended(net: Any, trained: Trained, loss: float) -> None:
    """Raise FloatingPointError if training has diverged, `loss` being the criterion at its end."""
    batches = _batches(net, net.get_iterator(trained.dataset, training=False))
    replayed = {} if trained.teaching is None else {"replayed": trained.teaching.amounts()}
    check_objective(net, loss, trained.penalty, trained.rehearsal.state, batches, **replayed)


def _batches(net: Any, batches: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield batches as the module and the criterion take them."""
    for X, y, *weight in batches:
        weights = (to_tensor(part, device=net.device) for part in weight)
        yield inputs(net, X), targets(net, y), *weights


class _Shares:
    """The rows of the batches that fall to this process, but for batches too small to give it some.

    Signs are drawn for the rows of all processes, so that a row has the same ones
    whichever process it goes to.
    """

    def __init__(self, net: Any, iterator: Iterable[Any]) -> None:
        self.net, self.iterator, self.share = net, iterator, net.processes_.share
        self.draw = random_signs(task_generator(net.seed_, net.n_tasks_ + 1))
        self.sizes: deque[int] = deque()  # of the batches that still have no signs

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for batch in _batches(self.net, _with_progress(self.net, self.iterator)):
            self.sizes.append(len(batch[1]))
            share = self.share(batch)
            if len(share[1]):
                yield share

    def signs(self, shape: torch.Size) -> Tensor:
        """Return signs in the shape of the outputs for the next rows."""
        parts: list[Tensor] = []
        while sum(map(len, parts)) < shape[0]:
            whole = self.draw(torch.Size([self.sizes.popleft(), *shape[1:]]))
            parts.append(self.share(whole))
        return torch.cat(parts)


def _with_progress(net: Any, batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches; if the net is verbose, print now and then how many have been gone through."""
    is_told = net.verbose and net.processes_.is_first
    start = told = time.monotonic()
    for n_done, batch in enumerate(batches):
        now = time.monotonic()
        if is_told and n_done and now - told > _SILENT_SECONDS:
            progress = _progress(n_done, batches, now - start)
            print(f"Fisher of task {net.n_tasks_ + 1}: {progress}", flush=True)
            told = now
        yield batch


def _progress(n_done: int, batches: Any, seconds: float) -> str:
    try:
        n_batches = len(batches)
    except TypeError:  # a stream, whose end nobody knows
        return f"{n_done} batches"
    return f"{n_done} of {n_batches} batches, {seconds * (n_batches / n_done - 1):.0f} s left"
