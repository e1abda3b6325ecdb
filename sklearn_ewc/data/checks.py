"""The data that users pass in, checked and turned into what training takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from skorch.utils import is_dataset
from torch.utils.data import DataLoader, IterableDataset, Subset

from ..arguments import naming
from .arrays import numbers_in, own_dtypes

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
        X = _checked_table(estimator, X, dtype, first)
        dtype, columns = X.dtype, [X]
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    with naming("y"):
        y = estimator.targets_kind.checked(numbers_in(y), dtype, estimator)
    with naming("X and y"):
        check_consistent_length(*columns, y)
    if sample_weight is not None:
        sample_weight = checked_weights(sample_weight, y, dtype)
    data = TaskData(X, _owned(y), sample_weight)
    data.check_weights()
    return data


def checked_to_score(
    y: Any, sample_weight: Any, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return targets and weights to compare predictions with, checked."""
    with naming("y"):
        y = check_array(numbers_in(y), ensure_2d=False, input_name="y")
    with naming("X and y"):
        check_consistent_length(predicted, y)
    if sample_weight is not None:
        sample_weight = checked_weights(sample_weight, y, np.float64)
    return y, sample_weight


def checked_weights(sample_weight: Any, y: np.ndarray, dtype: Any) -> np.ndarray:
    """Return a weight for each row of y, in a dtype."""
    with naming("sample_weight"):
        sample_weight = _check_sample_weight(
            numbers_in(sample_weight), y, dtype=dtype, ensure_non_negative=True
        )
        # a single number for all is let through as it is
        assert_all_finite(sample_weight, input_name="sample_weight")
    return sample_weight


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


def _checked_table(estimator: Any, X: Any, dtype: np.dtype | None, first: bool) -> np.ndarray:
    with naming("X"), np.errstate(over="ignore"):  # what overflows is infinite, and refused
        X = numbers_in(X)
        dtypes = own_dtypes(X) if dtype is None else dtype
        array = validate_data(estimator, X, reset=first, dtype=dtypes, allow_nd=True)
    return _owned(array)


def _check_dataset(dataset: Any, n_features: int | None) -> None:
    """Raise ValueError unless the first sample of a torch Dataset is one."""
    with naming("X is a Dataset"):
        n_samples = len(dataset)
    if n_samples == 0:
        raise ValueError("X is a Dataset of 0 samples")
    sample = dataset[0]
    if not (isinstance(sample, tuple | list) and len(sample) in (2, 3)):
        raise ValueError("X is a Dataset that yields no pairs (x, y)")
    found, _ = features_and_dtype(dataset)
    if None not in (found, n_features) and found != n_features:
        raise ValueError(f"X has {found} features, but {n_features} features are expected")


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
                numbers_in(value), ensure_2d=False, allow_nd=True, input_name=name
            )
    with naming("X"):
        check_consistent_length(*arrays.values())
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
