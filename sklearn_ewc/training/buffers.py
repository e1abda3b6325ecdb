"""Buffers that training moves, as running statistics are: held where old tasks rely on them.

A layer that normalises by its running statistics is another function once they have
moved, though no parameter has. Such layers are known by what they do in a forward
pass, whatever their class, and run as in evaluation while a task is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from skorch import NeuralNet
from torch import Tensor, nn
from torch.func import functional_call

from ..tensors import Tensors, as_arguments
from .seeding import seeded


def are_remembered(net: Any) -> bool:
    """Tell whether the task that a net is about to learn must leave the buffers as they are."""
    if not (net.remember_buffers and net.n_tasks_ > 0):
        return False
    if net.replay is not None and net.memory_.inputs:
        return True
    # not with all weights 0
    return bool(net.ewc_lambda != 0 and net.memory_.quadratic.curvature.trace() > 0)


def moving_parts(module: nn.Module, X: Any, device: Any) -> tuple[nn.Module, ...]:
    """Return the parts of a module that own a buffer which moves in training alone.

    What moves in evaluation too, such as a cache, evaluation would not hold.
    """
    own = dict(module.named_buffers())
    if not own:
        return ()
    with modes_kept(module):
        module.train()
        after, written = _after_a_pass(module, X, device)
        moved = written | _changed(own, after)
        if moved:
            module.eval()
            after, _ = _after_a_pass(module, X, device)
            moved -= _changed(own, after, rtol=1e-5)  # some write what was there, but for rounding
    held = {id(own[name]) for name in moved}  # a buffer may belong to several
    return tuple(
        part for part in module.modules() if any(id(b) in held for b in part.buffers(recurse=False))
    )


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Put every part of a module into the mode it had before the block."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _after_a_pass(module: nn.Module, X: Any, device: Any) -> tuple[Tensors, set[str]]:
    """Return copies of the buffers as a forward pass leaves them, and which it has written."""
    copies = {name: value.clone() for name, value in module.named_buffers()}
    after = dict(copies)
    with seeded(0, device), torch.no_grad():
        functional_call(module, after, *as_arguments(X))  # puts what was assigned into `after`
    written = {
        name for name, copy in copies.items() if after[name] is not copy or copy._version > 0
    }
    return after, written


def _changed(before: Tensors, after: Tensors, rtol: float = 0.0) -> set[str]:
    def is_same(a: Tensor, b: Tensor) -> bool:
        alike = a.shape == b.shape and a.dtype == b.dtype
        return alike and torch.allclose(a, b, rtol=rtol, atol=0.0, equal_nan=True)

    return {name for name, value in before.items() if not is_same(after[name], value)}


@contextmanager
def at_rest(net: Any, parts: Sequence[nn.Module]) -> Iterator[None]:
    """Keep parts of a net's module in evaluation during the block, whatever trains the rest.

    Their children are not held: dropout stays on in them.
    """
    vars(net)["_at_rest"] = parts
    net._set_training(True)
    try:
        yield
    finally:
        del vars(net)["_at_rest"]


def set_training(net: Any, training: bool = True) -> None:
    """Set the mode of all modules as skorch does, but for the parts that are at rest."""
    NeuralNet._set_training(net, training)
    for part in vars(net).get("_at_rest", ()):
        part.training = False


def is_set_to_train(net: Any) -> bool:
    """Tell whether all modules are in the mode that :func:`set_training` would set."""
    return net.module_.training and not any(p.training for p in vars(net).get("_at_rest", ()))
