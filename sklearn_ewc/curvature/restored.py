"""Modules that come back from a pass as they went into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_NESTS = (dict, list, tuple)


@contextmanager
def restored(module: nn.Module) -> Iterator[None]:
    """Give every part of a module its attributes, hooks, modes and buffers back at the end.

    Parameters keep the values they get. Tensors that earlier passes left as plain
    attributes, such as the `weight` of weight_norm, lose their graph, with which
    they could not be copied.
    """
    parts = list(module.modules())
    modes = [part.training for part in parts]
    contents: list[tuple[Any, Any]] = []
    empty: list[Any] = []
    seen: set[int] = set()
    for part in parts:
        _note_contents(vars(part), contents, empty, seen)
    values = [(tensor, tensor.clone()) for _, content in contents for tensor in _states(content)]
    try:
        yield
    finally:
        for container, content in contents:
            _give_back(container, content)
        for container in filter(None, empty):
            container.clear()
        for part, training in zip(parts, modes, strict=True):
            if part.training != training:
                part.training = training
        with torch.no_grad():
            for tensor, value in values:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)


def _note_contents(
    value: Any, contents: list[tuple[Any, Any]], empty: list[Any], seen: set[int]
) -> None:
    """Note (container, its elements) for every dict and list in a nest of them and tuples.

    Those that are empty, as most of a module's are, are noted apart.
    """
    if id(value) in seen:
        return
    seen.add(id(value))
    if not isinstance(value, tuple):
        contents.append((value, _copied(value)))
    for element in _elements(value):
        if isinstance(element, _NESTS):
            if element:
                _note_contents(element, contents, empty, seen)
            else:
                empty.append(element)


def _elements(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else container


def _copied(container: Any) -> Any:
    if isinstance(container, dict):
        return dict(zip(container, map(_without_graph, container.values()), strict=True))
    return list(map(_without_graph, container))


def _without_graph(value: Any) -> Any:
    if isinstance(value, Tensor) and not value.is_leaf:
        return value.detach()
    return tuple(map(_without_graph, value)) if type(value) is tuple else value


def _states(content: Any) -> list[Tensor]:
    return [
        element
        for element in _elements(content)
        if isinstance(element, Tensor) and not isinstance(element, nn.Parameter)
    ]


def _give_back(container: Any, content: Any) -> None:
    """Restore what a container held, which it holds all the time if that is interrupted."""
    if isinstance(container, list):
        container[:] = content
        return
    container.update(content)
    if len(container) > len(content):
        for key in container.keys() - content.keys():
            del container[key]
