"""The data that users pass in, checked and turned into what training takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.utils.validation import (
    _check_sample_weight,
    assert_all_finite,
    check_array,
    check_consistent_length,
    validate_data,
)
from skorch.helper import SliceDataset
from skorch.utils import is_dataset
from torch.utils.data import DataLoader, IterableDataset, Subset

FLOATS = (np.float64, np.float32)
TORCH_DTYPES = {np.dtype(name): getattr(torch, name) for name in ("float32", "float64")}


@dataclass(frozen=True)
class TaskData:
    """Checked data of one task.

    `X` is an array, a dict of arrays or a torch Dataset; `y` an array of shape
    (n_samples,) or (n_samples, n_outputs), as it came, or None with a Dataset;
    `sample_weight` an array of shape (n_samples,) or None.
    """

    X: Any
    y: np.ndarray | None
    sample_weight: np.ndarray | None = None

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return len(self.X if self.y is None else self.y)

    @property
    def target(self) -> np.ndarray:
        """The targets, or those of the first sample with an axis for samples."""
        return np.asarray(self.X[0][1])[np.newaxis] if self.y is None else self.y

    def rows(self, index: np.ndarray) -> TaskData:
        """Return the data of some rows."""
        if self.y is None:
            X: Any = Subset(self.X, index.tolist())
        elif isinstance(self.X, Mapping):
            X = {key: value[index] for key, value in self.X.items()}
        else:
            X = self.X[index]
        y = None if self.y is None else self.y[index]
        weight = None if self.sample_weight is None else self.sample_weight[index]
        return replace(self, X=X, y=y, sample_weight=weight)

    def check_weights(self) -> None:
        """Raise ValueError if no sample has any weight."""
        if self.sample_weight is not None and not self.sample_weight.any():
            raise ValueError("sample_weight must be positive for some sample of every task")


def checked_inputs(estimator: Any, X: Any, dtype: np.dtype) -> Any:
    """Return X of a fitted estimator, in the dtype of its module."""
    if is_dataset(X):
        _check_dataset(X, getattr(estimator, "n_features_in_", None))
        return X
    if _is_mapping(X):
        return _checked_mapping(X, dtype)
    return _checked_table(estimator, X, dtype, first=False)


def checked_data(
    estimator: Any, X: Any, y: Any, sample_weight: Any, dtype: np.dtype | None, first: bool
) -> TaskData:
    """Return X, y and the weights, checked.

    Parameters
    ----------
    estimator : EWCNet
        Gets ``n_features_in_`` and ``feature_names_in_`` from the first task, is
        held to them afterwards; its ``targets_kind`` says what y may be.
    X, y, sample_weight : what ``fit`` takes
    dtype : numpy dtype or None
        That of the module; None before there is one: the data's own decides.
    first : bool
        Whether it is the first task.
    """
    if isinstance(X, IterableDataset | DataLoader):
        raise TypeError(
            f"X is a {type(X).__name__}: it must be an array, a dict of arrays, or a torch Dataset "
            "that can be indexed, whose rows the Fisher sees once more"
        )
    if is_dataset(X):
        if y is not None or sample_weight is not None:
            raise ValueError("with a torch Dataset as X, y and the weights belong in the dataset")
        _check_dataset(X, None if first else getattr(estimator, "n_features_in_", None))
        return TaskData(X, None)
    if _is_mapping(X):
        X = _checked_mapping(X, dtype)
        dtype = dtype or _common_dtype(X.values())
        columns = list(X.values())
    else:
        X = _checked_table(estimator, X, dtype or FLOATS, first)
        dtype, columns = X.dtype, [X]
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    with naming("y"):
        y = estimator.targets_kind.checked(_on_host(y), dtype, estimator)
        check_consistent_length(*columns, y)
    if sample_weight is not None:
        with naming("sample_weight"):
            sample_weight = _check_sample_weight(
                _on_host(sample_weight), y, dtype=dtype, ensure_non_negative=True
            )
            # a single number for all is let through as it is
            assert_all_finite(sample_weight, input_name="sample_weight")
    data = TaskData(X, _owned(y), sample_weight)
    data.check_weights()
    return data


def features_and_dtype(dataset: Any) -> tuple[int | None, np.dtype]:
    """Return the number of features, if it has one, and the dtype that a torch Dataset shows."""
    x, *_ = dataset[0]
    if isinstance(x, Mapping | tuple | list):
        values = x.values() if isinstance(x, Mapping) else x
        return None, _common_dtype([np.asarray(value) for value in values])
    x = np.asarray(x)
    return x.shape[0] if x.ndim else 1, _common_dtype([x])


def _is_mapping(X: Any) -> bool:
    return isinstance(X, Mapping) and not issparse(X)  # a sparse DOK matrix is a dict


@contextmanager
def naming(argument: str) -> Iterator[None]:
    """Let errors name the argument they are about: numpy's do not, scikit-learn's not always."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if re.search(rf"(?<!\w){re.escape(argument)}(?!\w)", str(error)):
            raise
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{argument}: {error}") from error


def _checked_table(estimator: Any, X: Any, dtype: Any, first: bool) -> np.ndarray:
    with naming("X"):
        array = validate_data(estimator, _on_host(X), reset=first, dtype=dtype, allow_nd=True)
    return _owned(array)


def _check_dataset(dataset: Any, n_features: int | None) -> None:
    """Raise ValueError unless the first sample of a torch Dataset is one."""
    if len(dataset) == 0:
        raise ValueError("X is a Dataset of 0 samples")
    sample = dataset[0]
    if not (isinstance(sample, tuple | list) and len(sample) in (2, 3)):
        raise ValueError("X is a Dataset that yields no pairs (x, y)")
    found, _ = features_and_dtype(dataset)
    if None not in (found, n_features) and found != n_features:
        raise ValueError(f"X has {found} features, but {n_features} features are expected")


def _on_host(data: Any) -> Any:
    """Return tensors, and skorch's slices of datasets, as arrays."""
    dtypes = getattr(data, "dtypes", getattr(data, "dtype", None))
    if any(
        getattr(dtype, "kind", None) in ("m", "M") for dtype in np.ravel(np.array(dtypes, object))
    ):
        # numpy would count days or nanoseconds, as the dates happen to be stored
        raise TypeError("dates and durations are no numbers; divide by a unit first")
    if isinstance(data, SliceDataset):
        return np.stack([np.asarray(item) for item in data])
    if isinstance(data, np.ndarray) and not data.dtype.isnative:
        # scikit-learn would take a float32 of the other byte order for no float32
        return data.astype(data.dtype.newbyteorder("="))
    return data.detach().cpu().numpy() if isinstance(data, torch.Tensor) else data


def _owned(array: np.ndarray) -> np.ndarray:
    """Return an array that torch can share: C-ordered, aligned, writeable."""
    return np.require(array, requirements=["C", "A", "W"])


def _checked_mapping(X: Mapping[str, Any], dtype: np.dtype | None) -> dict[str, np.ndarray]:
    if not X:
        raise ValueError("X is a dict without arrays")
    arrays = {}
    for key, value in X.items():
        with naming(name := f"X[{key!r}]"):
            arrays[key] = check_array(
                _on_host(value), ensure_2d=False, allow_nd=True, input_name=name
            )
    dtype = dtype or _common_dtype(arrays.values())
    return {
        key: _owned(value.astype(_dtype_for_torch(value, dtype), copy=False))
        for key, value in arrays.items()
    }


def _dtype_for_torch(array: np.ndarray, dtype: np.dtype) -> np.dtype:
    """Return the module's dtype for floats, and for small integers the one that embeddings take."""
    if array.dtype.kind == "f":
        return dtype
    is_small = array.dtype.kind in "iu" and array.dtype.itemsize < 8
    return np.dtype(np.int64) if is_small else array.dtype


def _common_dtype(arrays: Iterable[np.ndarray]) -> np.dtype:
    """Return the floating dtype of arrays; of whole numbers alone, torch's default."""
    floats = [value.dtype for value in arrays if value.dtype.kind == "f"]
    return np.result_type(np.float32, *floats)
