"""Epochs and steps: how batches train a skorch net, under a penalty if there is one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EpochTimer
from skorch.dataset import get_len, unpack_data
from skorch.utils import TeeGenerator, to_device, to_tensor
from torch import Tensor, nn
from torch.optim import Optimizer

from .batches import TensorBatches, WeightedDataset
from .criterion import weighted_loss
from .history import EpochMean, QuietPrintLog, TaskHistory
from .nested import joined, mapped
from .penalty import BoundPenalty, has_known_rates
from .scaffold import TORCH_DTYPES, ScikitNet
from .seeding import draw_seed, seeded


class PenalisedTraining(ScikitNet):
    """A skorch net whose steps go down the sum of criterion and penalty.

    The penalty is a :class:`~sklearn_ewc.penalty.BoundPenalty`, its factor the
    parameter `ewc_lambda`; `penalty_step` tells how its step is taken. Batches may
    carry weights.
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
        if iterator is TensorBatches:
            options.update(shuffle=training, device=self.device)
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
        return mapped(X, self._placed)

    def _target(self, y: Any) -> Tensor:
        """Return a batch of targets on the device, floating numbers in the module's dtype."""
        return self._placed(y)

    def _placed(self, data: Any) -> Tensor:
        if not isinstance(data, Tensor):
            data = to_tensor(data, device=self.device)
        dtype = TORCH_DTYPES[self.dtype_] if data.is_floating_point() else None
        return data.to(device=self.device, dtype=dtype)

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
        begin, end = self._notifier("on_batch_begin"), self._notifier("on_batch_end")
        history, losses = self.history, []
        for X, y, *weight in iterator:
            batch = (X, y)
            if weight:
                weights = to_tensor(weight[0], device=self.device)
                fit_params["sample_weight"] = weights / (weight_unit or 1.0)
            if seeds is not None:
                fit_params["seed"] = draw_seed(seeds)
            begin(batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            size = len(X) if isinstance(X, Tensor) else get_len(X)
            history.record_batch(f"{prefix}_batch_size", size)
            losses.append(step["loss"].detach())
            if end.is_heard:  # else no batch waits for its loss to leave the device
                history.record_batch(f"{prefix}_loss", losses[-1].item())
                end(batch=batch, training=training, **step)
        self._record_losses(f"{prefix}_loss", losses, training)
        history.record(f"{prefix}_batch_count", len(losses))

    def _record_losses(self, name: str, losses: list[Tensor], training: bool) -> None:
        values = torch.stack(losses).tolist() if losses else []
        if training and not all(map(math.isfinite, values)):
            raise self._diverged(next(value for value in values if not math.isfinite(value)))
        rows = self.history[-1]["batches"]
        for row, value in zip(rows[len(rows) - len(values) :], values, strict=True):
            row[name] = value

    def train_step(
        self, batch: Any, penalty: BoundPenalty | None = None, **fit_params: Any
    ) -> dict[str, Any]:
        """Take one step of the optimizer down the sum of criterion and penalty.

        A proximal step on the penalty follows the optimizer's on the criterion.
        Where that is not possible or not wanted, the penalty's gradient joins that
        of the criterion: after :meth:`train_step_single`, which skorch's users
        override, and before ``on_grad_computed``, where gradients are clipped.
        """
        accumulator = self.get_train_step_accumulator()
        gradients = self._notifier("on_grad_computed")
        if self.ewc_lambda == 0:
            penalty = None
        needs_closure = _needs_closure(self.optimizer_)
        is_proximal = (
            self.penalty_step == "proximal"
            and not gradients.is_heard
            and has_known_rates(self.optimizer_)
        )

        def step_fn() -> Tensor:
            self._zero_grad_optimizer()
            step = self.train_step_single(batch, **fit_params)
            accumulator.store_step(step)
            objective = step["loss"]
            if penalty is not None and not is_proximal:
                penalty.add_gradient(self.ewc_lambda)
                if needs_closure:
                    objective = objective.detach() + self.ewc_lambda * penalty.value()
            if gradients.is_heard:
                gradients(
                    named_parameters=TeeGenerator(self.get_all_learnable_params()),
                    batch=batch,
                    training=True,
                )
            return objective

        if needs_closure:
            self._step_optimizer(step_fn)
        else:
            step_fn()
            self._step_optimizer(None)
        if penalty is not None and is_proximal:
            penalty.pull(self.optimizer_, self.ewc_lambda)
        return accumulator.get_step()

    def _zero_grad_optimizer(self, set_to_none: bool | None = None) -> None:
        optimizers = [getattr(self, f"{name}_") for name in self._optimizers]
        if set_to_none is not None or any(
            type(optimizer).zero_grad is not Optimizer.zero_grad for optimizer in optimizers
        ):
            super()._zero_grad_optimizer(set_to_none)
            return
        for optimizer in optimizers:  # the same, without torch's profiling around it
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.grad = None

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
        loss = self._loss(y_pred, yi, Xi, training=True, sample_weight=sample_weight)
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
            loss = self._loss(y_pred, yi, Xi, training=False, sample_weight=sample_weight)
        return {"loss": loss, "y_pred": y_pred}

    def evaluation_step(self, batch: Any, training: bool = False) -> Tensor:
        """Compute the output on a batch, whose weights do not matter for it."""
        return super().evaluation_step(batch[:2], training=training)

    def forward_iter(self, X: Any, training: bool = False, device: Any = "cpu") -> Iterator[Tensor]:
        """Yield the outputs of one batch after another; small ones are joined."""
        batches = self.get_iterator(self.get_dataset(X), training=training)
        for batch in batches if training else joined(batches):
            yield to_device(self.evaluation_step(batch, training=training), device=device)

    def infer(self, x: Any, **fit_params: Any) -> Tensor:
        """Run the module on a batch, in the module's dtype."""
        x = self._inputs(x)
        if isinstance(x, Mapping):
            return self.module_(**self._merge_x_and_fit_params(x, fit_params))
        return self.module_(x, **fit_params)

    def _loss(
        self, y_pred: Tensor, y: Any, X: Any, training: bool, sample_weight: Tensor | None
    ) -> Tensor:
        """Call :meth:`get_loss`, whose overrides need not know of weights where there are none."""
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        return self.get_loss(y_pred, y, X=X, training=training, **weights)

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

    def initialize_history(self) -> PenalisedTraining:
        """Begin an empty history."""
        self.history_ = TaskHistory()
        return self

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Call a hook of the net and of those callbacks that have it."""
        self._notifier(method_name)(**cb_kwargs)

    def _notifier(self, method_name: str) -> _Notifier:
        """Return what :meth:`notify` calls, looked up once for many batches."""
        listeners = [cb for _, cb in self.callbacks_ if _overrides(type(cb), Callback, method_name)]
        return _Notifier(
            self,
            [getattr(part, method_name) for part in (self, *listeners)],
            is_heard=bool(listeners) or _overrides(type(self), NeuralNet, method_name),
        )

    def get_params_for_optimizer(self, prefix: str, named_parameters: Any) -> tuple[Any, Any]:
        """Return skorch's arguments; for Adam the fused variant, unless set otherwise."""
        args, kwargs = super().get_params_for_optimizer(prefix, named_parameters)
        if self.optimizer is torch.optim.Adam and not kwargs.keys() & _VARIANTS:
            kwargs["fused"] = True
        return args, kwargs


@dataclass(frozen=True)
class _Notifier:
    """The hooks of one name: the net's, and those of callbacks that have more than skorch's."""

    net: NeuralNet
    hooks: list[Any]
    is_heard: bool

    def __call__(self, **cb_kwargs: Any) -> None:
        for hook in self.hooks:
            hook(self.net, **cb_kwargs)


def _has_other(cls: type, base: type, name: str) -> bool:
    return getattr(cls, name) is not getattr(base, name)


_overrides: Callable[[Any, Any, str], bool] = lru_cache(_has_other)

_VARIANTS = {"fused", "foreach", "capturable", "differentiable"}


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether an optimizer may ask for the objective more than once, or for its value.

    Of torch's own, a line search does; of others, anyone may.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        return True
    return not type(optimizer).__module__.startswith("torch.optim.")
