"""The labels of tasks, one per sample, and the data split by them."""

from __future__ import annotations

import re
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.utils.validation import column_or_1d

from ..arguments import naming
from .arrays import on_host
from .checks import TaskData
from .rows import check_no_dataset


def split_by_task(data: TaskData, task: Any) -> list[TaskData]:
    """Return the data of each task, in the order of :func:`rows_by_task`."""
    check_no_dataset(data.X)
    tasks = [data.rows(rows) for _, rows in tasks_to_learn(task, len(data.target))]
    for one in tasks:
        one.check_weights()
    return tasks


def tasks_to_learn(task: Any, n_samples: int) -> list[tuple[Any, np.ndarray]]:
    """Return label and row numbers of each task, in the order of :func:`rows_by_task`.

    Warns
    -----
    UserWarning
        If the labels are text without an order of their own, and the rows, task
        after task, stand in another order. Rows in which the tasks are mixed have
        none.
    """
    rows, labels = rows_by_task(task, n_samples), _labels(task)
    learned = [labels[index[0]] for index in rows]
    order = _order_of_rows(rows)
    if order != sorted(order) and _ordered_categories(task) is None and _is_text(learned):
        found = [learned[position] for position in order]
        warnings.warn(
            f"task: the labels are text, so the tasks are learned in the order {_listed(learned)}, "
            f"but the rows have them in the order {_listed(found)}. If that is meant, number the "
            "tasks, or pass pandas.Categorical(task, categories=list(dict.fromkeys(task)), "
            "ordered=True)",
            UserWarning,
            stacklevel=2,
        )
    return list(zip(learned, rows, strict=True))


def rows_by_task(task: Any, n_samples: int, name: str = "task") -> list[np.ndarray]:
    """Return the row numbers of each task, tasks in the order of their labels.

    Numbers, dates and the like have their own order; so have an ordered pandas
    Categorical and a polars Enum, that of their categories. Text sorts by the
    alphabet, but numbers in it count as numbers: "task 2" comes before "task 10".
    The order depends on the labels alone, not on the order of rows, so that every
    split of a cross-validation learns the tasks in the same order. Errors call the
    labels by their `name`.
    """
    categories = _ordered_categories(task)
    labels = _labels(task, name)
    if len(labels) != n_samples:
        raise ValueError(f"{name} has {len(labels)} labels for {n_samples} samples")
    if any(map(_is_several, labels)):
        raise ValueError(f"{name} must hold one label per sample, not several")
    if any(map(is_missing, labels)):
        raise ValueError(f"{name} has missing labels")
    try:
        known = np.unique(labels) if categories is None else categories
    except TypeError as error:
        raise TypeError(f"the labels in {name} cannot be sorted: {error}") from error
    if categories is None and _is_text(known):
        known = sorted(known, key=_natural)
    rows = [np.flatnonzero(labels == label) for label in known]
    return [index for index in rows if len(index)]


def _is_several(label: Any) -> bool:
    return isinstance(label, list | tuple) or np.ndim(label) > 0


def is_missing(value: Any) -> bool:
    """Whether a label or a category stands for none: None, NaN, NaT, pandas.NA."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA is neither equal nor unequal to itself
        return True


def _labels(task: Any, name: str = "task") -> np.ndarray:
    # as objects, since numpy would turn a list of numbers and text into text
    with naming(name):
        task = on_host(task)
        return column_or_1d(np.asarray(task, dtype=object) if isinstance(task, list) else task)


def _ordered_categories(task: Any) -> Any:
    categorical = getattr(task, "cat", task)
    if getattr(categorical, "ordered", False):
        return np.asarray(categorical.categories)
    dtype: Any = getattr(task, "dtype", None)
    if type(dtype).__name__ == "Enum":  # of polars
        return np.asarray(dtype.categories, dtype=object)
    return None


def _is_text(labels: Any) -> bool:
    return all(isinstance(label, str) for label in labels)


def _natural(label: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Return a key that sorts text by its letters and by the numbers in it, which come first."""
    parts = re.findall(r"\d+|\D+", label)
    return [
        (False, int(part), "") if part.isdecimal() else (True, 0, part) for part in parts
    ], label


def _order_of_rows(rows: list[np.ndarray]) -> list[int]:
    """Return the positions of the tasks as their rows lie one after another.

    They lie so if the middle halves of their rows do not overlap, so that a few
    strays change nothing. Where they do overlap, the tasks stay in their order.
    """
    middle = [np.percentile(index, (25, 75)) for index in rows]
    order = sorted(range(len(rows)), key=lambda position: middle[position][0])
    apart = all(middle[one][1] < middle[other][0] for one, other in pairwise(order))
    return order if apart else sorted(order)


def _listed(labels: list[Any]) -> str:
    shown = [repr(str(label)) for label in labels[:6]]
    return ", ".join(shown + ["…"] * (len(labels) > 6))
