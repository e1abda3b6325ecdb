"""One task trained by several processes, through Hugging Face accelerate."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from skorch.dataset import unpack_data
from skorch.hf import AccelerateMixin
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .fisher import diagonal_fisher
from .nested import mapped
from .per_sample import Tensors
from .regressor import EWCRegressor
from .seeding import seeded
from .validation import TaskData


class AcceleratedEWCRegressor(AccelerateMixin, EWCRegressor):
    """An EWCRegressor whose batches are shared out among the processes of an Accelerator.

    Every process runs the same program on the same data, and computes every n-th
    row of each batch, n being the number of processes. Gradients are averaged over
    all rows of all processes, and so is the Fisher: parameters, history and memory
    are the same in every process, and those of one process alone, but for
    rounding. So `batch_size` is that of all processes together. Validation and
    ``predict`` are not shared out: every process computes them whole.

    Parameters
    ----------
    *args, **kwargs
        As for :class:`~sklearn_ewc.EWCRegressor`.
    accelerator : accelerate.Accelerator
        Of this net alone. With ``device_placement=False``, without gradient
        accumulation, and with `mixed_precision` "no" or "bf16".
    device : str or torch.device, default="cpu"
        Where this process computes: ``accelerator.device`` on GPUs.

    Raises
    ------
    ValueError
        By ``fit`` and ``partial_fit``, if the accelerator accumulates or scales
        gradients: the penalty is not part of what it would accumulate or scale.

    Notes
    -----
    Where one process alone raises an error, the others wait for it until the
    process group's timeout. Dropout draws another mask in every process. A
    BatchNorm layer sees the rows of its own process only; convert it to
    :class:`torch.nn.SyncBatchNorm`.

    Examples
    --------
    A program to be started by ``accelerate launch`` or ``torchrun``::

        from accelerate import Accelerator
        from sklearn_ewc.accelerated import AcceleratedEWCRegressor

        accelerator = Accelerator(device_placement=False)
        net = AcceleratedEWCRegressor(accelerator=accelerator, device=accelerator.device)
        net.partial_fit(X, y)
    """

    _wrapped_with_accelerator: bool
    callbacks__print_log__sink: Any

    def __init__(self, *args: Any, accelerator: Any, device: Any = "cpu", **kwargs: Any) -> None:
        super().__init__(*args, accelerator=accelerator, device=device, **kwargs)

    def initialize(self) -> AcceleratedEWCRegressor:
        """Build the module anew, with an empty memory; the first process draws the seed."""
        EWCRegressor.initialize(self)  # the mixin's would wrap a module that may yet be lazy
        drawn = self.seed_ if self.accelerator.is_main_process else 0
        self.seed_ = int(self._summed(torch.tensor(drawn, device=self.device)))
        return self

    def _initialize_callbacks(self) -> AcceleratedEWCRegressor:
        """Let the first process alone print; the mixin's choice prints at ``verbose=0`` too."""
        if self.callbacks__print_log__sink == "auto":
            is_main = self.accelerator.is_main_process
            self.callbacks__print_log__sink = print if is_main else _print_nothing
        return super()._initialize_callbacks()

    def learn_task(self, data: TaskData, task_weight: float = 1.0) -> None:
        """Train one task with all processes, then consolidate it in each."""
        if self.accelerator.gradient_accumulation_steps != 1:
            raise ValueError("accelerator must not accumulate gradients: raise batch_size instead")
        if self.accelerator.scaler is not None:
            raise ValueError("accelerator must not scale gradients: use mixed_precision='bf16'")
        super().learn_task(data, task_weight)

    def _begin_task(self, data: TaskData) -> None:
        super()._begin_task(data)
        self._initialize_accelerator()

    def _initialize_accelerator(self) -> AcceleratedEWCRegressor:
        """Wrap the module alone: the steps of the optimizer need nothing from accelerate."""
        if not self._wrapped_with_accelerator:
            self.module_ = self.accelerator.prepare(self.module_)
            self._wrapped_with_accelerator = True
        return self

    def _unwrap_accelerator(self) -> None:
        super()._unwrap_accelerator()
        self.accelerator.free_memory()  # or it would keep the wrapper of every task

    @property
    def _bare_module(self) -> nn.Module:  # type: ignore[override]
        wrapped = isinstance(self.module_, DistributedDataParallel)
        module = self.module_.module if wrapped else self.module_
        return getattr(module, "_orig_mod", module)

    def _share(self, data: Any) -> Any:
        """Return this process's rows of a batch."""
        rows = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        return mapped(data, lambda part: part[rows])

    def _summed(self, tensors: Any) -> Any:
        """Return a tensor, or those of a dict, summed over the processes."""
        return self.accelerator.reduce(tensors, "sum")

    def train_step_single(
        self,
        batch: Any,
        sample_weight: Tensor | None = None,
        seed: int | None = None,
        **fit_params: Any,
    ) -> dict[str, Any]:
        """Compute the criterion on a batch and its gradients, each process on its share.

        The loss is that of the whole batch, `y_pred` that of the share.
        """
        if not self.module_.training:  # a callback has predicted in between
            self._set_training(True)
        X, y = unpack_data(batch)
        X, y, n_samples = self._share(self._inputs(X)), self._share(self._target(y)), len(y)
        sample_weight = None if sample_weight is None else self._share(sample_weight)
        with ExitStack() as stack:
            if seed is not None:
                stack.enter_context(seeded(seed + self.accelerator.process_index, self.device))
            stack.enter_context(self.accelerator.autocast())
            y_pred = self.infer(X, **fit_params)
            loss = self._loss_of_share(y_pred, y, X, n_samples, sample_weight)
        # the gradients of the processes are averaged, their losses add up
        self.accelerator.backward(loss * self.accelerator.num_processes)
        return {"loss": self._summed(loss.detach()), "y_pred": y_pred}

    def _loss_of_share(
        self, y_pred: Tensor, y: Tensor, X: Any, n_samples: int, sample_weight: Tensor | None
    ) -> Tensor:
        """Return what the rows of this process add to the loss of a batch of `n_samples`."""
        if len(y) == 0:
            return y_pred.sum()  # zero, with a gradient that the other processes wait for
        loss = self._loss(y_pred, y, X, training=True, sample_weight=sample_weight)
        is_sum = getattr(self.criterion_, "reduction", None) == "sum"
        return loss if is_sum else loss * (len(y) / n_samples)

    def _fisher(self, dataset: Any) -> Tensors:
        shares = (self._share(batch) for batch in self._batches(dataset))
        seen = (share for share in shares if len(share[1]))
        return diagonal_fisher(
            self._bare_module, self.criterion_, seen, self.fisher, reduce=self._summed
        )

    # the mixin's would share out the data, and the predictions, a second time
    get_iterator = EWCRegressor.get_iterator
    evaluation_step = EWCRegressor.evaluation_step
    _step_optimizer = EWCRegressor._step_optimizer  # the mixin's takes no step without a closure


def _print_nothing(*args: Any) -> None:
    """Stand in for ``print`` in all processes but the first."""
