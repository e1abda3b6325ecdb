"""Forward passes of the sizes that a task will need, tried before it is trained."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..tensors import leaves, mapped


def batch_sizes(iterator: Any, n_samples: int) -> list[int]:
    """Return the sizes that an iterator's batches have, the largest first.

    Parameters
    ----------
    iterator : TensorBatches, DataLoader, or of the user's own kind
        Without a ``batch_size``, as with a `batch_sampler`, the answer is empty.
    n_samples : int
        Of the dataset that it iterates over.
    """
    size = getattr(iterator, "batch_size", None)
    if not isinstance(size, int | np.integer) or size < 1:
        return []
    options = getattr(iterator, "loader_options", {})
    if "batch_sampler" in options:
        return []
    sampler: Any = getattr(iterator, "sampler", options.get("sampler"))
    if hasattr(sampler, "__len__"):
        n_samples = len(sampler)
    full, rest = min(size, n_samples), n_samples % size
    if rest in (0, full) or getattr(iterator, "drop_last", False):
        return [int(full)]
    return [int(full), int(rest)]


def tried(forward: Callable[[Any], Any], batch: Any, sizes: Sequence[int], way_out: str) -> Any:
    """Run a forward pass on batches of several sizes, and return what the first leads to.

    Parameters
    ----------
    forward : callable
        Takes a batch.
    batch : Tensor, or dict or sequence of them
        One entry per sample, of which batches of any size are made. If some part has
        another first axis, it is tried as it is.
    sizes : sequence of int
        The largest comes first.
    way_out : str
        Why there are small batches, and what to do if one is too small.

    Raises
    ------
    ValueError
        If the pass fails on a batch, and not on a larger one.
    Exception
        What the module raises, if it fails on both.
    """
    if not _has_rows(batch):
        return forward(batch)
    results = [_tried_on(forward, batch, size, 2 * sizes[0], way_out) for size in sizes]
    return results[0]


def with_rows(batch: Any, size: int) -> Any:
    """Return the first rows of a batch; more than it has, by beginning again."""

    def cut(part: Tensor) -> Tensor:
        return part.index_select(0, torch.arange(size, device=part.device) % len(part))

    return mapped(batch, cut) if _has_rows(batch) else batch


def counted(n_samples: int) -> str:
    """Return the number in words for a message."""
    return "1 sample" if n_samples == 1 else f"{n_samples} samples"


def _has_rows(batch: Any) -> bool:
    """Tell whether all parts of a batch have as many rows, and some."""
    lengths = {len(part) if part.ndim else 0 for part in leaves(batch)}
    return len(lengths) == 1 and lengths != {0}


def _tried_on(
    forward: Callable[[Any], Any], batch: Any, size: int, enough: int, way_out: str
) -> Any:
    try:
        return forward(with_rows(batch, size))
    except Exception as error:
        if not _passes(forward, with_rows(batch, enough)):
            raise
        raise ValueError(
            f"{_where_raised(error)} cannot take a batch of {counted(size)} ({error}), "
            f"and {way_out}"
        ) from error


def _passes(forward: Callable[[Any], Any], batch: Any) -> bool:
    try:
        forward(batch)
    except Exception:
        return False
    return True


def _where_raised(error: Exception) -> str:
    """Return the kind of the innermost module that an error came through."""
    owners = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    kinds = [type(owner).__name__ for owner in owners if isinstance(owner, nn.Module)]
    return kinds[-1] if kinds else "module"
