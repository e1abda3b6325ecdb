"""Parameters turned, for the time of an optimizer's step, into coordinates of a curvature.

Adam divides the gradient of every number by its own size: it is another optimizer in
another basis. In the basis in which a curvature is diagonal its rates are those that
the penalty's proximal step, number by number, is to be taken at.
"""

from __future__ import annotations

from collections.abc import Mapping
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
        # what is stored in another order, channels last, is no matrix without a copy
        return group_of.get(p) if p.requires_grad and p.is_contiguous() else None

    def turn(self) -> None:
        """Put coordinates in the place of parameters and gradients."""
        for layer in self.layers:
            layer.turn()

    def turn_back(self) -> None:
        """Put the parameters that have these coordinates in their place."""
        for layer in self.layers:
            layer.turn_back()


class _Layer:
    """The weight of a layer, and its bias if it is in the basis, as columns of one matrix.

    What is written into again and again: nothing is allocated in a step.
    """

    def __init__(self, basis: Basis, params: Mapping[str, Tensor], around: Tensors) -> None:
        weight = params[basis.names[0]]
        self.columns = [weight.detach().view(len(weight), -1)]
        self.columns += [params[name].detach().unsqueeze(1) for name in basis.names[1:]]
        self.params = [params[name] for name in basis.names]
        self.outputs, self.inputs = basis.outputs, basis.inputs
        self.origin = basis.matrix(around) if around else basis.outputs.new_zeros(())
        shape = len(basis.outputs), len(basis.inputs)
        self.coordinates, self.matrix, self.gradient, self.half = (
            basis.outputs.new_empty(shape) for _ in range(4)
        )
        self.least = torch.finfo(weight.dtype).tiny ** 0.5
        self.is_known = False

    def turn(self) -> None:
        if not (self.is_known and all(map(torch.equal, self.columns, self._parts(self.matrix)))):
            torch.cat(self.columns, 1, out=self.matrix)
            self._turn(self.matrix.sub_(self.origin), self.coordinates)
        into, values = list(self.columns), self._parts(self.coordinates)
        if any(p.grad is not None for p in self.params):  # else the step has not used the layer
            gradients = self._gradients()
            torch.cat(gradients, 1, out=self.gradient)
            self._turn(self.gradient, self.gradient)
            into, values = into + gradients, values + self._parts(self.gradient)
        torch._foreach_copy_(into, values)

    def turn_back(self) -> None:
        torch.cat(self.columns, 1, out=self.coordinates)
        # what is pulled to 0 by and by becomes numbers that products take 100 times as long for
        torch.hardshrink(self.coordinates, self.least, out=self.coordinates)
        torch.mm(self.outputs, self.coordinates, out=self.half)
        torch.addmm(self.origin, self.half, self.inputs.T, out=self.matrix)
        torch._foreach_copy_(self.columns, self._parts(self.matrix))
        self.is_known = True

    def _turn(self, matrix: Tensor, out: Tensor) -> None:
        torch.mm(self.outputs.T, matrix, out=self.half)
        torch.mm(self.half, self.inputs, out=out)

    def _gradients(self) -> list[Tensor]:
        for p in self.params:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        weight, *bias = (p.grad for p in self.params if p.grad is not None)
        return [weight.view(self.columns[0].shape), *(one.unsqueeze(1) for one in bias)]

    def _parts(self, matrix: Tensor) -> list[Tensor]:
        n_columns = self.columns[0].shape[1]
        return [matrix[:, :n_columns], matrix[:, n_columns:]][: len(self.columns)]
