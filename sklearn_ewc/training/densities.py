"""Densities of a task's inputs, fitted by scikit-learn or by an estimator of the user's own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.neighbors import KernelDensity

from ..arguments import naming
from ..memory.density import Density, Levels
from ..memory.sources import Mixture, Sampler
from .epochs import AUTO
from .inputs import layout_of, table_of
from .seeding import draw_seed, task_generator

WIDEST = 256  # columns: a covariance of 0.5 MB, fitted in seconds; both grow with the square
_COMPONENTS = (1, 2, 3, 5, 8)
_ROWS_PER_COLUMN = 5  # that a component's covariance needs, to be more than noise
# of a table: more would cost more than they tell
MOST_ROWS, _MOST_NUMBERS, _FEWEST_ROWS = 20_000, 2**20, 4096
_MOST_LEVELS = 32  # values of a column that is taken to be discrete


def density_of(net: Any, dataset: Any) -> Density | None:
    """Return the density of a task's inputs that a net is to keep; None if it keeps none.

    Raises
    ------
    ValueError, TypeError
        If the inputs are too wide for a mixture, or the user's estimator fails on them.
    """
    if net.replay is None:
        return None
    # of a stream of its own: it moves neither the order of the batches nor their dropout
    generator = task_generator(net.seed_, net.n_tasks_ + 1, stream=3)
    layout = layout_of(net, dataset)
    n_columns = sum(layout.widths)
    if isinstance(net.replay, str) and n_columns > WIDEST:
        raise ValueError(
            f"replay={net.replay!r} fits a mixture to up to {WIDEST} numbers per sample, X has "
            f"{n_columns}: pass an estimator with fit and sample that is made for them, or set "
            "curvature='kronecker', which needs no density"
        )
    most = min(MOST_ROWS, max(_MOST_NUMBERS // n_columns, _FEWEST_ROWS))
    table = table_of(net, dataset, layout, generator, most).numpy()
    seed = draw_seed(generator) % 2**32
    # mixtures refuse to begin in their usual way where array libraries are dispatched to
    with naming("replay"), config_context(array_api_dispatch=False):
        density = fitted_density(table, net.replay, seed, layout.whole)
        density.draw(1, generator)  # raises now what would fail while the next task is trained
    return density.to(net.device)


def fitted_density(
    table: np.ndarray, replay: Any = AUTO, seed: int = 0, whole: Sequence[int] = ()
) -> Density:
    """Return a density of the rows of a table.

    Parameters
    ----------
    table : ndarray of shape (n_rows, n_columns), float64
    replay : "auto" or estimator with fit and sample
        What is fitted; "auto" is a mixture of up to eight normal distributions, as many
        as the Bayesian information criterion says.
    seed : int
    whole : sequence of int, default=()
        Columns that hold whole numbers, however many; others are discrete if they take
        few values.

    Returns
    -------
    Density
        For :meth:`Memory.consolidate <sklearn_ewc.Memory.consolidate>`, in one's own loop.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn_ewc.training.densities import fitted_density
    >>> rng = np.random.RandomState(0)
    >>> table = np.column_stack([rng.randn(300), rng.randint(0, 2, 300)])
    >>> drawn = fitted_density(table).draw(1000, torch.Generator().manual_seed(0))
    >>> drawn.mean(0).round(decimals=1)
    tensor([0.0000, 0.5000], dtype=torch.float64)
    >>> drawn[:, 1].unique()  # whole, as they were
    tensor([0., 1.], dtype=torch.float64)
    """
    n_columns = table.shape[1]
    values = [np.unique(column) for column in table.T]
    constant = [k for k in range(n_columns) if len(values[k]) == 1]
    discrete = [
        k
        for k, found in enumerate(values)
        if len(found) > 1 and (k in whole or _are_few(found, len(table)))
    ]
    levels = [_levels(table, block) for block in ([constant] if constant else [])]
    levels += [_levels(table, block) for block in _blocks(table, discrete)]
    if isinstance(replay, str):
        drawn = [k for k in range(n_columns) if len(values[k]) > 1]
        source: Any = _best_mixture(table[:, drawn], seed)
    else:
        drawn = list(range(n_columns))
        source = _source(_fitted(replay, table, seed), n_columns)
    return Density(n_columns, source, tuple(drawn), tuple(levels))


def _are_few(values: np.ndarray, n_rows: int) -> bool:
    is_flag = len(values) == 2 and values[0] == 0 and values[1] == 1
    return is_flag or len(values) <= min(_MOST_LEVELS, n_rows // 4)


def _blocks(table: np.ndarray, columns: list[int]) -> list[list[int]]:
    """Return columns in blocks that say the same, as the columns of a one-hot category do.

    Two belong together if they have fewer values together than each alone, added up.
    """
    blocks: list[tuple[list[int], np.ndarray, int]] = []
    for column in columns:
        found, codes = np.unique(table[:, column], return_inverse=True)
        block, n_levels = [column], len(found)
        for k, (others, their_codes, n_theirs) in enumerate(blocks):
            together, joint = np.unique(their_codes * n_levels + codes, return_inverse=True)
            if len(together) < n_theirs + n_levels:
                blocks[k] = [*others, column], joint, len(together)
                break
        else:
            blocks.append((block, codes, n_levels))
    return [block for block, _, _ in blocks]


def _levels(table: np.ndarray, columns: list[int]) -> Levels:
    return Levels(tuple(columns), torch.as_tensor(np.unique(table[:, columns], axis=0)))


def _best_mixture(table: np.ndarray, seed: int) -> Mixture:
    """Return the mixture with the number of components that BIC says, out of a few."""
    n_rows, n_columns = table.shape
    if n_columns == 0:
        return _mixture(np.ones(1), np.zeros((1, 0)), np.zeros((1, 0, 0)))
    centre, scale = table.mean(0), table.std(0)
    scale[scale == 0] = 1.0  # of numbers whose squares are too small
    scaled = (table - centre) / scale
    fitted = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for k in _COMPONENTS:
            if k == 1 or n_rows >= _ROWS_PER_COLUMN * n_columns * k:
                fitted.append(GaussianMixture(k, random_state=seed).fit(scaled))
    best = min(fitted, key=lambda one: one.bic(scaled))
    mixture = mixture_of(best)
    means = mixture.means.numpy() * scale + centre
    return _mixture(mixture.weights.numpy(), means, mixture.cholesky.numpy() * scale[:, None])


def _fitted(replay: Any, table: np.ndarray, seed: int) -> Any:
    """Return a fitted copy of a user's estimator, seeded where it is not."""
    estimator = clone(replay, safe=False)
    if getattr(estimator, "random_state", 0) is None:
        estimator.random_state = seed
    estimator.fit(table)
    return estimator


def _source(estimator: Any, n_columns: int) -> Mixture | Sampler:
    mixture = mixture_of(estimator)
    return Sampler(estimator, n_columns) if mixture is None else mixture


def mixture_of(estimator: Any) -> Any:
    """Return an estimator of scikit-learn that is a mixture as one; None if it is none."""
    if type(estimator) in (GaussianMixture, BayesianGaussianMixture):
        n_columns, found = estimator.means_.shape[1], estimator.covariances_
        covariances = {
            "full": lambda: found,
            "tied": lambda: found[None],
            "diag": lambda: np.stack([np.diag(one) for one in found]),
            "spherical": lambda: found[:, None, None] * np.eye(n_columns),
        }[estimator.covariance_type]()
        weights = estimator.weights_ / estimator.weights_.sum()
        return _mixture(weights, estimator.means_, np.linalg.cholesky(covariances))
    if type(estimator) is KernelDensity and estimator.kernel == "gaussian":
        rows = np.asarray(estimator.tree_.data)
        bandwidth = estimator.bandwidth_ * np.eye(rows.shape[1])[None]
        return _mixture(np.full(len(rows), 1 / len(rows)), rows, bandwidth)
    return None


def _mixture(weights: np.ndarray, means: np.ndarray, cholesky: np.ndarray) -> Mixture:
    return Mixture(
        *(torch.tensor(part, dtype=torch.float64) for part in (weights, means, cholesky))
    )
