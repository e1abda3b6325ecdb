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
    """Return the innermost part of a fitted estimator that has an attribute.

    The last step of a pipeline that has one, the ``regressor_`` of a
    TransformedTargetRegressor, the ``best_estimator_`` of a search; or else the
    estimator itself.
    """
    check_is_fitted(estimator)
    net = part_with(estimator, attribute)
    if net is None:
        raise TypeError(
            f"{type(estimator).__name__} has no {attribute}, and no step that has: is there "
            "an EWCRegressor in it?"
        )
    return net


def part_with(estimator: Any, attribute: str) -> Any:
    """Return the innermost part of an estimator that has an attribute; None if there is none."""
    if isinstance(estimator, type):  # a class in place of an instance has properties, not values
        return None
    inner = part_within(estimator, attribute)
    return estimator if inner is None and hasattr(estimator, attribute) else inner


def part_within(estimator: Any, attribute: str) -> Any:
    """Return the same of what is inside an estimator, the estimator itself not counted."""
    steps = [step for _, step in reversed(getattr(estimator, "steps", []))]
    wrapped = [getattr(estimator, name, None) for name in ("regressor_", "best_estimator_")]
    found = (part_with(part, attribute) for part in steps + wrapped if part is not None)
    return next((part for part in found if part is not None), None)
