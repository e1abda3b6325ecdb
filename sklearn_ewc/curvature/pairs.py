"""Sums over a task's batches for layers in a basis: their pairs first, then the diagonal in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..tensors import Tensors, trained
from .base import Cotangents, Curvature, Sums
from .basis import Basis
from .diagonal import DiagonalSums
from .layers import chunks, has_one_position, inputs_by_position, signals_by_position
from .per_sample import layers_that_tell, own_names
from .recording import are_usable, recorded_output

Made = Callable[[Tensors, tuple[Basis, ...]], Curvature]
Told = Iterator[tuple[str, Any, Tensor, Tensor]]


def _told(module: nn.Module, layers: dict[str, nn.Module], X: Any, cotangents: Cotangents) -> Told:
    """Yield, vector by vector, the name of each layer's weight, layer, input and signal."""
    output, calls = recorded_output(module, layers, X)
    if not are_usable(layers, calls, len(output)):
        raise ValueError(
            "module does with this batch what it did not do with the first, so its layers have no "
            "basis: use curvature='diagonal'"
        )
    ends = [one.end for (one,) in calls]
    for cotangent in cotangents(output.detach()):
        signals = torch.autograd.grad(output, ends, cotangent, retain_graph=True, allow_unused=True)
        for (name, layer), (one,), signal in zip(layers.items(), calls, signals, strict=True):
            if signal is not None:
                yield own_names(name)[0], layer, one.inputs, signal


def _with_one(inputs: Tensor, has_bias: bool) -> Tensor:
    """Return a layer's inputs with 1 appended where its bias is a column of its matrix."""
    return torch.cat([inputs, torch.ones_like(inputs[..., :1])], -1) if has_bias else inputs


class PairSums:
    """The first pass: the sums of a aᵀ and of g gᵀ of the layers that will have a basis.

    Those are linear layers and convolutions, not grouped, each called once, whose
    inputs and signals account for the gradients of their parameters.
    """

    def __init__(self, module: nn.Module, made: Made) -> None:
        self.module = module
        self.made = made
        self.params = trained(module)
        self.layers: dict[str, nn.Module] | None = None
        self.names: dict[str, tuple[str, ...]] = {}
        self.sums: Tensors = {}

    def add(self, X: Any, cotangents: Cotangents, sample_weight: Tensor | None) -> None:
        """Add what one batch contributes."""
        if self.layers is None:
            self._choose(X)
        if not self.layers:
            return
        seen = set()
        for name, layer, inputs, signal in _told(self.module, self.layers, X, cotangents):
            g = signals_by_position(layer, signal).flatten(0, 1)
            self.sums[f"{name}@outputs"] += g.T @ g
            if name in seen:  # with another vector
                continue
            seen.add(name)
            a = _with_one(inputs_by_position(layer, inputs), len(self.names[name]) > 1)
            if sample_weight is not None:
                a = a * sample_weight.to(a).sqrt().reshape(-1, 1, 1)
            n_positions = a.shape[1]
            a = a.flatten(0, 1)
            self.sums[f"{name}@inputs"] += (a.T @ a) / n_positions

    def _choose(self, X: Any) -> None:
        layers = layers_that_tell(self.module, self.params, X)
        self.layers = {
            name: layer
            for name, layer in layers.items()
            if getattr(layer, "groups", 1) == 1 and layer.weight.requires_grad
        }
        for layer_name in self.layers:
            names = tuple(name for name in own_names(layer_name) if name in self.params)
            self.names[names[0]] = names
            weight = self.params[names[0]]
            sizes = {"inputs": weight[0].numel() + len(names) - 1, "outputs": len(weight)}
            for part, size in sizes.items():
                self.sums[f"{names[0]}@{part}"] = weight.new_zeros(size, size, dtype=torch.float64)

    def tensors(self) -> Tensors:
        """Return the sums by name; there is always one."""
        return self.sums or {"": next(iter(self.params.values())).new_zeros(())}

    def result(self, sums: Tensors, total: float) -> Sums:
        """Return what the next pass adds up, in the bases that follow from the sums."""
        if not self.layers:
            return RestSums(self.module, self.made, {}, ())
        bases = []
        for name, names in self.names.items():
            inputs, outputs = (sums[f"{name}@{part}"] / total for part in ("inputs", "outputs"))
            basis = Basis.of(names, inputs, outputs, torch.ones_like(inputs[0, :1]))
            bases.append(basis.to(dtype=self.params[name].dtype))
        return SquareSums(self.module, self.made, self.layers, tuple(bases))


class SquareSums:
    """The second pass: of every sample's gradients, the squares of the coordinates."""

    def __init__(
        self,
        module: nn.Module,
        made: Made,
        layers: dict[str, nn.Module],
        bases: tuple[Basis, ...],
    ) -> None:
        self.module = module
        self.made = made
        self.layers = layers
        self.bases = {basis.names[0]: basis for basis in bases}
        self.sums = {
            name: basis.outputs.new_zeros(len(basis.outputs), len(basis.inputs))
            for name, basis in self.bases.items()
        }

    def add(self, X: Any, cotangents: Cotangents, sample_weight: Tensor | None) -> None:
        """Add what one batch contributes; the weights are in the vectors already."""
        squares: Tensors = {}
        inputs_of: Tensors = {}
        for name, layer, inputs, signal in _told(self.module, self.layers, X, cotangents):
            if not has_one_position(layer, inputs):
                self._add_positions(name, layer, inputs, signal)
                continue
            square = (signal @ self.bases[name].outputs).square_()
            squares[name] = squares[name].add_(square) if name in squares else square
            inputs_of[name] = inputs
        for name, square in squares.items():
            basis = self.bases[name]
            a = _with_one(inputs_of[name], len(basis.names) > 1) @ basis.inputs
            self.sums[name].addmm_(square.T, a.square_())

    def _add_positions(self, name: str, layer: Any, inputs: Tensor, signal: Tensor) -> None:
        basis = self.bases[name]
        for rows in chunks(layer, inputs, signal):
            a = _with_one(inputs_by_position(layer, inputs[rows]), len(basis.names) > 1)
            g = signals_by_position(layer, signal[rows])
            gradients = (g @ basis.outputs).transpose(1, 2) @ (a @ basis.inputs)
            self.sums[name] += gradients.square_().sum(0)

    def tensors(self) -> Tensors:
        """Return the sums by name of the weight."""
        return self.sums

    def result(self, sums: Tensors, total: float) -> Curvature | Sums:
        """Return the curvature, or what adds up the parameters outside these layers."""
        params = trained(self.module)
        values: Tensors = {}
        for name, basis in self.bases.items():
            values.update(basis.split(sums[name] / total, params))
        bases = tuple(self.bases.values())
        if values.keys() == params.keys():
            return self.made({name: values[name] for name in params}, bases)
        return RestSums(self.module, self.made, values, bases)


class RestSums:
    """The last pass: the diagonal of the parameters that no basis has."""

    def __init__(
        self, module: nn.Module, made: Made, values: Tensors, bases: tuple[Basis, ...]
    ) -> None:
        self.made = made
        self.values = values
        self.bases = bases
        self.order = list(trained(module))
        self.rest = DiagonalSums(module, [name for name in self.order if name not in values])

    def add(self, X: Any, cotangents: Cotangents, sample_weight: Tensor | None) -> None:
        """Add what one batch contributes."""
        self.rest.add(X, cotangents, sample_weight)

    def tensors(self) -> Tensors:
        """Return the sums by name of the parameter."""
        return self.rest.tensors()

    def result(self, sums: Tensors, total: float) -> Curvature:
        """Return the curvature."""
        values = {**self.values, **self.rest.result(sums, total).values}
        return self.made({name: values[name] for name in self.order}, self.bases)
