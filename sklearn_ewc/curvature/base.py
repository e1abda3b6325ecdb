"""What every kind of curvature can do: the one seam between kinds and those who use them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..tensors import Tensors
from .basis import Basis

if TYPE_CHECKING:
    from typing_extensions import Self

Cotangents = Callable[[Tensor], Iterable[Tensor]]


@runtime_checkable
class Curvature(Protocol):
    """A symmetric matrix A ≥ 0 over named parameters, without its entries.

    A value: no method changes it, and nobody changes its tensors. The methods are
    those of linear algebra, so that :class:`~sklearn_ewc.Task`,
    :class:`~sklearn_ewc.Memory` and the penalty need not know which kind they hold.

    Attributes
    ----------
    kind : str
        Its name, in the parameter `curvature` and in files.
    """

    kind: ClassVar[str]

    @classmethod
    def sums(cls, module: nn.Module, fisher: str) -> Sums:
        """Return an accumulator over the batches of a task; see :class:`Sums`."""
        ...

    @property
    def bases(self) -> tuple[Basis, ...]:
        """The layers whose parameters are turned into coordinates, in which A is diagonal."""
        ...

    def turned(self, tensors: Tensors) -> Tensors:
        """Return the coordinates of parameters, under their names and in their shapes."""
        ...

    def turned_back(self, tensors: Tensors) -> Tensors:
        """Return the parameters whose coordinates these are."""
        ...

    def __add__(self, other: Self) -> Self:
        """Return A + B over the parameters of both; where one lacks some it is 0 there.

        If no A of its kind is the sum, the one that has the same diagonal in
        coordinates of both.
        """
        ...

    def __mul__(self, factor: float) -> Self:
        """Return `factor` · A."""
        ...

    def plus_identity(self, value: float) -> Self:
        """Return A + `value` · I."""
        ...

    def trace(self) -> float:
        """Return the sum of the diagonal, in float64."""
        ...

    def times(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return A v, written into `out`; v has the numbers of all parameters in a row."""
        ...

    def add_times(self, into: Tensors, vector: Tensors, factor: float) -> None:
        """Add `factor` · A v to the tensors of `into`, for the parameters that it names."""
        ...

    def meeting(self, other: Self, distance: Tensors) -> tuple[Tensors, list[float]] | None:
        """Return where two quadratics have the minimum of their sum.

        The first is ½ vᵀAv, the second ½ (v − d)ᵀB(v − d), d being `distance`:
        the minimum is at (A + B)⁻¹ B d, and has the value
        ½ dᵀA(A + B)⁻¹B d. None if the sum of two of a kind around different places
        is not one of the kind.

        Returns
        -------
        tuple of (dict of str to Tensor, list of float)
            The minimum, and what adds up to twice its value.
        """
        ...

    def resolvent(self, names: Sequence[str], reach: float) -> Resolvent | None:
        """Return the proximal step on ½ vᵀAv for the coordinates of some parameters.

        None if it has no closed form.

        Parameters
        ----------
        names : sequence of str
        reach : float
            How far an optimizer goes per unit of gradient, times λ, but for what
            it divides each parameter's step by.
        """
        ...

    def diagonal(self) -> Tensors:
        """Return the diagonal of A, by name of the parameter."""
        ...

    def dense(self) -> Tensor:
        """Return A itself, in float64. For tests: it has as many columns as there are numbers."""
        ...

    def over(self, like: Mapping[str, Tensor]) -> Self:
        """Return the same with its parameters in the order of `like`, that of :meth:`times`.

        Raises
        ------
        ValueError
            If A is over other names or shapes, not finite, or not ≥ 0.
        """
        ...

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Return the same on another device, in another dtype."""
        ...

    def state_dict(self) -> Tensors:
        """Return all that A consists of, as a flat dict of tensors."""
        ...

    @classmethod
    def from_state_dict(cls, state: Tensors) -> Self:
        """Return what :meth:`state_dict` was taken of."""
        ...


class Sums(Protocol):
    """What a pass over a task's batches adds up, to a :class:`Curvature` in the end."""

    def add(self, X: Any, cotangents: Cotangents, sample_weight: Tensor | None) -> None:
        """Run the module on a batch, and add what follows of Σ_n Σ_r Jᵀv_rn v_rnᵀJ.

        Parameters
        ----------
        X : Tensor, or dict or sequence of them
            One batch of inputs.
        cotangents : callable
            Gets the module's output, returns v_1 … v_R of its shape, which have the
            weights of the samples in them.
        sample_weight : Tensor of shape (n_samples,), or None
            For what is added up beside them.
        """
        ...

    def tensors(self) -> Tensors:
        """Return the sums so far, to be added to those of other processes."""
        ...

    def result(self, sums: Tensors, total: float) -> Curvature | Sums:
        """Return the curvature, or what one more pass adds up; `total` is the samples' weight."""
        ...


class Resolvent(Protocol):
    """The proximal step on ½ (θ − c)ᵀA(θ − c), prepared for many steps at like rates.

    An optimizer that goes down a gradient g by η g, η = reach / slowness for each
    number, is to end where η A (θ⁺ − c) + (θ⁺ − θ) = 0: θ⁺ − c = (I + ηA)⁻¹ (θ − c).
    """

    slowness: Tensor

    def renew(self) -> None:
        """Take up the slowness that was written into :attr:`slowness`, which this overwrites."""
        ...

    def pull(self, params: list[Tensor], centre: list[Tensor]) -> None:
        """Take the step, in place, from `params` towards `centre`."""
        ...
