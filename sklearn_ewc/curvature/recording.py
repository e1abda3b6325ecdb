"""What the layers of a module get and give in one pass, and whether that can be used.

Samples have to lie along the first axis of what every layer gets. That its
length is the batch's proves nothing: a module may work on (steps, samples,
features), fold steps into the batch, or let rows see each other. So rows are
compared with what the module makes of them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from ..tensors import call, leaves, mapped


class Call(NamedTuple):
    """One call of a layer: its input and the node of its output.

    `watched` are tensors that must not be written over, each with the number of
    times that they had been.
    """

    inputs: Tensor
    end: Any  # a GradientEdge; None where no gradient flows
    watched: list[tuple[Tensor, int]]

    @property
    def is_usable(self) -> bool:
        """Whether gradients arrive and nothing has been written over since."""
        intact = all(tensor._version == version for tensor, version in self.watched)
        return intact and self.end is not None


Calls = list[list[Call]]


def with_samples_axis(output: Tensor) -> Tensor:
    """Return the output for one sample with an axis for it, which some modules squeeze away."""
    return output if output.shape[:1] == (1,) else output.unsqueeze(0)


def own_copy(X: Any) -> Any:
    """Return the inputs for a module that may write over them."""
    return mapped(X, lambda x: x.detach().clone())


def rows(X: Any, rows: slice) -> Any:
    """Return some rows of every part of the inputs."""
    return mapped(X, lambda x: x[rows])


def recorded_output(
    module: nn.Module, layers: Mapping[str, nn.Module], X: Any
) -> tuple[Tensor, Calls]:
    """Return the module's output on a batch, and the calls of each of its layers."""
    calls: Calls = [[] for _ in layers]
    with ExitStack() as stack:
        for layer, noted in zip(layers.values(), calls, strict=True):
            # before other hooks, which may replace the output
            hook = partial(_note, noted)
            stack.enter_context(layer.register_forward_hook(hook, with_kwargs=True, prepend=True))
        return call(module, own_copy(X)), calls


def _note(
    noted: list[Call], _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
) -> None:
    inputs = (*args, *kwargs.values())[0].detach()
    # An activation may write over the output, and it need not be kept, if its
    # node is noted; but the node of a view is no longer used then.
    end = get_gradient_edge(output) if output.requires_grad else None
    watched = [inputs, output.detach()] if output._is_view() else [inputs]
    noted.append(Call(inputs, end, [(tensor, tensor._version) for tensor in watched]))


def are_usable(layers: Mapping[str, nn.Module], calls: Calls, n_samples: int) -> bool:
    """Tell whether every layer was called once, on as many rows as there are samples."""
    return all(
        len(call) == 1
        and call[0].is_usable
        and len(call[0].inputs) == n_samples
        and call[0].inputs.ndim >= _n_axes(layer)
        for layer, call in zip(layers.values(), calls, strict=True)
    )


def _n_axes(layer: Any) -> int:
    """Return how many axes a batch of inputs has at least."""
    return 2 if isinstance(layer, nn.Linear) else layer.weight.ndim


def first_change(X: Any) -> int | None:
    """Return the first row that differs from the one before; 0 if it is alone; else None."""
    n_samples = len(leaves(X)[0])
    if n_samples == 1:
        return 0
    if n_samples > 2 and (found := first_change(rows(X, slice(0, 2)))) is not None:
        return found  # as nearly always
    tables = [part.detach().reshape(len(part), -1) for part in leaves(X)]
    changes = torch.stack([(table[1:] != table[:-1]).any(1) for table in tables]).any(0)
    return int(changes.nonzero()[0]) + 1 if changes.any() else None


def rows_are_samples(
    module: nn.Module, layers: Mapping[str, nn.Module], X: Any, calls: Calls, output: Tensor
) -> bool:
    """Tell whether layers and module do to a row of the batch what they do to it alone.

    The next row differs from it: equal rows could take each other's place.
    """
    if len(output) == 1:
        return True
    change = first_change(X)
    if change is None:
        return False
    row = slice(change - 1, change)
    alone, calls_alone = recorded_output(module, layers, rows(X, row))
    if not are_usable(layers, calls_alone, 1):
        return False
    found = [output[row], *(call.inputs[row] for (call,) in calls)]
    return are_close(found, [with_samples_axis(alone), *(call.inputs for (call,) in calls_alone)])


def are_close(found: list[Tensor], expected: list[Tensor], n_not_zero: int = 0) -> bool:
    """Tell whether tensors equal those expected up to rounding; the first may not be zero."""
    if [value.shape for value in found] != [value.shape for value in expected]:
        return False
    norms = torch.stack(torch._foreach_norm([*torch._foreach_sub(found, expected), *expected]))
    errors, sizes = norms[: len(found)], norms[len(found) :]
    return bool((errors <= 1e-3 * sizes).all() and (sizes[:n_not_zero] > 0).all())
