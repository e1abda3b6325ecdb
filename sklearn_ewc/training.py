"""Epochs and steps: how batches train a skorch net, under a penalty if there is one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EpochTimer, PassthroughScoring, PrintLog
from skorch.dataset import get_len, unpack_data
from skorch.utils import TeeGenerator, to_tensor
from torch import Tensor, nn

from .batches import TensorBatches, WeightedDataset
from .criterion import weighted_loss
from .per_sample import mapped
from .quadratic import BoundPenalty
from .scaffold import TORCH_DTYPES, ScikitNet
from .seeding import draw_seed, seeded


class QuietPrintLog(PrintLog):
    """skorch's table, not even made up where nobody reads it."""

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Print the epoch's row."""
        if net.verbose or self.sink is not print:
            super().on_epoch_end(net, **kwargs)


class EpochMean(PassthroughScoring):
    """skorch's average of a batch value over an epoch, read off the rows directly."""

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the average and whether it is the best of the task."""
        size = "train_batch_size" if self.on_train else "valid_batch_size"
        batches = [row for row in net.history[-1]["batches"] if self.name in row]
        if not batches:
            return
        mean = np.average(
            [row[self.name] for row in batches], weights=[row[size] for row in batches]
        )
        is_best = self._is_best_score(mean)
        if is_best:
            self.best_score_ = mean
        net.history.record(self.name, mean)
        net.history.record(f"{self.name}_best", bool(is_best))


class PenalisedTraining(ScikitNet):
    """A skorch net whose steps go down the sum of criterion and penalty.

    The penalty is a :class:`~sklearn_ewc.quadratic.BoundPenalty`, its factor the
    parameter `ewc_lambda`. Batches may carry weights.
    """

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        return [
            ("epoch_timer", EpochTimer()),
            ("train_loss", EpochMean("train_loss", on_train=True)),
            ("valid_loss", EpochMean("valid_loss")),
            ("print_log", QuietPrintLog()),
        ]

    def get_iterator(
        self,
        dataset: Any,
        training: bool = False,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Return skorch's iterator over a dataset, drawing from `generator` where it draws.

        :class:`TensorBatches` shuffles in training; any other iterator as it is told.
        """
        prefix = "iterator_train" if training else "iterator_valid"
        iterator = getattr(self, prefix)
        options: dict[str, Any] = {"batch_size": self.batch_size}
        if "generator" in inspect.signature(iterator).parameters:
            options["generator"] = generator or torch.Generator()
        if training and iterator is TensorBatches:
            options["shuffle"] = True
        options.update(self.get_params_for(prefix))
        if options["batch_size"] == -1:
            options["batch_size"] = len(dataset)
        return iterator(dataset, **options)

    def get_split_datasets(
        self, X: Any, y: Any = None, sample_weight: np.ndarray | None = None, **fit_params: Any
    ) -> tuple[Any, Any]:
        """Return the datasets for training and validation, with their weights if there are any."""
        dataset = self.get_dataset(X, y)
        if sample_weight is not None:
            dataset = WeightedDataset(dataset, sample_weight)
        if not self.train_split:
            return dataset, None
        return self.train_split(dataset, *(() if y is None else (y,)), **fit_params)

    def _inputs(self, X: Any) -> Any:
        """Return a batch of inputs on the device, floating numbers in the module's dtype."""
        return self._cast(to_tensor(X, device=self.device))

    def _target(self, y: Any) -> Tensor:
        """Return a batch of targets on the device, floating numbers in the module's dtype."""
        return self._cast(to_tensor(y, device=self.device))

    def _cast(self, data: Any) -> Any:
        dtype = TORCH_DTYPES[self.dtype_]
        return mapped(data, lambda x: x.to(dtype) if x.is_floating_point() else x)

    @property
    def _bare_module(self) -> nn.Module:
        """The module itself, where ``compile=True`` has wrapped it."""
        return getattr(self.module_, "_orig_mod", self.module_)

    def run_single_epoch(
        self,
        iterator: Any,
        training: bool,
        prefix: str,
        step_fn: Any,
        seeds: torch.Generator | None = None,
        weight_unit: float | None = None,
        **fit_params: Any,
    ) -> None:
        """Run skorch's epoch over batches that may carry weights.

        `seeds` is where each step of a module with dropout gets its seed from,
        `weight_unit` the mean weight of the samples.
        """
        if iterator is None:
            return
        if self.module_.training != training:
            self._set_training(training)
        batch_count = 0
        for X, y, *weight in iterator:
            batch = (X, y)
            if weight:
                weights = to_tensor(weight[0], device=self.device)
                fit_params["sample_weight"] = weights / (weight_unit or 1.0)
            if seeds is not None:
                fit_params["seed"] = draw_seed(seeds)
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            loss = step["loss"].item()
            if training and not math.isfinite(loss):
                raise self._diverged(loss)
            self.history.record_batch(f"{prefix}_loss", loss)
            size = len(X) if isinstance(X, Tensor) else get_len(X)
            self.history.record_batch(f"{prefix}_batch_size", size)
            self.notify("on_batch_end", batch=batch, training=training, **step)
            batch_count += 1
        self.history.record(f"{prefix}_batch_count", batch_count)

    def train_step(
        self, batch: Any, penalty: BoundPenalty | None = None, **fit_params: Any
    ) -> dict[str, Any]:
        """Take one step of the optimizer down the sum of criterion and penalty.

        The penalty joins after :meth:`train_step_single`, which skorch's users
        override, and before ``on_grad_computed``, where gradients are clipped.
        """
        accumulator = self.get_train_step_accumulator()

        def step_fn() -> Tensor:
            self._zero_grad_optimizer()
            step = self.train_step_single(batch, **fit_params)
            accumulator.store_step(step)
            objective = step["loss"]
            if penalty is not None and self.ewc_lambda > 0:
                penalty.add_gradient(self.ewc_lambda)
                if _reads_objective(self.optimizer_):
                    objective = objective.detach() + self.ewc_lambda * penalty.value()
            if self._heard("on_grad_computed"):
                self.notify(
                    "on_grad_computed",
                    named_parameters=TeeGenerator(self.get_all_learnable_params()),
                    batch=batch,
                    training=True,
                )
            return objective

        self._step_optimizer(step_fn)
        return accumulator.get_step()

    def train_step_single(
        self,
        batch: Any,
        sample_weight: Tensor | None = None,
        seed: int | None = None,
        **fit_params: Any,
    ) -> dict[str, Any]:
        """Compute the criterion on a batch and its gradients."""
        if not self.module_.training:  # a callback has predicted in between
            self._set_training(True)
        Xi, yi = unpack_data(batch)
        with nullcontext() if seed is None else seeded(seed, self.device):
            y_pred = self.infer(Xi, **fit_params)
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        loss = self.get_loss(y_pred, yi, X=Xi, training=True, **weights)
        loss.backward()
        return {"loss": loss, "y_pred": y_pred}

    def validation_step(
        self, batch: Any, sample_weight: Tensor | None = None, **fit_params: Any
    ) -> dict[str, Any]:
        """Compute the loss on a batch that is not trained on, without penalty."""
        self._set_training(False)
        Xi, yi = unpack_data(batch)
        with torch.no_grad():
            y_pred = self.infer(Xi, **fit_params)
            weights = {} if sample_weight is None else {"sample_weight": sample_weight}
            loss = self.get_loss(y_pred, yi, X=Xi, training=False, **weights)
        return {"loss": loss, "y_pred": y_pred}

    def evaluation_step(self, batch: Any, training: bool = False) -> Tensor:
        """Compute the output on a batch, whose weights do not matter for it."""
        return super().evaluation_step(batch[:2], training=training)

    def infer(self, x: Any, **fit_params: Any) -> Tensor:
        """Run the module on a batch, in the module's dtype."""
        x = self._inputs(x)
        if isinstance(x, Mapping):
            return self.module_(**self._merge_x_and_fit_params(x, fit_params))
        return self.module_(x, **fit_params)

    def get_loss(
        self,
        y_pred: Tensor,
        y_true: Any,
        X: Any = None,
        training: bool = False,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Return the criterion on a batch, without penalty."""
        return weighted_loss(self.criterion_, y_pred, self._target(y_true), sample_weight)

    def _diverged(self, loss: float) -> FloatingPointError:
        return FloatingPointError(
            f"training diverged: loss {loss} in epoch {len(self.history)}, task "
            f"{self.history[-1, 'task']}, with lr={self.lr} and ewc_lambda={self.ewc_lambda}; "
            "lower one of them. The estimator is as it was before the call"
        )

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Call a hook of the net and of those callbacks that have it."""
        getattr(self, method_name)(self, **cb_kwargs)
        for callback in self._listeners(method_name):
            getattr(callback, method_name)(self, **cb_kwargs)

    def _listeners(self, method_name: str) -> list[Any]:
        """Return the callbacks whose hook is other than that of skorch's base class."""
        idle = getattr(Callback, method_name)
        return [cb for _, cb in self.callbacks_ if getattr(type(cb), method_name) is not idle]

    def _heard(self, method_name: str) -> bool:
        own = getattr(type(self), method_name) is not getattr(NeuralNet, method_name)
        return own or bool(self._listeners(method_name))

    def get_params_for_optimizer(self, prefix: str, named_parameters: Any) -> tuple[Any, Any]:
        """Return skorch's arguments; for Adam the fused variant, unless set otherwise."""
        args, kwargs = super().get_params_for_optimizer(prefix, named_parameters)
        if self.optimizer is torch.optim.Adam and not kwargs.keys() & _VARIANTS:
            kwargs["fused"] = True
        return args, kwargs


_VARIANTS = {"fused", "foreach", "capturable", "differentiable"}


def _reads_objective(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether an optimizer may use the value that its closure returns.

    Of torch's own, a line search does; of others, anyone may.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        return True
    return not type(optimizer).__module__.startswith("torch.optim.")
