"""What users pass in, checked and turned into what training takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_consistent_length,
    column_or_1d,
    validate_data,
)
from skorch.helper import SliceDataset
from skorch.utils import is_dataset

from .fisher import FISHER_KINDS
from .memory import MODES
from .penalty import PENALTY_STEPS

FLOATS = (np.float64, np.float32)


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
    def target(self) -> np.ndarray:
        """The targets, or those of the first sample with an axis for samples."""
        return np.asarray(self.X[0][1])[np.newaxis] if self.y is None else self.y

    def rows(self, index: np.ndarray) -> TaskData:
        """Return the data of some rows."""
        if isinstance(self.X, Mapping):
            X: Any = {key: value[index] for key, value in self.X.items()}
        else:
            X = self.X[index]
        y = None if self.y is None else self.y[index]
        weight = None if self.sample_weight is None else self.sample_weight[index]
        return replace(self, X=X, y=y, sample_weight=weight)

    def check_weights(self) -> None:
        """Raise ValueError if no sample has any weight."""
        if self.sample_weight is not None and not self.sample_weight.any():
            raise ValueError("sample_weight must be positive for some sample of every task")


def check_settings(estimator: Any) -> None:
    """Raise ValueError where a parameter of EWC has a value that means nothing."""
    check_not_negative("ewc_lambda", estimator.ewc_lambda)
    check_not_negative("damping", estimator.damping)
    for name in estimator._params_to_validate:
        if name.endswith("_"):  # skorch lets them pass, as its own attributes
            raise ValueError(f"{type(estimator).__name__} has no parameter {name!r}")
    check_not_negative("gamma", estimator.gamma)
    if estimator.gamma > 1:
        raise ValueError(f"gamma must be at most 1, got {estimator.gamma!r}")
    choices = (("fisher", FISHER_KINDS), ("mode", MODES), ("penalty_step", PENALTY_STEPS))
    for name, known in choices:
        if (value := getattr(estimator, name)) not in known:
            listed = ", ".join(map(repr, known))
            raise ValueError(f"{name} must be one of {listed}, got {value!r}")


def check_not_negative(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a finite number that is not negative."""
    if not (isinstance(value, int | float | np.number) and math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")


def checked_inputs(estimator: Any, X: Any, dtype: np.dtype) -> Any:
    """Return X of a fitted estimator, in the dtype of its module."""
    if is_dataset(X):
        return X
    if _is_mapping(X):
        return _checked_mapping(X, dtype)
    return _owned(validate_data(estimator, _on_host(X), reset=False, dtype=dtype, allow_nd=True))


def checked_data(
    estimator: Any, X: Any, y: Any, sample_weight: Any, dtype: np.dtype | None, first: bool
) -> TaskData:
    """Return X, y and the weights, checked.

    Parameters
    ----------
    estimator : EWCRegressor
        Gets ``n_features_in_`` and ``feature_names_in_`` from the first task, is
        held to them afterwards.
    X, y, sample_weight : what ``fit`` takes
    dtype : numpy dtype or None
        That of the module; None before there is one: the data's own decides.
    first : bool
        Whether it is the first task.
    """
    if is_dataset(X):
        if y is not None or sample_weight is not None:
            raise ValueError("with a torch Dataset as X, y and the weights belong in the dataset")
        return TaskData(X, None)
    if _is_mapping(X):
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        X = _checked_mapping(X, dtype)
        dtype = dtype or _common_dtype(X.values())
        y = check_array(_on_host(y), ensure_2d=False, dtype=dtype, input_name="y")
        check_consistent_length(*X.values(), y)
    else:
        X, y = validate_data(
            estimator,
            _on_host(X),
            _on_host(y),
            reset=first,
            dtype=dtype or FLOATS,
            allow_nd=True,
            multi_output=True,
            y_numeric=True,
        )
        X, dtype = _owned(X), X.dtype
        y = check_array(y, ensure_2d=False, dtype=dtype, input_name="y")
    if sample_weight is not None:
        sample_weight = _check_sample_weight(
            sample_weight, y, dtype=dtype, ensure_non_negative=True
        )
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


def rows_by_task(task: Any, n_samples: int) -> list[np.ndarray]:
    """Return the row numbers of each task, tasks in the sorted order of their labels.

    An ordered pandas Categorical sorts in the order of its categories. The order
    depends on the labels alone, not on the order of rows, so that every split of
    a cross-validation learns the tasks in the same order.
    """
    categories = _ordered_categories(task)
    # as objects, since numpy would turn a list of numbers and text into text
    labels = column_or_1d(np.asarray(task, dtype=object) if isinstance(task, list) else task)
    if len(labels) != n_samples:
        raise ValueError(f"task has {len(labels)} labels for {n_samples} samples")
    if any(map(_is_missing, labels)):
        raise ValueError("task has missing labels")
    try:
        known = np.unique(labels) if categories is None else categories
    except TypeError as error:
        raise TypeError(f"the labels in task cannot be sorted: {error}") from error
    rows = [np.flatnonzero(labels == label) for label in known]
    return [index for index in rows if len(index)]


def _is_missing(label: Any) -> bool:
    try:
        return label is None or bool(label != label)
    except TypeError:  # pandas.NA is neither equal nor unequal to itself
        return True


def _ordered_categories(task: Any) -> Any:
    categorical = getattr(task, "cat", task)
    if getattr(categorical, "ordered", False):
        return np.asarray(categorical.categories)
    return None


def _is_mapping(X: Any) -> bool:
    return isinstance(X, Mapping) and not issparse(X)  # a sparse DOK matrix is a dict


def _on_host(data: Any) -> Any:
    """Return tensors, and skorch's slices of datasets, as arrays."""
    if isinstance(data, SliceDataset):
        return np.stack([np.asarray(item) for item in data])
    return data.detach().cpu().numpy() if isinstance(data, torch.Tensor) else data


def _owned(array: np.ndarray) -> np.ndarray:
    """Return an array that torch can share: C-ordered, aligned, writeable."""
    return np.require(array, requirements=["C", "A", "W"])


def _checked_mapping(X: Mapping[str, Any], dtype: np.dtype | None) -> dict[str, np.ndarray]:
    arrays = {
        key: check_array(_on_host(value), ensure_2d=False, allow_nd=True, input_name=f"X[{key!r}]")
        for key, value in X.items()
    }
    dtype = dtype or _common_dtype(arrays.values())
    return {
        key: _owned(value.astype(dtype, copy=False) if value.dtype.kind == "f" else value)
        for key, value in arrays.items()
    }


def _common_dtype(arrays: Iterable[np.ndarray]) -> np.dtype:
    """Return the floating dtype of arrays; of whole numbers alone, torch's default."""
    floats = [value.dtype for value in arrays if value.dtype.kind == "f"]
    return np.result_type(np.float32, *floats)
