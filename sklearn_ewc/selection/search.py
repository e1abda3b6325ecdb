"""Choosing λ by cross-validation, where the data of all tasks are at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn import get_config
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, check_cv
from sklearn.utils.validation import has_fit_parameter
from skorch.helper import SliceDict
from torch import Tensor

from ..arguments import naming
from ..progress import Progress
from ..wrapped import name_of_lambda
from .candidates import LAMBDAS, checked_lambdas
from .folds import TaskKFold


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
    cv : int or splitter, default=3
        A number of folds for a shuffled :class:`TaskKFold` (the same folds at
        every call), or a splitter that takes the tasks as `groups`.
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
    candidates = checked_lambdas(lambdas)
    search = GridSearchCV(
        estimator,
        {name: list(candidates)},
        scoring=scoring,
        cv=TaskKFold(cv, shuffle=True, random_state=0) if isinstance(cv, Integral) else cv,
        n_jobs=n_jobs,
    )
    X = _sliceable(X)
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


def _sliceable(X: Any) -> Any:
    """Return inputs whose rows scikit-learn can take: of a dict it would take the keys."""
    if not isinstance(X, Mapping) or isinstance(X, SliceDict) or issparse(X):
        return X
    arrays = {
        key: value if isinstance(value, np.ndarray | Tensor) else np.asarray(value)
        for key, value in X.items()
    }
    with naming("X"):
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
