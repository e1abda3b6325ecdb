"""The processes that train one task together, as a value: this one alone, or an Accelerator's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..tensors import mapped, uncompiled

# It takes the process group of the moment for the default of its functions. Imported only by the
# first DistributedDataParallel, it would keep the group, and its threads, beyond
# destroy_process_group, and a thread that needs the interpreter while that ends aborts the process.
if torch.distributed.is_available():
    import torch.distributed.nn


@dataclass(frozen=True)
class Processes:
    """What differs where several processes train one task; nothing where one does.

    Every process runs the same program on the same data, and computes every n-th
    row of each batch, n being the number of processes. Gradients are averaged over
    all rows of all processes, and so is the Fisher.

    Parameters
    ----------
    accelerator : accelerate.Accelerator, default=None
        None: this process alone.
    """

    accelerator: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints and writes files."""
        return self.accelerator is None or self.accelerator.is_main_process

    def check(self) -> None:
        """Raise where the accelerator is none, or does what the penalty would not be part of."""
        if self.accelerator is None:
            return
        if not hasattr(self.accelerator, "num_processes"):
            raise TypeError(
                f"accelerator must be None or an accelerate.Accelerator, got {self.accelerator!r}"
            )
        if self.accelerator.device_placement:
            raise ValueError("accelerator must leave devices alone: device_placement=False")
        if self.accelerator.gradient_accumulation_steps != 1:
            raise ValueError("accelerator must not accumulate gradients: raise batch_size instead")
        if self.accelerator.scaler is not None:
            raise ValueError("accelerator must not scale gradients: use mixed_precision='bf16'")

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def agreed(self, number: int, device: Any) -> int:
        """Return the number that the first process came with."""
        if self.accelerator is None:
            return number
        return int(self.summed(torch.tensor(number if self.is_first else 0, device=device)))

    def share(self, data: Any) -> Any:
        """Return this process's rows of a batch."""
        if self.accelerator is None:
            return data
        rows = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        return mapped(data, lambda part: part[rows])

    def share_sizes(self, n_rows: int) -> list[int]:
        """Return how many rows the shares of a batch have, in any process, the largest first."""
        if self.accelerator is None:
            return [n_rows]
        n = self.accelerator.num_processes
        return sorted({-(-n_rows // n), max(n_rows // n, 1)}, reverse=True)

    def summed(self, tensors: Any) -> Any:
        """Return a tensor, or those of a dict, summed over the processes."""
        return tensors if self.accelerator is None else self.accelerator.reduce(tensors, "sum")

    def seed(self, seed: int) -> int:
        """Return the seed of this process, so that dropout draws other masks in each."""
        return seed if self.accelerator is None else seed + self.accelerator.process_index

    def precision(self) -> AbstractContextManager[None]:
        """Return the context of a forward pass: the accelerator's mixed precision."""
        return nullcontext() if self.accelerator is None else self.accelerator.autocast()

    def backward(self, loss: Tensor) -> Tensor:
        """Compute the gradients of the loss of all shares; return it.

        `loss` is what the rows of this process add to it.
        """
        if self.accelerator is None:
            loss.backward()
            return loss
        # the gradients of the processes are averaged, their losses add up
        self.accelerator.backward(loss * self.accelerator.num_processes)
        return self.summed(loss.detach())

    @contextmanager
    def training(self, net: Any) -> Iterator[None]:
        """Wrap a net's module for the block: the steps of the optimizer need nothing of it."""
        if self.accelerator is None:
            yield
            return
        module = net.module_
        net.module_ = self.accelerator.prepare(module)
        try:
            yield
            self.wait()
        finally:
            net.module_ = module
            self.accelerator.free_memory()  # or it would keep the wrapper of every task


def bare(module: nn.Module) -> nn.Module:
    """Return a module without what several processes, or ``compile=True``, have wrapped it in."""
    if isinstance(module, DistributedDataParallel):
        module = module.module
    return uncompiled(module)
