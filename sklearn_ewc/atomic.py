"""Estimators that lose nothing when they fail."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def all_or_nothing(*estimators: Any) -> Iterator[None]:
    """Leave estimators as they were before the block if the block raises anything.

    One that can do that itself, by a method of this name, is asked to; of any
    other all attributes are copied.
    """
    with ExitStack() as stack:
        for estimator in estimators:
            if isinstance(estimator, type) or not hasattr(estimator, "__dict__"):
                continue  # "passthrough", or a mistake that is not ours to report
            itself = getattr(estimator, "all_or_nothing", None)
            # the memo lets attributes that point back at the estimator go on doing so
            stack.enter_context(
                itself()
                if itself
                else attributes_restored(
                    estimator, copy.deepcopy(vars(estimator), {id(estimator): estimator})
                )
            )
        yield


@contextmanager
def attributes_restored(instance: Any, attributes: dict[str, Any] | None = None) -> Iterator[None]:
    """Give an object back its attributes, or those passed, if the block raises anything."""
    attributes = dict(vars(instance)) if attributes is None else attributes
    try:
        yield
    except BaseException:
        vars(instance).clear()
        vars(instance).update(attributes)
        raise
