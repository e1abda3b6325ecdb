"""A task as it arrives at a net: its data checked and split, the callbacks told."""

from __future__ import annotations

from typing import Any

from skorch.callbacks import PassthroughScoring
from skorch.callbacks.scoring import ScoringBase

from ..arguments import naming
from ..data.batches import WeightedDataset
from ..data.checks import TaskData, checked_data, features_and_dtype
from .building import check_made, check_module_settings
from .history import TaskHistory


def checked_task(net: Any, X: Any, y: Any, sample_weight: Any, first: bool) -> TaskData:
    """Return the data of a task, checked; the first task decides on targets and dtype."""
    built = net.__sklearn_is_fitted__() and (not first or net.n_tasks_ == 0)
    if built:
        check_module_settings(net)
    data = checked_data(net, X, y, sample_weight, dtype=net.dtype_ if built else None, first=first)
    if not first:
        net.targets_.check(data.target, type(net).__name__)
        return data
    net.targets_ = net.targets_kind.of(data.target)
    if data.y is None:
        n_features, dtype = features_and_dtype(data.X)
        net.__dict__.update({} if n_features is None else {"n_features_in_": n_features})
    else:
        dtype = data.y.dtype
    if not built:
        net.dtype_ = dtype
    return data


def check_weighing(net: Any) -> None:
    """Raise ValueError if the memory's sums are in other units than those of the next task."""
    weigh_by = net.memory_.weigh_by
    if net.n_tasks_ > 0 and net.weigh_by != weigh_by:
        raise ValueError(
            f"weigh_by is {net.weigh_by!r}, but the tasks learned were weighed by {weigh_by!r}, "
            "and their sum cannot be turned into the other: set it back; only fit can put it "
            "into effect"
        )


def split_task(net: Any, data: TaskData) -> tuple[Any, Any]:
    """Return the datasets for training and validation, with their weights if there are any."""
    X = data.X
    if data.sample_weight is not None:
        X = WeightedDataset(net.get_dataset(data.X, data.y), data.sample_weight)
    if net.train_split is None:
        return net.get_split_datasets(X, data.y)
    with naming("train_split"):
        train, valid = net.get_split_datasets(X, data.y)
        check_made(net, "train_split", train, "__len__", "__getitem__")
    return train, valid


def begin_task(net: Any, data: TaskData) -> None:
    """Tell the callbacks, so that schedules and best scores start over with the task.

    skorch's own would resume: they look back into the history, so they get to see an
    empty one. One that a callback loads takes its place.
    """
    if not isinstance(net.history_, TaskHistory):  # skorch's, put there by a user
        net.history_ = TaskHistory(net.history_)
    net.history_.begin_task(keeps_rows=net.store_tasks)
    for _, callback in net.callbacks_:
        if isinstance(callback, ScoringBase | PassthroughScoring):
            callback.initialize()
    history, empty = net.history_, TaskHistory()
    net.history_ = empty
    try:
        net.notify("on_train_begin", X=data.X, y=data.y)
    finally:
        if net.history_ is empty:
            net.history_ = history
