"""What EWC adds to a skorch net: tasks, one after another, and a memory of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping, PassthroughScoring
from skorch.callbacks.scoring import ScoringBase
from skorch.utils import to_tensor
from torch import Tensor

from .batches import mean_weight
from .criterion import check_shapes, has_curvature, is_mean_over_samples
from .fisher import diagonal_fisher
from .history import TaskHistory
from .memory import Memory, Task
from .per_sample import Tensors, module_output
from .saving import PersistentNet
from .seeding import draws_random_numbers, seeded, task_generator, task_seed
from .training import PenalisedTraining
from .validation import TaskData


class EWCNet(PersistentNet, PenalisedTraining):
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

    def learn_task(self, data: TaskData, task_weight: float = 1.0) -> None:
        """Train one task under the penalty of the earlier ones, then consolidate it."""
        train, valid = self.get_split_datasets(data.X, data.y, data.sample_weight)
        stochastic = self._rehearse(train)
        if valid is None:
            self._check_monitors()
        else:
            self._check_first_batch(valid)
        self.initialize_optimizer()
        self._begin_task(data)
        self._train(train, valid, stochastic)
        self.notify("on_train_end", X=data.X, y=data.y)
        memory = replace(self.memory_, **self._memory_settings())
        self.memory_ = memory.consolidate(self._finished_task(train, task_weight))

    def _memory_settings(self) -> dict[str, Any]:
        return {"store_tasks": self.store_tasks, "mode": self.mode, "gamma": self.gamma}

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

    def _check_monitors(self) -> None:
        """Raise if a callback waits for a validation loss that there will not be."""
        for name, callback in self.callbacks_:
            monitor = getattr(callback, "monitor", None)
            if isinstance(monitor, str) and monitor.startswith("valid_loss"):
                raise ValueError(
                    f"callback {name} monitors {monitor!r}, but nothing is held out: set "
                    "train_split=skorch.dataset.ValidSplit(5), or monitor='train_loss'"
                )

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
        if not self.store_tasks:
            self.history_.clear()
        for _, callback in self.callbacks_:
            if isinstance(callback, ScoringBase | PassthroughScoring):
                callback.initialize()
        history, self.history_ = self.history_, TaskHistory()
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
        weight_unit = mean_weight(train)
        valid_weight_unit = None if valid is None else mean_weight(valid)
        datasets = {"dataset_train": train, "dataset_valid": valid}
        for _ in range(self.max_epochs):
            self.notify("on_epoch_begin", **datasets)
            self.run_single_epoch(
                batches,
                True,
                "train",
                self.train_step,
                seeds=seeds,
                weight_unit=weight_unit,
                penalty=penalty,
            )
            self.run_single_epoch(
                valid_batches,
                False,
                "valid",
                self.validation_step,
                weight_unit=valid_weight_unit,
            )
            value = penalty.value().item() if self.ewc_lambda > 0 else 0.0
            self.history.record("penalty", self.ewc_lambda * value)
            try:
                self.notify("on_epoch_end", **datasets)
            except KeyboardInterrupt as interrupt:
                if not _stopped_early(interrupt):
                    raise
                break

    def _finished_task(self, dataset: Any, task_weight: float) -> Task:
        module = self._bare_module
        if not all(bool(p.isfinite().all()) for p in module.parameters()):
            raise self._diverged(math.nan)
        self._set_training(False)
        fisher = self._fisher(dataset)
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

    def _fisher(self, dataset: Any) -> Tensors:
        batches = self._batches(dataset)
        return diagonal_fisher(self._bare_module, self.criterion_, batches, self.fisher)

    def _batches(self, dataset: Any) -> Iterator[tuple[Any, ...]]:
        for X, y, *weight in self.get_iterator(dataset, training=False):
            weights = (to_tensor(part, device=self.device) for part in weight)
            yield self._inputs(X), self._target(y), *weights

    def move(self, device: Any) -> None:
        """Move what has been learned to another device."""
        super().move(device)
        self.memory_ = self.memory_.to(device)

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
