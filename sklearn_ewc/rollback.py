"""All or nothing: what a block has changed, in estimators and in modules, is undone if it fails."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from typing import Any, Literal

from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import BaseCrossValidator, BaseShuffleSplit
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from skorch.history import History
from torch import Tensor, nn

from .snapshot import (
    Saved,
    Saver,
    Undo,
    of_copied_holder,
    of_holder,
    of_nothing,
    put_back_items,
    saved,
    saved_modes,
    saver_of_torch,
)

# there are as many rows as there were epochs, and nobody but a callback writes into old ones
_N_COPIED_ROWS = 1000


def all_or_nothing(*objects: Any, modules: bool = True) -> AbstractContextManager[None]:
    """Leave objects as they were before the block if the block raises anything.

    That is all they hold: attributes, containers, estimators, callbacks,
    optimizers and schedulers; the structure, the hooks, the parameters, buffers
    and gradients of modules; arrays and generators. Objects stay the same
    objects. Beside them, torch's grad mode is put back, and in the main thread
    cudnn's flags and torch's global generator, which all threads share.

    What is done is committed when the block ends; nothing that belongs to it
    may follow.

    Parameters
    ----------
    *objects : estimators, modules, optimizers, or containers of them
        What the block may change. What an estimator holds of an unknown kind is
        copied, if it can be; what a net, a callback or a module holds of an
        unknown kind is left alone, and so is a
        :class:`~sklearn.frozen.FrozenEstimator`.
    modules : bool, default=True
        Whether the block may change modules and tensors, whose values cost most.

    Returns
    -------
    context manager
        To be entered once.

    Warns
    -----
    RuntimeWarning
        If something could not be put back.

    Examples
    --------
    >>> import torch
    >>> from sklearn_ewc.rollback import all_or_nothing
    >>> module = torch.nn.Sequential(torch.nn.Linear(1, 1))
    >>> with all_or_nothing(module):
    ...     module[0] = torch.nn.Identity()
    ...     raise RuntimeError("no")
    Traceback (most recent call last):
    RuntimeError: no
    >>> module[0]
    Linear(in_features=1, out_features=1, bias=True)
    """
    return _Attempt(objects, modules)


class _Attempt(AbstractContextManager[None]):
    """The block of :func:`all_or_nothing`.

    No generator: one that an interrupt has left suspended would be closed, and
    would undo, at any later time.
    """

    def __init__(self, objects: tuple[Any, ...], modules: bool) -> None:
        self.objects = objects
        self.unchanged = () if modules else (nn.Module, Tensor)

    def __enter__(self) -> None:
        self.handler = _interrupt_handler()
        self.undos = [*saved_modes(), *saved(self.objects, self.unchanged, _saver_of, True)]

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> Literal[False]:
        if kind is None:
            return False
        while True:
            try:
                _handle_interrupts_by(self.handler and _hold_back)
                failed = _undo_all(self.undos)
                _handle_interrupts_by(self.handler)
                break
            except KeyboardInterrupt:  # half of it is undone: begin again
                continue
        if failed:
            kinds = {type(undo.args[0]).__name__ for undo in failed}
            warnings.warn(
                f"could not be put back after a failure: {', '.join(sorted(kinds))}",
                RuntimeWarning,
                stacklevel=2,
            )
        return False


def _interrupt_handler() -> Any:
    """Return what handles SIGINT; None where it cannot be replaced."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return signal.getsignal(signal.SIGINT) if in_main_thread else None


def _handle_interrupts_by(handler: Any) -> None:
    if handler is not None:
        signal.signal(signal.SIGINT, handler)


def _hold_back(*_: Any) -> None:
    """Handle an interrupt while something is undone, by nothing: an error is under way already."""


def _undo_all(undos: Iterable[Undo]) -> list[Undo]:
    """Put everything back, and return what raised twice: others may have been in its way once."""
    for _ in range(2):
        undos = [undo for undo in undos if not _succeeds(undo)]
    return list(undos)


def _succeeds(undo: Undo) -> bool:
    try:
        undo()
    except Exception:
        return False
    return True


@lru_cache(maxsize=1024)
def _saver_of(kind: type) -> Saver | None:
    """Return what saves objects of a kind; None if the kind is unknown."""
    for kinds, save in _SAVERS:
        if issubclass(kind, kinds):
            return save
    known = saver_of_torch(kind)
    if known is None and any(hasattr(kind, name) for name in ("get_params", "set_params", "fit")):
        return of_copied_holder  # an estimator, or what skorch takes for a callback
    return known


def _of_history(rows: list[Any]) -> Saved:
    saved = list(rows)
    copies = [dict(row) for row in saved[-_N_COPIED_ROWS:]]
    return partial(_put_back_history, rows, saved, copies, dict(vars(rows))), ()


def _put_back_history(
    rows: list[Any], saved: list[Any], copies: list[dict[str, Any]], attributes: dict[str, Any]
) -> None:
    list.__setitem__(rows, slice(None), saved)
    for row, copy in zip(saved[len(saved) - len(copies) :], copies, strict=True):
        put_back_items(row, copy)
    vars(rows).update(attributes)


_SAVERS: tuple[tuple[Any, Saver], ...] = (
    (FrozenEstimator, of_nothing),
    (History, _of_history),
    # what these hold of an unknown kind are no arrays that they change in place, but loggers,
    # datasets, accelerators, the immutable memory
    ((NeuralNet, Callback), of_holder),
    ((ValidSplit, BaseCrossValidator, BaseShuffleSplit), of_copied_holder),
)
