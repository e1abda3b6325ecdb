"""The defaults fit ordinary data."""

import pytest
from against_mlp import compare


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_defaults_fit_ordinary_data_at_least_as_well_as_mlp_regressor():
    table = compare(n_splits=3)
    assert list(table.index) == ["diabetes", "friedman1", "demonstration"]
    ours, theirs, theirs_in_batches_of_32 = (table[name] for name in table)
    assert (ours >= theirs).all(), table
    assert (ours >= theirs_in_batches_of_32 - 0.05).all(), table
