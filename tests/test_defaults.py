"""The defaults fit ordinary data, and carry the demonstration."""

import numpy as np
import pytest
from against_mlp import compare
from scenarios import NOISE, demonstration

from sklearn_ewc import EWCRegressor


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_defaults_fit_ordinary_data_at_least_as_well_as_mlp_regressor():
    table = compare(n_splits=3)
    assert list(table.index) == ["diabetes", "friedman1", "demonstration"]
    ours, theirs, theirs_in_batches_of_32 = (table[name] for name in table)
    assert (ours >= theirs).all(), table
    assert (ours >= theirs_in_batches_of_32 - 0.05).all(), table


def learned(**settings):
    """Return a net that has learned the demonstration."""
    net = EWCRegressor(random_state=0, **settings)
    for X, y in demonstration(0).train:
        net.partial_fit(X, y)
    return net


def joint(**settings):
    """Return a net that has learned all of it at once."""
    parts = zip(*demonstration(0).train, strict=True)
    return EWCRegressor(random_state=0, **settings).fit(*map(np.concatenate, parts))


def errors(net):
    return np.array([np.mean((net.predict(X) - y) ** 2) for X, y in demonstration(0).test])


def test_replay_ends_where_learning_all_at_once_ends():
    assert errors(learned(replay="auto")).mean() < 1.1 * errors(joint()).mean()


def test_replay_carries_the_demonstration_where_the_network_can():
    net = learned(replay="auto", hidden_layer_sizes=(100, 100))
    assert errors(net).max() < 1.5 * NOISE**2


def test_a_kronecker_curvature_closes_most_of_the_gap_where_the_network_can():
    widths = {"hidden_layer_sizes": (100, 100)}
    nets = (
        learned(ewc_lambda=0.0, **widths),
        learned(curvature="kronecker", **widths),
        joint(**widths),
    )
    tests = demonstration(0).test
    plain, ours, best = (np.mean([net.score(X, y) for X, y in tests]) for net in nets)
    assert ours - plain > 0.8 * (best - plain)
