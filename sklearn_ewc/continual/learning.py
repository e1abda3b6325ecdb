"""One task, or one after another, passed on to whatever learns them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sklearn.base import clone
from sklearn.utils.metadata_routing import process_routing

from ..data.rows import check_rows, metadata_of_rows, rows_of
from ..data.tasks import tasks_to_learn
from ..training import EWCNet
from .base import Arrival, Continual
from .metadata import is_routed, keyword

LEARN_TASKS = {
    "Pipeline": "ContinualPipeline",
    "TransformedTargetRegressor": "ContinualTargetRegressor",
}


def learn_task(estimator: Any, X: Any, y: Any, metadata: dict[str, Any], arrival: Arrival) -> None:
    """Let an estimator learn one task: a wrapper, a net, or any other with ``partial_fit``."""
    if isinstance(estimator, Continual):
        estimator._learn_task(X, y, metadata, arrival)
    elif arrival.starts_anew and isinstance(estimator, EWCNet):
        estimator.__dict__.pop("_is_searched", None)  # for a λ that has tasks to tell it by
        estimator.fit(X, y, **metadata)
    else:
        if arrival.starts_anew:
            _forget(estimator)
        estimator.partial_fit(X, y, **metadata)


def _forget(estimator: Any) -> None:
    """Leave an estimator as its clone is, as ``fit`` would, unless it is to start warm."""
    if getattr(estimator, "warm_start", False):
        return
    parameters, attributes = estimator.get_params(deep=False), vars(estimator)
    fresh = {
        name: value for name, value in vars(clone(estimator)).items() if name not in parameters
    }
    for name in attributes.keys() - parameters.keys() - fresh.keys():
        del attributes[name]
    attributes.update(fresh)


def tasks_of_fit(
    estimator: Continual, X: Any, y: Any, metadata: dict[str, Any]
) -> Iterator[tuple[Any, Any, dict[str, Any], Arrival]] | None:
    """Return data, metadata and arrival of the tasks that ``fit`` is to learn one by one.

    None if it is not told of tasks.
    """
    if metadata and is_routed():
        process_routing(estimator, "fit", **metadata)  # raises for what was not requested
    name = keyword(estimator, "task", metadata, "fit") if metadata else None
    if name is None:
        return None
    _check_learns_tasks(estimator)
    rest = {key: value for key, value in metadata.items() if key != name}
    n_samples = check_rows(X, y, rest)
    tasks = tasks_to_learn(metadata[name], n_samples)
    return (
        (
            rows_of(X, rows),
            rows_of(y, rows),
            metadata_of_rows(rest, rows, n_samples),
            Arrival(f"task {number} ({label})", starts_anew=number == 1, routed_by="fit"),
        )
        for number, (label, rows) in enumerate(tasks, start=1)
    )


def _check_learns_tasks(estimator: Any) -> None:
    if hasattr(estimator, "partial_fit"):
        return
    while isinstance(estimator, Continual):
        estimator = estimator._learner
    kind = type(estimator).__name__
    hint = f"; {LEARN_TASKS[kind]} has" if kind in LEARN_TASKS else ""
    raise TypeError(f"task: {kind} has no partial_fit, by which tasks are learned in turn{hint}")
