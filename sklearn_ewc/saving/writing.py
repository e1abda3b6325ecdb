"""Saving the files of a net, whole."""

from __future__ import annotations

import io
import json
from typing import Any

import torch
from skorch.utils import _check_f_arguments
from torch import Tensor, nn

from ..arguments import check_switch
from .facts import Facts
from .files import (
    LARGEST_HISTORY,
    NOT_INITIALISED,
    check_files,
    part_of,
    refuse_one_file_for_two,
)
from .memory_file import memory_to_bytes
from .scale import noted
from .whole_file import write_whole


def save_params(
    net: Any,
    f_params: Any = None,
    f_optimizer: Any = None,
    f_criterion: Any = None,
    f_history: Any = None,
    f_memory: Any = None,
    use_safetensors: bool = False,
    **kwargs: Any,
) -> None:
    """Save parameters and memory, to go on with the next task in another process.

    `f_params` and `f_memory` are all that the next task needs: optimizers begin
    anew with every task. Every path is written beside and, once all are written,
    moved into place, so that a process killed at any moment leaves the old file
    or the new one, and at worst a temporary ``.NAME.….saving`` beside it; an
    interrupt leaves all of the old files, or all of the new ones. `f_memory` is
    moved last: it never holds a task that the parameters of the same call do not
    know.

    Parameters
    ----------
    f_params : str, path or binary file, default=None
        The parameters and buffers of the module, as in skorch, and the scale of y that
        they were learned in: with them alone a net predicts, but remembers no task.
    f_optimizer, f_criterion : str, path or binary file, default=None
        As in skorch.
    f_history : str, path or text file, default=None
        The history, as JSON: up to 256 MB, which are some million batches.
    f_memory : str, path or binary file, default=None
        ``memory_``, and what the first task decided: seed, dtype, sizes and
        names of columns.
    use_safetensors : bool, default=False
        Write safetensors in place of torch's format. It holds no optimizer.
    **kwargs
        ``f_…`` of further modules, as in skorch.

    Raises
    ------
    skorch.exceptions.NotInitializedError
        If there is nothing to save yet.
    ValueError
        If two arguments are one file, or a part cannot be written in the format.

    See Also
    --------
    load_params : The way back.

    Examples
    --------
    >>> import io
    >>> import numpy as np
    >>> from sklearn_ewc import EWCRegressor
    >>> X = np.linspace(0, 1, 20).reshape(-1, 1)
    >>> net = EWCRegressor(max_epochs=2, random_state=0).partial_fit(X, X.ravel())
    >>> params, memory = io.BytesIO(), io.BytesIO()
    >>> net.save_params(f_params=params, f_memory=memory)
    >>> for file in (params, memory):
    ...     _ = file.seek(0)
    >>> again = EWCRegressor(max_epochs=2, random_state=0)
    >>> again.load_params(f_params=params, f_memory=memory)
    >>> again.n_tasks_
    1
    """
    files = {"f_memory": f_memory, "f_history": f_history, "f_params": f_params}
    files.update(f_optimizer=f_optimizer, f_criterion=f_criterion, **kwargs)
    files = {name: file for name, file in files.items() if file is not None}
    check_files(files, "write")
    check_switch("use_safetensors", use_safetensors)
    if files and not net.initialized_:
        net.check_is_fitted(msg=NOT_INITIALISED.format(verb="save"))
    _check_f_arguments("save_params", **files)
    refuse_one_file_for_two(files)
    net.processes_.wait()
    if net.processes_.is_first:
        contents = [(file, _content(net, name, use_safetensors)) for name, file in files.items()]
        write_whole(contents)


def _content(net: Any, name: str, use_safetensors: bool) -> str | bytes:
    """Return what is to be written: torch's own writer does not survive an interrupt."""
    if name == "f_history":
        return _history(net)
    if name == "f_memory":
        return memory_to_bytes(net.memory_, Facts.of(net), use_safetensors)
    part = part_of(net, name, "save")
    state = part.state_dict()
    if isinstance(part, nn.Module):
        for key, value in state.items():
            if type(value) is Tensor and (use_safetensors or not _fills_its_storage(value)):
                state[key] = value.clone(memory_format=torch.contiguous_format)
    note = noted(net.targets_) if part is net.bare_module_ else {}
    return _state_to_bytes(state, name, use_safetensors, note)


def _fills_its_storage(value: Tensor) -> bool:
    """Tell whether a file of the tensor holds its numbers, not those that it is a view of."""
    return value.layout != torch.strided or value.untyped_storage().nbytes() == value.nbytes


def _state_to_bytes(state: Any, name: str, use_safetensors: bool, note: dict[str, str]) -> bytes:
    if use_safetensors:
        from safetensors.torch import save

        if not all(type(value) is Tensor for value in state.values()):
            raise ValueError(f"{name} cannot be saved as safetensors, which hold tensors only")
        return save(state, note)
    if hasattr(state, "_metadata"):  # torch's own place for what goes with a module's state
        state._metadata.update(note)
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def _history(net: Any) -> str:
    history = json.dumps(net.history.to_list())
    if len(history) > LARGEST_HISTORY:
        raise ValueError(f"f_history would take {len(history)} bytes, at most {LARGEST_HISTORY}")
    return history
