"""Generative replay: inputs like those of old tasks, with the net as it was for a teacher.

To the criterion L on a new task it adds

    Σ_k w_k E_{x ~ p_k} ℓ(f(x), f_old(x)),

p_k being the density of an old task's inputs, w_k its weight, f_old the net as the new
task begins. For the squared error that is the old tasks' own loss, but for a constant:
where f_old(x) is the mean of y given x, which is what it has learned,

    E(y − f)² = E(y − f_old)² + E(f − f_old)².

It is estimated in every step on as many rows as the batch has, drawn from all old tasks
in proportion to their weights, as their sum times the mean over the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from ..curvature.criterion import is_sum
from ..tensors import as_arguments, mapped, uncompiled
from .buffers import modes_kept
from .inputs import Layout, layout_of
from .rehearsal import Rehearsal
from .seeding import draw_seed, task_generator
from .steps import accumulate
from .targeting import taught
from .units import has_several_units, loss_by_units, unit_of_loss

_STEPS_AT_ONCE, _ROWS_AT_ONCE = 200, 20_000  # that are drawn together
_ROWS_PER_PASS = 1024  # of the teacher


def teaching_of(net: Any, dataset: Any, rehearsal: Rehearsal) -> Teaching | None:
    """Return the replay of a task that is about to be trained; None if nothing is replayed.

    Raises
    ------
    ValueError
        If the task's inputs are of another size than those that are replayed.
    """
    if net.replay is None or not net.memory_.inputs:
        return None
    layout = layout_of(net, dataset)
    n_columns = sum(layout.widths)
    others = {one.density.n_columns for one in net.memory_.inputs} - {n_columns}
    if others:
        raise ValueError(
            f"X has {n_columns} numbers per sample, the inputs to be replayed {min(others)}"
        )
    return Teaching(net, layout, rehearsal, net.memory_.weights_of_inputs(len(dataset)))


class Teaching:
    """The replay of old inputs while one task is trained.

    Draws are of a generator of their own: what is drawn depends neither on the batches
    nor on the process, and moves neither their order nor their dropout.

    Parameters
    ----------
    net : EWCNet
        About to be trained.
    layout : Layout
        Of its inputs.
    rehearsal : Rehearsal
        Whose state is the teacher's.
    weights : list of float
        How much each old task counts beside the new one, whose weight is 1.
    """

    def __init__(
        self, net: Any, layout: Layout, rehearsal: Rehearsal, weights: list[float]
    ) -> None:
        self.net, self.layout, self.state = net, layout, rehearsal.state
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.total = float(self.weights.sum())
        self.densities = [one.density for one in net.memory_.inputs]
        task = net.n_tasks_ + 1
        self._draws = task_generator(net.seed_, task, stream=2)
        self._seeds = task_generator(net.seed_, task, stream=4) if rehearsal.is_random else None
        self._block: tuple[Any, Tensor] | None = None
        self._next = 0
        self._losses: list[Tensor] = []
        self._sizes: list[int] = []

    def begin_step(self, n_rows: int) -> None:
        """Take the rows of the next step, which every evaluation of its objective shares."""
        if self._block is None or self._next + n_rows > len(self._block[1]):
            self._block = None  # its memory is free for the next
            at_once = max(n_rows, min(_STEPS_AT_ONCE * n_rows, _ROWS_AT_ONCE))
            self._block, self._next = self._drawn(at_once), 0
        rows = slice(self._next, self._next + n_rows)
        self._next += n_rows
        X = mapped(self._block[0], partial(_copied_rows, rows))
        self._step = X, self._block[1][rows]
        self._seed = None if self._seeds is None else draw_seed(self._seeds)
        self._is_new = True

    @torch.enable_grad()
    def add_gradient(self) -> Tensor:
        """Add the gradient of this step's replayed loss to that of the batch; return the loss."""
        net, (X, target) = self.net, self._step

        def loss_of(output: Tensor, target: Tensor, X: Any) -> Tensor:
            return self.total * net.criterion_(output, target)

        loss, output = accumulate(net, X, target, loss_of, self._seed)
        loss = loss.detach()
        if self._is_new:
            self._is_new = False
            self._losses.append(loss)
            if has_several_units(net):
                shown = loss_by_units(net, output.detach(), target, None, is_shared=True)
                self._losses[-1] = self.total * shown
            self._sizes.append(len(target))
        return loss

    def epoch_loss(self) -> float:
        """Return the mean over the batches since the last call, in the units of y."""
        sizes = torch.tensor(self._sizes, dtype=torch.float64)
        losses = torch.stack(self._losses).double().cpu() if self._losses else sizes
        self._losses, self._sizes = [], []
        mean = float(losses @ sizes / sizes.sum()) if len(sizes) else 0.0
        return mean * unit_of_loss(self.net)

    @torch.no_grad()
    def amounts(self) -> tuple[float, float, float]:
        """Return the replayed loss of the net as it is, as it began, and of outputs all zero.

        On rows of the last block, in evaluation; all 0 if none was drawn.
        """
        if self._block is None:
            return 0.0, 0.0, 0.0
        rows = slice(_ROWS_PER_PASS)
        X, target = mapped(self._block[0], partial(_copied_rows, rows)), self._block[1][rows]
        module = self.net.bare_module_
        args, kwargs = as_arguments(X)
        now, before = module(*args, **kwargs), functional_call(module, self.state, args, kwargs)
        criterion = self.net.criterion_
        factor = self.total / (len(target) if is_sum(criterion) else 1)
        end, start, zero = (
            factor * float(criterion(output, target))
            for output in (now, before, torch.zeros_like(now))
        )
        return end, start, zero

    @torch.no_grad()
    def _drawn(self, n_rows: int) -> tuple[Any, Tensor]:
        """Return inputs in mixed order, and what the teacher says of them."""
        whose = torch.multinomial(self.weights, n_rows, replacement=True, generator=self._draws)
        counts = whose.bincount(minlength=len(self.densities)).tolist()
        drawn = [
            density.draw(count, self._draws).to(self.net.device)
            for density, count in zip(self.densities, counts, strict=True)
            if count
        ]
        order = torch.randperm(n_rows, generator=self._draws).to(self.net.device)
        X = self.layout.inputs(torch.cat(drawn)[order])
        with modes_kept(self.net.bare_module_):
            self.net.bare_module_.eval()
            targets = [self._taught(one) for one in _in_parts(X, n_rows)]
        return X, torch.cat(targets)

    def _taught(self, X: Any) -> Tensor:
        output = functional_call(self.net.bare_module_, self.state, *as_arguments(X))
        return taught(uncompiled(self.net.criterion_), output)


def _in_parts(X: Any, n_rows: int) -> Iterator[Any]:
    """Yield inputs part by part, as copies, for a module that overwrites them."""
    for start in range(0, n_rows, _ROWS_PER_PASS):
        yield mapped(X, partial(_copied_rows, slice(start, start + _ROWS_PER_PASS)))


def _copied_rows(rows: slice, part: Tensor) -> Tensor:
    return part[rows].clone()
