"""Sums of squared per-sample gradients of modules made of linear layers and convolutions.

From the input a of such a layer and the gradient δ with respect to its output
follows the gradient of every sample: D Aᵀ, where A (in × positions) holds what
the weights are multiplied with at each position, D (out × positions) the δ
there. A linear layer has one position, and then the squares of all samples come
from one matrix product, (δ²)ᵀ a².
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

_ELEMENTWISE = {
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Softsign, nn.Identity, nn.Dropout),
}
_CHUNK = 2**19  # numbers that the gradients of single samples may fill at a time, near the cache


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


def is_chain(module: nn.Module, X: Any) -> bool:
    """Tell whether a module is known to be right without a trial: layers in a row, on a table.

    That is an ``nn.Sequential`` of linear layers and elementwise functions, without
    hooks, and no parameter twice.
    """
    if not (isinstance(X, Tensor) and X.ndim == 2 and X.is_floating_point()):
        return False
    parts, pending = [], [module]
    while pending:
        part = pending.pop()
        parts.append(part)
        if type(part).forward is nn.Sequential.forward:
            # not children(), which leaves out what is there twice
            pending += [child for child in part._modules.values() if child is not None]
        elif type(part) not in _ELEMENTWISE and type(part) is not nn.Linear:
            return False
    is_plain = not any(
        "forward" in vars(part) or part._forward_hooks or part._forward_pre_hooks for part in parts
    )
    own = [p for part in parts for p in part.parameters(recurse=False)]
    return is_plain and len({*map(id, own)}) == len(own)


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
    for rows in chunks(layer, inputs, signal):
        D = _by_position(layer, signal[rows])
        if weight is not None:
            squares = (D @ _multiplicands(layer, inputs[rows])).square_().sum(0)
            weight += _like_weight(layer, squares)
        if bias is not None:
            bias += D.sum(-1).square_().sum(0).reshape(bias.shape)


def summed_gradients(layer: Any, inputs: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σ_n of the gradients themselves, to be compared with autograd's."""
    if has_one_position(layer, inputs):
        return signal.T @ inputs, signal.sum(0)
    D = _by_position(layer, signal)
    gradient = (D @ _multiplicands(layer, inputs)).sum(0)
    return _like_weight(layer, gradient), D.sum((0, -1)).reshape(-1)


def inputs_by_position(layer: Any, inputs: Tensor) -> Tensor:
    """Return what a layer's weights meet at each position, shape (n_samples, n_positions, n_in).

    In the order of the weights, of a layer of one group.
    """
    met = _multiplicands(layer, inputs).squeeze(1)
    if isinstance(layer, nn.Linear) or not _channels_run_last(layer):
        return met
    by_kernel = met.reshape(*met.shape[:2], -1, layer.in_channels)
    return by_kernel.transpose(-1, -2).flatten(2)


def signals_by_position(layer: Any, signal: Tensor) -> Tensor:
    """Return δ at each position, shape (n_samples, n_positions, n_out), of a layer of one group."""
    return _by_position(layer, signal).squeeze(1).transpose(-1, -2)


def _multiplicands(layer: Any, inputs: Tensor) -> Tensor:
    """Return Aᵀ, shape (n_samples, n_groups, n_positions, n_in)."""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(len(inputs), 1, -1, layer.in_features)
    windows = _windows(layer, inputs)
    n_axes = len(layer.kernel_size)
    if _channels_run_last(layer):
        windows = windows.movedim(2, -1)
        kernel, positions = range(2, 2 + n_axes), range(2 + n_axes, 2 + 2 * n_axes)
        windows = windows.permute(0, 1, *positions, *kernel, -1)
        return windows.reshape(
            len(inputs), layer.groups, math.prod(windows.shape[2 : 2 + n_axes]), -1
        )
    matrix = windows.reshape(len(inputs), layer.groups, layer.weight[0].numel(), -1)
    return matrix.transpose(-1, -2)


def _windows(layer: Any, inputs: Tensor) -> Tensor:
    """Return what the weights meet, shape (n, groups, in, *kernel, *positions), as a view."""
    padded = F.pad(inputs, [width for size in layer.padding[::-1] for width in (size, size)])
    if _channels_run_last(layer):
        padded = padded.movedim(1, -1).contiguous().movedim(-1, 1)
    step_n, step_channel, *steps = padded.stride()
    n_windows = [
        (size - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, dilation, stride in zip(
            padded.shape[2:], layer.kernel_size, layer.dilation, layer.stride, strict=True
        )
    ]
    within = [step * dilation for step, dilation in zip(steps, layer.dilation, strict=True)]
    between = [step * stride for step, stride in zip(steps, layer.stride, strict=True)]
    n_channels = layer.in_channels // layer.groups
    return padded.as_strided(
        (len(inputs), layer.groups, n_channels, *layer.kernel_size, *n_windows),
        (step_n, n_channels * step_channel, step_channel, *within, *between),
    )


def _channels_run_last(layer: Any) -> bool:
    """Tell whether windows are copied faster channel by channel than position by position."""
    return layer.in_channels // layer.groups >= 4


def _like_weight(layer: Any, value: Tensor) -> Tensor:
    """Bring (n_groups, n_out, n_in) into the shape and order of the weight."""
    n_out, n_channels, *kernel = layer.weight.shape
    if isinstance(layer, nn.Linear) or not _channels_run_last(layer):
        return value.reshape(layer.weight.shape)
    return value.reshape(n_out, *kernel, n_channels).movedim(-1, 1)


def _by_position(layer: Any, signal: Tensor) -> Tensor:
    """Return D, shape (n_samples, n_groups, n_out, n_positions)."""
    if isinstance(layer, nn.Linear):
        return signal.reshape(len(signal), 1, -1, layer.out_features).transpose(-1, -2)
    return signal.reshape(len(signal), layer.groups, layer.out_channels // layer.groups, -1)


def chunks(layer: Any, inputs: Tensor, signal: Tensor) -> Iterator[slice]:
    """Yield slices of rows whose own gradients fill a bounded number of numbers."""
    n_out = len(layer.weight)
    n_positions = signal[0].numel() // n_out
    n_in = layer.weight.numel() // n_out
    widest = max(layer.weight.numel(), n_in * n_positions * getattr(layer, "groups", 1))
    size = max(1, _CHUNK // widest)
    return (slice(start, start + size) for start in range(0, len(inputs), size))
