"""What is done with one batch: skorch's steps, with weights, a seed and a penalty.

Each function replaces the method of :class:`skorch.NeuralNet` of its name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from skorch import NeuralNet
from skorch.dataset import unpack_data
from skorch.utils import TeeGenerator, to_device, to_tensor
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from ..arguments import naming
from ..curvature.criterion import is_sum, weighted_loss
from ..data.batches import TensorBatches
from ..data.checks import TORCH_DTYPES
from ..memory import Penalty
from ..tensors import joined, mapped
from .buffers import is_set_to_train
from .building import check_made
from .seeding import seeded
from .skorch_parts import is_heard


def get_iterator(net: Any, dataset: Any, training: bool = False) -> Any:
    """Return skorch's iterator over a dataset, drawing from the task's generator where it draws.

    :class:`TensorBatches` shuffles in training; any other iterator as it is told.
    """
    prefix = "iterator_train" if training else "iterator_valid"
    with naming(prefix):
        iterator = _made(net, prefix, dataset, training)
        check_made(net, prefix, iterator, "__iter__")
    return iterator


def _made(net: Any, prefix: str, dataset: Any, training: bool) -> Any:
    kind, own = getattr(net, prefix), net.get_params_for(prefix)
    options: dict[str, Any] = {"batch_size": net.batch_size}
    if "generator" in inspect.signature(kind).parameters:
        generator = vars(net).get("_generator") if training else None
        options["generator"] = generator or torch.Generator()
    if kind is TensorBatches:
        options.update(shuffle=training, device=net.device)
    if own.get("sampler") is not None:  # says itself which rows come, and in what order
        options.pop("shuffle", None)
    if own.get("batch_sampler") is not None:  # and how many at a time
        options = {name: options[name] for name in options.keys() & {"generator", "device"}}
    options.update(own)
    if options.get("batch_size") == -1:
        options["batch_size"] = len(dataset)
    return kind(dataset, **options)


@contextmanager
def penalised(net: Any, penalty: Penalty, teaching: Any = None) -> Iterator[Callable[..., Any]]:
    """Yield the net's `train_step` under a penalty, and with a replay if there is one.

    That of a subclass need not know them: then they follow the optimizer's
    steps, whoever takes them.
    """

    def begun(batch: Any, **fit_params: Any) -> Any:
        teaching.begin_step(len(batch[1]))
        return step(batch, **fit_params)

    if type(net).train_step is train_step or _needs_closure(net.optimizer_):
        replayed = {} if teaching is None else {"teaching": teaching}
        step = partial(net.train_step, penalty=penalty, **replayed)
        yield step if teaching is None else begun
        return

    def before(optimizer: Optimizer, *_: Any) -> None:
        if teaching is not None:
            teaching.add_gradient()
        penalty.ewc_lambda = net.lambda_in_force_
        if penalty.ewc_lambda > 0:
            if not _is_pulled(net, penalty):
                penalty.add_gradient()
            penalty.turn(optimizer)

    def after(optimizer: Optimizer, *_: Any) -> None:
        if penalty.ewc_lambda > 0:
            if _is_pulled(net, penalty):
                penalty.pull(optimizer)
            penalty.turn_back(optimizer)

    handles = [
        net.optimizer_.register_step_pre_hook(before),
        net.optimizer_.register_step_post_hook(after),
    ]
    step = net.train_step
    try:
        yield step if teaching is None else begun
    finally:
        for handle in handles:
            handle.remove()


def _is_pulled(net: Any, penalty: Penalty) -> bool:
    """Tell whether a proximal step is to be taken, or else the penalty's gradient."""
    return net.penalty_step == "proximal" and penalty.can_pull(net.optimizer_)


def train_step(
    net: Any,
    batch: Any,
    penalty: Penalty | None = None,
    teaching: Any = None,
    **fit_params: Any,
) -> dict[str, Any]:
    """Take one step of the optimizer down the sum of criterion, penalty and replayed loss.

    A proximal step on the penalty follows the optimizer's on the criterion.
    Where that is not possible or not wanted, the penalty's gradient joins that
    of the criterion, as that of the replayed loss always does: after
    ``train_step_single``, which skorch's users override, and before
    ``on_grad_computed``, where gradients are clipped.
    """
    accumulator = net.get_train_step_accumulator()
    gradients_are_heard = is_heard(net, "on_grad_computed")
    needs_closure = _needs_closure(net.optimizer_)
    pulled = added = None
    ewc_lambda = 0.0 if penalty is None else net.lambda_in_force_
    if penalty is not None and ewc_lambda > 0:
        penalty.ewc_lambda = ewc_lambda
        if not gradients_are_heard and _is_pulled(net, penalty):
            pulled = penalty
        else:
            added = penalty

    def step_fn() -> Tensor:
        net._zero_grad_optimizer()
        step = net.train_step_single(batch, **fit_params)
        accumulator.store_step(step)
        objective = step["loss"]
        if teaching is not None:
            objective = objective.detach() + teaching.add_gradient()
        if added is not None:
            added.add_gradient()
            if needs_closure:
                objective = objective.detach() + added.value()
        if gradients_are_heard:
            named_parameters = TeeGenerator(net.get_all_learnable_params())
            net.notify(
                "on_grad_computed", named_parameters=named_parameters, batch=batch, training=True
            )
        return objective

    if needs_closure:
        net._step_optimizer(step_fn)
        return accumulator.get_step()
    step_fn()
    held = pulled or added
    if held is not None:
        held.turn(net.optimizer_)
    net._step_optimizer(None)
    if pulled is not None:
        pulled.pull(net.optimizer_)
    if held is not None:
        held.turn_back(net.optimizer_)
    return accumulator.get_step()


def _zero_grad_optimizer(net: Any, set_to_none: bool | None = None) -> None:
    """Clear the gradients of all optimizers; those that clear them in their own way, in it.

    skorch calls ``zero_grad``, and torch's records itself for a profiler: a
    twenty-fifth of a step of a small net. Until it does so only while one runs.
    """
    optimizers = [getattr(net, f"{name}_") for name in net._optimizers]
    if set_to_none is not None or any(
        type(optimizer).zero_grad is not Optimizer.zero_grad for optimizer in optimizers
    ):
        NeuralNet._zero_grad_optimizer(net, set_to_none)
        return
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = None


def _needs_closure(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer may ask for the objective more than once, or for its value.

    Of torch's own, a line search does; of others, anyone may.
    """
    if isinstance(optimizer, LBFGS):
        return True
    return not type(optimizer).__module__.startswith("torch.optim.")


def train_step_single(
    net: Any,
    batch: Any,
    sample_weight: Tensor | None = None,
    seed: int | None = None,
    **fit_params: Any,
) -> dict[str, Any]:
    """Compute the criterion on a batch and its gradients, each process on its share.

    The loss is that of the whole batch, `y_pred` that of the share.
    """
    if not is_set_to_train(net):  # a callback has predicted in between
        net._set_training(True)
    X, y = unpack_data(batch)
    weights = None if sample_weight is None else net.processes_.share(sample_weight)

    def loss_of(y_pred: Tensor, y: Any, X: Any) -> Tensor:
        return _loss(net, y_pred, y, X, training=True, sample_weight=weights)

    loss, y_pred = accumulate(net, X, y, loss_of, seed, **fit_params)
    return {"loss": loss, "y_pred": y_pred}


def accumulate(
    net: Any,
    X: Any,
    y: Any,
    loss_of: Callable[[Tensor, Any, Any], Tensor],
    seed: int | None = None,
    **fit_params: Any,
) -> tuple[Tensor, Tensor]:
    """Add the gradients of a loss on a batch to those there are, each process on its share.

    Returns
    -------
    loss, y_pred : Tensor
        That of the whole batch, and the output on the share.
    """
    processes, n_samples = net.processes_, len(y)
    if processes.accelerator is not None:
        X, y = processes.share(inputs(net, X)), processes.share(_shaped(net, y))
    seeding = nullcontext() if seed is None else seeded(processes.seed(seed), net.device)
    with seeding, processes.precision():
        y_pred = net.infer(X, **fit_params)
        if len(y) == 0:
            loss = y_pred.sum()  # zero, with a gradient that the other processes wait for
        else:
            loss = loss_of(y_pred, y, X)
            if len(y) < n_samples and not is_sum(net.criterion_):
                loss = loss * (len(y) / n_samples)
    return processes.backward(loss), y_pred


def validation_step(
    net: Any, batch: Any, sample_weight: Tensor | None = None, **fit_params: Any
) -> dict[str, Any]:
    """Compute the loss on a batch that is not trained on, without penalty."""
    net._set_training(False)
    X, y = unpack_data(batch)
    with torch.no_grad():
        y_pred = net.infer(X, **fit_params)
        loss = _loss(net, y_pred, y, X, training=False, sample_weight=sample_weight)
    return {"loss": loss, "y_pred": y_pred}


def _loss(
    net: Any, y_pred: Tensor, y: Any, X: Any, training: bool, sample_weight: Tensor | None
) -> Tensor:
    """Call ``get_loss``, whose overrides need not know of weights where there are none."""
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
    return net.get_loss(y_pred, y, X=X, training=training, **weights)


def get_loss(
    net: Any,
    y_pred: Tensor,
    y_true: Any,
    X: Any = None,
    training: bool = False,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Return the criterion on a batch, without penalty."""
    return weighted_loss(net.criterion_, y_pred, _shaped(net, y_true), sample_weight)


def forward_iter(net: Any, X: Any, training: bool = False, device: Any = "cpu") -> Iterator[Tensor]:
    """Yield the outputs of one batch after another; small ones are joined."""
    batches = net.get_iterator(net.get_dataset(X), training=training)
    for batch in batches if training else joined(batches):
        yield to_device(net.evaluation_step(batch, training=training), device=device)


def inputs(net: Any, X: Any) -> Any:
    """Return a batch of inputs on the device, floating numbers in the module's dtype."""
    return mapped(X, lambda part: _placed(net, part))


def targets(net: Any, y: Any) -> Tensor:
    """Return a batch of a user's targets as they are trained on."""
    return net.targets_.to_train_on(_placed(net, y))


def _shaped(net: Any, y: Any) -> Tensor:
    """Return a batch of targets that are trained on as the criterion takes them."""
    return net.targets_.shaped(_placed(net, y))


def _placed(net: Any, data: Any) -> Tensor:
    if not isinstance(data, Tensor):
        data = to_tensor(data, device=net.device)
    dtype = TORCH_DTYPES[net.dtype_] if data.is_floating_point() else None
    return data.to(device=net.device, dtype=dtype)
