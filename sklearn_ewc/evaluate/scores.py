"""How well tasks are remembered: their scores after each task, and measures of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from sklearn.base import clone, is_regressor
from sklearn.dummy import DummyRegressor
from sklearn.metrics import get_scorer

from ..wrapped import names_ending_in
from .measures import TaskScores, gap_closed

Tasks: TypeAlias = Sequence[tuple[Any, Any]] | Mapping[Any, tuple[Any, Any]]


def task_scores(
    estimator: Any, tasks: Tasks, *, test_tasks: Tasks | None = None, scoring: Any = None
) -> TaskScores:
    """Learn tasks one after another, and score all of them after each.

    Parameters
    ----------
    estimator : estimator with ``partial_fit``
        :class:`~sklearn_ewc.EWCRegressor`, a pipeline that has ``partial_fit``, or any
        other, such as :class:`~sklearn.neural_network.MLPRegressor`. A clone of it
        learns; it is not changed itself.
    tasks : sequence of pairs (X, y), or dict of such pairs by name
        Each is learned by one ``partial_fit(X, y)``, in this order; for MLPRegressor
        and SGDRegressor that is a single pass over the data. In a sequence the tasks
        are named "task 1", "task 2" and so on.
    test_tasks : as `tasks`, default=None
        What to score on, a pair for each task; matched by name if both are dicts,
        else by position. None: the data that the tasks were learned from, which
        flatters whatever fits them too closely.
    scoring : str or callable, default=None
        Any name of a scorer of scikit-learn, or a ``scorer(estimator, X, y)`` that
        returns a number. None: the estimator's own ``score``.

    Returns
    -------
    TaskScores

    Raises
    ------
    TypeError
        If the estimator has no ``partial_fit``, an element of `tasks` or `test_tasks`
        is no pair, or a score is no number.
    ValueError
        If there are no tasks, or `test_tasks` does not match them.

    Notes
    -----
    The untrained row belongs to the initial network where the estimator is a skorch
    net or contains one, that is, has a parameter ``max_epochs``: to a clone, without
    its callbacks, that is given the first task and 0 epochs. It is the network that
    the tasks are learned from if ``random_state`` is set. For any other estimator it
    belongs to a :class:`~sklearn.dummy.DummyRegressor`: the mean of the first task.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import SGDRegressor
    >>> from sklearn_ewc.evaluate import task_scores
    >>> X = np.linspace(-1, 1, 40).reshape(-1, 1)
    >>> tasks = {"up": (X, X.ravel()), "down": (X, -X.ravel())}
    >>> task_scores(SGDRegressor(eta0=1.0, random_state=0), tasks).to_frame().round(1)
    score on    up  down
    learned
    untrained  0.0   0.0
    up         1.0  -3.0
    down      -3.0   1.0
    """
    names, train, test = _checked_tasks(tasks, test_tasks)
    scorer = _checked_scorer(estimator, scoring)
    untrained = _scores(scorer, _untrained(estimator, *train[0]), test)
    learner = clone(estimator)
    scores, times = [], []
    for X, y in train:
        start = perf_counter()
        learner.partial_fit(X, y)
        times.append(perf_counter() - start)
        scores.append(_scores(scorer, learner, test))
    return TaskScores(
        scores=np.array(scores),
        untrained=untrained,
        names=names,
        times=np.array(times),
        estimator=learner,
        scoring=_label(estimator, scoring),
    )


@dataclass(frozen=True)
class GapClosed:
    """Average scores on all tasks, and the gap closed; see :func:`gap_closed_by`.

    Attributes
    ----------
    score : float
        Of the estimator.
    sequential : float
        Of the same without a penalty.
    joint : float
        Of the same, learning all tasks at once.
    gap_closed : float
        (score − sequential) / (joint − sequential).
    """

    score: float
    sequential: float
    joint: float
    gap_closed: float


def gap_closed_by(
    estimator: Any, tasks: Tasks, *, test_tasks: Tasks | None = None, scoring: Any = None
) -> GapClosed:
    """Learn the tasks three times, and tell how much of the gap the penalty closes.

    One after another as the estimator is, one after another with ``ewc_lambda=0``,
    and all at once: every time with a clone. Set ``random_state``, so that all three
    start from the same network.

    Parameters
    ----------
    estimator : EWCRegressor, or a pipeline that has ``partial_fit`` and ends in one
        The parameter ``ewc_lambda`` is found by its name, at any depth.
    tasks, test_tasks, scoring
        As in :func:`task_scores`. To be learned at once, all X must be arrays, data
        frames, or dicts of them, and so must all y.

    Returns
    -------
    GapClosed

    Raises
    ------
    TypeError, ValueError
        As :func:`task_scores`; also if the estimator has no ``ewc_lambda``.

    See Also
    --------
    gap_closed : The same of scores that are there already.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_ewc import EWCRegressor
    >>> from sklearn_ewc.evaluate import gap_closed_by
    >>> X = np.linspace(-2, 2, 100).reshape(-1, 1)
    >>> left, right = (X[:50], np.sin(X[:50, 0])), (X[50:], np.sin(X[50:, 0]))
    >>> net = EWCRegressor(ewc_lambda=30, lr=0.01, max_epochs=30, random_state=0)
    >>> result = gap_closed_by(net, [left, right])
    >>> result.sequential < result.score < result.joint
    True
    """
    _, train, test = _checked_tasks(tasks, test_tasks)
    scorer = _checked_scorer(estimator, scoring)
    penalties = names_ending_in("ewc_lambda", estimator.get_params())
    if not penalties:
        raise TypeError(f"{type(estimator).__name__} has no parameter ewc_lambda")

    def average(learner: Any, tasks: list[tuple[Any, Any]]) -> float:
        for X, y in tasks:
            learner.partial_fit(X, y)
        return float(_scores(scorer, learner, test).mean())

    without = clone(estimator).set_params(**dict.fromkeys(penalties, 0.0))
    everything = tuple(_concatenated(parts) for parts in zip(*train, strict=True))
    score = average(clone(estimator), train)
    sequential = average(without, train)
    joint = average(clone(estimator), [everything])
    return GapClosed(score, sequential, joint, gap_closed(score, sequential, joint))


def _checked_tasks(
    tasks: Tasks, test_tasks: Tasks | None
) -> tuple[tuple[str, ...], list[tuple[Any, Any]], list[tuple[Any, Any]]]:
    """Return the names of the tasks, their training data and their test data."""
    train = _by_name(tasks, "tasks")
    test = train if test_tasks is None else _by_name(test_tasks, "test_tasks")
    if len(train) != len(test):
        raise ValueError(f"test_tasks has {len(test)} tasks, but tasks has {len(train)}")
    if isinstance(tasks, Mapping) and isinstance(test_tasks, Mapping):
        if lacking := [name for name in train if name not in test]:
            raise ValueError(f"test_tasks lacks {', '.join(map(repr, lacking))}")
        test = {name: test[name] for name in train}
    return tuple(map(str, train)), list(train.values()), list(test.values())


def _by_name(tasks: Tasks, argument: str) -> dict[Any, tuple[Any, Any]]:
    if not isinstance(tasks, Iterable):
        raise TypeError(
            f"{argument} must be a sequence or dict of pairs (X, y), got {type(tasks).__name__}"
        )
    if isinstance(tasks, Mapping):
        named = dict(tasks)
    else:
        named = {f"task {number}": pair for number, pair in enumerate(tasks, start=1)}
    if not named:
        raise ValueError(f"{argument} is empty")
    for name, pair in named.items():
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise TypeError(f"{argument} must hold pairs (X, y); {name!r} is not one")
    return named


def _checked_scorer(estimator: Any, scoring: Any) -> Any:
    if not hasattr(estimator, "partial_fit"):
        raise TypeError(
            f"{type(estimator).__name__} has no partial_fit, so it cannot learn one task after "
            "another"
        )
    if not (scoring is None or isinstance(scoring, str) or callable(scoring)):
        raise TypeError(f"scoring must be None, a scorer or the name of one, got {scoring!r}")
    if isinstance(scoring, str):
        return get_scorer(scoring)
    if scoring is None and not hasattr(estimator, "score"):
        raise TypeError(f"{type(estimator).__name__} has no score, so scoring is needed")
    return scoring or (lambda estimator, X, y: estimator.score(X, y))


def _scores(scorer: Any, estimator: Any, test: list[tuple[Any, Any]]) -> np.ndarray:
    scores = [scorer(estimator, X, y) for X, y in test]
    for score in scores:
        if not isinstance(score, Real):
            raise TypeError(f"scoring must return a number, got {score!r}")
    return np.array(scores, dtype=float)


def _label(estimator: Any, scoring: Any) -> str:
    if scoring is None:
        return "R²" if is_regressor(estimator) else f"{type(estimator).__name__}.score"
    return scoring if isinstance(scoring, str) else getattr(scoring, "__name__", repr(scoring))


def _untrained(estimator: Any, X: Any, y: Any) -> Any:
    """Return what stands for the estimator before anything was learned."""
    epochs = names_ending_in("max_epochs", estimator.get_params())
    if not epochs:
        return DummyRegressor().fit(X, y)
    # callbacks that restore the best epoch fail where there is none, and the exact Fisher of
    # a network that knows nothing yet can be zero, which is refused
    changes = {"max_epochs": 0, "callbacks": None, "fisher": "batch"}
    settings = {
        key.removesuffix("max_epochs") + name: value
        for key in epochs
        for name, value in changes.items()
    }
    known = estimator.get_params()
    settings = {name: value for name, value in settings.items() if name in known}
    return clone(estimator).set_params(**settings).partial_fit(X, y)


def _concatenated(parts: Sequence[Any]) -> Any:
    """Join the rows of arrays, of data frames, or of dicts of them."""
    first = parts[0]
    if isinstance(first, Mapping):
        return {key: _concatenated([part[key] for part in parts]) for key in first}
    if hasattr(first, "iloc"):
        import pandas as pd

        return pd.concat(parts)
    return np.concatenate(parts)
