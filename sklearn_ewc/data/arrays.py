"""What users hold numbers in: arrays, tensors, lists, the frames of pandas and polars."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from skorch.helper import SliceDataset

FLOATS = (np.float64, np.float32)
_CALENDAR = (np.datetime64, np.timedelta64, datetime.date, datetime.time, datetime.timedelta)


def numbers_in(data: Any) -> Any:
    """Return data as scikit-learn takes them, if they are numbers: frames stay frames.

    Raises
    ------
    TypeError
        If there are dates or durations, which numpy would count in days or
        nanoseconds, as they happen to be stored; also as :func:`on_host`.
    ValueError
        If it is a complex number; also as :func:`on_host`.
    """
    data = on_host(data)
    if isinstance(data, complex | np.complexfloating):
        raise ValueError(f"{data!r} is complex")
    if isinstance(data, list | tuple):
        data = np.asarray(data)
    if any(map(_is_of_the_calendar, _columns_by_dtype(data))):
        raise TypeError("dates and durations are no numbers; divide by a unit first")
    return data


def on_host(data: Any) -> Any:
    """Return tensors, and skorch's slices of datasets, as arrays; anything else as it is.

    Raises
    ------
    TypeError
        If the data are sparse or not there yet, or a tensor is one that numpy cannot hold.
    ValueError
        If some are masked.
    """
    if hasattr(data, "collect"):
        raise TypeError(f"a {type(data).__name__} has no rows yet: .collect() them")
    if isinstance(data, SliceDataset):
        return np.stack([np.asarray(item) for item in data])
    if isinstance(data, torch.Tensor):
        return _array_of(data)
    check_not_masked(data)
    if issparse(data) or any(type(dtype).__name__ == "SparseDtype" for dtype in _dtypes(data)):
        raise TypeError(
            "sparse data are not taken: give an array, as by .toarray() or "
            "OneHotEncoder(sparse_output=False)"
        )
    if isinstance(data, np.ndarray) and not data.dtype.isnative:
        # scikit-learn would take a float32 of the other byte order for no float32
        return data.astype(data.dtype.newbyteorder("="))
    return data


def check_not_masked(data: Any) -> None:
    """Raise ValueError if some values are masked: numpy would take what is under the mask."""
    if any(map(_is_masked, data if isinstance(data, list | tuple) else [data])):
        raise ValueError("some values are masked: fill them, or leave their rows out")


def own_dtypes(data: Any) -> Any:
    """Return the dtypes that training has, in the order in which they suit the data.

    float32 alone for a frame whose columns together are float32, which scikit-learn
    sees in a frame of numpy's dtypes only.
    """
    columns = list(_columns_by_dtype(data))
    if len(columns) == 1 and isinstance(data, np.ndarray):
        return FLOATS
    dtypes = [_numpy_dtype(column) for column in columns]
    if not dtypes or any(dtype.kind not in "fiub" for dtype in dtypes):
        return FLOATS
    return np.float32 if np.result_type(*dtypes) == np.float32 else FLOATS


def _is_masked(data: Any) -> bool:
    return isinstance(data, np.ma.MaskedArray) and bool(np.ma.is_masked(data))


def _array_of(tensor: torch.Tensor) -> np.ndarray:
    try:
        if tensor.layout != torch.strided:
            raise TypeError("sparse tensors are not taken: give a dense one, as by .to_dense()")
        if tensor.dtype == torch.bfloat16:  # which numpy lacks, and float32 holds exactly
            tensor = tensor.float()
        return tensor.detach().cpu().numpy()
    except RuntimeError as error:
        raise TypeError(f"a tensor that numpy cannot hold: {error}") from error


def _dtypes(data: Any) -> list[Any]:
    """Return the dtype of an array or a series, or those of the columns of a frame."""
    if hasattr(data, "columns") and hasattr(data, "dtypes"):
        return list(data.dtypes)
    return [data.dtype] if hasattr(data, "dtype") else []


def _columns_by_dtype(data: Any) -> Iterator[Any]:
    """Yield an array or a series; of a frame one column of each dtype, and all of objects."""
    if hasattr(data, "columns") and hasattr(data, "dtypes"):
        table, known = getattr(data, "iloc", data), set()
        for position, dtype in enumerate(data.dtypes):
            if dtype not in known or _numpy_dtype(table[:, position]).kind == "O":
                known.add(dtype)
                yield table[:, position]
    elif hasattr(data, "__array__"):
        yield data


def _numpy_dtype(column: Any) -> np.dtype:
    if isinstance(column, np.ndarray):
        return column.dtype
    return np.asarray(column.head(0) if hasattr(column, "head") else column).dtype


def _is_of_the_calendar(column: Any) -> bool:
    dtype = _numpy_dtype(column)
    if dtype.kind in "mM" or getattr(getattr(column, "dtype", None), "kind", "") in ("m", "M"):
        return True
    return dtype.kind == "O" and any(isinstance(v, _CALENDAR) for v in np.asarray(column).flat)
