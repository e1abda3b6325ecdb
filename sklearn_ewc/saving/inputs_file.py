"""The densities of old inputs in the file of a memory: numbers and tensors, no estimator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor

from ..arguments import shown
from ..memory import Memory
from ..memory.density import Density, Levels, OldInputs
from ..memory.sources import Mixture
from ..tensors import Tensors

_OF_MIXTURE = ("weights", "means", "cholesky")


def inputs_numbers(memory: Memory) -> list[dict[str, Any]]:
    """Return what JSON is to know of the inputs that a memory has densities of."""
    return [
        {
            "weight": float(one.weight),
            "n_columns": int(one.density.n_columns),
            "drawn": list(one.density.drawn),
            "levels": [list(block.columns) for block in one.density.levels],
        }
        for one in memory.inputs
    ]


def inputs_tensors(memory: Memory) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of the densities under their names in a file.

    Raises
    ------
    ValueError
        If one is of an estimator that is not all numbers.
    """
    for k, one in enumerate(memory.inputs):
        source = one.density.source
        if not isinstance(source, Mixture):
            raise ValueError(
                "f_memory holds numbers alone, and what is replayed is drawn by "
                f"{shown(source.estimator)}: pickle the net, or set replay to 'auto' or to "
                "scikit-learn's own GaussianMixture, BayesianGaussianMixture or KernelDensity "
                "with the Gaussian kernel, whose numbers are known"
            )
        for name in _OF_MIXTURE:
            yield f"inputs.{k}.{name}", getattr(source, name)
        for j, block in enumerate(one.density.levels):
            yield f"inputs.{k}.levels.{j}", block.values


def inputs_from_numbers(
    listed: Any, part: Callable[[str, Iterable[str]], Tensors]
) -> tuple[OldInputs, ...]:
    """Return what :func:`inputs_numbers` and :func:`inputs_tensors` were taken of.

    Parameters
    ----------
    listed : list of dict
    part : callable
        Returns the tensors of a prefix by their names.
    """
    return tuple(_old_inputs(part, f"inputs.{k}", **one) for k, one in enumerate(listed))


def _old_inputs(
    part: Callable[[str, Iterable[str]], Tensors],
    prefix: str,
    weight: float,
    n_columns: int,
    drawn: list[int],
    levels: list[list[int]],
) -> OldInputs:
    source = Mixture(**part(prefix, _OF_MIXTURE))
    values = part(f"{prefix}.levels", [str(j) for j in range(len(levels))]).values()
    blocks = (Levels(tuple(one), table) for one, table in zip(levels, values, strict=True))
    return OldInputs(Density(n_columns, source, tuple(drawn), tuple(blocks)), weight)
