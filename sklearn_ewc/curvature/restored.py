"""Modules that come back from a pass as they went into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..snapshot import saved


@contextmanager
def restored(module: nn.Module) -> Iterator[None]:
    """Give every part of a module its attributes, hooks, modes and buffers back at the end.

    Parameters keep the values they get. Tensors that earlier passes left as plain
    attributes, such as the `weight` of weight_norm, lose their graph, with which
    they could not be copied.
    """
    for part in module.modules():
        attributes = vars(part)
        attributes.update({name: _without_graph(value) for name, value in attributes.items()})
    undos = saved([module], unchanged=(nn.Parameter,))
    try:
        yield
    finally:
        for undo in undos:
            undo()


def _without_graph(value: Any) -> Any:
    """Return a tensor detached, and a container of such the same, its elements exchanged."""
    if isinstance(value, Tensor):
        return value if value.is_leaf else value.detach()
    if isinstance(value, list):
        value[:] = map(_without_graph, value)
    elif isinstance(value, dict) and value:
        value.update({key: _without_graph(element) for key, element in value.items()})
    elif type(value) is tuple:
        return tuple(map(_without_graph, value))
    return value
