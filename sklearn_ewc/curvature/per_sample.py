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

from ..tensors import Tensors, as_arguments, call, leaves, mapped, one_tensor
from .base import Cotangents
from .layers import (
    add_product,
    add_squares,
    has_one_position,
    is_chain,
    known_layers,
    summed_gradients,
)
from .recording import (
    are_close,
    are_usable,
    first_change,
    own_copy,
    recorded_output,
    rows,
    rows_are_samples,
    with_samples_axis,
)

Params = Mapping[str, Tensor]
Add = Callable[[Any, Cotangents], None]
Rule = Callable[[nn.Module, Params, Tensors], Add]

_CHUNK = 2**21  # numbers that per-sample gradients may fill at a time
_TRIED_ROWS = 32


def fastest_rule(module: nn.Module, params: Params, X: Any) -> Rule:
    """Return the fastest rule that is right for the module, tried on some rows of X."""
    if is_chain(module, X) or _is_layerwise(module, params, X):
        return layerwise
    return _slower_rule(module, params, X)


def layerwise(module: nn.Module, params: Params, sums: Tensors) -> Add:
    """Sum layer by layer, from the inputs of layers and the gradients of their outputs.

    For modules made of the layers that :mod:`~sklearn_ewc.curvature.layers` knows, each
    used once. Batches that the module treats otherwise go by another rule.
    """
    layers = known_layers(module)
    sums_of = [[sums.get(part) for part in own_names(name)] for name in layers]
    known_shapes = set()

    def add(X: Any, cotangents: Cotangents) -> None:
        output, calls = recorded_output(module, layers, X)
        shapes = tuple(part.shape for part in leaves(X))
        # a table has no other axis that rows could be taken for
        is_known = shapes in known_shapes or all(len(shape) <= 2 for shape in shapes)
        if not are_usable(layers, calls, len(output)) or not (
            is_known or rows_are_samples(module, layers, X, calls, output)
        ):
            _slower_rule(module, params, X)(module, params, sums)(X, cotangents)
            return
        known_shapes.add(shapes)
        inputs = [one.inputs for (one,) in calls]
        ends = [one.end for (one,) in calls]
        squares: dict[int, Tensor] = {}
        for cotangent in cotangents(output.detach()):
            signals = list(
                torch.autograd.grad(output, ends, cotangent, retain_graph=True, allow_unused=True)
            )
            for index, layer in enumerate(layers.values()):
                signal = signals.pop(0)  # no longer needed, but for its square
                if signal is None:
                    continue
                if not has_one_position(layer, inputs[index]):
                    add_squares(layer, inputs[index], signal, *sums_of[index])
                elif index in squares:
                    squares[index].addcmul_(signal, signal)
                else:
                    squares[index] = signal.square()
        for index, square in squares.items():
            add_product(inputs[index], square, *sums_of[index])

    return add


def vectorised(module: nn.Module, params: Params, sums: Tensors) -> Add:
    """Sum over per-sample gradients from torch.func.vmap, a bounded number at a time.

    Every sample has the parameters as its own, in name only: so the states that a
    recurrent layer begins from zero, which it writes over, are each sample's own too.
    """
    every = {name: p.detach() for name, p in module.named_parameters()}
    free = {name: every[name] for name in params}
    size = max(1, _CHUNK // max(1, sum(p.numel() for p in free.values())))

    def pulled(row: Any, own: Tensors) -> tuple[Tensor, Any]:
        alone = own_copy(mapped(row, lambda x: x.unsqueeze(0)))
        args, kwargs = as_arguments(alone)
        output, *pullback = vjp(
            lambda own: one_tensor(functional_call(module, {**every, **own}, args, kwargs)).squeeze(
                0
            ),
            own,
        )
        return output, pullback[0]

    def gradient(row: Any, own: Tensors, cotangent: Tensor) -> Tensors:
        return pulled(row, own)[1](cotangent)[0]

    def add(X: Any, cotangents: Cotangents) -> None:
        n_samples = len(leaves(X)[0])
        own = {name: p.expand(n_samples, *p.shape) for name, p in free.items()}
        chunks = [slice(start, start + size) for start in range(0, n_samples, size)]
        outputs = [vmap(lambda *one: pulled(*one)[0])(*rows((X, own), chunk)) for chunk in chunks]
        for cotangent in cotangents(torch.cat(outputs)):
            for chunk in chunks:
                some = rows((X, own, cotangent), chunk)
                for name, value in vmap(gradient)(*some).items():
                    sums[name] += value.square().sum(0)

    return add


def one_by_one(module: nn.Module, params: Params, sums: Tensors) -> Add:
    """Sum over one backward pass per sample, for modules that vmap cannot take."""

    def add(X: Any, cotangents: Cotangents) -> None:
        n_samples = len(leaves(X)[0])
        samples = [slice(n, n + 1) for n in range(n_samples)]
        outputs = [_output_alone(module, X, sample) for sample in samples]
        for vectors in cotangents(torch.cat(outputs).detach()):
            for output, sample in zip(outputs, samples, strict=True):
                for name, value in _gradient(output, params, vectors[sample]).items():
                    sums[name].addcmul_(value, value)

    return add


def summed_gradient(module: nn.Module, params: Params, sums: Tensors) -> Add:
    """Sum Σ_n Σ_r ∂(f_n · v_rn)/∂θ_i, not squared: what a mini-batch gradient adds up to."""

    def add(X: Any, cotangents: Cotangents) -> None:
        output = call(module, own_copy(X))
        cotangent = sum(cotangents(output.detach()), start=torch.zeros_like(output))
        for name, value in _gradient(output, params, cotangent).items():
            sums[name] += value

    return add


def _output_alone(module: nn.Module, X: Any, sample: slice) -> Tensor:
    return with_samples_axis(call(module, own_copy(rows(X, sample))))


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


def own_names(layer: str) -> tuple[str, str]:
    """Return the full names of a layer's weight and bias, whether or not it has both."""
    prefix = f"{layer}." if layer else ""
    return f"{prefix}weight", f"{prefix}bias"


def _slower_rule(module: nn.Module, params: Params, X: Any) -> Rule:
    if any(map(_is_one_operation, module.modules())):
        return one_by_one
    sums = {name: torch.zeros_like(p, requires_grad=False) for name, p in params.items()}
    try:
        add = vectorised(module, params, sums)
        add(rows(X, slice(0, 1)), lambda output: [torch.ones_like(output)])
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return one_by_one  # the module does what vmap cannot; a real fault shows again there
    return vectorised


def _is_one_operation(part: nn.Module) -> bool:
    """Tell whether torch runs a recurrent layer in one operation, which vmap has no rule for."""
    if not isinstance(part, nn.RNNBase):
        return False
    weights = next(part.parameters())
    on_cpu = weights.device.type == "cpu"
    return not on_cpu or (isinstance(part, nn.LSTM) and weights.dtype != torch.float64)


def _is_layerwise(module: nn.Module, params: Params, X: Any) -> bool:
    """Tell whether layers that tell their gradients have all the parameters."""
    known = {part for name in known_layers(module) for part in own_names(name)}
    if not params or not params.keys() <= known:
        return False
    telling = layers_that_tell(module, params, X)
    return params.keys() <= {part for name in telling for part in own_names(name)}


def layers_that_tell(module: nn.Module, params: Params, X: Any) -> dict[str, nn.Module]:
    """Return the layers, each used once, whose inputs and signals give their whole gradient.

    The names and calls of the layers do not tell: a weight may also be used
    outside its layer, rows may not be samples. So the gradient of a random
    function of the outputs is compared with autograd's: the sum over some rows,
    and that of single ones, which differ, on their own.
    """
    layers = known_layers(module)
    if is_chain(module, X):
        return layers
    change = first_change(X)
    if change is None:
        return {}
    start = max(0, change + 1 - _TRIED_ROWS)
    X = rows(X, slice(start, start + _TRIED_ROWS))
    output, every_call = recorded_output(module, layers, X)
    called = {
        name: calls
        for (name, layer), calls in zip(layers.items(), every_call, strict=True)
        if are_usable({name: layer}, [calls], len(output))
        and any(part in params for part in own_names(name))
    }
    if not called:
        return {}
    generator = torch.Generator().manual_seed(0)
    cotangent = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
    sample = slice(change - start, change - start + 1)
    alone = _output_alone(module, X, sample)
    if alone.shape != cotangent[sample].shape:
        return {}
    ends = [one.end for (one,) in called.values()]
    trained = [params[part] for name in called for part in own_names(name) if part in params]
    gradients = list(torch.autograd.grad(output, [*ends, *trained], cotangent, allow_unused=True))
    signals = dict(zip(called, gradients, strict=False))
    expected = iter(gradients[len(ends) :])
    of_one = iter(torch.autograd.grad(alone, trained, cotangent[sample], allow_unused=True))
    telling = {}
    for name, (one,) in called.items():
        own = [part in params for part in own_names(name)]
        summed, single = ([next(source) for _ in range(sum(own))] for source in (expected, of_one))
        if any(value is None for value in [signals[name], *summed, *single]):
            continue
        found = [
            gradient
            for of_rows in (slice(None), sample)
            for gradient, is_own in zip(
                summed_gradients(layers[name], one.inputs[of_rows], signals[name][of_rows]),
                own,
                strict=True,
            )
            if is_own
        ]
        if are_close(found, [*summed, *single], n_not_zero=sum(own)):
            telling[name] = layers[name]
    return telling
