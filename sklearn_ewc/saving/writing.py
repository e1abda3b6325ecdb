"""The files of a net: saved whole, loaded all together or not at all.

The two functions are the methods of :class:`~sklearn_ewc.training.net.EWCNet` of their
names, and replace those of :class:`skorch.NeuralNet`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from skorch import NeuralNet
from skorch.utils import _check_f_arguments
from torch.optim import Optimizer

from ..memory import Memory
from ..rollback import all_or_nothing
from .checks import check_memory, check_optimizer_state, check_state
from .facts import Facts
from .memory_file import memory_from_bytes, memory_to_bytes, safetensors_load, torch_load
from .whole_file import whole_file

_NOT_INITIALISED = (
    "Cannot {verb} an estimator that is not initialised: fit it, call initialize(), or load "
    "f_memory too"
)
_NO_SUCH_PART = "There is nothing to {verb} for f_{{name}}: the net has no module net.{{name}}_"


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
    anew with every task. Every path is written beside and moved into place, so
    that a process killed at any moment leaves the old file or the new one, and
    at worst a temporary ``.NAME.….saving`` beside it. `f_memory` is moved last:
    it never holds a task that the parameters of the same call do not know.

    Parameters
    ----------
    f_params : str, path or binary file, default=None
        The parameters and buffers of the module, as in skorch.
    f_optimizer, f_criterion : str, path or binary file, default=None
        As in skorch.
    f_history : str, path or text file, default=None
        The history, as JSON.
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
    if files and not net.initialized_:
        net.check_is_fitted(msg=_NOT_INITIALISED.format(verb="save"))
    net.processes_.wait()
    if not net.processes_.is_first:
        return
    with ExitStack() as stack:  # moves into place from last to first
        opened = {
            name: stack.enter_context(whole_file(file, "w" if name == "f_history" else "wb"))
            for name, file in files.items()
        }
        if "f_memory" in opened:
            data = memory_to_bytes(net.memory_, Facts.of(net), use_safetensors)
            opened.pop("f_memory").write(data)
        if "f_history" in opened:
            opened.pop("f_history").write(json.dumps(net.history.to_list()))
        if opened:
            NeuralNet.save_params(net, use_safetensors=use_safetensors, **opened)


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
    must have the settings of the one that was saved. Names, shapes, dtypes
    and finiteness are checked before anything changes. No code from a file
    is run. Damage is found by checksums in `f_memory`, and in the other files
    of torch's format; safetensors and JSON have none.

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
        estimator; it names the file's argument and the tensor. The estimator
        is then as it was.
    skorch.exceptions.NotInitializedError
        If the estimator is not initialised and `f_memory` is not given.
    """
    files = {"f_params": f_params, "f_optimizer": f_optimizer, "f_criterion": f_criterion}
    files.update(f_history=f_history, f_memory=f_memory, **kwargs)
    files = {name: file for name, file in files.items() if file is not None}
    net.processes_.wait()
    with all_or_nothing(net):
        if checkpoint is not None:
            files = {**_files_of(net, checkpoint, files), **files}
        modules, others = _check_f_arguments("load_params", **files)
        if "memory_" in modules:
            data = _read(modules.pop("memory_"))
            with _explained("f_memory"):
                memory, facts = memory_from_bytes(data, use_safetensors)
            _take_up(net, memory, facts)
        if "f_history" in others:
            _load_history(net, others["f_history"])
        if modules and not net.initialized_:
            net.check_is_fitted(msg=_NOT_INITIALISED.format(verb="load into"))
        _load_states(net, modules, use_safetensors)


def _files_of(net: Any, checkpoint: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the files of a checkpoint, whose names may depend on the history."""
    if not (net.initialized_ or "f_memory" in given):
        net.initialize()
    if "f_history" not in given and checkpoint.f_history is not None:
        _load_history(net, checkpoint.f_history_)
    files = checkpoint.get_formatted_files(net)
    return {name: file for name, file in files.items() if file is not None}


def _take_up(net: Any, memory: Memory, facts: Facts) -> None:
    if net.initialized_:
        with _explained("f_memory"):
            facts.check(Facts.of(net))
    else:
        net.__dict__.update(facts.attributes())
        net.initialize()
    with _explained("f_memory"):
        check_memory(memory, dict(net.bare_module_.named_parameters()))
    for name in Facts.__dataclass_fields__:
        net.__dict__.pop(name, None)
    net.__dict__.update(facts.attributes())
    net.memory_ = memory.to(net.device)


def _load_history(net: Any, file: Any) -> None:
    data = _read(file)
    with _explained("f_history"):
        rows = json.loads(data)
        known = isinstance(rows, list) and all(isinstance(row["batches"], list) for row in rows)
        if not known:
            raise ValueError("it does not hold the rows of a history")
    net.initialize_history()
    net.history.extend(rows)


def _load_states(net: Any, files: Mapping[str, Any], use_safetensors: bool) -> None:
    options = net.torch_load_kwargs or {"weights_only": True}
    states = []
    for name, file in files.items():
        argument = "f_params" if name == "module_" else f"f_{name[:-1]}"
        part = net._get_module(name, msg=_NO_SUCH_PART.format(verb="load"))
        data = _read(file)
        with _explained(argument):
            state = safetensors_load(data) if use_safetensors else torch_load(data, **options)
            if isinstance(part, Optimizer):
                check_optimizer_state(state, part)
            else:
                check_state(state, part)
        states.append((argument, part, state))
    for argument, part, state in states:
        with _explained(argument):
            part.load_state_dict(state)


def _read(file: Any) -> Any:
    if not isinstance(file, str | os.PathLike):
        return file.read()
    with open(file, "rb") as opened:
        return opened.read()


@contextmanager
def _explained(argument: str) -> Iterator[None]:
    """Turn what a wrong file makes a parser raise, which is nearly anything, into ValueError."""
    try:
        yield
    except ImportError:
        raise
    except ValueError as error:
        raise ValueError(f"{argument} does not fit: {error}") from error
    except Exception as error:
        raise ValueError(
            f"{argument} cannot be read: damaged, or another format ({type(error).__name__})"
        ) from error
