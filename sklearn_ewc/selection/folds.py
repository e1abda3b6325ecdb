"""Folds of a cross-validation over tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples

from ..arguments import check_switch, is_count, naming, shown
from ..data.tasks import rows_by_task


class TaskKFold(StratifiedKFold):
    """K folds, each of which holds its share of every task.

    A fold that lacked a task would not show whether it is remembered.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds; every task needs at least as many samples.
    shuffle : bool, default=False
        Whether to shuffle the samples of a task before they are dealt out. Do so
        where neighbours in a task resemble each other but for time series.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_ewc.selection import TaskKFold
    >>> task = np.array(["a", "a", "a", "a", "b", "b"])
    >>> for train, test in TaskKFold(2).split(np.zeros((6, 1)), groups=task):
    ...     print(task[test])
    ['a' 'a' 'b']
    ['a' 'a' 'b']
    """

    # groups are what it splits by; scikit-learn asks this where metadata are routed
    __metadata_request__split = {"groups": True}

    def __init__(
        self, n_splits: int = 5, *, shuffle: bool = False, random_state: Any = None
    ) -> None:
        if not (is_count(n_splits) and n_splits >= 2):
            raise ValueError(f"n_splits must be an integer >= 2, got {shown(n_splits)}")
        check_switch("shuffle", shuffle)
        with naming("random_state"):
            check_random_state(random_state)
        super().__init__(n_splits, shuffle=shuffle, random_state=random_state)

    def split(
        self, X: Any, y: Any = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows of training and test set of every fold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored
        groups : array-like of shape (n_samples,)
            The task of every sample.

        Yields
        ------
        train, test : ndarray
            Row numbers.

        Raises
        ------
        ValueError, TypeError
            If the groups are no labels, one a sample, or no task has a sample for
            every fold.
        """
        if groups is None:
            raise ValueError("TaskKFold needs groups, the task of every sample")
        with naming("X"):
            n_samples = _num_samples(X)
        tasks = rows_by_task(groups, n_samples, "groups")
        check_fills_folds(tasks, self.n_splits, "groups", "n_splits")
        codes = np.empty(n_samples, dtype=int)
        for code, rows in enumerate(tasks):
            codes[rows] = code
        return super().split(X, codes)


def check_fills_folds(tasks: list[np.ndarray], n_splits: int, labels: str, number: str) -> None:
    """Raise ValueError if no task has a row for every fold; errors name labels and number."""
    most = max(map(len, tasks), default=0)
    if n_splits > most:
        raise ValueError(
            f"{number} is {shown(n_splits)}, but no label in {labels} has more than {most} samples"
        )
