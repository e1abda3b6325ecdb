"""The labels of tasks, one per sample, and the data split by them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import column_or_1d

from .checks import TaskData, naming


def split_by_task(data: TaskData, task: Any) -> list[TaskData]:
    """Return the data of each task, in the order of :func:`rows_by_task`."""
    if data.y is None:
        raise ValueError("a torch Dataset cannot be split by task: learn each by partial_fit")
    tasks = [data.rows(rows) for rows in rows_by_task(task, len(data.y))]
    for one in tasks:
        one.check_weights()
    return tasks


def rows_by_task(task: Any, n_samples: int) -> list[np.ndarray]:
    """Return the row numbers of each task, tasks in the sorted order of their labels.

    An ordered pandas Categorical sorts in the order of its categories. The order
    depends on the labels alone, not on the order of rows, so that every split of
    a cross-validation learns the tasks in the same order.
    """
    categories = _ordered_categories(task)
    # as objects, since numpy would turn a list of numbers and text into text
    with naming("task"):
        labels = column_or_1d(np.asarray(task, dtype=object) if isinstance(task, list) else task)
    if len(labels) != n_samples:
        raise ValueError(f"task has {len(labels)} labels for {n_samples} samples")
    if any(map(_is_missing, labels)):
        raise ValueError("task has missing labels")
    if any(isinstance(label, list | tuple) for label in labels):
        raise ValueError("task must hold one label per sample, not several")
    try:
        known = np.unique(labels) if categories is None else categories
    except TypeError as error:
        raise TypeError(f"the labels in task cannot be sorted: {error}") from error
    rows = [np.flatnonzero(labels == label) for label in known]
    return [index for index in rows if len(index)]


def _is_missing(label: Any) -> bool:
    try:
        return label is None or bool(label != label)
    except TypeError:  # pandas.NA is neither equal nor unequal to itself
        return True


def _ordered_categories(task: Any) -> Any:
    categorical = getattr(task, "cat", task)
    if getattr(categorical, "ordered", False):
        return np.asarray(categorical.categories)
    return None
