"""Folds of a cross-validation over tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.validation import _num_samples

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
        """
        if groups is None:
            raise ValueError("TaskKFold needs groups, the task of every sample")
        n_samples = _num_samples(X)
        codes = np.empty(n_samples, dtype=int)
        for code, rows in enumerate(rows_by_task(groups, n_samples)):
            codes[rows] = code
        return super().split(X, codes)
