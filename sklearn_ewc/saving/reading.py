"""Loading the files of a net: all of them together, or none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from skorch.utils import _check_f_arguments
from torch import Tensor, nn

from ..arguments import check_switch, shown
from ..data.checks import TORCH_DTYPES
from ..memory import Memory
from ..rollback import all_or_nothing
from ..tensors import Tensors
from .checks import (
    check_bounded,
    check_memory,
    check_memory_outline,
    check_optimizer_state,
    check_state,
    is_torch_s_own,
)
from .facts import Facts
from .files import (
    NOT_INITIALISED,
    check_files,
    opened_to_read,
    part_of,
    read_history,
    refuse_one_file_for_two,
)
from .memory_file import memory_from_file
from .safetensors_file import safetensors_load
from .scale import read_note, take_scale
from .torch_file import torch_load


def load_params(
    net: Any,
    f_params: Any = None,
    f_optimizer: Any = None,
    f_criterion: Any = None,
    f_history: Any = None,
    f_memory: Any = None,
    checkpoint: Any = None,
    use_safetensors: bool = False,
    **kwargs: Any,
) -> None:
    """Load what :meth:`save_params` saved, all of it or, if anything does not fit, nothing.

    With `f_memory`, an estimator that was never fitted initialises itself; it
    must have the settings of the one that was saved. One that was initialised
    but has seen no data takes the dtype of the file, float64 for example, from
    `f_memory` or `f_params`, and so the scale of y: to predict, `f_params` is enough.

    Names, shapes, dtypes and finiteness are checked before anything changes,
    names and shapes before the numbers are read. No code from a file is run,
    unless ``torch_load_kwargs`` allow it; shapes are then known only afterwards.
    Damage is found by checksums in `f_memory`, and in the other files of torch's
    format; safetensors and JSON have none.

    Parameters
    ----------
    f_params, f_optimizer, f_criterion, f_history, f_memory, **kwargs
        Files of :meth:`save_params`.
    checkpoint : skorch.callbacks.Checkpoint, default=None
        Where to find those that are not given, as in skorch.
    use_safetensors : bool, default=False
        Whether they are safetensors.

    Raises
    ------
    ValueError
        If a file is damaged, of another kind or version, or does not fit the
        estimator; it names the file's argument and the tensor. If parameters go with
        another scale of y than the memory. If two arguments are one file. The
        estimator is then as it was.
    skorch.exceptions.NotInitializedError
        If the estimator is not initialised and `f_memory` is not given.
    """
    files = {"f_params": f_params, "f_optimizer": f_optimizer, "f_criterion": f_criterion}
    files.update(f_history=f_history, f_memory=f_memory, **kwargs)
    files = {name: file for name, file in files.items() if file is not None}
    check_files(files, "read")
    check_switch("use_safetensors", use_safetensors)
    if checkpoint is not None and not hasattr(checkpoint, "get_formatted_files"):
        raise TypeError(f"checkpoint must be a skorch Checkpoint, got {shown(checkpoint)}")
    net.processes_.wait()
    with all_or_nothing(net):
        if checkpoint is not None:
            files = {**_files_of(net, checkpoint, files), **files}
        _check_f_arguments("load_params", **files)
        refuse_one_file_for_two(files)
        if "f_memory" in files:
            _load_memory(net, files.pop("f_memory"), use_safetensors)
        if "f_history" in files:
            _load_history(net, files.pop("f_history"))
        if files and not net.initialized_:
            net.check_is_fitted(msg=NOT_INITIALISED.format(verb="load into"))
        _load_states(net, files, use_safetensors)


def _files_of(net: Any, checkpoint: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the files of a checkpoint, whose names may depend on the history."""
    if not (net.initialized_ or "f_memory" in given):
        net.initialize()
    if "f_history" not in given and checkpoint.f_history is not None:
        _load_history(net, checkpoint.f_history_)
    files = checkpoint.get_formatted_files(net)
    return {name: file for name, file in files.items() if file is not None}


def _load_memory(net: Any, file: Any, use_safetensors: bool) -> None:
    check = partial(_check_outline, net)
    with opened_to_read("f_memory", file) as opened, _explained("f_memory"):
        memory, facts = memory_from_file(opened, use_safetensors, check)
    _take_up(net, memory, facts)


def _check_outline(net: Any, facts: Facts, tensors: Tensors) -> None:
    """Raise ValueError where a memory that is not read yet is not one of the estimator."""
    if not net.initialized_:
        _check_sizes(net, facts, tensors)
        return
    if not _has_seen_data(net):
        _take_dtype(net, np.dtype(facts.dtype_))
    facts.check(Facts.of(net))
    check_memory_outline(tensors, dict(net.bare_module_.named_parameters()))


def _check_sizes(net: Any, facts: Facts, tensors: Tensors) -> None:
    """Raise ValueError where a module of the sizes that a file tells is not that of its tensors.

    Before it is built: it may be of any size, the file of a few bytes.
    """
    net.__dict__.update(facts.attributes())
    module = net._outlined_module()
    if module is not None:
        params = dict(module.named_parameters())
        check_memory_outline(tensors, params)
        check_bounded(tensors, params)


def _take_up(net: Any, memory: Memory, facts: Facts) -> None:
    if not net.initialized_:
        net.__dict__.update(facts.attributes())
        net.initialize()
    with _explained("f_memory"):
        check_memory(memory, dict(net.bare_module_.named_parameters()))
    for name in Facts.__dataclass_fields__:
        net.__dict__.pop(name, None)
    net.__dict__.update(facts.attributes())
    net.memory_ = memory.to(net.device)


def _load_history(net: Any, file: Any) -> None:
    data = read_history(file)
    with _explained("f_history"):
        rows = json.loads(data)
        known = isinstance(rows, list) and all(isinstance(row["batches"], list) for row in rows)
        if not known:
            raise ValueError("it does not hold the rows of a history")
        net.history_ = type(net.history)(rows)


def _load_states(net: Any, files: Mapping[str, Any], use_safetensors: bool) -> None:
    states = []
    for argument, file in files.items():
        part = part_of(net, argument, "load")
        with opened_to_read(argument, file) as opened, _explained(argument):
            states.append((argument, part, _read_state(net, part, opened, use_safetensors)))
    for argument, part, state in states:
        with _explained(argument):
            part.load_state_dict(state)


def _read_state(net: Any, part: Any, file: Any, use_safetensors: bool) -> Any:
    is_module = isinstance(part, nn.Module)

    def check(state: Any) -> None:
        if part is net.bare_module_ and not _has_seen_data(net):
            _take_dtype(net, _dtype_of(state))
        (check_state if is_module else check_optimizer_state)(state, part)

    metadata: Any
    if use_safetensors:
        metadata, state = safetensors_load(file, lambda metadata, outline: check(outline))
    else:
        options = net.torch_load_kwargs or {}
        state = torch_load(file, check, ties=is_module or not is_torch_s_own(part), **options)
        metadata = getattr(state, "_metadata", None)
    check(state)
    if part is net.bare_module_:
        take_scale(net, read_note(metadata))
    return state


def _has_seen_data(net: Any) -> bool:
    return net.n_tasks_ > 0 or net.targets_.n_outputs is not None


def _dtype_of(state: Any) -> Any:
    """Return the one dtype of a state's floating tensors, as numpy's; None if there is none."""
    values = state.values() if isinstance(state, Mapping) else ()
    dtypes = {v.dtype for v in values if isinstance(v, Tensor) and v.is_floating_point()}
    known = [own for own, dtype in TORCH_DTYPES.items() if dtypes == {dtype}]
    return known[0] if known else None


def _take_dtype(net: Any, dtype: Any) -> None:
    """Turn a net into one of another dtype: its own is no more than a default."""
    if dtype is not None and dtype != net.dtype_:
        net.bare_module_.to(TORCH_DTYPES[dtype])
        net.dtype_ = dtype


@contextmanager
def _explained(argument: str) -> Iterator[None]:
    """Turn what a wrong file makes a parser raise, which is nearly anything, into ValueError."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except ValueError as error:
        raise ValueError(f"{argument} does not fit: {error}") from error
    except Exception as error:
        raise ValueError(
            f"{argument} cannot be read: damaged, or another format ({type(error).__name__})"
        ) from error
