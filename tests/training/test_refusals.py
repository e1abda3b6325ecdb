"""What a first batch tells: dtypes that part, targets too large, gradients that are sparse."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_ewc import EWCRegressor

from ..helpers import parameters, quick, unscaled

X = np.random.RandomState(0).randn(40, 3)
Y = X[:, 0] - X[:, 1]
ITEM = np.arange(100) % 50


class Own(nn.Module):
    """A module that computes in float32 by itself, somewhere."""

    def __init__(self, where):
        super().__init__()
        self.linear, self.conv, self.where = nn.Linear(3, 1), nn.Conv1d(1, 1, 1), where

    def forward(self, X):
        if self.where == "inputs":
            return self.linear(X.float())
        if self.where == "product":
            return X @ torch.ones(3, 1) + self.linear(X)
        if self.where == "convolution":
            return self.linear(self.conv(X.float()[:, None])[:, 0])
        return self.linear(X).float()


@pytest.mark.parametrize("where", ["inputs", "product", "convolution", "output"])
def test_a_module_that_makes_float32_out_of_float64_is_told_how_not_to(where):
    net = quick(module=Own, module__where=where)
    before = dict(vars(net))
    with pytest.raises(TypeError, match=r"^module makes float32 .* X.astype\(numpy.float32\)"):
        net.fit(X, Y)
    assert vars(net) == before
    assert net.fit(X.astype(np.float32), Y).n_tasks_ == 1


@pytest.mark.parametrize("row", [0, 39])
@pytest.mark.parametrize(
    ("dtype", "largest"), [("f4", 1e38), ("f4", 1e20), ("f8", 1e200), ("f4", 1e39)]
)
def test_a_target_too_large_is_to_be_scaled(dtype, largest, row):
    y = np.where(np.arange(40) == row, largest, Y)
    net = unscaled()
    before = dict(vars(net))
    with pytest.raises(ValueError, match=r"^y .*(infinite|too large).*: scale y, as"):
        net.fit(X.astype(dtype), y)
    assert vars(net) == before


def test_a_large_target_that_the_criterion_can_bear_is_taken():
    settings = {"criterion": nn.L1Loss, "fisher": "empirical"}
    assert quick(**settings).fit(X.astype("f4"), 1e20 * Y).n_tasks_ == 1


class Table(nn.Module):
    def __init__(self, sparse, kind=nn.Embedding):
        super().__init__()
        self.item, self.out = kind(50, 3, sparse=sparse), nn.Linear(3, 1)

    def forward(self, item):
        return self.out(self.item(item if isinstance(self.item, nn.Embedding) else item[:, None]))


def learned(sparse, **settings):
    net = EWCRegressor(
        Table,
        module__sparse=sparse,
        random_state=0,
        max_epochs=3,
        lr=0.05,
        ewc_lambda=3.0,
        **settings,
    )
    y = np.sin(ITEM)
    return net.partial_fit({"item": ITEM}, y).partial_fit({"item": ITEM[:50]}, -y[:50])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"penalty_step": "gradient"},
        {"optimizer__momentum": 0.9},
        {"fisher": "empirical"},
        {"fisher": "batch"},
        {"fisher": "batch", "module__kind": nn.EmbeddingBag},
    ],
    ids=str,
)
def test_sparse_gradients_learn_and_remember_what_dense_ones_do(settings):
    settings = {"optimizer": torch.optim.SGD, **settings}
    sparse, dense = (learned(kind, **settings) for kind in (True, False))
    torch.testing.assert_close(parameters(sparse), parameters(dense), rtol=1e-5, atol=1e-5)
    for name, value in dense.memory_.tasks[0].fisher.items():
        torch.testing.assert_close(sparse.memory_.tasks[0].fisher[name], value)
    assert sparse.module_.item.sparse


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": torch.optim.SparseAdam},
        {"optimizer": torch.optim.SGD, "optimizer__weight_decay": 0.1},
    ],
    ids=str,
)
def test_sparse_gradients_that_an_optimizer_cannot_take_are_refused(settings):
    with pytest.raises(ValueError, match=r"sparse=True in its layers \['item'\].* sparse=False"):
        learned(True, **settings)
