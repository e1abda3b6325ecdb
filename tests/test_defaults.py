"""The defaults fit ordinary data."""

import pytest
from against_mlp import compare


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_defaults_fit_ordinary_data_at_least_as_well_as_mlp_regressor():
    table = compare(n_splits=3)
    assert list(table.index) == ["diabetes", "friedman1", "demonstration"]
    assert (table["EWCRegressor"] >= table["MLPRegressor"]).all(), table
