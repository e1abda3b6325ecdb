"""What users hold numbers in: dates are refused, float32 is kept, whatever the container."""

import decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils.validation import _get_feature_names

from sklearn_ewc.data.arrays import numbers_in, on_host, own_dtypes

from ..helpers import quick

Y = np.arange(6.0) / 3
F = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
F4, WHOLE = np.array(F, "f4"), np.arange(6)
DAYS = pd.date_range("2020", periods=6).to_pydatetime()

DATES = {
    "polars datetime": pl.Series("a", DAYS),
    "polars date": pl.Series("a", [day.date() for day in DAYS]),
    "polars time": pl.Series("a", [day.time() for day in DAYS]),
    "polars duration": pl.Series("a", [day - DAYS[0] for day in DAYS]),
    "pandas datetime": pd.Series(DAYS),
    "pandas zoned": pd.Series(DAYS).dt.tz_localize("UTC"),
    "pandas duration": pd.Series(DAYS) - DAYS[0],
    "pandas objects": pd.Series(DAYS, dtype=object),
    "pandas categories": pd.Series(pd.Categorical(DAYS)),
    "numpy": np.array(DAYS, "datetime64[s]"),
    "numpy objects": np.array([np.datetime64(day) for day in DAYS], dtype=object),
    "list": [np.datetime64(day) for day in DAYS],
    "list of durations": [np.timedelta64(day, "D") for day in range(6)],
    "datetimes": list(DAYS),
}
COLUMNS = {  # of two frames: the dtypes, and what numpy makes of both
    "float32": ((F4, F4), "float32"),
    "float32 and small integers": ((F4, WHOLE.astype("i1")), "float32"),
    "float32 and truth": ((F4, WHOLE > 2), "float32"),
    "float32 and integers": ((F4, WHOLE), "float64"),
    "float32 and float64": ((F4, np.array(F)), "float64"),
    "integers": ((WHOLE, WHOLE), "float64"),
}
NULLABLE = {"float32": "Float32", "float64": "Float64", "int64": "Int64", "int8": "Int8"}


def table_of(column):
    if isinstance(column, pl.Series):
        return column.to_frame()
    if isinstance(column, pd.Series):
        return column.to_frame("a")
    return np.reshape(column, (-1, 1)) if isinstance(column, np.ndarray) else [[v] for v in column]


@pytest.mark.parametrize("kind", DATES)
def test_dates_and_durations_are_no_numbers(kind):
    column = DATES[kind]
    net = quick(max_epochs=1)
    plain = np.reshape(Y, (-1, 1))
    for name, arguments in {
        "X": (table_of(column), Y),
        "y": (plain, column),
        "sample_weight": (plain, Y, None, column),
    }.items():
        with pytest.raises(TypeError, match=rf"^{name}: dates and durations are no numbers"):
            net.fit(*arguments)
    with pytest.raises(TypeError, match=r"^X\['a'\]: dates and durations are no numbers"):
        net.fit({"a": column}, Y)
    assert net.fit(plain, Y, task=column).n_tasks_ >= 1  # as labels they are as good as any


def test_dates_beside_numbers_are_seen():
    for frame in (pl.DataFrame({"b": F, "a": DAYS}), pd.DataFrame({"b": F, "a": DAYS})):
        with pytest.raises(TypeError, match="^X: dates"):
            quick().fit(frame, Y)


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("library", ["polars", "pandas", "pandas nullable"])
def test_a_frame_gives_the_dtype_that_its_columns_have_together(kind, library):
    (a, b), expected = COLUMNS[kind]
    frame = pd.DataFrame({"a": a, "b": b})
    if library == "polars":
        frame = pl.DataFrame({"a": a, "b": b})
    elif library == "pandas nullable":
        frame = frame.astype({c: NULLABLE.get(str(frame[c].dtype), "boolean") for c in "ab"})
    net = quick(max_epochs=2).fit(frame, Y)
    assert str(net.dtype_) == expected
    known = _get_feature_names(frame)  # not every scikit-learn reads them off every polars
    assert known is None or list(net.feature_names_in_) == list(known) == ["a", "b"]
    plain = quick(max_epochs=2).fit(np.c_[a, b].astype(expected), Y)
    assert np.array_equal(net.predict(frame), plain.predict(np.c_[a, b]))


def test_arrow_columns_are_taken_as_numpy_s():
    arrow = pytest.importorskip("pyarrow")
    dtype = pd.ArrowDtype(arrow.float32())
    assert quick(max_epochs=1).fit(pd.DataFrame({"a": pd.array(F, dtype)}), Y).dtype_ == "float32"
    dates = pd.array([day.date() for day in DAYS], pd.ArrowDtype(arrow.date32()))
    for table in (pd.DataFrame({"a": dates}), arrow.table({"a": arrow.array(DAYS)})):
        with pytest.raises(TypeError, match="^X: dates"):
            quick().fit(table, Y)


def test_decimals_and_categories_of_numbers_are_numbers():
    plain = quick(max_epochs=1).fit(np.array([[1.0], [2.0]] * 3), Y)
    decimals = pl.DataFrame({"a": [decimal.Decimal(1), decimal.Decimal(2)] * 3})
    categories = pd.DataFrame({"a": pd.Categorical([1, 2] * 3)})
    for table in (decimals, categories):
        found = quick(max_epochs=1).fit(table, Y).predict(table)
        assert np.array_equal(found, plain.predict(np.array([[1.0], [2.0]] * 3)))


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.String, pl.Enum(["a", "b"])])
def test_words_are_no_numbers(dtype):
    column = pl.Series("a", ["a", "b"] * 3, dtype=dtype)
    with pytest.raises(ValueError, match="^X: could not convert"):
        quick().fit(column.to_frame(), Y)
    with pytest.raises(ValueError, match="^y: could not convert"):
        quick().fit(np.reshape(Y, (-1, 1)), column)
    assert quick(max_epochs=1).fit(np.reshape(Y, (-1, 1)), Y, task=column).n_tasks_ == 2


def test_what_is_masked_is_refused_and_an_empty_mask_is_none():
    masked = np.ma.masked_greater(Y, 1)
    for data in (masked, [masked[:2], masked[2:4], masked[4:]]):
        with pytest.raises(ValueError, match="masked"):
            on_host(data)
    X = np.reshape(Y, (-1, 1))
    found = quick(max_epochs=1).fit(np.ma.array(X), np.ma.array(Y)).predict(X)
    assert np.array_equal(found, quick(max_epochs=1).fit(X, Y).predict(X))
    # the arrays of pandas have a mask of their own, for what is missing
    with pytest.raises(ValueError, match="y contains NaN"):
        quick().fit(X, pd.array([1, 2, 3, 4, 5, None], dtype="Int64"))


def test_tensors_come_to_the_host_without_their_graph():
    tensor = torch.ones(6, 1, dtype=torch.bfloat16, requires_grad=True)
    assert numbers_in(tensor).dtype == np.float32
    assert own_dtypes(np.ones((6, 1), "f4")) == (np.float64, np.float32)


def test_a_sparse_table_names_the_option_of_the_encoder():
    X = OneHotEncoder().fit_transform([["a"], ["b"]] * 3)
    net = quick(max_epochs=1).fit(X.toarray(), Y)
    for call in (lambda: net.fit(X, Y), lambda: net.partial_fit(X, Y), lambda: net.predict(X)):
        with pytest.raises(TypeError, match=r"^X: sparse .*OneHotEncoder\(sparse_output=False\)"):
            call()
