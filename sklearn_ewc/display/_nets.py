"""Finding the net inside a pipeline, or whatever else is wrapped around it."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import check_is_fitted


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
