"""What EWC adds to a skorch net: tasks, and the memory's penalty while they are learned."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, EpochTimer, PassthroughScoring, PrintLog
from skorch.callbacks.scoring import ScoringBase
from skorch.dataset import get_len, unpack_data
from skorch.history import History
from skorch.utils import TeeGenerator, to_tensor
from torch import Tensor, nn

from .batches import TensorBatches, WeightedDataset, mean_weight
from .criterion import check_shapes, has_curvature, is_mean_over_samples, weighted_loss
from .fisher import diagonal_fisher
from .memory import BoundPenalty, Memory, Task
from .per_sample import module_output
from .scaffold import TORCH_DTYPES, ScikitNet
from .seeding import draw_seed, draws_random_numbers, seeded, task_generator, task_seed
from .validation import TaskData


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


class EWCNet(ScikitNet):
    """A skorch net that learns tasks, each under the penalty of those before.

    The seam between skorch's training and :class:`~sklearn_ewc.Memory`: what a
    regressor needs and a classifier would need alike. Subclasses check what
    users pass in, set ``memory_`` and call :meth:`learn_task` for every task,
    inside :meth:`all_or_nothing`.
    """

    cuda_dependent_attributes_ = ["memory_"]
    memory_: Memory

    @property
    def n_tasks_(self) -> int:
        """Number of tasks learned since the last ``fit``."""
        return self.memory_.n_tasks

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

    def learn_task(self, data: TaskData, task_weight: float = 1.0) -> None:
        """Train one task under the penalty of the earlier ones, then consolidate it."""
        train, valid = self.get_split_datasets(data.X, data.y, data.sample_weight)
        stochastic = self._rehearse(train)
        if valid is not None:
            self._check_first_batch(valid)
        self.initialize_optimizer()
        self._begin_task(data)
        self._train(train, valid, stochastic)
        self.notify("on_train_end", X=data.X, y=data.y)
        memory = replace(self.memory_, store_tasks=self.store_tasks)
        self.memory_ = memory.consolidate(self._finished_task(train, task_weight))

    def _rehearse(self, dataset: Any) -> bool:
        """Try the first batch, to fail before anything is trained; tell if training is random."""
        if mean_weight(dataset) == 0:
            raise ValueError("sample_weight must be positive for some sample that is trained on")
        X, output, y = self._check_first_batch(dataset)
        criterion = self.criterion_
        if not is_mean_over_samples(criterion, output, y):
            raise ValueError(
                f"{type(criterion).__name__} of a batch is not the mean over its samples, so "
                "there is no Fisher of it"
            )
        if self.fisher == "exact" and not has_curvature(criterion, output, y):
            raise ValueError(
                f"{type(criterion).__name__} has no curvature, so fisher='exact' would "
                "remember nothing; use fisher='empirical'"
            )
        self._set_training(True)
        return draws_random_numbers(self._bare_module, X, self.device)

    def _check_first_batch(self, dataset: Any) -> tuple[Any, Tensor, Tensor]:
        batch = next(iter(self.get_iterator(dataset, training=False)), None)
        if batch is None:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
        X, y = self._inputs(batch[0]), self._target(batch[1])
        self._set_training(False)
        # a lazy module draws its parameters now
        with seeded(task_seed(self.seed_, 0), self.device), torch.no_grad():
            output = module_output(self._bare_module, X)
        self.check_output(output, y)
        return X, output, y

    def _begin_task(self, data: TaskData) -> None:
        """Tell the callbacks, so that schedules and best scores start over with the task.

        skorch's own would resume: they look back into the history, so they get
        to see an empty one.
        """
        for _, callback in self.callbacks_:
            if isinstance(callback, ScoringBase | PassthroughScoring):
                callback.initialize()
        history, self.history_ = self.history_, History()
        try:
            self.notify("on_train_begin", X=data.X, y=data.y)
        finally:
            self.history_ = history

    def check_output(self, output: Tensor, y: Tensor) -> None:
        """Raise unless the module's output has one row per sample, and the shape of the targets."""
        if output.shape[:1] != y.shape[:1]:
            raise ValueError(
                f"module returned shape {tuple(output.shape)} for a batch of {len(y)} samples; "
                "the first axis must hold the samples"
            )
        check_shapes(self.criterion_, output, y)

    def _train(self, train: Any, valid: Any, stochastic: bool) -> None:
        generator = task_generator(self.seed_, self.n_tasks_ + 1)
        batches = self.get_iterator(train, training=True, generator=generator)
        valid_batches = None if valid is None else self.get_iterator(valid, training=False)
        penalty = self.memory_.bound(self._bare_module.named_parameters())
        seeds = generator if stochastic else None
        datasets = {"dataset_train": train, "dataset_valid": valid}
        for _ in range(self.max_epochs):
            self.notify("on_epoch_begin", **datasets)
            self.run_single_epoch(
                batches,
                True,
                "train",
                self.train_step,
                seeds=seeds,
                weight_unit=mean_weight(train),
                penalty=penalty,
            )
            self.run_single_epoch(
                valid_batches,
                False,
                "valid",
                self.validation_step,
                weight_unit=None if valid is None else mean_weight(valid),
            )
            self.history.record("penalty", self.ewc_lambda * penalty.value().item())
            try:
                self.notify("on_epoch_end", **datasets)
            except KeyboardInterrupt as interrupt:
                if not _stopped_early(interrupt):
                    raise
                break

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

    def _finished_task(self, dataset: Any, task_weight: float) -> Task:
        module = self._bare_module
        if not all(bool(p.isfinite().all()) for p in module.parameters()):
            raise self._diverged(math.nan)
        self._set_training(False)
        fisher = diagonal_fisher(module, self.criterion_, self._batches(dataset), self.fisher)
        if self.fisher == "exact" and not any(bool(value.any()) for value in fisher.values()):
            raise ValueError(
                f"the exact Fisher of this task is zero: {type(self.criterion_).__name__} has no "
                "curvature at its residuals; use fisher='empirical'"
            )
        return Task(
            anchor={name: p for name, p in module.named_parameters() if name in fisher},
            fisher=fisher,
            weight=float(task_weight),
            damping=self.damping,
            n_samples=len(dataset),
        )

    def _batches(self, dataset: Any) -> Iterator[tuple[Any, ...]]:
        for X, y, *weight in self.get_iterator(dataset, training=False):
            weights = (to_tensor(part, device=self.device) for part in weight)
            yield self._inputs(X), self._target(y), *weights

    def _inputs(self, X: Any) -> Any:
        """Return a batch of inputs on the device, floating numbers in the module's dtype."""
        return self._cast(to_tensor(X, device=self.device))

    def _target(self, y: Any) -> Tensor:
        """Return a batch of targets on the device, floating numbers in the module's dtype."""
        return self._cast(to_tensor(y, device=self.device))

    def _cast(self, data: Any) -> Any:
        if isinstance(data, Tensor):
            return data.to(TORCH_DTYPES[self.dtype_]) if data.is_floating_point() else data
        if isinstance(data, Mapping):
            return {key: self._cast(value) for key, value in data.items()}
        if isinstance(data, tuple | list):
            return type(data)(self._cast(value) for value in data)
        return data

    def move(self, device: Any) -> None:
        """Move what has been learned to another device."""
        super().move(device)
        self.memory_ = self.memory_.to(device)

    @property
    def _bare_module(self) -> nn.Module:
        """The module itself, where ``compile=True`` has wrapped it."""
        return getattr(self.module_, "_orig_mod", self.module_)

    def _diverged(self, loss: float) -> FloatingPointError:
        return FloatingPointError(
            f"training diverged: loss {loss} in epoch {len(self.history)}, task "
            f"{self.n_tasks_ + 1}, with lr={self.lr} and ewc_lambda={self.ewc_lambda}; lower one "
            "of them. The estimator is as it was before the call"
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

    def on_epoch_begin(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Record the task, counted from 1, beside skorch's epoch."""
        super().on_epoch_begin(net, *args, **kwargs)
        self.history.record("task", self.n_tasks_ + 1)


_VARIANTS = {"fused", "foreach", "capturable", "differentiable"}


def _reads_objective(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether an optimizer may use the value that its closure returns.

    Of torch's own, a line search does; of others, anyone may.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        return True
    return not type(optimizer).__module__.startswith("torch.optim.")


def _stopped_early(interrupt: KeyboardInterrupt) -> bool:
    """Tell skorch's EarlyStopping, which stops by raising KeyboardInterrupt, from Ctrl-C."""
    traceback = interrupt.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    raiser = None if traceback is None else traceback.tb_frame.f_locals.get("self")
    return isinstance(raiser, EarlyStopping)
