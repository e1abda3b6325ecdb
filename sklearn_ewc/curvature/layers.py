"""Sums of squared per-sample gradients of modules made of linear layers and convolutions.

From the input a of such a layer and the gradient δ with respect to its output
follows the gradient of every sample: D Aᵀ, where A (in × positions) holds what
the weights are multiplied with at each position, D (out × positions) the δ
there. A linear layer has one position, and then the squares of all samples come
from one matrix product, (δ²)ᵀ a².
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

Calls = dict[str, list[tuple[Tensor, Tensor]]]

_CHUNK = 2**21  # numbers that the gradients of single samples may fill at a time


def known_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers with trainable parameters whose gradients this module knows."""
    return {
        name: part
        for name, part in module.named_modules()
        if any(p.requires_grad for p in part.parameters(recurse=False)) and _is_known(part)
    }


def _is_known(part: nn.Module) -> bool:
    if type(part) in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        return part.padding_mode == "zeros" and not isinstance(part.padding, str)
    return type(part) is nn.Linear


@contextmanager
def recorded(layers: Mapping[str, nn.Module]) -> Iterator[Calls]:
    """Record the (input, output) of every call of the layers."""
    calls: Calls = {name: [] for name in layers}
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


def once_each(layers: Mapping[str, nn.Module], calls: Calls, n_samples: int) -> bool:
    """Tell whether every layer was called once, with the samples along the first axis."""
    return all(
        len(call) == 1 and len(call[0][0]) == n_samples and call[0][0].ndim >= _n_axes(layer)
        for layer, call in zip(layers.values(), calls.values(), strict=True)
    )


def _n_axes(layer: Any) -> int:
    """Return how many axes a batch of inputs has at least."""
    return 2 if isinstance(layer, nn.Linear) else layer.weight.ndim


def has_one_position(layer: nn.Module, inputs: Tensor) -> bool:
    """Tell whether a layer meets :func:`add_product`: linear, on two-dimensional input."""
    return isinstance(layer, nn.Linear) and inputs.ndim == 2


def add_product(inputs: Tensor, square: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
    """Add (δ²)ᵀ a² to `weight` and Σ_n δ² to `bias`; `square` is δ², or a sum of such."""
    if weight is not None:
        weight.addmm_(square.T, inputs.square())
    if bias is not None:
        bias += square.sum(0)


def add_squares(
    layer: Any, inputs: Tensor, signal: Tensor, weight: Tensor | None, bias: Tensor | None
) -> None:
    """Add Σ_n of the squared gradients of a layer's weight and bias to `weight` and `bias`.

    `signal` is δ, the gradient with respect to the layer's output.
    """
    for rows in _chunks(layer, inputs, signal):
        A, D = _multiplicands(layer, inputs[rows]), _by_position(layer, signal[rows])
        if weight is not None:
            weight += (D @ A.transpose(-1, -2)).square().sum(0).reshape(weight.shape)
        if bias is not None:
            bias += D.sum(-1).square().sum(0).reshape(bias.shape)


def summed_gradients(layer: Any, inputs: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σ_n of the gradients themselves, to be compared with autograd's."""
    if has_one_position(layer, inputs):
        return signal.T @ inputs, signal.sum(0)
    A, D = _multiplicands(layer, inputs), _by_position(layer, signal)
    gradient = torch.einsum("ngol,ngil->goi", D, A)
    return gradient.reshape(layer.weight.shape), D.sum((0, -1)).reshape(-1)


def _multiplicands(layer: Any, inputs: Tensor) -> Tensor:
    """Return A, shape (n_samples, n_groups, n_in, n_positions)."""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(len(inputs), 1, -1, layer.in_features).transpose(-1, -2)
    padded = F.pad(inputs, [width for size in layer.padding[::-1] for width in (size, size)])
    step_n, step_channel, *steps = padded.stride()
    n_windows = [
        (size - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, dilation, stride in zip(
            padded.shape[2:], layer.kernel_size, layer.dilation, layer.stride, strict=True
        )
    ]
    within = [step * dilation for step, dilation in zip(steps, layer.dilation, strict=True)]
    between = [step * stride for step, stride in zip(steps, layer.stride, strict=True)]
    windows = padded.as_strided(
        (len(inputs), layer.in_channels, *layer.kernel_size, *n_windows),
        (step_n, step_channel, *within, *between),
    )
    return windows.reshape(len(inputs), layer.groups, -1, math.prod(n_windows))


def _by_position(layer: Any, signal: Tensor) -> Tensor:
    """Return D, shape (n_samples, n_groups, n_out, n_positions)."""
    if isinstance(layer, nn.Linear):
        return signal.reshape(len(signal), 1, -1, layer.out_features).transpose(-1, -2)
    return signal.reshape(len(signal), layer.groups, layer.out_channels // layer.groups, -1)


def _chunks(layer: Any, inputs: Tensor, signal: Tensor) -> Iterator[slice]:
    n_positions = signal[0].numel() // _n_outputs(layer)
    n_in = layer.weight.numel() // _n_outputs(layer)
    widest = max(layer.weight.numel(), n_in * n_positions * getattr(layer, "groups", 1))
    size = max(1, _CHUNK // widest)
    return (slice(start, start + size) for start in range(0, len(inputs), size))


def _n_outputs(layer: Any) -> int:
    return layer.weight.shape[0]
