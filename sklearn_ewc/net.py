"""What EWC adds to a skorch net: tasks, and the memory's penalty while they are learned."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping, EpochTimer, PassthroughScoring, PrintLog
from skorch.callbacks.scoring import ScoringBase
from skorch.dataset import get_len, unpack_data
from skorch.history import History
from skorch.utils import to_tensor
from torch import Tensor, nn

from .batches import TensorBatches, WeightedDataset
from .criterion import has_curvature, weighted_loss
from .fisher import diagonal_fisher
from .memory import Memory, Task
from .per_sample import module_output
from .scaffold import ScikitNet
from .seeding import draw_seed, draws_random_numbers, seeded, task_generator
from .validation import TaskData


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
            ("train_loss", PassthroughScoring("train_loss", on_train=True)),
            ("penalty", PassthroughScoring("penalty", lower_is_better=None, on_train=True)),
            ("valid_loss", PassthroughScoring("valid_loss")),
            ("print_log", PrintLog()),
        ]

    def get_iterator(
        self,
        dataset: Any,
        training: bool = False,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Return skorch's iterator over a dataset; :class:`TensorBatches` shuffles in training."""
        if not training or self.iterator_train is not TensorBatches:
            return super().get_iterator(dataset, training=training)
        options = {"shuffle": True, "generator": generator, "batch_size": self.batch_size}
        options.update(self.get_params_for("iterator_train"))
        if options["batch_size"] == -1:
            options["batch_size"] = len(dataset)
        return TensorBatches(dataset, **options)

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
        data = data.with_mean_weight_one()
        train, valid = self.get_split_datasets(data.X, data.y, data.sample_weight)
        stochastic = self._rehearse(train)
        self.initialize_optimizer()
        self._begin_task(data)
        self._train(train, valid, stochastic)
        self.notify("on_train_end", X=data.X, y=data.y)
        self.memory_ = self.memory_.consolidate(self._finished_task(train, task_weight))

    def _rehearse(self, dataset: Any) -> bool:
        """Try the first batch, to fail before anything is trained; tell if training is random."""
        batch = next(iter(self.get_iterator(dataset, training=False)), None)
        if batch is None:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
        X, y = to_tensor(batch[0], device=self.device), self._target(batch[1])
        self._set_training(False)
        with torch.no_grad():
            output = module_output(self._bare_module, X)
        self.check_output(output, y)
        if self.fisher == "exact" and not has_curvature(self.criterion_, output, y):
            raise ValueError(
                f"{type(self.criterion_).__name__} has no curvature, so fisher='exact' would "
                "remember nothing; use fisher='empirical'"
            )
        self._set_training(True)
        return draws_random_numbers(self._bare_module, X, self.device)

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
        """Raise unless the module's output has one row per sample."""
        if output.shape[:1] != y.shape[:1]:
            raise ValueError(
                f"module returned shape {tuple(output.shape)} for a batch of {len(y)} samples; "
                "the first axis must hold the samples"
            )

    def _train(self, train: Any, valid: Any, stochastic: bool) -> None:
        generator = task_generator(self.seed_, self.n_tasks_ + 1)
        batches = self.get_iterator(train, training=True, generator=generator)
        valid_batches = None if valid is None else self.get_iterator(valid, training=False)
        seeds = generator if stochastic else None
        datasets = {"dataset_train": train, "dataset_valid": valid}
        for _ in range(self.max_epochs):
            self.notify("on_epoch_begin", **datasets)
            self.run_single_epoch(batches, True, "train", self.train_step, seeds=seeds)
            self.run_single_epoch(valid_batches, False, "valid", self.validation_step)
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
        **fit_params: Any,
    ) -> None:
        """Run skorch's epoch over batches that may carry weights.

        `seeds` is where each step of a module with dropout gets its seed from.
        """
        if iterator is None:
            return
        batch_count = 0
        for X, y, *weight in iterator:
            batch = (X, y)
            if weight:
                fit_params["sample_weight"] = to_tensor(weight[0], device=self.device)
            if seeds is not None:
                fit_params["seed"] = draw_seed(seeds)
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            loss = step["loss"].item()
            if training and not math.isfinite(loss):
                raise self._diverged(loss)
            self.history.record_batch(f"{prefix}_loss", loss)
            if training:
                self.history.record_batch("penalty", step["penalty"].item())
            self.history.record_batch(f"{prefix}_batch_size", get_len(X))
            self.notify("on_batch_end", batch=batch, training=training, **step)
            batch_count += 1
        self.history.record(f"{prefix}_batch_count", batch_count)

    def train_step_single(
        self,
        batch: Any,
        sample_weight: Tensor | None = None,
        seed: int | None = None,
        **fit_params: Any,
    ) -> dict[str, Any]:
        """Compute loss, penalty and the gradients of their sum, which is what is minimised."""
        self._set_training(True)
        Xi, yi = unpack_data(batch)
        with nullcontext() if seed is None else seeded(seed, self.device):
            y_pred = self.infer(Xi, **fit_params)
        loss = self.get_loss(y_pred, yi, X=Xi, training=True, sample_weight=sample_weight)
        penalty = torch.zeros(())
        if self.ewc_lambda > 0 and self.n_tasks_ > 0:
            penalty = self.ewc_lambda * self.memory_.penalty(self._bare_module.named_parameters())
            loss = loss + penalty
        loss.backward()
        return {"loss": loss, "y_pred": y_pred, "penalty": penalty.detach()}

    def validation_step(
        self, batch: Any, sample_weight: Tensor | None = None, **fit_params: Any
    ) -> dict[str, Any]:
        """Compute the loss on a batch that is not trained on, without penalty."""
        self._set_training(False)
        Xi, yi = unpack_data(batch)
        with torch.no_grad():
            y_pred = self.infer(Xi, **fit_params)
            loss = self.get_loss(y_pred, yi, X=Xi, sample_weight=sample_weight)
        return {"loss": loss, "y_pred": y_pred}

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
        return Task(
            anchor={name: p for name, p in module.named_parameters() if name in fisher},
            fisher=fisher,
            weight=float(task_weight),
            damping=self.damping,
            n_samples=len(dataset),
        )

    def _batches(self, dataset: Any) -> Iterator[tuple[Any, ...]]:
        for X, y, *weight in self.get_iterator(dataset, training=False):
            yield (
                to_tensor(X, device=self.device),
                self._target(y),
                *(to_tensor(w, device=self.device) for w in weight),
            )

    def _target(self, y: Any) -> Tensor:
        y = to_tensor(y, device=self.device)
        return y.to(getattr(torch, np.dtype(self.dtype_).name)) if y.is_floating_point() else y

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

    def on_epoch_begin(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Record the task, counted from 1, beside skorch's epoch."""
        super().on_epoch_begin(net, *args, **kwargs)
        self.history.record("task", self.n_tasks_ + 1)


def _stopped_early(interrupt: KeyboardInterrupt) -> bool:
    """Tell skorch's EarlyStopping, which stops by raising KeyboardInterrupt, from Ctrl-C."""
    traceback = interrupt.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    raiser = None if traceback is None else traceback.tb_frame.f_locals.get("self")
    return isinstance(raiser, EarlyStopping)
