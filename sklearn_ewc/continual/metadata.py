"""The keywords by which `task` and `sample_weight` pass through wrappers to the net."""

from __future__ import annotations

from typing import Any

from sklearn import get_config
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import (
    MetadataRequest,
    MetadataRouter,
    MethodMapping,
    get_routing_for_object,
)
from sklearn.utils.validation import has_fit_parameter

from .base import Continual


def is_routed() -> bool:
    """Whether scikit-learn's metadata routing is on."""
    return get_config()["enable_metadata_routing"]


def keyword(estimator: Any, name: str, metadata: dict[str, Any], method: str) -> str | None:
    """Return the keyword among the metadata that means one of the net's; None if there is none.

    Raise TypeError if there are two, and scikit-learn's UnsetMetadataPassedError if
    the net has not said whether it wants it. What is None is not there.
    """
    if is_routed():
        return _requested(_net(estimator), name, metadata, method)
    given = [key for key in _keywords(estimator, name) if metadata.get(key) is not None]
    if len(given) > 1:
        raise TypeError(f"{name} is given twice, as {' and as '.join(given)}")
    return given[0] if given else None


def _keywords(estimator: Any, name: str) -> list[str]:
    """Return the keywords that mean the same without routing: bare, and by the names of steps."""
    if isinstance(estimator, Pipeline):
        step, final = estimator.steps[-1]
        return [name, *(f"{step}__{inner}" for inner in _keywords(final, name))]
    return _keywords(estimator._learner, name) if isinstance(estimator, Continual) else [name]


def _net(estimator: Any) -> Any:
    if isinstance(estimator, Pipeline):
        return _net(estimator.steps[-1][1])
    return _net(estimator._learner) if isinstance(estimator, Continual) else estimator


def _requested(net: Any, name: str, metadata: dict[str, Any], method: str) -> str | None:
    requests = getattr(get_routing_for_object(net), method, None)  # a router has none
    alias = getattr(requests, "requests", {}).get(name, True)
    key = alias if isinstance(alias, str) else name
    if alias is False or metadata.get(key) is None:
        return None
    mapping = MethodMapping().add(caller=method, callee=method)
    router = MetadataRouter(owner=net).add(net=net, method_mapping=mapping)
    router.route_params(caller=method, params={key: metadata[key]})  # raises where it is unset
    return key


def with_task(request: MetadataRequest, learner: Any) -> MetadataRequest:
    """Return a wrapper's own requests, and the `task` of ``fit`` if what is inside has none."""
    takes_task = hasattr(learner, "fit") and has_fit_parameter(learner, "task")
    if not (isinstance(learner, Continual) or takes_task):
        request.fit.add_request(param="task", alias=True)
    return request
