"""What has diverged, and what has not, where training ended in finite numbers."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from ..helpers import parameters, quick, unscaled

GRADIENT = {"penalty_step": "gradient", "max_epochs": 20}


@pytest.mark.parametrize(
    ("optimizer", "ewc_lambda", "options"),
    [
        (torch.optim.RAdam, 1e3, {"lr": 0.01}),
        (torch.optim.RAdam, 1e12, {"lr": 0.01}),
        (torch.optim.RAdam, 3e2, {"lr": 0.03, "criterion__reduction": "sum"}),
        (torch.optim.SGD, 30.0, {"lr": 0.05}),
        (torch.optim.SGD, 1e2, {"lr": 0.02, "optimizer__momentum": 0.9}),
        (torch.optim.ASGD, 1e2, {"lr": 0.05}),
    ],
)
def test_gradient_steps_that_overshot_the_memory_are_a_divergence(
    tasks, optimizer, ewc_lambda, options
):
    net = quick(optimizer=optimizer, ewc_lambda=ewc_lambda, **GRADIENT, **options)
    net.partial_fit(*tasks[0])
    before, memory = parameters(net), net.memory_
    with pytest.raises(FloatingPointError, match=r"diverged: loss \S+ and penalty \S+ in epoch 40"):
        net.partial_fit(*tasks[1])
    assert torch.equal(parameters(net), before)
    assert net.memory_ is memory


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.NAdam, torch.optim.RMSprop])
def test_a_large_lambda_that_makes_much_of_jitter_is_no_divergence(tasks, optimizer):
    net = quick(optimizer=optimizer, lr=0.01, ewc_lambda=1e12, **GRADIENT).partial_fit(*tasks[0])
    before = net.predict(tasks[0][0])
    net.partial_fit(*tasks[1])
    assert np.abs(net.predict(tasks[0][0]) - before).max() < 0.1
    assert optimizer is torch.optim.RMSprop or net.history[-1, "penalty"] > 1e3


class Schedule(Callback):
    """Sets λ at the beginning of an epoch."""

    def __init__(self, epoch, ewc_lambda):
        self.epoch, self.ewc_lambda = epoch, ewc_lambda

    def on_epoch_begin(self, net, **kwargs):
        net.ewc_lambda = self.ewc_lambda if len(net.history) == self.epoch else 0.0


@pytest.mark.parametrize("penalty_step", ["gradient", "proximal"])
def test_a_lambda_that_came_late_is_not_held_against_what_was_before(tasks, penalty_step):
    X, y = tasks[0]
    net = unscaled(ewc_lambda=0.0, lr=1.0, max_epochs=20, penalty_step=penalty_step)
    net.partial_fit(X, y).set_params(callbacks=[Schedule(40, 1e9)])
    assert net.partial_fit(X, 300 * y).n_tasks_ == 2
    assert penalty_step == "proximal" or net.history[-1, "penalty"] > 1e12


class Shifted(nn.MSELoss):
    def forward(self, output, target):
        return super().forward(output, target) - 100


def test_a_criterion_that_is_negative_has_the_scale_of_its_size(tasks):
    net = quick(criterion=Shifted, lr=10.0, max_epochs=1).partial_fit(*tasks[0])
    assert net.memory_.loss > 100
    net = quick(criterion=Shifted, optimizer=torch.optim.SGD, lr=0.05, ewc_lambda=30, **GRADIENT)
    with pytest.raises(FloatingPointError, match="and penalty"):
        net.partial_fit(*tasks[0]).partial_fit(*tasks[1])


def test_a_task_that_begins_where_it_has_its_minimum_is_no_divergence(tasks):
    X, nothing = tasks[0][0], np.zeros(40)
    net = quick(ewc_lambda=0.0, lr=0.01, max_epochs=100).partial_fit(X, nothing)
    net.set_params(lr=0.1, max_epochs=1, batch_size=8).partial_fit(X, nothing)
    first, second = net.memory_.tasks
    assert second.loss > 10 * first.loss
    assert net.set_params(lr=0.0).partial_fit(X, nothing).n_tasks_ == 3


def test_a_batch_norm_that_lags_behind_one_epoch_is_no_divergence(table):
    X, y, _ = table
    net = quick(
        module=nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)),
        max_epochs=1,
    )
    assert net.partial_fit(1e3 * X + 1e4, y).partial_fit(X, y).n_tasks_ == 2
