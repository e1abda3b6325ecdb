"""A new task tried at several λ, on copies of a net: what each λ costs it and the old tasks.

A trial only trains: it takes no curvature, consolidates nothing and writes nothing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from skorch.callbacks import (
    EarlyStopping,
    GradientNormClipping,
    LRScheduler,
    ParamMapper,
    PassthroughScoring,
)
from skorch.callbacks.scoring import ScoringBase
from skorch.utils import noop, to_tensor
from torch import Tensor, nn

from ..arguments import naming
from ..copying import twin
from ..curvature.criterion import total_loss
from ..data.batches import WeightedDataset
from ..data.checks import TaskData
from ..tensors import leaves
from .arrival import split_task
from .estimate import check_ended
from .history import TaskHistory
from .interrupts import stoppable
from .steps import targets

# what these do is part of how a net is trained, and reaches nothing but the net
SHAPING = (EarlyStopping, GradientNormClipping, LRScheduler, ParamMapper, PassthroughScoring)


def trials(
    net: Any, data: TaskData, lambdas: Iterable[float], validation_size: float, random_state: int
) -> Iterator[tuple[float, float]]:
    """Train on a part of a new task at one λ after another, each time with a copy of a net.

    A copy is silent, and has of the callbacks those that shape training (`SHAPING`
    and what is derived from them, and the scores that these may look at). Others
    may write files or talk to a server, and stay out.

    Parameters
    ----------
    net : EWCNet
        Has learned a task at least. Not changed.
    data : TaskData
        The new task, checked.
    lambdas : iterable of float
    validation_size : float
        The part of the task that is held out.
    random_state : int
        Seed of the split.

    Yields
    ------
    error : float
        The criterion on the held-out part, as the net is trained on it.
    penalty : float
        The memory's penalty, without λ, where training ended. Both are infinite
        if it diverged.
    """
    with naming("random_state"):
        check_random_state(random_state)
    with naming("validation_size"):
        rows, held_out = train_test_split(
            np.arange(data.n_samples), test_size=validation_size, random_state=random_state
        )
    train, valid = data.rows(rows), data.rows(held_out)
    valid.check_weights()
    for ewc_lambda in lambdas:
        yield _cost(_trial(net), ewc_lambda, train, valid)


def path(
    net: Any, train: TaskData, valid: TaskData, lambdas: Iterable[float], share: float
) -> Iterator[tuple[float, float]]:
    """Train one copy of a net at one λ after another, each where the last one ended.

    Where a λ leads from the end of a larger one takes few epochs.

    Parameters
    ----------
    net : EWCNet
        Has learned a task at least. Not changed.
    train, valid : TaskData
        What to train on, and what is held out.
    lambdas : iterable of float
        From large to small: the net then starts where the large ones hold it.
    share : float
        The part of a task's epochs that all of them have together, each as many.

    Yields
    ------
    error, penalty : float
        As :func:`trials`. After a divergence the next λ starts from the net anew.
    """
    lambdas = tuple(lambdas)
    trial = _trial(net)
    for ewc_lambda in lambdas:
        error, penalty = _cost(trial, ewc_lambda, train, valid, share / len(lambdas))
        if not math.isfinite(error + penalty):
            trial = _trial(net)
        yield error, penalty


def _cost(
    trial: Any, ewc_lambda: float, train: TaskData, valid: TaskData, share: float = 1.0
) -> tuple[float, float]:
    """Train a trial; return its error on held-out data and the memory's penalty."""
    vars(trial).update(ewc_lambda=ewc_lambda)
    try:
        trained = trial._train_task(train, *split_task(trial, train), share)
        with stoppable():
            trial.notify("on_train_end", X=train.X, y=train.y)
        check_ended(trial, trained, _criterion(trial, trained.dataset))
    except FloatingPointError:
        return math.inf, math.inf
    penalty = trained.penalty.quadratic(dict(trial.bare_module_.named_parameters()))
    return _criterion(trial, _dataset(trial, valid)), float(penalty.detach())


def _trial(net: Any) -> Any:
    """Return a copy of a net that is silent."""
    memo = {id(one): one for one in (net.memory_, net.accelerator, net.callbacks, net.callbacks_)}
    memo[id(net.history_)] = TaskHistory(net.history_)  # nobody writes into old rows
    _copy_modules(net, memo)
    trial = twin(net, memo)
    trial.callbacks_ = [(name, _silent(twin(one, memo))) for name, one in _shaping(net.callbacks_)]
    vars(trial).update(verbose=0)
    return trial


def _copy_modules(net: Any, memo: dict[int, Any]) -> None:
    """Enter copies of a net's modules and criteria, which its own copy must not share with it."""
    parts = [getattr(net, f"{name}_") for name in net._modules + net._criteria]
    # what a module keeps of a forward pass, such as an attention, torch would refuse to copy
    memo.update((id(one), one.detach()) for one in _tensors_in(parts) if not one.is_leaf)
    try:
        copy.deepcopy(parts, memo)
    except Exception as error:
        raise TypeError(f"λ is tried on copies, and module cannot be copied: {error}") from error


def _tensors_in(parts: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among the attributes of modules, and in containers there."""
    modules = chain.from_iterable(part.modules() for part in parts if isinstance(part, nn.Module))
    for module in modules:
        yield from (one for one in leaves(vars(module)) if isinstance(one, Tensor))


def _shaping(callbacks: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return the callbacks that shape training, and the scores that these may look at."""
    callbacks = list(callbacks)
    shaping = [callback for _, callback in callbacks if isinstance(callback, SHAPING)]
    return [
        (name, callback)
        for name, callback in callbacks
        if isinstance(callback, SHAPING)
        or (
            isinstance(callback, ScoringBase)
            and any(_may_look_at(callback.name_, reader) for reader in shaping)
        )
    ]


def _may_look_at(score: str, callback: Any) -> bool:
    looks_at = (getattr(callback, name, None) for name in ("monitor", "at", "schedule"))
    return any(one.startswith(score) if isinstance(one, str) else callable(one) for one in looks_at)


def _silent(callback: Any) -> Any:
    if hasattr(callback, "sink"):
        callback.sink = noop
    return callback


def _dataset(net: Any, data: TaskData) -> Any:
    dataset = net.get_dataset(data.X, data.y)
    weights = data.sample_weight
    return dataset if weights is None else WeightedDataset(dataset, weights)


def _criterion(net: Any, dataset: Any) -> float:
    """Return the mean criterion of a net on a dataset, in evaluation mode."""
    loss = total = 0.0
    with torch.no_grad():
        for X, y, *weight in net.get_iterator(dataset, training=False):
            weights = to_tensor(weight[0], device=net.device) if weight else None
            output = net.evaluation_step((X, y))
            loss += float(total_loss(net.criterion_, output, targets(net, y), weights))
            total += len(y) if weights is None else float(weights.sum())
    return loss / total if total else math.nan
