"""What of skorch is replaced: what it is, why, and until when.

Parts of a net stand here, each with its reason. Of the methods that
:class:`~sklearn_ewc.training.net.EWCNet` overrides,

- ``fit``, ``partial_fit``, ``initialize``, ``set_params``, ``initialize_module``: a
  task is learned wholly or not at all, and a module that has learned is never built
  anew behind one's back. For good. ``fit_loop`` would train past the memory, and says
  so.
- ``initialized_instance``: a module that the user passes is copied, as scikit-learn
  wants of parameters, and a function is a criterion. Until skorch does so.
- ``get_dataset``, ``initialize_criterion``, ``initialize_optimizer``,
  ``initialize_callbacks``: what a wrong argument leads to names it. Until skorch's do.
- ``get_iterator``: whole tensors are sliced, and the order follows `random_state`.
  Until a DataLoader does not draw from the global generator.
- ``run_single_epoch``, ``train_step_single``, ``validation_step``,
  ``evaluation_step``, ``get_loss``: batches carry weights, and losses leave the
  device once an epoch. Until skorch passes on a third part of a batch.
- ``train_step``: the penalty and the replay. For good.
- ``_set_training``: layers whose running statistics old tasks rely on stay in
  evaluation while a task is trained, and ``__getstate__``: not in a copy of the net
  that is made meanwhile. For good.
- ``infer``, ``get_loss``: the dtype of the data is that of the module. For good.
- ``forward_iter``: small batches are joined, a third of the time of predicting from
  tables. Until skorch has a batch size for predictions.
- ``notify``: callbacks end a task by KeyboardInterrupt, which is told from Ctrl-C, see
  :mod:`~.interrupts`; and who waits for a validation loss that there is not is told.
  Until skorch's stop by something of their own.
- ``_zero_grad_optimizer``, ``get_params_for_optimizer``, ``initialize_history``,
  ``_default_callbacks``: the same at less cost, see :mod:`~.steps` and below.
- ``save_params``, ``load_params``: a file for the memory, whole files, and loading
  that checks first. For good.
- ``_get_param_names``: skorch's lists ``_params_to_validate`` as a parameter. Until
  it does not.
- ``get_metadata_routing``, ``__repr__``: scikit-learn's own; skorch's offers metadata
  to a `train_split`, which ``fit`` has no parameter for. Until it has one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EpochTimer, PassthroughScoring, PrintLog

from .epochs import n_epochs
from .interrupts import StoppedEarly

_LEFT = "time left"
_OF_TASK = {"task", "ewc_lambda"}  # the same in all its rows
_VARIANTS = {"fused", "foreach", "capturable", "differentiable"}


class PrivatelyStored:
    """An attribute that skorch sets in ``__init__``, where scikit-learn wants parameters only.

    Replaces the plain attributes ``history_``, ``initialized_`` and
    ``virtual_params_``: kept under a private name, which scikit-learn's
    ``check_no_attributes_set_in_init`` ignores. Until skorch sets them elsewhere.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"_{name}"

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is not None and self.name in vars(instance):
            return vars(instance)[self.name]
        raise AttributeError(self.name)

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self.name] = value


class DeclaresClasses:
    """Lets skorch undeclare the `classes` of ``partial_fit``, which a signature without it lacks.

    scikit-learn reads these declarations from the last base class to the first,
    and refuses to remove a name that no earlier one has added. For skorch from 1.4
    on, until it declares nothing for signatures that it does not know.
    """

    if "_NeuralNet__metadata_request__partial_fit" in vars(NeuralNet):
        __metadata_request__partial_fit = {"classes": None}


class EpochMean(PassthroughScoring):
    """skorch's average of a batch value over an epoch, read off the rows directly.

    Replaces ``PassthroughScoring.on_epoch_end``, which goes through the history's
    general indexing: a tenth of the time of training a small net. Until skorch's
    costs as little.
    """

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the average and whether it is the best of the task."""
        size = "train_batch_size" if self.on_train else "valid_batch_size"
        epoch = net.history[-1]
        batches = [row for row in epoch["batches"] if self.name in row]
        if not batches:
            return
        values = [row[self.name] for row in batches]
        one = len(values) == 1
        mean = values[0] if one else np.average(values, weights=[row[size] for row in batches])
        is_best = self._is_best_score(mean)
        if is_best:
            self.best_score_ = mean
        epoch[self.name] = mean
        epoch[f"{self.name}_best"] = bool(is_best)


class TaskPrintLog(PrintLog):
    """skorch's table, task by task: "3/200" epochs and the time that the others will take.

    It is not even made up where nobody reads it, which ``PrintLog.on_epoch_end``
    does at ``verbose=0`` too; of several processes the first alone prints. Until
    skorch asks first, and for good.
    """

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Announce a task."""
        self.n_done_, self.n_epochs_, self.since_ = 0, 0, time.monotonic()
        if self._is_read(net):
            self._sink(f"task {net.n_tasks_ + 1}", net.verbose)

    def on_epoch_end(self, net: Any, dataset_train: Any = None, **kwargs: Any) -> None:
        """Print the epoch's row."""
        self.n_done_ += 1
        if self._is_read(net):
            if self.n_epochs_ == 0:  # not known yet
                self.n_epochs_ = n_epochs(net, net.get_iterator(dataset_train, training=True))
            super().on_epoch_end(net, **kwargs)

    def table(self, row: dict[str, Any]) -> str:
        """Return a row as skorch does, with what is known of the task and not of the epoch."""
        per_epoch = (time.monotonic() - self.since_) / self.n_done_
        left = timedelta(seconds=round(per_epoch * (self.n_epochs_ - self.n_done_)))
        told = {"epoch": f"{self.n_done_}/{self.n_epochs_}", _LEFT: str(left)}
        return super().table({**{k: v for k, v in row.items() if k not in _OF_TASK}, **told})

    def _sorted_keys(self, keys: Any) -> list[str]:
        return sorted(super()._sorted_keys(keys), key=lambda key: key == _LEFT)

    def _is_read(self, net: Any) -> bool:
        return (net.verbose or self.sink is not print) and net.processes_.is_first


def notify(
    net: Any,
    method_name: str,
    before_each: Callable[[Any], None] | None = None,
    **cb_kwargs: Any,
) -> None:
    """Call a hook of the net and of its callbacks, as skorch does."""
    for name, listener in [("net", net), *net.callbacks_]:
        if before_each is not None:
            before_each(listener)
        try:
            getattr(listener, method_name)(net, **cb_kwargs)
        except KeyboardInterrupt as interrupt:
            raise StoppedEarly from interrupt
        except KeyError as error:
            if net.train_split is None and "valid_" in str(error):
                raise nothing_held_out(name, f"looks for {error}") from error
            raise


def nothing_held_out(name: str, wish: str) -> ValueError:
    """Return the error that tells of a callback that waits for a validation loss."""
    return ValueError(
        f"callback {name} {wish}, but nothing is held out: set "
        "train_split=skorch.dataset.ValidSplit(5), or let it look at train_loss"
    )


def default_callbacks() -> list[tuple[str, Callback]]:
    """Return skorch's own, by their names, in the forms that cost less."""
    return [
        ("epoch_timer", EpochTimer()),
        ("train_loss", EpochMean("train_loss", on_train=True)),
        ("valid_loss", EpochMean("valid_loss")),
        ("print_log", TaskPrintLog()),
    ]


def is_heard(net: NeuralNet, hook: str) -> bool:
    """Tell whether the net or any callback does something in a hook.

    skorch calls the hooks of all callbacks; this is for what has to be prepared
    for a hook, at a cost, or rules out something else. A hook counts wherever it
    comes from: a class, an instance, or an object that is no skorch callback.
    """
    return function_of(net, hook) is not getattr(NeuralNet, hook) or any(
        function_of(callback, hook) is not getattr(Callback, hook) for _, callback in net.callbacks_
    )


def function_of(listener: Any, hook: str) -> Any:
    """Return the function behind a hook."""
    method = getattr(listener, hook)
    return getattr(method, "__func__", method)


def with_fused_adam(optimizer: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's options; of Adam the fused variant, unless another is asked for.

    Replaces torch's default, which is the same up to rounding and slower. Until
    torch chooses it by itself.
    """
    if optimizer is torch.optim.Adam and not options.keys() & _VARIANTS:
        return {**options, "fused": True}
    return options
