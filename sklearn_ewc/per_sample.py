"""Sums over a batch of squared per-sample gradients, by three rules.

A rule is a function ``(module, params, X, cotangents) -> dict``: it runs the
module on the batch X once, asks ``cotangents(output)`` for vectors v_1 … v_R
shaped like the output, and returns Σ_n Σ_r (∂(f_n · v_rn)/∂θ_i)² by name. All
rules agree; they differ in what modules they know and in what they cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

Tensors = dict[str, Tensor]
Params = Mapping[str, Tensor]
Cotangents = Callable[[Tensor], list[Tensor]]
Rule = Callable[[nn.Module, Params, Any, Cotangents], Tensors]

_CHUNK = 2**24  # numbers that per-sample gradients may fill at a time


def fastest_rule(module: nn.Module, params: Params, X: Any, cotangents: Cotangents) -> Rule:
    """Return the fastest rule that is right for the module, tried on the batch X."""
    if _is_layerwise(module, params, X):
        return layerwise
    try:
        vectorised(module, params, _rows(X, slice(0, 1)), lambda output: [torch.ones_like(output)])
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return one_by_one  # the module does what vmap cannot; a real fault shows again there
    return vectorised


def layerwise(module: nn.Module, params: Params, X: Any, cotangents: Cotangents) -> Tensors:
    """Sum over linear layers: with input a and output gradient δ, (δ²)ᵀ a² is the sum.

    True of a linear layer on two-dimensional input that the module uses once.
    """
    layers = _linear_layers(module)
    with _recorded(layers) as calls:
        output = module_output(module, X)
    if not _once_each(calls, len(output)):
        return vectorised(module, params, X, cotangents)
    inputs = {name: call[0][0] for name, call in calls.items()}
    ends = [call[0][1] for call in calls.values()]
    squares = [torch.zeros_like(end) for end in ends]
    for cotangent in cotangents(output.detach()):
        signals = torch.autograd.grad(output, ends, cotangent, retain_graph=True)
        for square, signal in zip(squares, signals, strict=True):
            square.addcmul_(signal, signal)
    sums = {}
    for (name, layer), square in zip(layers.items(), squares, strict=True):
        for part, _ in layer.named_parameters():
            full_name = f"{name}.{part}" if name else part
            if full_name in params:
                sums[full_name] = (
                    square.T @ inputs[name].square() if part == "weight" else square.sum(0)
                )
    return sums


def vectorised(module: nn.Module, params: Params, X: Any, cotangents: Cotangents) -> Tensors:
    """Sum over per-sample gradients from torch.func.vmap, a bounded number at a time."""
    with torch.no_grad():
        output = module_output(module, X)
    free = {name: p.detach() for name, p in params.items()}

    def gradient(row: Any, cotangent: Tensor) -> Tensors:
        def one_output(free: Tensors) -> Tensor:
            alone = mapped(row, lambda x: x.unsqueeze(0))
            args, kwargs = ((), dict(alone)) if isinstance(alone, Mapping) else ((alone,), {})
            return functional_call(module, free, args, kwargs).squeeze(0)

        return vjp(one_output, free)[1](cotangent)[0]

    sums = {name: torch.zeros_like(p) for name, p in free.items()}
    size = max(1, _CHUNK // max(1, sum(p.numel() for p in free.values())))
    for cotangent in cotangents(output):
        for start in range(0, len(output), size):
            chunk = slice(start, start + size)
            for name, value in vmap(gradient)(_rows(X, chunk), cotangent[chunk]).items():
                sums[name] += value.square().sum(0)
    return sums


def one_by_one(module: nn.Module, params: Params, X: Any, cotangents: Cotangents) -> Tensors:
    """Sum over one backward pass per sample, for modules that vmap cannot take."""
    with torch.no_grad():
        vectors = cotangents(module_output(module, X))
    sums = {name: torch.zeros_like(p, requires_grad=False) for name, p in params.items()}
    for n in range(len(vectors[0])):
        sample = slice(n, n + 1)
        output = module_output(module, _rows(X, sample))
        for vector in vectors:
            for name, value in _gradient(output, params, vector[sample]).items():
                sums[name].addcmul_(value, value)
    return sums


def summed_gradient(module: nn.Module, params: Params, X: Any, cotangents: Cotangents) -> Tensors:
    """Return Σ_n Σ_r ∂(f_n · v_rn)/∂θ_i, not squared: what a mini-batch gradient adds up to."""
    output = module_output(module, X)
    return _gradient(output, params, torch.stack(cotangents(output.detach())).sum(0))


def module_output(module: nn.Module, X: Any) -> Tensor:
    """Return the module's output on one batch, which has to be a single tensor."""
    output = module(**X) if isinstance(X, Mapping) else module(X)
    if not isinstance(output, Tensor):
        raise TypeError(f"module must return one tensor, got {type(output).__name__}")
    return output


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


def _linear_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers that have trainable parameters, none of a subclass."""
    return {
        name: part
        for name, part in module.named_modules()
        if type(part) is nn.Linear and any(p.requires_grad for p in part.parameters())
    }


@contextmanager
def _recorded(layers: dict[str, nn.Linear]) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """Record the (input, output) of every call of the layers."""
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}
    hooks = [
        layer.register_forward_hook(
            lambda _, args, output, calls=calls[name]: calls.append((args[0].detach(), output))
        )
        for name, layer in layers.items()
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _once_each(calls: dict[str, list[tuple[Tensor, Tensor]]], n_samples: int) -> bool:
    return all(
        len(call) == 1 and call[0][0].ndim == 2 and len(call[0][0]) == n_samples
        for call in calls.values()
    )


def _is_layerwise(module: nn.Module, params: Params, X: Any) -> bool:
    """Tell whether linear layers, each used once, account for the whole gradient.

    The names and calls of the layers do not tell: a weight may also be used
    outside its layer, an activation may overwrite the layer's output. So the
    summed gradient δᵀa is compared with autograd's, for a random cotangent.
    """
    layers = _linear_layers(module)
    owned = [f"{name}.{part}" for name, layer in layers.items() for part in ("weight", "bias")]
    owned = [name.lstrip(".") for name in owned]
    if not params or not params.keys() <= set(owned):
        return False
    with _recorded(layers) as calls:
        output = module_output(module, X)
    if not _once_each(calls, len(output)):
        return False
    ends = [call[0][1] for call in calls.values()]
    generator = torch.Generator().manual_seed(0)
    cotangent = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
    signals = torch.autograd.grad(
        output, ends, cotangent, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    expected = _gradient(output, params, cotangent)
    for (name, call), signal in zip(calls.items(), signals, strict=True):
        prefix = f"{name}." if name else ""
        for part, found in (("weight", signal.T @ call[0][0]), ("bias", signal.sum(0))):
            true = expected.get(prefix + part)
            if true is None:
                continue
            if not torch.allclose(found, true, rtol=1e-3, atol=1e-4 * float(true.abs().max())):
                return False
    return True


def _rows(X: Any, rows: slice) -> Any:
    return mapped(X, lambda x: x[rows])


def mapped(X: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to a batch of inputs, or to each part of a dict or sequence of them."""
    if isinstance(X, Mapping):
        return {key: mapped(value, function) for key, value in X.items()}
    if isinstance(X, tuple | list):
        return type(X)(mapped(value, function) for value in X)
    return function(X)
