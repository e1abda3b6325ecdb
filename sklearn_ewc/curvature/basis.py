"""A basis of one layer's weights, in which the layer's curvature is kept as a diagonal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from ..tensors import Tensors

_PARTS = ("inputs", "outputs", "input_values", "output_values", "share")
_LEAST = 1e-18  # of a component of an eigenvector that tells anything
_ORTHONORMAL = 1e-3  # how far the products of its columns may be from 0 and 1


@dataclass(frozen=True, eq=False)
class Basis:
    """The eigenvectors of a layer's pair: of its inputs' second moments and its signals'.

    With M (outputs × inputs) the weight, its bias a last column if the layer has one,
    the coordinates are φ = Uᵀ M V. The pair is that of K-FAC [1]_, over one task or
    several: the mean over tasks of E[a aᵀ] = V diag(v) Vᵀ, the sum over tasks of
    E[g gᵀ] = U diag(u) Uᵀ; a is the input of the layer with 1 appended for the bias,
    g the gradient at its output. A mean and a sum, so that nothing counts twice.

    Parameters
    ----------
    names : tuple of str
        The layer's weight and, if it is a column of M, its bias.
    inputs, outputs : Tensor of shape (n_inputs, n_inputs), (n_outputs, n_outputs)
        V and U, eigenvectors in columns.
    input_values, output_values : Tensor of shape (n_inputs,), (n_outputs,)
        v and u.
    share : Tensor of shape (1,)
        How many tasks the mean is over, by their weights.

    References
    ----------
    .. [1] Martens & Grosse, "Optimizing neural networks with Kronecker-factored
       approximate curvature", ICML (2015), section 3.
    """

    names: tuple[str, ...]
    inputs: Tensor
    outputs: Tensor
    input_values: Tensor
    output_values: Tensor
    share: Tensor

    @classmethod
    def of(cls, names: tuple[str, ...], inputs: Tensor, outputs: Tensor, share: Tensor) -> Basis:
        """Return the eigenvectors of a pair of symmetric matrices."""
        (v, V), (u, U) = (torch.linalg.eigh(one) for one in (inputs, outputs))
        # rounding alone makes numbers so small that products of theirs take 100 times as long
        V, U = (hardshrink(one, _LEAST) for one in (V, U))
        return cls(names, V, U, v.clamp(min=0), u.clamp(min=0), share)

    def joined(self, other: Basis) -> Basis:
        """Return the basis of both pairs together, which stands between the two."""
        share = self.share + other.share
        part = torch.where(share > 0, self.share / share, 0.5)
        inputs = part * self._input_pair() + (1 - part) * other._input_pair()
        return Basis.of(self.names, inputs, self._output_pair() + other._output_pair(), share)

    def _input_pair(self) -> Tensor:
        return (self.inputs * self.input_values) @ self.inputs.T

    def _output_pair(self) -> Tensor:
        return (self.outputs * self.output_values) @ self.outputs.T

    def __mul__(self, factor: float) -> Basis:
        """Return the basis of a pair that counts `factor` times as much."""
        return replace(self, output_values=factor * self.output_values, share=factor * self.share)

    def fits(self, other: Basis) -> bool:
        """Tell whether both are of the same parameters."""
        return self.names == other.names and len(self.inputs) == len(other.inputs)

    def turned(self, tensors: Mapping[str, Tensor]) -> Tensors:
        """Return the coordinates φ of the layer's parameters, under their names."""
        return self.split(self.outputs.T @ self.matrix(tensors) @ self.inputs, tensors)

    def turned_back(self, tensors: Mapping[str, Tensor]) -> Tensors:
        """Return the parameters whose coordinates these are."""
        return self.split(self.outputs @ self.matrix(tensors) @ self.inputs.T, tensors)

    def carried(self, diagonal: Mapping[str, Tensor], to: Basis | None) -> Tensors:
        """Return the diagonal, in another basis, of a matrix that is diagonal in this one.

        None stands for the parameters themselves. The trace stays.
        """
        outputs = self.outputs if to is None else to.outputs.T @ self.outputs
        inputs = self.inputs if to is None else to.inputs.T @ self.inputs
        carried = outputs.square() @ self.matrix(diagonal) @ inputs.square().T
        return self.split(carried, diagonal)

    def taken_up(self, diagonal: Mapping[str, Tensor]) -> Tensors:
        """Return the diagonal, in this basis, of a matrix over the parameters that is diagonal."""
        carried = self.outputs.square().T @ self.matrix(diagonal) @ self.inputs.square()
        return self.split(carried, diagonal)

    def matrix(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return M of the layer's parameters, or of what goes with them."""
        weight = tensors[self.names[0]].flatten(1)
        if len(self.names) == 1:
            return weight
        return torch.cat([weight, tensors[self.names[1]].unsqueeze(1)], 1)

    def split(self, matrix: Tensor, like: Mapping[str, Tensor]) -> Tensors:
        """Return the parts of M, under the names of the parameters and in their shapes."""
        weight, *bias = self.names
        parts = {weight: matrix[:, : matrix.shape[1] - len(bias)].reshape(like[weight].shape)}
        return {**parts, **dict.fromkeys(bias, matrix[:, -1])}

    def check(self, like: Mapping[str, Tensor]) -> None:
        """Raise ValueError unless it is a basis of parameters of these shapes."""
        weight = like[self.names[0]]
        n_inputs, n_outputs = weight[0].numel() + len(self.names) - 1, len(weight)
        shapes = ((n_inputs,) * 2, (n_outputs,) * 2, (n_inputs,), (n_outputs,), (1,))
        for (name, value), shape in zip(self.state_dict().items(), shapes, strict=True):
            if value.shape != shape:
                raise ValueError(
                    f"curvature differs in shape at {name!r}: {tuple(value.shape)} and {shape}"
                )
            if not value.isfinite().all():
                raise ValueError(f"curvature is not finite at {name!r}")
            if len(shape) == 2:
                errors = value.T @ value - torch.eye(len(value)).to(value)
                if errors.numel() and errors.abs().max() > _ORTHONORMAL:
                    raise ValueError(f"curvature has no orthonormal columns at {name!r}")
            elif (value < 0).any():
                raise ValueError(f"curvature is negative at {name!r}")

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Basis:
        """Return the same on another device, in another dtype."""
        moved = {part: getattr(self, part).to(device=device, dtype=dtype) for part in _PARTS}
        return replace(self, **moved)

    def state_dict(self) -> Tensors:
        """Return its tensors, under the name of the weight and their own."""
        return {f"{self.names[0]}@{part}": getattr(self, part) for part in _PARTS}

    @classmethod
    def from_state_dict(cls, state: Tensors, weight: str, bias: str) -> Basis:
        """Take what :meth:`state_dict` gave out of a state, and return the basis.

        It has a column for the bias where it is one wider than the weight.
        """
        parts = {part: state.pop(f"{weight}@{part}") for part in _PARTS}
        shape = state[weight].shape
        has_bias = len(shape) > 0 and len(parts["inputs"]) > shape[1:].numel()
        return cls((weight, bias) if has_bias else (weight,), **parts)
