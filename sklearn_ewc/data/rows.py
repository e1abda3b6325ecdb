"""Rows of what users pass, in whatever container it comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _is_arraylike, _num_samples
from skorch.helper import SliceDict
from skorch.utils import is_dataset


def number_of_rows(data: Any) -> int:
    """Return the number of samples; those of its first array, if it is a dict of them."""
    if isinstance(data, Mapping) and not issparse(data) and data:
        return _num_samples(next(iter(data.values())))
    return _num_samples(data)


def rows_of(data: Any, rows: np.ndarray) -> Any:
    """Return some rows of an array, a table, a list, or a dict of any of them."""
    if issparse(data):
        return data.tocsr()[rows]
    if isinstance(data, SliceDict):
        return data[rows]
    if isinstance(data, Mapping):
        return {key: rows_of(value, rows) for key, value in data.items()}
    return None if data is None else _safe_indexing(data, rows)


def metadata_of_rows(metadata: dict[str, Any], rows: np.ndarray, n_samples: int) -> dict[str, Any]:
    """Return metadata for some rows: what holds a value per sample is cut, all else passes."""
    return {
        key: rows_of(value, rows) if _is_per_sample(value, n_samples) else value
        for key, value in metadata.items()
    }


def check_no_dataset(X: Any) -> None:
    """Raise ValueError for what has no rows to take."""
    if is_dataset(X):
        raise ValueError("a torch Dataset cannot be split by task: learn each by partial_fit")


def check_rows(X: Any, y: Any, metadata: dict[str, Any]) -> int:
    """Return the number of samples, if X can be cut by rows, and y and weights have as many."""
    check_no_dataset(X)
    n_samples = number_of_rows(X)
    weights = {key: metadata[key] for key in metadata if key.split("__")[-1] == "sample_weight"}
    for name, values in {"y": y, **weights}.items():
        if _is_countable(values) and _num_samples(values) != n_samples:
            raise ValueError(
                f"X and {name} have inconsistent numbers of samples: "
                f"{n_samples} and {_num_samples(values)}"
            )
    return n_samples


def _is_per_sample(value: Any, n_samples: int) -> bool:
    return _is_countable(value) and number_of_rows(value) == n_samples


def _is_countable(value: Any) -> bool:
    is_single = isinstance(value, str) or getattr(value, "ndim", 1) == 0
    return not is_single and (_is_arraylike(value) or issparse(value))
