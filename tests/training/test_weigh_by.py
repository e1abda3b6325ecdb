"""Whether an old task counts as a task, or by its samples."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_ewc import ContinualTargetRegressor, EWCRegressor, Memory, Task, estimate_lambda
from sklearn_ewc.memory import WEIGH_BY

from ..helpers import learn, parameters, quick

ONE = {"a": torch.ones(2)}


def test_by_samples_a_task_counts_as_often_as_it_has_samples():
    task = Task(ONE, ONE, weight=3.0, n_samples=4)
    by_task, by_sample = (Memory(weigh_by=way).consolidate(task) for way in WEIGH_BY)
    assert by_task.weight_of(task) == 3.0
    assert by_sample.weight_of(task) == 12.0
    there = {"a": torch.zeros(2)}
    assert by_sample.penalty(there) == 4 * by_task.penalty(there)
    assert by_sample.bound(there).value() == by_sample.penalty(there)
    assert by_sample.bound(there, n_samples=2).value() == by_sample.penalty(there) / 2
    assert by_task.bound(there, n_samples=2).value() == by_task.penalty(there)


def test_a_task_that_does_not_tell_its_samples_cannot_count_by_them():
    with pytest.raises(ValueError, match="needs n_samples, where weigh_by='sample'"):
        Memory(weigh_by="sample").consolidate(Task(ONE, ONE))


def test_tasks_of_one_size_count_alike_either_way(tasks):
    nets = [learn(quick(ewc_lambda=10.0, weigh_by=way), tasks[:3]) for way in WEIGH_BY]
    assert torch.allclose(*map(parameters, nets), rtol=1e-6)
    first, second = (net.history[:, "penalty"] for net in nets)
    assert first == pytest.approx(second)


def test_a_lambda_of_one_is_the_loss_over_all_rows():
    """Of one weight the quadratic is exact, so the tasks end where all rows at once do."""
    rng = np.random.RandomState(0)
    X = rng.randn(120, 1)
    y = -2 * X.ravel() + rng.randn(120)
    options = {
        "module": nn.Linear,
        "module__bias": False,
        "ewc_lambda": 1.0,
        "weigh_by": "sample",
        "mode": "online",  # offline, the second task's anchor has the first in it already
        "damping": 0.0,
        "normalize_y": False,
        "batch_size": -1,
        "optimizer": torch.optim.LBFGS,
        "lr": 1.0,
        "max_epochs": 5,
        "random_state": 0,
    }
    parts = [slice(0, 90), slice(90, 100), slice(100, 120)]
    net = learn(EWCRegressor(**options), [(X[rows], y[rows]) for rows in parts])
    expected = np.linalg.lstsq(X, y, rcond=None)[0]
    assert parameters(net).numpy() == pytest.approx(expected, abs=1e-6)


def test_a_small_task_moves_what_a_large_one_has_learned_less_by_samples(tasks):
    X, y = tasks[1]
    moved = {}
    for way in WEIGH_BY:
        net = quick(ewc_lambda=1.0, weigh_by=way, lr=0.01, max_epochs=30).partial_fit(*tasks[0])
        before = parameters(net)
        net.partial_fit(X[:4], y[:4])
        moved[way] = (parameters(net) - before).norm()
    assert moved["sample"] < moved["task"]


def test_a_change_between_tasks_is_refused_before_anything_is_trained(tasks):
    net = quick().partial_fit(*tasks[0])
    before, rows = parameters(net), len(net.history)
    net.set_params(weigh_by="sample")
    for learns in (net.partial_fit, lambda X, y: estimate_lambda(net, X, y, lambdas=[1.0])):
        with pytest.raises(ValueError, match="only fit can put it into effect"):
            learns(*tasks[1])
    assert torch.equal(parameters(net), before)
    assert len(net.history) == rows
    assert net.fit(*tasks[0]).memory_.weigh_by == "sample"
    assert net.set_params(weigh_by="task", warm_start=True).fit(*tasks[0]).n_tasks_ == 1


def test_a_model_around_a_net_passes_it_on(tasks):
    model = ContinualTargetRegressor(quick(), transformer=None)
    model.set_params(regressor__weigh_by="sample").partial_fit(*tasks[0])
    assert model.regressor_.memory_.weigh_by == "sample"


@pytest.mark.parametrize("ewc_lambda", ["auto", 3.0])
def test_a_saved_net_goes_on_as_one_that_was_not(ewc_lambda, tasks, tmp_path):
    options = {"ewc_lambda": ewc_lambda, "weigh_by": "sample"}
    net = quick(**options).partial_fit(*tasks[0])
    files = {f"f_{part}": tmp_path / part for part in ("params", "memory")}
    net.save_params(**files)
    other = quick(**options, module__n_features=1)
    other.load_params(**files)
    assert other.memory_.weigh_by == "sample"
    for one in (net, other):
        one.partial_fit(*tasks[1])
    assert torch.equal(parameters(net), parameters(other))
    assert net.ewc_lambda_ == other.ewc_lambda_


def test_estimated_penalties_are_those_of_a_mean_over_the_new_samples(tasks):
    X, y = tasks[1]
    by_task, by_sample = (
        estimate_lambda(quick(weigh_by=way).partial_fit(*tasks[0]), X, y, lambdas=[0.0])
        for way in WEIGH_BY
    )
    assert by_sample.errors == pytest.approx(by_task.errors)
    n_old, n_new = 40, 30  # ten are held out
    assert by_sample.penalties * n_new == pytest.approx(by_task.penalties * n_old)
