"""Finding the net, and its λ, inside pipelines, searches and whatever else is around it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sklearn.utils.validation import check_is_fitted


def names_ending_in(name: str, parameters: Iterable[str]) -> list[str]:
    """Return the full names, such as ``ewcregressor__ewc_lambda``, of those of this name."""
    return [full for full in parameters if full.split("__")[-1] == name]


def name_of_lambda(parameters: Iterable[str], owner: str) -> str:
    """Return the full name of the one ``ewc_lambda``; raise ValueError unless there is one."""
    names = names_ending_in("ewc_lambda", parameters)
    if len(names) != 1:
        raise ValueError(f"{owner} must have one parameter ewc_lambda, found {names or 'none'}")
    return names[0]


def fitted_net(estimator: Any, attribute: str) -> Any:
    """Return the last part of a fitted estimator that has an attribute.

    Itself, or else a step of a pipeline, the ``regressor_`` of a
    TransformedTargetRegressor, the ``best_estimator_`` of a search.
    """
    check_is_fitted(estimator)
    net = _innermost(estimator, attribute)
    if net is None:
        raise TypeError(
            f"{type(estimator).__name__} has no {attribute}, and no step that has: is there "
            "an EWCRegressor in it?"
        )
    return net


def _innermost(estimator: Any, attribute: str) -> Any:
    if hasattr(estimator, attribute):
        return estimator
    steps = [step for _, step in reversed(getattr(estimator, "steps", []))]
    wrapped = [getattr(estimator, name, None) for name in ("regressor_", "best_estimator_")]
    found = (_innermost(part, attribute) for part in steps + wrapped if part is not None)
    return next((net for net in found if net is not None), None)
