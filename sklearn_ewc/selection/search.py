"""Choosing λ by cross-validation, where the data of all tasks are at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn import get_config
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, check_cv
from sklearn.utils import indexable
from sklearn.utils.validation import _num_samples, has_fit_parameter
from skorch.helper import SliceDict
from torch import Tensor

from ..arguments import check_verbose, is_integer, naming, shown
from ..data.arrays import check_not_masked, on_host
from ..data.tasks import rows_by_task
from ..evaluate.arguments import check_scorer
from ..progress import Progress
from ..wrapped import name_of_lambda
from .candidates import LAMBDAS, checked_lambdas
from .folds import TaskKFold, check_fills_folds


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
    verbose: int = 0,
) -> GridSearchCV:
    """Choose `ewc_lambda` by cross-validation, where the data of all tasks are at hand.

    One call for what :class:`~sklearn.model_selection.GridSearchCV` does with an
    :class:`~sklearn_ewc.EWCRegressor` or what is around it, pipelines and regressors
    of a transformed target in any nesting: every candidate learns the tasks one
    after another from the training part of each, and is scored on the rest of all
    of them.

    Parameters
    ----------
    estimator : estimator
        With a parameter `ewc_lambda`, its own or that of a step inside. Not
        changed.
    X : array-like of shape (n_samples, n_features), or dict of arrays
        Inputs of all tasks.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Targets.
    task : array-like of shape (n_samples,)
        The task of every sample; learned in sorted order, see
        :meth:`EWCRegressor.fit <sklearn_ewc.EWCRegressor.fit>`.
    lambdas : sequence of float, default=(0, 0.1, 1, 3, 10, 30, 100, 1000)
        The candidates. 0 is among them, since no penalty is best where one
        function holds for all tasks.
    cv : int, splitter or iterable, default=3
        A number of folds for a shuffled :class:`TaskKFold` (the same folds at
        every call), a splitter that takes the tasks as `groups`, or pairs of row
        numbers, for training and for the test.
    scoring : str, callable or None, default=None
        As in GridSearchCV; None is R² over the samples of all tasks.
    n_jobs : int, default=None
        Number of processes.
    verbose : int, default=0
        1 prints a line after each training: the candidate, its score on a fold, the
        time since the start and about what is left.

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
        negative or not finite, a sample has no task, or values are masked.
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
    candidates = checked_lambdas(lambdas)
    splitter = _splitter(cv)
    check_scorer(scoring)
    _check_jobs(n_jobs)
    check_verbose("verbose", verbose)
    X, y = _sliceable("X", X), _sliceable("y", y)
    with naming("X"):
        n_samples = _num_samples(X)
    with naming("X and y"):
        X, y = indexable(X, y)
    tasks = rows_by_task(task, n_samples)
    if is_integer(cv):
        check_fills_folds(tasks, cv, "task", "cv")
    search = GridSearchCV(
        estimator,
        {name: list(candidates)},
        scoring=scoring,
        cv=splitter,
        n_jobs=n_jobs,
    )
    is_routed = get_config()["enable_metadata_routing"]
    of_task = "task" if is_routed else _name_of_task(estimator, name)
    metadata = {"groups": task, of_task: task}
    if not verbose:
        return search.fit(X, y, **metadata)
    return _fitted_aloud(search, X, y, metadata, verbose)


def _name_of_task(estimator: Any, name: str) -> str:
    """Return the name by which ``fit`` takes the tasks of the net with the parameter `name`.

    What takes no `task` itself hands it on: a Pipeline by the name of the step,
    others as it is.
    """
    part, _, rest = name.partition("__")
    if not rest or has_fit_parameter(estimator, "task"):
        return "task"
    inner = _name_of_task(estimator.get_params()[part], rest)
    return f"{part}__{inner}" if hasattr(estimator, "steps") else inner


def _splitter(cv: Any) -> Any:
    """Return what makes the folds; None is refused, since GridSearchCV would ignore the tasks."""
    if is_integer(cv):
        with naming("cv"):
            return TaskKFold(cv, shuffle=True, random_state=0)
    if hasattr(cv, "get_n_splits") and not isinstance(cv, type):
        return cv
    with naming("cv"):
        folds = list(cv) if isinstance(cv, Iterable) else []
    if not folds or not all(isinstance(fold, tuple | list) and len(fold) == 2 for fold in folds):
        raise TypeError(f"cv must be a number of folds, a splitter or pairs, got {shown(cv)}")
    return folds


def _check_jobs(n_jobs: Any) -> None:
    is_number = is_integer(n_jobs) and 0 < abs(n_jobs) <= np.iinfo(np.intc).max
    if not (n_jobs is None or is_number):
        raise ValueError(f"n_jobs must be None or an integer other than 0, got {shown(n_jobs)}")


def _sliceable(name: str, data: Any) -> Any:
    """Return data whose rows scikit-learn can take: of a dict it would take the keys."""
    with naming(name):
        check_not_masked(data)
        if isinstance(data, Tensor):
            return on_host(data)
        if not isinstance(data, Mapping) or isinstance(data, SliceDict) or issparse(data):
            return data
        arrays = {
            key: value if isinstance(value, np.ndarray | Tensor) else np.atleast_1d(value)
            for key, value in data.items()
        }
        return SliceDict(**arrays)


def _fitted_aloud(
    search: GridSearchCV, X: Any, y: Any, metadata: dict[str, Any], verbose: int
) -> GridSearchCV:
    """Fit a search, with a line after each training."""
    ((name, candidates),) = search.param_grid.items()
    search.cv = check_cv(search.cv)
    n_fits = len(candidates) * search.cv.get_n_splits(X, y, metadata["groups"])
    progress = Progress(f"search_lambda: {n_fits + 1} trainings", n_fits + 1, verbose)
    scoring, scorer = search.scoring, check_scoring(search.estimator, search.scoring)
    search.scoring = _Telling(scorer, name, candidates, progress)
    search.fit(X, y, **metadata)
    progress.finished = n_fits
    progress.done(f"best λ = {search.best_params_[name]:g}, on all samples")
    search.scoring, search.scorer_ = scoring, scorer
    return search


class _Telling:
    """A scorer that tells of every score, in whatever process it is found."""

    def __init__(self, scorer: Any, name: str, candidates: list[float], progress: Progress) -> None:
        self.scorer = scorer
        self.name = name
        self.candidates = candidates
        self.progress = progress

    def __call__(self, estimator: Any, X: Any, y: Any) -> Any:
        score = self.scorer(estimator, X, y)
        ewc_lambda = estimator.get_params()[self.name]
        # a copy in another process has not seen what was scored elsewhere
        n_folds = self.progress.total // len(self.candidates)
        earlier = self.candidates.index(ewc_lambda) * n_folds
        self.progress.finished = max(self.progress.finished, earlier)
        shown = f"{score:.3g}" if isinstance(score, Real) else score
        self.progress.done(f"λ = {ewc_lambda:g}: {shown}")
        return score
