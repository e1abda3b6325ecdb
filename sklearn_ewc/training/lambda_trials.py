"""A new task tried at several λ, on copies of a net: what each λ costs it and the old tasks."""

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
from .history import TaskHistory
from .steps import targets

# what these do is part of how a net is trained, and reaches nothing but the net
SHAPING = (EarlyStopping, GradientNormClipping, LRScheduler, ParamMapper, PassthroughScoring)


def trials(
    net: Any, data: TaskData, lambdas: Iterable[float], validation_size: float, random_state: int
) -> Iterator[tuple[float, float]]:
    """Learn a part of a new task at one λ after another, each time with a copy of a net.

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
        trial = _trial(net, ewc_lambda)
        try:
            trial._learn_task(train)
        except FloatingPointError:
            yield math.inf, math.inf
        else:
            penalty = net.memory_.penalty(dict(trial.bare_module_.named_parameters()))
            yield _criterion(trial, valid), float(penalty.detach())


def _trial(net: Any, ewc_lambda: float) -> Any:
    """Return a copy of a net for one trial."""
    memo = {id(one): one for one in (net.memory_, net.accelerator, net.callbacks, net.callbacks_)}
    memo[id(net.history_)] = TaskHistory(net.history_)  # nobody writes into old rows
    _copy_modules(net, memo)
    trial = twin(net, memo)
    trial.callbacks_ = [(name, _silent(twin(one, memo))) for name, one in _shaping(net.callbacks_)]
    # what the trial itself would remember is not asked for: the cheapest Fisher will do
    vars(trial).update(ewc_lambda=ewc_lambda, verbose=0, fisher="batch")
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


def _criterion(net: Any, data: TaskData) -> float:
    """Return the mean criterion of a net on data, in evaluation mode."""
    dataset = net.get_dataset(data.X, data.y)
    if data.sample_weight is not None:
        dataset = WeightedDataset(dataset, data.sample_weight)
    loss = total = 0.0
    with torch.no_grad():
        for X, y, *weight in net.get_iterator(dataset, training=False):
            weights = to_tensor(weight[0], device=net.device) if weight else None
            output = net.evaluation_step((X, y))
            loss += float(total_loss(net.criterion_, output, targets(net, y), weights))
            total += len(y) if weights is None else float(weights.sum())
    return loss / total
