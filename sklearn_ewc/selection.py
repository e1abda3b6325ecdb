"""Choosing λ by cross-validation over all tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.model_selection import GridSearchCV, StratifiedKFold

LAMBDAS = (0.0, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)


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
        _, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        return super().split(X, codes)


def search_lambda(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    task: ArrayLike,
    *,
    lambdas: Sequence[float] = LAMBDAS,
    cv: Any = 3,
    scoring: Any = None,
    n_jobs: int | None = None,
) -> GridSearchCV:
    """Choose `ewc_lambda` by cross-validation, where the data of all tasks are at hand.

    One call for what :class:`~sklearn.model_selection.GridSearchCV` does with an
    :class:`~sklearn_ewc.EWCRegressor` or a pipeline around it: every candidate
    learns the tasks one after another from the training part of each, and is
    scored on the rest of all of them.

    Parameters
    ----------
    estimator : estimator
        With a parameter `ewc_lambda`, its own or that of a step inside. Not
        changed.
    X : array-like of shape (n_samples, n_features)
        Inputs of all tasks.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Targets.
    task : array-like of shape (n_samples,)
        The task of every sample; learned in sorted order, see
        :meth:`EWCRegressor.fit <sklearn_ewc.EWCRegressor.fit>`.
    lambdas : sequence of float, default=(0, 0.1, 1, 3, 10, 30, 100, 1000)
        The candidates. 0 is among them, since no penalty is best where one
        function holds for all tasks.
    cv : int or splitter, default=3
        A number of folds for a shuffled :class:`TaskKFold` (the same folds at
        every call), or a splitter that takes the tasks as `groups`.
    scoring : str, callable or None, default=None
        As in GridSearchCV; None is R² over the samples of all tasks.
    n_jobs : int, default=None
        Number of processes.

    Returns
    -------
    GridSearchCV
        Fitted; ``best_params_``, ``best_estimator_`` (which has learned all
        tasks), ``cv_results_``.

    Notes
    -----
    With metadata routing on, say ``set_fit_request(task=True)`` on the
    EWCRegressor first.

    Raises
    ------
    ValueError
        If `estimator` has no parameter `ewc_lambda`, or more than one.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_ewc import EWCRegressor, search_lambda
    >>> X = np.linspace(-2, 2, 120).reshape(-1, 1)
    >>> y, task = np.sin(2 * X.ravel()), (X.ravel() > 0).astype(int)
    >>> net = EWCRegressor(max_epochs=20, random_state=0)
    >>> search = search_lambda(net, X, y, task, lambdas=[0, 30])
    >>> sorted(search.best_params_)
    ['ewc_lambda']
    >>> search.best_estimator_.n_tasks_
    2
    """
    names = [name for name in estimator.get_params() if name.split("__")[-1] == "ewc_lambda"]
    if len(names) != 1:
        raise ValueError(f"estimator must have one parameter ewc_lambda, found {names or 'none'}")
    (name,) = names
    splitter = TaskKFold(cv, shuffle=True, random_state=0) if isinstance(cv, int) else cv
    search = GridSearchCV(
        estimator, {name: list(lambdas)}, scoring=scoring, cv=splitter, n_jobs=n_jobs
    )
    is_routed = get_config()["enable_metadata_routing"]
    prefix = "" if is_routed else name.removesuffix("ewc_lambda")
    return search.fit(X, y, groups=task, **{f"{prefix}task": task})
