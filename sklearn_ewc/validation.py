"""What users pass in, checked and turned into what training takes."""

from __future__ import annotations

import re
import sys
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
    column_or_1d,
    validate_data,
)
from skorch.helper import SliceDataset
from skorch.utils import is_dataset

from .fisher import FISHER_KINDS
from .memory import MODES
from .penalty import PENALTY_STEPS

FLOATS = (np.float64, np.float32)
COMPONENTS = ("module", "criterion", "optimizer", "iterator_train", "iterator_valid")


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
    """Raise ValueError or TypeError where a parameter has a value that means nothing."""
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
        value = getattr(estimator, name)
        if not (isinstance(value, str) and value in known):
            listed = ", ".join(map(repr, known))
            raise ValueError(f"{name} must be one of {listed}, got {value!r}")
    _check_training_settings(estimator)


def _check_training_settings(estimator: Any) -> None:
    """Raise where a parameter of skorch's or torch's would fail later, unnamed."""
    check_not_negative("lr", estimator.lr)
    if not _is_count(estimator.max_epochs):
        raise ValueError(f"max_epochs must be an integer >= 0, got {estimator.max_epochs!r}")
    size = estimator.batch_size
    if not (isinstance(size, int | np.integer) and (size > 0 or size == -1)):
        raise ValueError(f"batch_size must be positive, or -1 for all, got {size!r}")
    widths = estimator.hidden_layer_sizes
    if widths is not None:  # left to the module
        widths = (widths,) if isinstance(widths, int | np.integer | str) else tuple(widths)
        if not all(_is_count(width) and width > 0 for width in widths):
            raise ValueError(f"hidden_layer_sizes must be positive integers, got {widths!r}")
    for name in COMPONENTS:
        if not callable(value := getattr(estimator, name)):
            raise TypeError(f"{name} must be a class or an instance of one, got {value!r}")
    if estimator.train_split is not None and not callable(estimator.train_split):
        raise TypeError(f"train_split must be None or callable, got {estimator.train_split!r}")
    check_device(estimator.device)


def check_device(device: Any) -> None:
    """Raise ValueError unless torch knows the device."""
    try:
        torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device {device!r} is unknown to torch") from error


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and bool(value >= 0)


def check_not_negative(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a finite number that is not negative."""
    is_real = isinstance(value, int | float | np.integer | np.floating)
    if not (is_real and 0 <= value <= sys.float_info.max):  # NaN is neither
        raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")


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
    with _naming("y"):
        y = check_array(
            _on_host(y), ensure_2d=False, dtype=dtype, input_name="y", estimator=estimator
        )
        check_consistent_length(*columns, y)
    if sample_weight is not None:
        with _naming("sample_weight"):
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


def rows_by_task(task: Any, n_samples: int) -> list[np.ndarray]:
    """Return the row numbers of each task, tasks in the sorted order of their labels.

    An ordered pandas Categorical sorts in the order of its categories. The order
    depends on the labels alone, not on the order of rows, so that every split of
    a cross-validation learns the tasks in the same order.
    """
    categories = _ordered_categories(task)
    # as objects, since numpy would turn a list of numbers and text into text
    with _naming("task"):
        labels = column_or_1d(np.asarray(task, dtype=object) if isinstance(task, list) else task)
    if len(labels) != n_samples:
        raise ValueError(f"task has {len(labels)} labels for {n_samples} samples")
    if any(map(_is_missing, labels)):
        raise ValueError("task has missing labels")
    if any(isinstance(label, list | tuple) for label in labels):
        raise ValueError("task must hold one label per sample, not several")
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


@contextmanager
def _naming(argument: str) -> Iterator[None]:
    """Let errors name the argument they are about: numpy's do not, scikit-learn's not always."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if re.search(rf"(?<!\w){re.escape(argument)}(?!\w)", str(error)):
            raise
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{argument}: {error}") from error


def _checked_table(estimator: Any, X: Any, dtype: Any, first: bool) -> np.ndarray:
    with _naming("X"):
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
        with _naming(name := f"X[{key!r}]"):
            arrays[key] = check_array(
                _on_host(value), ensure_2d=False, allow_nd=True, input_name=name
            )
    dtype = dtype or _common_dtype(arrays.values())
    return {
        key: _owned(value.astype(dtype, copy=False) if value.dtype.kind == "f" else value)
        for key, value in arrays.items()
    }


def _common_dtype(arrays: Iterable[np.ndarray]) -> np.dtype:
    """Return the floating dtype of arrays; of whole numbers alone, torch's default."""
    floats = [value.dtype for value in arrays if value.dtype.kind == "f"]
    return np.result_type(np.float32, *floats)
