"""Scores on every task after each was learned."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.dummy import DummyRegressor

from ..progress import Progress
from ..wrapped import names_ending_in
from .arguments import Tasks, checked_scorer, checked_tasks, label_of, scored
from .measures import TaskScores


def task_scores(
    estimator: Any,
    tasks: Tasks,
    *,
    test_tasks: Tasks | None = None,
    scoring: Any = None,
    verbose: int = 0,
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
    verbose : int, default=0
        1 prints a line after each task: the average score on all tasks, the time since
        the start and about what is left.

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
    names, train, test = checked_tasks(tasks, test_tasks)
    scorer = checked_scorer(estimator, scoring)
    progress = Progress(f"task_scores: {len(names)} tasks", len(names), verbose)
    untrained = scored(scorer, _untrained(estimator, *train[0]), test)
    learner = clone(estimator)
    scores, times = [], []
    for name, (X, y) in zip(names, train, strict=True):
        start = perf_counter()
        learner.partial_fit(X, y)
        times.append(perf_counter() - start)
        scores.append(scored(scorer, learner, test))
        progress.done(f"{name}: average score {scores[-1].mean():.3g}")
    return TaskScores(
        scores=np.array(scores),
        untrained=untrained,
        names=names,
        times=np.array(times),
        estimator=learner,
        scoring=label_of(estimator, scoring),
    )


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
