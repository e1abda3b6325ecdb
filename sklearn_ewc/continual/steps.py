"""Steps for a Pipeline whose ``fit`` is a task more, by whatever method that is.

So it is scikit-learn's own Pipeline that carries the data, the metadata and the
clock from step to step, in ``partial_fit`` as in ``fit``.
"""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import check_is_fitted

from ..data.unseen import warn_of_unseen
from .base import Arrival
from .learning import learn_task
from .metadata import is_routed


class Step(BaseEstimator):
    """What both kinds of steps are."""

    step: Any
    arrival: Arrival
    learns = True

    def __sklearn_is_fitted__(self) -> bool:
        return is_fitted(self.step)

    def get_metadata_routing(self) -> MetadataRouter:
        """Return the requests of the step for the methods that are called."""
        mapping = MethodMapping().add(caller="transform", callee="transform")
        if self.learns:
            mapping.add(caller="fit", callee=self.arrival.routed_by)
        return MetadataRouter(owner=self).add(step=self.step, method_mapping=mapping)

    def _routed(self, caller: str, callee: str, params: dict[str, Any]) -> Any:
        return process_routing(self, caller, **params)["step"][callee] if is_routed() else params


class FinalStep(Step):
    """The final step, which learns every task."""

    def __init__(self, step: Any, arrival: Arrival) -> None:
        self.step = step
        self.arrival = arrival

    def fit(self, X: Any, y: Any = None, **params: Any) -> FinalStep:
        """Learn one task."""
        params = self._routed("fit", self.arrival.routed_by, params)
        learn_task(self.step, X, y, params, self.arrival)
        return self


class LaterTransformer(Step):
    """A transformer after the first task: it is updated, or stays as it is."""

    def __init__(self, step: Any, name: str, learns: bool, arrival: Arrival) -> None:
        self.step = step
        self.name = name
        self.learns = learns
        self.arrival = arrival

    def fit(self, X: Any, y: Any = None, **params: Any) -> LaterTransformer:
        """Update the transformer, or do nothing."""
        if self.learns:
            self.step.partial_fit(X, y, **self._routed("fit", self.arrival.routed_by, params))
        return self

    def transform(self, X: Any, **params: Any) -> Any:
        """Transform the inputs of a later task, and say what gets lost in it."""
        transformed = self.step.transform(X, **self._routed("transform", "transform", params))
        warn_of_unseen(self.step, X, self.name, self.arrival.name)
        return transformed


def are_pairs(steps: Any) -> bool:
    """Whether steps are pairs of a name and an estimator, as Pipeline takes them."""
    return isinstance(steps, list | tuple) and all(
        isinstance(step, list | tuple) and len(step) == 2 and isinstance(step[0], str)
        for step in steps
    )


def can_learn_tasks(steps: Any) -> bool:
    """Whether the final step learns tasks; of what are no steps it is for the call to say."""
    return not are_pairs(steps) or (bool(steps) and hasattr(steps[-1][1], "partial_fit"))


def is_fitted(estimator: Any) -> bool:
    """Whether an estimator has learned anything."""
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True
