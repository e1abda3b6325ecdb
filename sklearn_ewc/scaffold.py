"""A skorch net as scikit-learn wants its estimators: how it is built, set and rolled back."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from torch import nn
from torch.nn.parameter import is_lazy

from .atomic import attributes_restored
from .seeding import seeded, task_seed
from .validation import check_device

TORCH_DTYPES = {np.dtype(name): getattr(torch, name) for name in ("float32", "float64")}


class _PrivatelyStored:
    """An attribute that skorch sets in ``__init__``, where scikit-learn wants parameters only.

    Kept under a private name, which ``check_no_attributes_set_in_init`` ignores.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"_{name}"

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is not None and self.name in vars(instance):
            return vars(instance)[self.name]
        raise AttributeError(self.name)

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self.name] = value


class _DeclaresClasses:
    """Lets skorch undeclare the `classes` of ``partial_fit``, which a signature without it lacks.

    scikit-learn reads these declarations from the last base class to the first,
    and refuses to remove a name that no earlier one has added.
    """

    if "_NeuralNet__metadata_request__partial_fit" in vars(NeuralNet):  # since skorch 1.4
        __metadata_request__partial_fit = {"classes": None}


class ScikitNet(NeuralNet, _DeclaresClasses):
    """A skorch net that passes scikit-learn's checks and loses nothing when it fails.

    The module is built from a seed, in the sizes and the dtype of the data, and
    is not built again behind the back of what it has learned. Subclasses set
    ``seed_``, ``dtype_`` and ``n_outputs_`` before :meth:`initialize`, and have
    the parameters `hidden_layer_sizes` and `random_state`.
    """

    seed_: int
    dtype_: Any
    n_outputs_: int
    _params_to_validate: set[str]

    history_ = _PrivatelyStored()
    initialized_ = _PrivatelyStored()
    virtual_params_ = _PrivatelyStored()

    __repr__ = BaseEstimator.__repr__

    def initialized_instance(self, instance_or_cls: Any, kwargs: dict[str, Any]) -> Any:
        """Build a component as skorch does, but copy an instance that the user passed."""
        instance = super().initialized_instance(instance_or_cls, kwargs)
        return copy.deepcopy(instance) if instance is instance_or_cls else instance

    def initialize_module(self) -> ScikitNet:
        """Build the module, seeded, in the sizes and the dtype of the data."""
        kwargs = {**self._sizes_left_open(), **self.get_params_for("module")}
        with seeded(task_seed(self.seed_, 0), self.device):
            module = self.initialized_instance(self.module, kwargs)
        self.module_ = module.to(TORCH_DTYPES[self.dtype_])
        self.superseded_: dict[str, Any] = {}
        return self

    def _sizes_left_open(self) -> dict[str, Any]:
        """Return the sizes of the data under the names that the module's signature knows."""
        if isinstance(self.module, nn.Module):
            return {}
        n_features = getattr(self, "n_features_in_", None)
        n_outputs = getattr(self, "n_outputs_", None)
        sizes = {
            "n_features": n_features,
            "in_features": n_features,
            "n_outputs": n_outputs,
            "out_features": n_outputs,
            "hidden_layer_sizes": self.hidden_layer_sizes,
        }
        filled_in = getattr(self.module, "keywords", {})  # by functools.partial
        known = inspect.signature(self.module).parameters.keys() - filled_in.keys()
        return {name: size for name, size in sizes.items() if name in known and size is not None}

    def check_module_settings(self) -> None:
        """Raise if parameters of the module were changed since it was built."""
        if self.superseded_:
            raise ValueError(
                f"{', '.join(sorted(self.superseded_))} changed since the module was built, and "
                "a new module would lose what it has learned; set it back, or call fit to start "
                "anew"
            )

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Leave the net as it was before the block if the block raises anything."""
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

    def set_params(self, **params: Any) -> ScikitNet:
        """Set parameters, also nested ones such as ``optimizer__weight_decay``.

        What would rebuild the module (``module``, ``module__…``,
        ``hidden_layer_sizes``, ``compile``) waits for the next ``fit``. Everything
        else takes effect with the next task; ``lr`` and ``optimizer__…`` at once,
        where a callback sets them during training.
        """
        nested = {name: value for name, value in params.items() if "__" in name}
        known = self.get_params(deep=False)
        for name in params.keys() - nested.keys() - known.keys():
            raise ValueError(f"Invalid parameter {name!r} for estimator {self}")
        to_validate = set(self._params_to_validate)
        try:
            with attributes_restored(self):
                self._put_into_effect(params, nested)
        except BaseException:
            self._params_to_validate = to_validate
            raise
        return self

    def _put_into_effect(self, params: dict[str, Any], nested: dict[str, Any]) -> None:
        self._params_to_validate.update(nested)
        if self.initialized_:
            if params.get("device") is not None:
                check_device(params["device"])
            self._validate_params()
            self._note_superseded({k: v for k, v in params.items() if _shapes_module(k)})
            self._apply_virtual_params(params)
        self.__dict__.update({k: v for k, v in params.items() if not _is_momentary(k)})
        if self.initialized_:
            if any(name.startswith("callbacks") for name in params):
                self._initialize_checked_callbacks()
            if any(name.startswith("criterion") for name in params):
                self._initialize_criterion()
            if "device" in params:
                self.move(self.device)

    def _initialize_checked_callbacks(self) -> None:
        try:
            self._initialize_callbacks()
        except AttributeError as error:  # skorch looks for their methods
            raise TypeError(f"callbacks holds what is no callback: {error}") from error

    def move(self, device: Any) -> None:
        """Move what has been learned to another device."""
        for name in self._modules + self._criteria:
            part = getattr(self, f"{name}_")
            if isinstance(part, nn.Module):
                part.to(device)

    def _note_superseded(self, changes: dict[str, Any]) -> None:
        """Keep the values that the module was built with, of those that no longer hold."""
        superseded = dict(self.superseded_)
        for name, value in changes.items():
            built_with = superseded.pop(name, vars(self).get(name))
            if not _same(value, built_with):
                superseded[name] = built_with
        self.superseded_ = superseded

    def _get_param_names(self) -> list[str]:
        return [name for name in super()._get_param_names() if not name.startswith("_")]


def _shapes_module(name: str) -> bool:
    return name.startswith(("module", "compile")) or name == "hidden_layer_sizes"


def _is_momentary(name: str) -> bool:
    """Tell the settings of one group of a live optimizer, which the next one does not take."""
    return name.startswith("optimizer__param_groups__")


def _same(a: Any, b: Any) -> bool:
    try:
        return a is b or bool(a == b)
    except (TypeError, ValueError, RuntimeError):  # arrays have no single truth
        return False
