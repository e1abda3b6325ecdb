"""Sums over batches of squared per-sample gradients, by three rules.

A rule is a function ``(module, params, sums) -> add``, and ``add(X, cotangents)``
runs the module on the batch X once, asks ``cotangents(output)`` for vectors
v_1 … v_R shaped like the output, and adds Σ_n Σ_r (∂(f_n · v_rn)/∂θ_i)² to
``sums``, by name. All rules agree; they differ in what modules they know and in
what they cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from ..tensors import Tensors, as_arguments, call, mapped
from .base import Cotangents
from .layers import (
    add_product,
    add_squares,
    has_one_position,
    known_layers,
    once_each,
    recorded,
    summed_gradients,
)

Params = Mapping[str, Tensor]
Add = Callable[[Any, Cotangents], None]
Rule = Callable[[nn.Module, Params, Tensors], Add]

_CHUNK = 2**21  # numbers that per-sample gradients may fill at a time
_TRIED_ROWS = 32


def fastest_rule(module: nn.Module, params: Params, X: Any) -> Rule:
    """Return the fastest rule that is right for the module, tried on some rows of X."""
    if _is_layerwise(module, params, _rows(X, slice(0, _TRIED_ROWS))):
        return layerwise
    sums = {name: torch.zeros_like(p, requires_grad=False) for name, p in params.items()}
    try:
        add = vectorised(module, params, sums)
        add(_rows(X, slice(0, 1)), lambda output: [torch.ones_like(output)])
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return one_by_one  # the module does what vmap cannot; a real fault shows again there
    return vectorised


def layerwise(module: nn.Module, params: Params, sums: Tensors) -> Add:
    """Sum layer by layer, from the inputs of layers and the gradients of their outputs.

    For modules made of the layers that :mod:`~sklearn_ewc.curvature.layers` knows, each
    used once.
    """
    layers = known_layers(module)
    sums_of = [[sums.get(part) for part in _own(name)] for name in layers]

    def add(X: Any, cotangents: Cotangents) -> None:
        with recorded(layers) as calls:
            output = call(module, X)
        if not once_each(layers, calls, len(output)):
            vectorised(module, params, sums)(X, cotangents)
            return
        inputs = [call[0][0] for call in calls.values()]
        ends = [call[0][1] for call in calls.values()]
        squares: list[Tensor | None] = [None] * len(ends)
        for cotangent in cotangents(output.detach()):
            signals = torch.autograd.grad(output, ends, cotangent, retain_graph=True)
            for index, (layer, signal) in enumerate(zip(layers.values(), signals, strict=True)):
                if not has_one_position(layer, inputs[index]):
                    add_squares(layer, inputs[index], signal, *sums_of[index])
                elif (square := squares[index]) is None:
                    squares[index] = signal.square()
                else:
                    square.addcmul_(signal, signal)
        for index, square in enumerate(squares):
            if square is not None:
                add_product(inputs[index], square, *sums_of[index])

    return add


def vectorised(module: nn.Module, params: Params, sums: Tensors) -> Add:
    """Sum over per-sample gradients from torch.func.vmap, a bounded number at a time."""
    free = {name: p.detach() for name, p in params.items()}
    size = max(1, _CHUNK // max(1, sum(p.numel() for p in free.values())))

    def gradient(row: Any, cotangent: Tensor) -> Tensors:
        def one_output(free: Tensors) -> Tensor:
            alone = mapped(row, lambda x: x.unsqueeze(0))
            return functional_call(module, free, *as_arguments(alone)).squeeze(0)

        return vjp(one_output, free)[1](cotangent)[0]

    def add(X: Any, cotangents: Cotangents) -> None:
        with torch.no_grad():
            output = call(module, X)
        for cotangent in cotangents(output):
            for start in range(0, len(output), size):
                chunk = slice(start, start + size)
                for name, value in vmap(gradient)(_rows(X, chunk), cotangent[chunk]).items():
                    sums[name] += value.square().sum(0)

    return add


def one_by_one(module: nn.Module, params: Params, sums: Tensors) -> Add:
    """Sum over one backward pass per sample, for modules that vmap cannot take."""

    def add(X: Any, cotangents: Cotangents) -> None:
        with torch.no_grad():
            vectors = cotangents(call(module, X))
        for n in range(len(vectors[0])):
            sample = slice(n, n + 1)
            output = call(module, _rows(X, sample))
            for vector in vectors:
                for name, value in _gradient(output, params, vector[sample]).items():
                    sums[name].addcmul_(value, value)

    return add


def summed_gradient(module: nn.Module, params: Params, sums: Tensors) -> Add:
    """Sum Σ_n Σ_r ∂(f_n · v_rn)/∂θ_i, not squared: what a mini-batch gradient adds up to."""

    def add(X: Any, cotangents: Cotangents) -> None:
        output = call(module, X)
        cotangent = torch.stack(cotangents(output.detach())).sum(0)
        for name, value in _gradient(output, params, cotangent).items():
            sums[name] += value

    return add


def _gradient(output: Tensor, params: Params, cotangent: Tensor) -> Tensors:
    values = torch.autograd.grad(
        output,
        list(params.values()),
        cotangent,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return dict(zip(params, values, strict=True))


def _own(layer: str) -> tuple[str, str]:
    """Return the full names of a layer's weight and bias."""
    prefix = f"{layer}." if layer else ""
    return f"{prefix}weight", f"{prefix}bias"


def _is_layerwise(module: nn.Module, params: Params, X: Any) -> bool:
    """Tell whether known layers, each used once, account for the whole gradient.

    The names and calls of the layers do not tell: a weight may also be used
    outside its layer, an activation may overwrite the layer's output. So the
    summed gradient is compared with autograd's, for a random cotangent.
    """
    layers = known_layers(module)
    if not params or not params.keys() <= {part for name in layers for part in _own(name)}:
        return False
    with recorded(layers) as calls:
        output = call(module, X)
    if not once_each(layers, calls, len(output)):
        return False
    ends = [call[0][1] for call in calls.values()]
    generator = torch.Generator().manual_seed(0)
    cotangent = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
    gradients = torch.autograd.grad(
        output, [*ends, *params.values()], cotangent, allow_unused=True, materialize_grads=True
    )
    true = dict(zip(params, gradients[len(ends) :], strict=True))
    found: Tensors = {}
    for (name, layer), signal in zip(layers.items(), gradients, strict=False):
        sums = summed_gradients(layer, calls[name][0][0], signal)
        found.update(zip(_own(name), sums, strict=True))
    expected = [true[name].detach() for name in params]
    errors = torch._foreach_sub([found[name] for name in params], expected)
    largest = torch.stack(torch._foreach_norm([*errors, *expected], float("inf")))
    return bool((largest[: len(params)] <= 1e-3 * largest[len(params) :]).all())


def _rows(X: Any, rows: slice) -> Any:
    return mapped(X, lambda x: x[rows])
