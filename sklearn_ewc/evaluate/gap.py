"""How much of the gap between plain training and learning all tasks at once is closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from sklearn.base import clone

from ..progress import Progress
from ..wrapped import names_ending_in
from .arguments import Tasks, checked_scorer, checked_tasks, scored
from .measures import gap_closed


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
    estimator: Any,
    tasks: Tasks,
    *,
    test_tasks: Tasks | None = None,
    scoring: Any = None,
    verbose: int = 0,
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
    verbose : int, default=0
        1 prints a line after each task that is learned, with the time since the start
        and about what is left.

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
    names, train, test = checked_tasks(tasks, test_tasks)
    scorer = checked_scorer(estimator, scoring)
    penalties = names_ending_in("ewc_lambda", estimator.get_params())
    if not penalties:
        raise TypeError(f"{type(estimator).__name__} has no parameter ewc_lambda")
    # to learn all at once takes about as long as one after another
    progress = Progress(f"gap_closed_by: {len(names)} tasks, 3 times", 3 * len(names), verbose)

    def average(learner: Any, way: str, tasks: dict[str, tuple[Any, Any]]) -> float:
        for name, (X, y) in tasks.items():
            learner.partial_fit(X, y)
            progress.done(f"{way}: {name}", len(names) // len(tasks))
        return float(scored(scorer, learner, test).mean())

    without = clone(estimator).set_params(**dict.fromkeys(penalties, 0.0))
    in_turn = dict(zip(names, train, strict=True))
    at_once = {"all tasks": tuple(_concatenated(parts) for parts in zip(*train, strict=True))}
    score = average(clone(estimator), "as it is", in_turn)
    sequential = average(without, "without a penalty", in_turn)
    joint = average(clone(estimator), "at once", at_once)
    return GapClosed(score, sequential, joint, gap_closed(score, sequential, joint))


def _concatenated(parts: Sequence[Any]) -> Any:
    """Join the rows of arrays, of data frames, or of dicts of them."""
    first = parts[0]
    if isinstance(first, Mapping):
        return {key: _concatenated([part[key] for part in parts]) for key in first}
    if hasattr(first, "iloc"):
        import pandas as pd

        return pd.concat(parts)
    if hasattr(first, "vstack"):  # of polars
        return reduce(type(first).vstack, parts)
    return np.concatenate(parts)
