"""What draws rows of a table: a mixture of normal distributions, or an estimator of one's own."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_count, naming, shown


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of K normal distributions over d columns, in float64.

    Parameters
    ----------
    weights : Tensor of shape (K,)
        Probabilities of the components, which add up to 1.
    means : Tensor of shape (K, d)
    cholesky : Tensor of shape (K, d, d) or (1, d, d)
        Lower triangular L_k, the covariances being L_k L_kᵀ; one for all components.

    Raises
    ------
    ValueError
        If it is none: of other shapes or dtypes, not finite, weights that are negative
        or do not add up to 1, L_k that is not lower triangular with a positive diagonal.
    """

    weights: Tensor = field(repr=False)
    means: Tensor = field(repr=False)
    cholesky: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        for name in ("weights", "means", "cholesky"):
            check_numbers(name, getattr(self, name))
        (k, *more), d = self.weights.shape or (0,), self.means.shape[-1] if self.means.ndim else 0
        if more or k == 0:
            raise ValueError(f"weights has shape {tuple(self.weights.shape)}")
        if self.means.shape != (k, d):
            raise ValueError(f"means has shape {tuple(self.means.shape)} for {k} components")
        if self.cholesky.shape not in ((k, d, d), (1, d, d)):
            raise ValueError(
                f"cholesky has shape {tuple(self.cholesky.shape)} for {k} components of {d} columns"
            )
        if bool((self.weights < 0).any()) or abs(float(self.weights.sum()) - 1) > 1e-6:
            raise ValueError("weights must not be negative, and add up to 1")
        if bool(self.cholesky.triu(1).any()) or bool((self.cholesky.diagonal(0, 1, 2) <= 0).any()):
            raise ValueError("cholesky must be lower triangular with a positive diagonal")

    @property
    def n_columns(self) -> int:
        """How many columns it draws."""
        return self.means.shape[1]

    @property
    def n_bytes(self) -> int:
        """How many bytes it takes."""
        return self.weights.nbytes + self.means.nbytes + self.cholesky.nbytes

    def draw(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Return rows in float64, shape (n_rows, d)."""
        weights = self.weights.cpu()
        chosen = torch.multinomial(weights, n_rows, replacement=True, generator=generator)
        noise = torch.randn(n_rows, self.n_columns, generator=generator, dtype=torch.float64)
        chosen, noise = chosen.to(self.means.device), noise.to(self.means.device)
        if len(self.cholesky) == 1:
            return self.means[chosen] + noise @ self.cholesky[0].T
        rows = torch.empty_like(noise)
        for k in chosen.unique().tolist():
            own = chosen == k
            rows[own] = self.means[k] + noise[own] @ self.cholesky[k].T
        return rows

    def to(self, device: str | torch.device) -> Mixture:
        """Return the same on another device."""
        return Mixture(self.weights.to(device), self.means.to(device), self.cholesky.to(device))


@dataclass(frozen=True, eq=False)
class Sampler:
    """A fitted estimator whose ``sample(n)`` returns rows, or rows and their labels.

    It is not changed by drawing: a copy draws, with a `random_state` if it has one.

    Parameters
    ----------
    estimator : object with sample
    n_columns : int
        How many columns it draws.
    """

    estimator: Any
    n_columns: int

    def __post_init__(self) -> None:
        check_count("n_columns", self.n_columns)
        if not hasattr(self.estimator, "sample"):
            raise TypeError(f"estimator must have sample, got {shown(self.estimator)}")

    @property
    def n_bytes(self) -> int:
        """How many bytes its pickle takes."""
        return len(pickle.dumps(self.estimator))

    def draw(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Return rows in float64, shape (n_rows, n_columns), on the CPU.

        Raises
        ------
        ValueError
            If the estimator draws anything else, or what is not finite.
        """
        seed = int(torch.randint(2**31, (), generator=generator))
        estimator, options = copy.copy(self.estimator), {}
        if "random_state" in inspect.signature(estimator.sample).parameters:
            options["random_state"] = seed
        elif hasattr(estimator, "random_state"):
            estimator.random_state = seed
        drawn = estimator.sample(n_rows, **options)
        rows = torch.as_tensor(drawn[0] if isinstance(drawn, tuple) else drawn).double()
        if rows.shape != (n_rows, self.n_columns):
            expected = (n_rows, self.n_columns)
            raise ValueError(f"sample drew shape {tuple(rows.shape)}, expected {expected}")
        if not bool(rows.isfinite().all()):
            raise ValueError("sample drew what is not finite")
        return rows

    def to(self, device: str | torch.device) -> Sampler:
        """Return itself: an estimator knows no device."""
        return self


def check_numbers(name: str, value: Any) -> None:
    """Raise ValueError or TypeError unless `value` holds finite numbers in float64."""
    with naming(name):
        if not (isinstance(value, Tensor) and value.dtype == torch.float64):
            raise TypeError(f"it must be a tensor in float64, got {shown(value)}")
        if not bool(value.isfinite().all()):
            raise ValueError("it is not finite")
