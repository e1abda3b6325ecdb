"""What tasks and scorings may be, and the scores of an estimator on tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from sklearn.base import is_regressor
from sklearn.metrics import get_scorer

from ..arguments import naming, shown

Tasks: TypeAlias = Sequence[tuple[Any, Any]] | Mapping[Any, tuple[Any, Any]]


def checked_tasks(
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
        with naming(argument):
            tasks = list(tasks)
        named = {f"task {number}": pair for number, pair in enumerate(tasks, start=1)}
    if not named:
        raise ValueError(f"{argument} is empty")
    for name, pair in named.items():
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise TypeError(f"{argument} must hold pairs (X, y); {name!r} is not one")
    return named


def checked_scorer(estimator: Any, scoring: Any) -> Any:
    """Return the scorer for an estimator that can learn one task after another."""
    if not hasattr(estimator, "partial_fit"):
        raise TypeError(
            f"estimator must learn one task after another, {type(estimator).__name__} has no "
            "partial_fit"
        )
    check_scorer(scoring)
    if isinstance(scoring, str):
        return get_scorer(scoring)
    if scoring is None and not hasattr(estimator, "score"):
        raise TypeError(f"{type(estimator).__name__} has no score, so scoring is needed")
    return scoring or (lambda estimator, X, y: estimator.score(X, y))


def check_scorer(scoring: Any) -> None:
    """Raise TypeError or ValueError unless `scoring` is None, a scorer or the name of one."""
    if not (scoring is None or isinstance(scoring, str) or callable(scoring)):
        raise TypeError(f"scoring must be None, a scorer or the name of one, got {shown(scoring)}")
    if isinstance(scoring, str):
        with naming("scoring"):
            get_scorer(scoring)


def scored(scorer: Any, estimator: Any, test: list[tuple[Any, Any]]) -> np.ndarray:
    """Return the score on each of the tasks."""
    scores = [scorer(estimator, X, y) for X, y in test]
    for score in scores:
        if not isinstance(score, Real):
            raise TypeError(f"scoring must return a number, got {score!r}")
    return np.array(scores, dtype=float)


def label_of(estimator: Any, scoring: Any) -> str:
    """Return what the scores are called."""
    if scoring is None:
        return "R²" if is_regressor(estimator) else f"{type(estimator).__name__}.score"
    return scoring if isinstance(scoring, str) else getattr(scoring, "__name__", repr(scoring))
