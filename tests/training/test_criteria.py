"""Criteria that add up or average, and those that are functions."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sklearn_ewc import EWCRegressor

from ..helpers import learn, parameters, quick, unscaled

# sums over samples


class OwnTrainStep(EWCRegressor):
    def train_step(self, batch, **fit_params):
        self._zero_grad_optimizer()
        step = self.train_step_single(batch, **fit_params)
        self.optimizer_.step()
        return step


WAYS = {
    "SGD": {"optimizer": torch.optim.SGD},
    "SGD by gradient": {"optimizer": torch.optim.SGD, "penalty_step": "gradient"},
    "Adam": {"optimizer": torch.optim.Adam},
}


def learned(kind, reduction, tasks, n_samples, **options):
    """A net that learns two tasks, at a rate that makes a sum over a batch equal to its mean."""
    way = {"lr": 0.05, "ewc_lambda": 3.0, "batch_size": n_samples, "max_epochs": 30, **options}
    is_scaled = reduction == "sum" and way["optimizer"] is not torch.optim.Adam
    way["lr"] /= n_samples if is_scaled else 1
    net = kind(criterion__reduction=reduction, hidden_layer_sizes=(8,), random_state=0, **way)
    return learn(net, tasks[:2])


@pytest.mark.parametrize("criterion", [nn.MSELoss, nn.SmoothL1Loss, nn.PoissonNLLLoss])
@pytest.mark.parametrize("way", WAYS)
def test_lambda_means_the_same_where_the_criterion_adds_up(tasks, way, criterion):
    options = {"criterion": criterion, **WAYS[way]}
    mean, sum_ = (learned(EWCRegressor, kind, tasks, 10, **options) for kind in ("mean", "sum"))
    np.testing.assert_allclose(parameters(sum_), parameters(mean), rtol=1e-4, atol=1e-5)
    assert sum_.history[-1, "penalty"] == pytest.approx(10 * mean.history[-1, "penalty"], rel=1e-3)
    assert mean.history[-1, "penalty"] > 0


def test_lambda_means_the_same_for_a_line_search(tasks):
    X = np.hstack([X for X, _ in tasks[:3]])
    options = {
        "optimizer": torch.optim.LBFGS,
        "optimizer__line_search_fn": "strong_wolfe",
        "hidden_layer_sizes": (),  # one minimum, wherever the search begins
        "batch_size": -1,
        "lr": 1.0,
        "ewc_lambda": 3.0,
        "max_epochs": 20,
    }
    mean, sum_ = (
        learn(quick(criterion__reduction=kind, **options), [(X, tasks[0][1]), (-X, tasks[1][1])])
        for kind in ("mean", "sum")
    )
    np.testing.assert_allclose(parameters(sum_), parameters(mean), rtol=1e-4, atol=1e-6)


def test_lambda_means_the_same_for_a_train_step_of_ones_own(tasks):
    options = {"optimizer": torch.optim.SGD}
    mean, sum_ = (learned(OwnTrainStep, kind, tasks, 10, **options) for kind in ("mean", "sum"))
    np.testing.assert_allclose(parameters(sum_), parameters(mean), rtol=1e-4)


def test_the_penalty_recorded_is_that_of_the_epochs_mean_batch(tasks):
    X, y = tasks[1]
    net = learn(unscaled(criterion__reduction="sum", batch_size=7), tasks[:1])
    held = net.memory_
    net.partial_fit(X, y)
    penalty = float(held.penalty(dict(net.module_.named_parameters())).detach())
    assert net.history[-1, "batches", :, "train_batch_size"] == [7, 7, 7, 7, 7, 5]
    expected = (5 * 7 * 7 + 5 * 5) / 40 * net.ewc_lambda * penalty
    assert penalty > 0
    assert net.history[-1, "penalty"] == pytest.approx(expected, rel=1e-5)


# functions


def log_cosh(output, target):
    return torch.log(torch.cosh(output - target)).mean()


class LogCosh:
    def __call__(self, output, target):
        return log_cosh(output, target)


@pytest.mark.parametrize(
    "criterion",
    [
        functional.mse_loss,
        partial(torch._C._nn.mse_loss, reduction=1),
        log_cosh,
        LogCosh(),
        lambda o, t: log_cosh(o, t),
    ],
)
def test_a_function_of_output_and_target_is_a_criterion(tasks, criterion):
    net = learn(quick(criterion=criterion, lr=0.01, ewc_lambda=10.0), tasks[:2])
    assert net.n_tasks_ == 2
    assert net.history[-1, "penalty"] > 0


def test_a_function_trains_like_the_module_of_its_formula(tasks):
    options = {"lr": 0.01, "ewc_lambda": 10.0}
    function = learn(unscaled(criterion=functional.mse_loss, **options), tasks[:2])
    module = learn(unscaled(criterion=nn.MSELoss, **options), tasks[:2])
    np.testing.assert_allclose(parameters(function), parameters(module), rtol=1e-6)


@pytest.mark.parametrize(
    "given", [{"criterion__delta": 0.1}, {"criterion": partial(functional.huber_loss, delta=0.1)}]
)
def test_a_function_takes_parameters(tasks, given):
    options = {"criterion": functional.huber_loss, "lr": 0.01, **given}
    function = learn(unscaled(**options), tasks[:1])
    module = learn(unscaled(criterion=nn.HuberLoss, criterion__delta=0.1, lr=0.01), tasks[:1])
    np.testing.assert_allclose(parameters(function), parameters(module), rtol=1e-6)


def test_a_function_that_is_told_to_add_up_does(tasks):
    options = {"lr": 0.01, "ewc_lambda": 10.0, "criterion__reduction": "sum"}
    function = learn(unscaled(criterion=functional.mse_loss, **options), tasks[:2])
    module = learn(unscaled(criterion=nn.MSELoss, **options), tasks[:2])
    np.testing.assert_allclose(parameters(function), parameters(module), rtol=1e-6)


def test_what_builds_a_criterion_still_does(tasks):
    net = learn(quick(criterion=partial(nn.HuberLoss, delta=0.1)), tasks[:1])
    assert isinstance(net.criterion_, nn.HuberLoss)
    assert net.criterion_.delta == 0.1


def test_a_function_that_adds_up_is_refused_by_name(tasks):
    def total(output, target):
        return ((output - target) ** 2).sum()

    with pytest.raises(ValueError, match="total.*not the mean over its samples"):
        quick(criterion=total).partial_fit(*tasks[0])
