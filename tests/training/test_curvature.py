"""Nets that keep a curvature of another kind than the diagonal."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from skorch.callbacks import Freezer, GradientNormClipping

from sklearn_ewc import EWCRegressor
from sklearn_ewc.curvature import curvature_of

from ..helpers import learn, parameters, quick, unscaled


def kronecker(**settings):
    return quick(**{"curvature": "kronecker", "max_epochs": 30, **settings})


def test_auto_adds_up_offline_where_the_sum_collapses_and_online_where_not(tasks):
    net = quick().partial_fit(*tasks[0])
    assert net.memory_.mode == "offline"
    net = kronecker().partial_fit(*tasks[0])
    assert net.memory_.mode == "online"
    assert quick(mode="online").partial_fit(*tasks[0]).memory_.mode == "online"


def test_the_memory_holds_the_running_sum_around_the_last_anchor(tasks):
    net = learn(unscaled(curvature="kronecker", damping=0.0, gamma=0.5), tasks[:2])
    first, second = net.memory_.tasks
    X, y = (torch.as_tensor(part) for part in tasks[1])
    expected = curvature_of(net.module_, net.criterion_, [(X, y.reshape(-1, 1))], kind="kronecker")
    torch.testing.assert_close(second.curvature.dense(), expected.dense())
    quadratic = net.memory_.quadratic
    running = (first.curvature.to(dtype=torch.float64) * 0.5) + second.curvature.to(
        dtype=torch.float64
    )
    torch.testing.assert_close(quadratic.curvature.dense(), running.dense())
    for name, p in net.module_.named_parameters():
        assert torch.equal(quadratic.centre[name], p.detach())


def test_it_holds_on_to_what_was_learned(tasks):
    X, y = tasks[0]
    scores = {}
    for kind, ewc_lambda in (("diagonal", 0.0), ("kronecker", 10.0), ("kronecker", 1e12)):
        net = quick(curvature=kind, ewc_lambda=ewc_lambda, max_epochs=100, lr=0.01)
        net.partial_fit(X, y)
        before = net.score(X, y)
        scores[ewc_lambda] = before - net.partial_fit(*tasks[1]).score(X, y)
    assert scores[1e12] == pytest.approx(0, abs=1e-3)
    assert scores[10.0] < 0.5 * scores[0.0]


def test_without_a_lambda_it_is_plain_training_to_the_bit(tasks):
    nets = [
        learn(quick(curvature=kind, ewc_lambda=0.0), tasks) for kind in ("diagonal", "kronecker")
    ]
    assert torch.equal(*map(parameters, nets))


@pytest.mark.parametrize(
    "settings",
    [
        {"penalty_step": "gradient"},
        {"optimizer": torch.optim.SGD, "lr": 0.05},
        {"optimizer": torch.optim.AdamW, "optimizer__weight_decay": 0.01},
        {"optimizer": torch.optim.RMSprop},
        {"optimizer": torch.optim.LBFGS, "batch_size": -1, "lr": 1.0, "max_epochs": 20},
        {"callbacks": [GradientNormClipping(1.0)]},
        {"callbacks": [Freezer("layers.0*", at=5)]},
        {"fisher": "empirical"},
        {"fisher": "sampled"},
        {"store_tasks": False},
        {"module__activation": torch.nn.Tanh},
    ],
    ids=str,
)
def test_every_way_to_take_a_step_goes_down_the_penalty(tasks, settings):
    penalties = []
    for ewc_lambda in (0.0, 30.0):
        options = {"max_epochs": 60, "lr": 0.01, **settings}
        net = kronecker(ewc_lambda=ewc_lambda, **clone_callbacks(options)).partial_fit(*tasks[0])
        memory = net.memory_
        net.partial_fit(*tasks[1])
        assert net.n_tasks_ == 2
        params = {name: p.detach() for name, p in net.module_.named_parameters()}
        penalties.append(float(memory.penalty(params)))
    assert penalties[1] < 0.5 * penalties[0]


def clone_callbacks(options):
    return {name: clone(value, safe=False) for name, value in options.items()}


def test_a_train_step_of_ones_own_is_taken_in_the_same_coordinates(tasks):
    class Own(EWCRegressor):
        def train_step(self, batch, **fit_params):
            return super().train_step(batch, **fit_params)

    options = {"hidden_layer_sizes": (8,), "max_epochs": 5, "random_state": 0}
    nets = [learn(one(curvature="kronecker", **options), tasks[:2]) for one in (EWCRegressor, Own)]
    torch.testing.assert_close(*map(parameters, nets))


def test_what_it_cannot_be_set_with_is_refused_before_training(tasks):
    X, y = tasks[0]
    with pytest.raises(ValueError, match="mode='offline' adds up .* curvature='kronecker'"):
        kronecker(mode="offline").partial_fit(X, y)
    with pytest.raises(ValueError, match="fisher='batch' .* curvature='kronecker'"):
        kronecker(fisher="batch").partial_fit(X, y)


@pytest.mark.parametrize(
    ("before", "after"), [("diagonal", "kronecker"), ("kronecker", "diagonal")]
)
def test_a_memory_keeps_its_kind(tasks, before, after):
    net = quick(curvature=before).partial_fit(*tasks[0]).set_params(curvature=after)
    kept = parameters(net).clone()
    with pytest.raises(ValueError, match=f"curvature is {after!r}, the memory has {before!r}"):
        net.partial_fit(*tasks[1])
    assert torch.equal(parameters(net), kept)
    assert net.fit(*tasks[1]).memory_.quadratic.curvature.kind == after


def test_the_floor_is_larger_by_default(tasks):
    assert kronecker().partial_fit(*tasks[0]).memory_.tasks[0].damping == 0.1
    assert quick().partial_fit(*tasks[0]).memory_.tasks[0].damping == 0.01
    assert kronecker(damping=0.7).partial_fit(*tasks[0]).memory_.tasks[0].damping == 0.7


def test_a_pickle_in_mid_sequence_goes_on_to_the_bit(tasks):
    net = learn(kronecker(), tasks[:2])
    again = pickle.loads(pickle.dumps(net))
    for one in (net, again):
        one.partial_fit(*tasks[2])
    assert torch.equal(parameters(net), parameters(again))


def test_a_search_takes_either_kind(table):
    X, y, task = table
    search = GridSearchCV(
        quick(), {"curvature": ["diagonal", "kronecker"]}, cv=KFold(2, shuffle=True, random_state=0)
    ).fit(X, y, task=task)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
