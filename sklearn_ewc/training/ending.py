"""The end of a task: consolidated, with the callbacks told of it, in whatever order they act."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, EpochScoring

from ..memory import Memory, Task
from ..memory.density import Density
from ..tensors import Tensors, copied
from .interrupts import stoppable
from .skorch_parts import function_of

_WRITE_NOTHING = {
    kind.on_train_end for kind in (NeuralNet, Callback, Checkpoint, EarlyStopping, EpochScoring)
}


def end_task(
    net: Any,
    memory: Memory,
    finished: Callable[[], Task],
    inputs: Density | None = None,
    **data: Any,
) -> None:
    """Consolidate a trained task, and call the hooks ``on_train_end``.

    Whoever writes a file in it finds the task in the memory, and whoever exchanges
    the parameters there, as those do who load the best epoch, has it estimated where
    it then ends.

    Parameters
    ----------
    net : EWCNet
    memory : Memory
        Of the tasks before.
    finished : callable
        Returns the task as it ends with the net's present parameters.
    inputs : Density, default=None
        Of the task's inputs.
    **data
        What the hooks are passed.
    """
    consolidated: tuple[Memory, Tensors] | None = None

    def consolidate() -> None:
        nonlocal consolidated
        if consolidated is None or not _holds(net, *consolidated):
            net.memory_ = memory
            net.memory_ = memory.consolidate(finished(), inputs)
            consolidated = net.memory_, copied(_state(net))

    def before_each(listener: Any) -> None:
        if function_of(listener, "on_train_end") not in _WRITE_NOTHING:
            consolidate()

    with stoppable():
        net.notify("on_train_end", before_each=before_each, **data)
    consolidate()


def _holds(net: Any, memory: Memory, state: Tensors) -> bool:
    """Tell whether a net is as it was when its memory was made."""
    now = _state(net)
    return (
        net.memory_ is memory
        and now.keys() == state.keys()
        and all(
            one.shape == state[name].shape and torch.equal(one, state[name])
            for name, one in now.items()
        )
    )


def _state(net: Any) -> Tensors:
    module = net.bare_module_
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
