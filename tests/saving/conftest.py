"""Nets of which one was saved."""

import numpy as np
import pytest

from sklearn_ewc import EWCRegressor


@pytest.fixture
def pair():
    """A net of two tasks that was saved, one of other sizes."""
    rng = np.random.RandomState(0)
    nets = []
    for width in (3, 4):
        net = EWCRegressor(hidden_layer_sizes=(width,), max_epochs=1, batch_size=-1, random_state=0)
        nets.append(net.fit(rng.randn(20, 2), rng.randn(20), task=[0, 1] * 10))
    return nets
