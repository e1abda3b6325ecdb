"""λ chosen for a task before it is trained, from the task and the memory alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.checks import TaskData
from ..progress import Progress
from .epochs import AUTO, n_epochs
from .lambda_trials import path
from .seeding import task_seed

LAMBDAS = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3)
SHARE = 0.6  # of the epochs of a task, for all of them together
TOLERANCE = 1.1  # the memory sees the least of what is lost: its quadratic holds nearby only
HELD_OUT = 0.25
FEWEST_SAMPLES = 8  # two of them held out; of fewer one had better train on all
UNKNOWN = 3.0  # the best of those that are the same for all, see examples/benchmarks


def lambda_for(net: Any, data: TaskData, dataset: Any) -> float:
    """Return the λ to train a task under: as it is set, or chosen for the task.

    A copy of the net trains on a part of the task, down a path of λ from large to
    small, and what each leads to is the error on the rest of the task plus what the
    old tasks lose by the memory's estimate. The largest λ is taken whose sum is at
    most a tenth above the least. Where there is nothing to weigh, before the second
    task and with all weights zero, λ is 0; and so it is where the inputs of all old
    tasks are replayed, since they count already. Where there is too little to judge by,
    it is 3: in a small task, or one of so few epochs that they do not suffice for every λ.

    Parameters
    ----------
    net : EWCNet
    data : TaskData
        The task.
    dataset : Dataset
        What of it is to be trained on.

    Returns
    -------
    float

    Raises
    ------
    FloatingPointError
        If training diverges at every λ.
    """
    if net.ewc_lambda != AUTO:
        return float(net.ewc_lambda)
    memory = net.memory_
    if memory.quadratic.curvature.trace() == 0:
        return 0.0
    if net.replay is not None and len(memory.inputs) == memory.n_tasks:
        return 0.0
    if data.sample_weight is not None:
        data = data.rows(np.flatnonzero(data.sample_weight))
    n_for_all = SHARE * n_epochs(net, net.get_iterator(dataset, training=True))
    if data.n_samples < FEWEST_SAMPLES or n_for_all < len(LAMBDAS) / 2:
        return UNKNOWN
    train, valid = _split(net, data)
    task = net.n_tasks_ + 1
    is_told = net.verbose and net.processes_.is_first
    progress = Progress(f"λ of task {task}: {len(LAMBDAS)} short trainings", len(LAMBDAS), is_told)
    sums = []
    results = path(net, train, valid, LAMBDAS, SHARE)
    for ewc_lambda, (error, penalty) in zip(LAMBDAS, results, strict=True):
        sums.append(error + penalty)
        progress.done(f"λ = {ewc_lambda:g}: error {error:.3g}, penalty {penalty:.3g}")
    if not np.isfinite(sums).any():
        raise FloatingPointError(f"training diverged at each of the λ {LAMBDAS}; lower lr")
    return LAMBDAS[net.processes_.agreed(_largest_near_the_least(np.array(sums)), net.device)]


def _largest_near_the_least(sums: np.ndarray) -> int:
    """Return the first position, of λ from large to small, whose sum is near the least."""
    least = np.nanmin(sums)
    return int(np.argmax(sums <= least + (TOLERANCE - 1) * abs(least)))


def _split(net: Any, data: TaskData) -> tuple[TaskData, TaskData]:
    """Return what to train on and what to hold out."""
    seed = task_seed(net.seed_, net.n_tasks_ + 1, stream=5)
    order = np.random.default_rng(seed).permutation(data.n_samples)
    held_out, rows = np.split(order, [round(HELD_OUT * data.n_samples)])
    return data.rows(rows), data.rows(held_out)
