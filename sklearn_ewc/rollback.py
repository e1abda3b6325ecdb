"""Estimators that lose nothing when they fail."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy


@contextmanager
def all_or_nothing(*estimators: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for estimator in estimators:
            if isinstance(estimator, type) or not hasattr(estimator, "__dict__"):
                continue  # "passthrough", or a mistake that is not ours to report
            if hasattr(estimator, "get_params_for_optimizer"):
                stack.enter_context(_net(estimator))
                continue
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
def _net(self):
    attributes = dict(vars(self))
    parts = [attributes.get(f"{name}_") for name in self._modules + self._criteria]
    tensors = [
        (tensor, tensor.detach().clone(), tensor.requires_grad)
        for part in parts
        if isinstance(part, nn.Module)
        for tensor in (*part.parameters(), *part.buffers())
        if not is_lazy(tensor)
    ]
    epochs = list(self.history_ or ())
    callbacks = [
        (callback, dict(vars(callback))) for _, callback in getattr(self, "callbacks_", [])
    ]
    generator = self.random_state
    position = generator.get_state() if isinstance(generator, np.random.RandomState) else None
    try:
        yield
    except BaseException:
        self.__dict__.clear()
        self.__dict__.update(attributes)
        with torch.no_grad():
            for tensor, value, requires_grad in tensors:
                tensor.copy_(value).requires_grad_(requires_grad)
        if self.history_ is not None:
            self.history_[:] = epochs
        for callback, values in callbacks:
            vars(callback).clear()
            vars(callback).update(values)
        if position is not None:
            generator.set_state(position)
        raise


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
