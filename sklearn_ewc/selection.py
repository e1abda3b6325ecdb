"""Choosing λ: by cross-validation over all tasks, or from a new task and the memory alone."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.utils.validation import _num_samples

from .data.checks import checked_data
from .data.tasks import rows_by_task
from .training.settings import check_not_negative
from .wrapped import name_of_lambda

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
        n_samples = _num_samples(X)
        codes = np.empty(n_samples, dtype=int)
        for code, rows in enumerate(rows_by_task(groups, n_samples)):
            codes[rows] = code
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
        If `estimator` has no parameter `ewc_lambda`, or more than one; if a λ is
        negative or not finite, or a sample has no task.
    TypeError
        If an argument is of another kind.

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
    if isinstance(estimator, type) or not hasattr(estimator, "get_params"):
        raise TypeError(f"estimator must be an estimator, got {estimator!r}")
    name = name_of_lambda(estimator.get_params(), "estimator")
    if cv is None:  # GridSearchCV's own default would ignore the tasks
        raise TypeError("cv must be a number of folds or a splitter, got None")
    splitter = TaskKFold(cv, shuffle=True, random_state=0) if isinstance(cv, Integral) else cv
    search = GridSearchCV(
        estimator,
        {name: list(_checked_lambdas(lambdas))},
        scoring=scoring,
        cv=splitter,
        n_jobs=n_jobs,
    )
    is_routed = get_config()["enable_metadata_routing"]
    prefix = "" if is_routed else name.removesuffix("ewc_lambda")
    return search.fit(X, y, groups=task, **{f"{prefix}task": task})


@dataclass(frozen=True)
class LambdaEstimate:
    """What each λ costs a new task and, by the memory's estimate, the old ones.

    Attributes
    ----------
    lambdas : tuple of float
        The candidates.
    errors : ndarray of shape (n_lambdas,)
        The criterion on the held-out part of the new task.
    penalties : ndarray of shape (n_lambdas,)
        The memory's penalty, without λ, at the parameters that were learned: by
        how much the criterion has grown on the old tasks, summed, to second order.
    """

    lambdas: tuple[float, ...]
    errors: np.ndarray
    penalties: np.ndarray

    @property
    def best(self) -> float:
        """The λ of the least sum of `errors` and `penalties`."""
        return self.lambdas[int(np.argmin(self.errors + self.penalties))]


def estimate_lambda(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    *,
    lambdas: Sequence[float] = LAMBDAS[1:],
    validation_size: float = 0.25,
    random_state: int = 0,
) -> LambdaEstimate:
    """Choose `ewc_lambda` for a new task when the data of the old tasks are gone.

    A copy learns the new task, but for a held-out part, at each λ. The λ chosen
    has the least sum of two errors: the new task's on the held-out part, and what
    the old tasks are estimated to have lost. Since the Fisher is in the units of
    the criterion, the second is the memory's penalty itself. Over the four
    scenarios of ``examples/benchmarks/lambda_rules.py`` this did better than any
    λ that is the same for all.

    Parameters
    ----------
    estimator : EWCRegressor
        Has learned at least one task. Not changed. Of a pipeline, its last step;
        then X is what the steps before make of the inputs.
    X, y
        The new task, as for ``partial_fit``; arrays.
    lambdas : sequence of float, default=(0.1, 1, 3, 10, 30, 100, 1000)
        The candidates. Each costs one task's training.
    validation_size : float, default=0.25
        Part of the new task that is held out.
    random_state : int, default=0
        Seed of the split.

    Returns
    -------
    LambdaEstimate
        ``best`` is the λ to set before ``partial_fit(X, y)``.

    Raises
    ------
    ValueError
        If the estimator has learned no task yet, a λ is negative or not finite, or
        the data mean nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_ewc import EWCRegressor, estimate_lambda
    >>> X = np.linspace(-2, 2, 200).reshape(-1, 1)
    >>> y, left = np.sin(2 * X.ravel()), X.ravel() < 0
    >>> net = EWCRegressor(lr=0.01, max_epochs=60, random_state=0)
    >>> net = net.partial_fit(X[left], y[left])
    >>> estimate = estimate_lambda(net, X[~left], y[~left], lambdas=[0.01, 1, 1000])
    >>> estimate.best
    1
    >>> net.set_params(ewc_lambda=estimate.best).partial_fit(X[~left], y[~left]).n_tasks_
    2
    """
    if getattr(estimator, "n_tasks_", 0) == 0:
        raise ValueError("estimator has learned no task yet, so there is nothing for λ to weigh")
    lambdas = _checked_lambdas(lambdas)
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    # all of it, since partial_fit does not see the held-out part
    checked_data(estimator, X, y, None, dtype=estimator.dtype_, first=False)
    X_train, X_valid, y_train, y_valid = train_test_split(
        X, y, test_size=validation_size, random_state=random_state
    )
    errors, penalties = [], []
    for ewc_lambda in lambdas:
        trial = copy.deepcopy(estimator).set_params(ewc_lambda=ewc_lambda)
        trial.partial_fit(X_train, y_train)
        errors.append(_criterion(trial, X_valid, y_valid))
        parameters = trial.module_.named_parameters()
        penalties.append(float(estimator.memory_.penalty(parameters).detach()))
    return LambdaEstimate(lambdas, np.array(errors), np.array(penalties))


def _criterion(net: Any, X: Any, y: ArrayLike) -> float:
    """Return the criterion of a net on data, in evaluation mode."""
    with torch.no_grad():
        output = net.forward(np.asarray(X, dtype=net.dtype_))
        target = torch.from_numpy(np.array(y, dtype=net.dtype_))  # a copy: pandas' are read-only
        return float(net.get_loss(output.to(net.device), target))


def _checked_lambdas(lambdas: Sequence[float]) -> tuple[float, ...]:
    if not isinstance(lambdas, Iterable) or isinstance(lambdas, str):
        raise TypeError(f"lambdas must be a sequence of numbers, got {lambdas!r}")
    checked = tuple(lambdas)
    if not checked:
        raise ValueError("lambdas is empty")
    for position, ewc_lambda in enumerate(checked):
        check_not_negative(f"lambdas[{position}]", ewc_lambda)
    return checked
