"""Parameters turned, for the time of an optimizer's step, into coordinates of a curvature.

Adam divides the gradient of every number by its own size: it is another optimizer in
another basis. In the basis in which a curvature is diagonal its rates are those that
the penalty's proximal step, number by number, is to be taken at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..curvature.basis import Basis
from ..tensors import Tensors
from .quadratic import Quadratic


class Turning:
    """The layers of an optimizer's parameters that a curvature has a basis for.

    Attributes
    ----------
    is_whole : bool
        Whether all that is in a basis is trained by one group of the optimizer. A part
        of a layer, or two at different rates, cannot be turned.
    centre : dict of str to Tensor
        The coordinates of the quadratic's centre, in the origin that they have here.
    """

    def __init__(
        self, quadratic: Quadratic, params: Mapping[str, Tensor], optimizer: Optimizer
    ) -> None:
        self.groups = optimizer.param_groups
        self.settings = self._settings()
        group_of = {p: number for number, group in enumerate(self.groups) for p in group["params"]}
        bases = quadratic.curvature.bases
        groups = [{self._number(params[name], group_of) for name in one.names} for one in bases]
        self.is_whole = all(len(numbers) == 1 and None not in numbers for numbers in groups)
        self.centre = quadratic.centre
        self.layers: list[_Layer] = []
        if not (self.is_whole and bases):
            return
        # around the centre no digits cancel; but weights decay towards 0
        decays = any(group.get("weight_decay", 0) for group in self.groups)
        around = {} if decays else quadratic.centre
        self.layers = [_Layer(basis, params, around) for basis in bases]
        if decays:
            self.centre = quadratic.curvature.turned(quadratic.centre)
        else:
            held = {name for basis in bases for name in basis.names}
            self.centre = {
                name: torch.zeros_like(value) if name in held else value
                for name, value in quadratic.centre.items()
            }

    def holds(self) -> bool:
        """Tell whether what decides on it is as it was; a callback may change it."""
        return self._settings() == self.settings

    def _settings(self) -> list[Any]:
        return [
            (bool(group.get("weight_decay", 0)), [p.requires_grad for p in group["params"]])
            for group in self.groups
        ]

    @staticmethod
    def _number(p: Tensor, group_of: Mapping[Tensor, int]) -> int | None:
        return group_of.get(p) if p.requires_grad else None

    def turn(self) -> None:
        """Put coordinates in the place of parameters and gradients."""
        for layer in self.layers:
            layer.turn()

    def turn_back(self) -> None:
        """Put the parameters that have these coordinates in their place."""
        for layer in self.layers:
            layer.turn_back()


class _Layer:
    """The weight of a layer, and its bias if it is in the basis."""

    def __init__(self, basis: Basis, params: Mapping[str, Tensor], around: Tensors) -> None:
        self.basis = basis
        self.params = {name: params[name] for name in basis.names}
        self.origin = basis.matrix(around) if around else None
        self.coordinates: Tensor | None = None
        self.left: Sequence[Tensor] = ()

    def turn(self) -> None:
        if self.coordinates is None or not self._is_as_left():
            matrix = self.basis.matrix(self.params)
            matrix = matrix if self.origin is None else matrix - self.origin
            self.coordinates = self._turned(matrix)
        gradients = {name: p.grad for name, p in self.params.items() if p.grad is not None}
        if gradients:  # else the step has not used the layer
            for name, p in self.params.items():
                if p.grad is None:
                    p.grad = gradients[name] = torch.zeros_like(p)
            _write(
                self.basis.split(self._turned(self.basis.matrix(gradients)), gradients), gradients
            )
        _write(self.basis.split(self.coordinates, self.params), self.params)

    def turn_back(self) -> None:
        self.coordinates = self.basis.matrix(self.params)
        matrix = self.basis.outputs @ self.coordinates @ self.basis.inputs.T
        matrix = matrix if self.origin is None else matrix.add_(self.origin)
        _write(self.basis.split(matrix, self.params), self.params)
        self.left = [p.detach().clone() for p in self.params.values()]

    def _turned(self, matrix: Tensor) -> Tensor:
        return self.basis.outputs.T @ matrix @ self.basis.inputs

    def _is_as_left(self) -> bool:
        return all(map(torch.equal, self.params.values(), self.left))


def _write(values: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        into[name].copy_(value)
