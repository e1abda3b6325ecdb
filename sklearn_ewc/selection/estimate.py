"""Choosing λ for a new task, when the data of the old tasks are gone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from ..copying import twin
from ..progress import Progress
from ..training import EWCNet
from ..training.arrival import checked_task
from ..training.lambda_trials import trials
from ..wrapped import name_of_lambda
from .candidates import LAMBDAS, checked_lambdas


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
        Both are in units of the criterion as the net is trained on it: where the
        targets are transformed on the way to the net, on transformed ones. Both are
        infinite where training diverged.
    name : str
        The full name of `ewc_lambda` among the estimator's parameters.
    """

    lambdas: tuple[float, ...]
    errors: np.ndarray
    penalties: np.ndarray
    name: str = "ewc_lambda"

    @property
    def best(self) -> float:
        """The λ of the least sum of `errors` and `penalties`."""
        return self.lambdas[int(np.nanargmin(self.errors + self.penalties))]

    @property
    def best_params(self) -> dict[str, float]:
        """`best` by its `name`, as ``set_params`` of the estimator takes it."""
        return {self.name: self.best}


def estimate_lambda(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    *,
    lambdas: Sequence[float] = LAMBDAS[1:],
    validation_size: float = 0.25,
    random_state: int = 0,
    verbose: int = 0,
) -> LambdaEstimate:
    """Choose `ewc_lambda` for a new task when the data of the old tasks are gone.

    A copy learns the new task, but for a held-out part, at each λ. The λ chosen
    has the least sum of two errors: the new task's on the held-out part, and what
    the old tasks are estimated to have lost. Since the Fisher is in the units of
    the criterion, the second is the memory's penalty itself, divided by the number of
    samples learned if `weigh_by` is "sample". ``ewc_lambda="auto"`` chooses in a like
    way within ``partial_fit``, at a fraction of the cost: this is for looking at what
    each λ costs, and for candidates of one's own.

    Parameters
    ----------
    estimator : EWCRegressor, ContinualPipeline, ContinualTargetRegressor, or a nesting of them
        Has learned at least one task. Not changed, and neither is anything outside:
        see Notes.
    X, y
        The new task, as for ``partial_fit`` of the estimator.
    lambdas : sequence of float, default=(0.1, 1, 3, 10, 30, 100, 1000)
        The candidates. Each costs one task's training.
    validation_size : float, default=0.25
        Part of the new task that is held out.
    random_state : int, default=0
        Seed of the split.
    verbose : int, default=0
        1 prints a line after each training: λ, both errors, the time since the start
        and about what is left.

    Returns
    -------
    LambdaEstimate
        ``best`` is the λ to set before ``partial_fit(X, y)``; ``best_params`` has it
        by its full name, for ``set_params`` of the estimator.

    Raises
    ------
    ValueError
        If the estimator has learned no task yet, a λ is negative or not finite, or
        the data mean nothing.
    TypeError
        If the estimator has no ``partial_fit``, or no EWCRegressor inside.
    FloatingPointError
        If training diverges at every λ.

    Notes
    -----
    The copies learn in silence. Of the callbacks, copies run of those that shape
    training and reach nothing else: skorch's EarlyStopping, LRScheduler,
    GradientNormClipping and ParamMapper (Freezer, Initializer), what is derived from
    them, and scores that one of these monitors. No other runs: neither those that
    write files, print or log, nor your own. A callback of your own that changes how
    the net is trained is to be derived from one of those to count here too.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_ewc import EWCRegressor, estimate_lambda, make_continual_pipeline
    >>> X = np.linspace(-2, 2, 200).reshape(-1, 1)
    >>> y, left = np.sin(2 * X.ravel()), X.ravel() < 0
    >>> net = EWCRegressor(lr=0.01, max_epochs=60, random_state=0)
    >>> model = make_continual_pipeline(StandardScaler(), net)
    >>> model = model.partial_fit(X[left], y[left])
    >>> estimate = estimate_lambda(model, X[~left], y[~left], lambdas=[0.01, 1, 1000])
    >>> estimate.best_params
    {'ewcregressor__ewc_lambda': 1}
    >>> model = model.set_params(**estimate.best_params).partial_fit(X[~left], y[~left])
    >>> model[-1].n_tasks_
    2
    """
    name = name_of_lambda(_checked_estimator(estimator).get_params(), "estimator")
    net = _net_inside(estimator)
    if getattr(net, "n_tasks_", 0) == 0:
        raise ValueError("estimator has learned no task yet, so there is nothing for λ to weigh")
    candidates = checked_lambdas(lambdas)
    # all of it is checked, since the trials do not learn the held-out part
    data = checked_task(
        net, *_as_the_net_gets(estimator, net, X, y), sample_weight=None, first=False
    )
    progress = Progress(f"estimate_lambda: {len(candidates)} trainings", len(candidates), verbose)
    found = []
    results = trials(net, data, candidates, validation_size, random_state)
    for ewc_lambda, (error, penalty) in zip(candidates, results, strict=True):
        found.append((error, penalty))
        progress.done(f"λ = {ewc_lambda:g}: error {error:.3g}, penalty {penalty:.3g}")
    errors, penalties = np.array(found).T
    if not np.isfinite(errors + penalties).any():
        raise FloatingPointError(f"training diverged at each of the λ {candidates}; lower lr")
    return LambdaEstimate(candidates, errors, penalties, name)


def _checked_estimator(estimator: Any) -> Any:
    if isinstance(estimator, type) or not hasattr(estimator, "partial_fit"):
        raise TypeError(
            f"estimator must have partial_fit, to learn one task more, got {estimator!r}"
        )
    return estimator


def _net_inside(estimator: Any) -> Any:
    """Return the net that an estimator gives its tasks to."""
    if isinstance(estimator, EWCNet):
        return estimator
    inner = _inside(estimator)
    if inner is None:
        raise TypeError(f"estimator has no EWCRegressor in it that learns its tasks: {estimator!r}")
    return _net_inside(inner)


def _inside(estimator: Any) -> Any:
    """Return what learns inside a pipeline or a regressor of a transformed target, or None."""
    if hasattr(estimator, "steps"):
        return estimator.steps[-1][1]
    return getattr(estimator, "regressor_", getattr(estimator, "regressor", None))


def _as_the_net_gets(estimator: Any, net: Any, X: Any, y: Any) -> tuple[Any, Any]:
    """Return X and y as ``partial_fit`` of an estimator hands them to the net inside."""
    if estimator is net:
        return X, y
    listener = _Listener(net)
    _with(listener, estimator).partial_fit(X, y)
    return listener.heard


class _Listener(BaseEstimator):
    """Stands where a net was, and keeps what it would have learned."""

    def __init__(self, net: Any) -> None:
        self.net = net

    def __getattr__(self, name: str) -> Any:
        if name == "net":  # not yet, while it is copied
            raise AttributeError(name)
        return getattr(self.net, name)

    def fit(self, X: Any, y: Any = None) -> _Listener:
        raise TypeError("a net that has learned goes on by partial_fit")

    def partial_fit(self, X: Any, y: Any = None) -> _Listener:
        self.heard = X, y
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True


def _with(listener: _Listener, estimator: Any) -> Any:
    """Return a copy of what is around a net, with the listener in the net's place.

    Transformers are copied, since some learn from every task.
    """
    if estimator is listener.net:
        return listener
    around = copy.copy(estimator)
    inner = _with(listener, _inside(estimator))
    if hasattr(estimator, "steps"):
        *transformers, (name, _) = estimator.steps
        around.steps = [*((key, twin(step)) for key, step in transformers), (name, inner)]
    else:
        around.regressor_ = inner
    return around
