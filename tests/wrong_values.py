"""Values that are wrong wherever something else is wanted, each under the name of its kind."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import scipy.sparse
import torch

DAYS = np.arange("2020-01-01", "2020-01-07", dtype="datetime64[D]")
RAGGED = [[1.0, 2.0], [3.0], [4.0, 5.0], [6.0], [7.0, 8.0], [9.0]]


class Thing:
    """What no argument can be made of."""

    def __repr__(self):
        return "Thing()"


def nothing(*args, **kwargs):
    """Return None, whatever is asked."""


def scalars():
    """Return wrong values for a number, a name, a switch or a component."""
    return {
        "None": None,
        "text": "a",
        "empty text": "",
        "number in text": "1",
        "bytes": b"a",
        "object": Thing(),
        "class": Thing,
        "class of numbers": float,
        "function": nothing,
        "generator": (number for number in (1, 2)),
        "list": [1],
        "empty list": [],
        "list of text": ["a"],
        "list of None": [None],
        "nested list": [[1]],
        "tuple": (1, 2),
        "set": {1},
        "dict": {"a": 1},
        "array": np.array([1.0, 2.0]),
        "empty array": np.array([]),
        "array of one": np.array([1.0]),
        "array of truth": np.array([True, False]),
        "array of objects": np.array([Thing(), None], dtype=object),
        "masked": np.ma.masked,
        "tensor": torch.tensor([1.0, 2.0]),
        "series": pd.Series([1.0, 2.0]),
        "frame": pd.DataFrame({"a": [1.0]}),
        "sparse": scipy.sparse.csr_array(np.eye(2)),
        "NaN": float("nan"),
        "infinity": float("inf"),
        "minus infinity": float("-inf"),
        "negative": -1.5,
        "negative integer": -3,
        "fraction": 0.5,
        "one and a half": 1.5,
        "zero": 0,
        "two": 2,
        "huge": 10**400,
        "large": 10**12,
        "true": True,
        "false": False,
        "complex": 1j,
        "missing": pd.NA,
        "no time": pd.NaT,
        "date": datetime.date(2020, 1, 1),
        "numpy date": DAYS[0],
        "ellipsis": ...,
    }


def tables():
    """Return wrong values for six rows of numbers, whether a table, a target or a weight each."""
    numbers = np.arange(1.0, 7.0)
    table = np.c_[numbers, numbers]
    dates = [datetime.datetime(2020, 1, day) for day in range(1, 7)]
    return {
        **{kind: value for kind, value in scalars().items() if kind not in SINGLE_NUMBERS},
        "words": np.array(list("abcdef")),
        "table of words": np.full((6, 2), "a"),
        "table of bytes": np.full((6, 2), b"a"),
        "words in objects": np.array([["a"]] * 6, dtype=object),
        "things": np.full((6, 2), Thing()),
        "ragged": RAGGED,
        "ragged objects": np.array([np.ones(2), np.ones(3)] * 3, dtype=object),
        "structured": np.zeros(6, dtype=[("a", "f8"), ("b", "f8")]),
        "complex table": table + 1j,
        "complex tensor": torch.ones(6, 2) + 1j,
        "quaternions": np.zeros((6, 2, 2, 2), dtype=complex),
        "masked numbers": np.ma.masked_greater(numbers, 3),
        "masked table": np.ma.masked_greater(table, 3),
        "masked rows": list(np.ma.masked_greater(table, 3)),
        "dates": DAYS,
        "table of dates": np.c_[DAYS, DAYS],
        "durations": np.c_[DAYS - DAYS[0], DAYS - DAYS[0]],
        "dates in objects": np.array([[day] for day in DAYS.tolist()], dtype=object),
        "numpy dates in objects": np.array([[DAYS[0]]] * 6, dtype=object),
        "numpy durations in lists": [[DAYS[1] - DAYS[0]]] * 6,
        "pandas dates": pd.DataFrame({"a": dates, "b": numbers}),
        "pandas zoned dates": pd.DataFrame({"a": pd.Series(dates).dt.tz_localize("UTC")}),
        "pandas durations": pd.DataFrame({"a": pd.to_timedelta(range(6), unit="D")}),
        "pandas periods": pd.DataFrame({"a": pd.period_range("2020", periods=6, freq="D")}),
        "pandas dates in objects": pd.DataFrame({"a": pd.Series(dates, dtype=object)}),
        "pandas categories of dates": pd.DataFrame({"a": pd.Categorical(dates)}),
        "pandas missing integers": pd.DataFrame({"a": pd.array([1, None] * 3, dtype="Int64")}),
        "pandas missing floats": pd.DataFrame({"a": pd.array([1, None] * 3, dtype="Float32")}),
        "pandas missing truth": pd.DataFrame({"a": pd.array([True, None] * 3, dtype="boolean")}),
        "pandas words": pd.DataFrame({"a": pd.array(list("abcdef"), dtype="string")}),
        "pandas categories": pd.DataFrame({"a": pd.Categorical(list("abcdef"))}),
        "pandas sparse": pd.DataFrame({"a": pd.arrays.SparseArray(numbers)}),
        "polars dates": pl.DataFrame({"a": [day.date() for day in dates]}),
        "polars times": pl.DataFrame({"a": dates, "b": numbers}),
        "polars times of day": pl.DataFrame({"a": [day.time() for day in dates]}),
        "polars durations": pl.DataFrame({"a": [day - dates[0] for day in dates]}),
        "polars missing": pl.DataFrame({"a": [1, None] * 3}),
        "polars words": pl.DataFrame({"a": list("abcdef")}),
        "polars categories": pl.DataFrame({"a": pl.Series(list("abcdef"), dtype=pl.Categorical)}),
        "polars lists": pl.DataFrame({"a": [[1.0, 2.0]] * 6}),
        "polars plan": pl.DataFrame({"a": numbers}).lazy(),
        "sparse table": scipy.sparse.csr_array(table),
        "sparse matrix": scipy.sparse.csc_matrix(table),
        "sparse dict": scipy.sparse.dok_array(table),
        "sparse tensor": torch.eye(6).to_sparse(),
        "quantized tensor": torch.quantize_per_tensor(torch.ones(6, 2), 1.0, 0, torch.qint8),
        "tensor without numbers": torch.ones(6, 2, device="meta"),
        "nested tensor": torch.nested.nested_tensor([torch.ones(2)] * 6),
        "NaN in a table": np.full((6, 2), np.nan),
        "infinite table": np.full((6, 2), np.inf),
        "huge integers": [[10**400]] * 6,
        "no rows": table[:0],
        "no columns": table[:, :0],
        "too few rows": table[:5],
        "three axes": np.zeros((6, 1, 1, 1)),
        "dict of words": {"X": np.full((6, 2), "a")},
        "dict of dates": {"X": np.c_[DAYS, DAYS]},
        "dict of masked": {"X": np.ma.masked_greater(table, 3)},
        "dict of lengths": {"X": table, "Z": table[:4]},
        "dict of None": {"X": None},
        "loader": torch.utils.data.DataLoader(list(zip(table, numbers, strict=True))),
        "dataset of nothing": torch.utils.data.TensorDataset(torch.ones(0, 2), torch.ones(0)),
        "dataset of one": torch.utils.data.TensorDataset(torch.ones(6, 2)),
        "dataset of four": torch.utils.data.TensorDataset(*[torch.ones(6, 2)] * 4),
    }


SINGLE_NUMBERS = {"fraction", "one and a half", "zero", "two", "large", "true", "false"}
