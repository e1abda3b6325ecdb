"""Rows of containers of every kind."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from skorch.dataset import Dataset
from skorch.helper import SliceDataset, SliceDict

from sklearn_ewc.data.rows import check_rows, metadata_of_rows, number_of_rows, rows_of

X = np.arange(12.0).reshape(6, 2)
ROWS = np.array([1, 3, 4])

CONTAINERS = {
    "array": X,
    "list": X.tolist(),
    "tuple": tuple(X.tolist()),
    "tensor": torch.from_numpy(X),
    "pandas": pd.DataFrame(X, index=list("fedcba")),
    "coo": sp.coo_array(X),
    "csr": sp.csr_matrix(X),
    "dok": sp.dok_array(X),
    "SliceDataset": SliceDataset(Dataset(X, X[:, 0])),
}


def dense(data):
    if isinstance(data, SliceDataset):
        return np.stack([np.asarray(row) for row in data])
    return data.toarray() if sp.issparse(data) else np.asarray(data)


@pytest.mark.parametrize("data", CONTAINERS.values(), ids=CONTAINERS.keys())
def test_rows_are_taken_from_any_table(data):
    assert number_of_rows(data) == 6
    taken = rows_of(data, ROWS)
    assert number_of_rows(taken) == 3
    np.testing.assert_array_equal(dense(taken), X[ROWS])


def test_rows_are_taken_from_polars():
    polars = pytest.importorskip("polars")
    for data, expected in ((polars.DataFrame(X), X), (polars.Series(X[:, 0]), X[:, 0])):
        assert number_of_rows(data) == 6
        np.testing.assert_array_equal(rows_of(data, ROWS).to_numpy(), expected[ROWS])


@pytest.mark.parametrize("form", [dict, SliceDict])
def test_rows_are_taken_from_every_array_of_a_dict(form):
    data = form(a=X, b=X[:, 0])
    assert number_of_rows(data) == 6
    taken = rows_of(data, ROWS)
    assert type(taken) is form
    np.testing.assert_array_equal(taken["a"], X[ROWS])
    np.testing.assert_array_equal(taken["b"], X[ROWS, 0])


def test_what_has_a_value_per_sample_is_cut_and_all_else_passes():
    whole = {"classes": [0, 1], "kind": "abcdef", "number": 6, "zero": np.array(1.0), "no": None}
    cut = metadata_of_rows({"w": np.arange(6), "x__w": pd.Series(range(6)), **whole}, ROWS, 6)
    assert cut["w"].tolist() == cut["x__w"].tolist() == ROWS.tolist()
    assert all(cut[key] is value for key, value in whole.items())


@pytest.mark.parametrize("name", ["sample_weight", "net__sample_weight"])
def test_weights_and_targets_are_as_many_as_the_samples(name):
    assert check_rows(X, None, {name: np.ones(6), "classes": [0, 1]}) == 6
    assert check_rows(X, X, {name: 1.0}) == 6
    with pytest.raises(ValueError, match=rf"X and {name} have inconsistent.*: 6 and 5"):
        check_rows(X, None, {name: np.ones(5)})
    with pytest.raises(ValueError, match=r"X and y have inconsistent.*: 6 and 5"):
        check_rows({"a": X}, X[:5], {})
