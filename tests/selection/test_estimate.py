"""Choosing λ from a new task and the memory."""

import sqlite3

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.linear_model import SGDRegressor
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.helper import SliceDict
from torch.utils.data import TensorDataset

from sklearn_ewc import (
    ContinualTargetRegressor,
    EWCRegressor,
    estimate_lambda,
    make_continual_pipeline,
)
from sklearn_ewc.selection import LambdaEstimate
from sklearn_ewc.training import arrival

from ..helpers import Lookup, parameters, quick

LAMBDAS = [0.01, 1.0, 100.0, 1e4]


def test_a_larger_lambda_costs_the_new_task_more_and_the_old_ones_less(tasks):
    net = quick(max_epochs=60, lr=0.01).partial_fit(*tasks[0])
    estimate = estimate_lambda(net, *tasks[1], lambdas=LAMBDAS)
    assert estimate.lambdas == tuple(LAMBDAS)
    assert (np.diff(estimate.penalties) < 0).all()
    assert estimate.errors[-1] > estimate.errors[0]


def test_the_best_lambda_has_the_least_sum_of_both_errors():
    estimate = LambdaEstimate(
        (1.0, 3.0, 10.0), np.array([1.0, 2.0, 3.5]), np.array([5.0, 2.0, 1.0])
    )
    assert estimate.best == 3.0
    overflowed = LambdaEstimate((1.0, 3.0), np.array([np.nan, 2.0]), np.array([0.0, 1.0]))
    assert overflowed.best == 3.0


def test_both_errors_are_those_of_the_net_that_learned_the_rest(tasks):
    net = quick(ewc_lambda=7.0).partial_fit(*tasks[0])
    before = parameters(net)
    estimate = estimate_lambda(net, *tasks[1], lambdas=[7.0])
    assert torch.equal(parameters(net), before)
    X, X_valid, y, y_valid = train_test_split(*tasks[1], test_size=0.25, random_state=0)
    trained = quick(ewc_lambda=7.0).partial_fit(*tasks[0]).partial_fit(X, y)
    residual = (trained.predict(X_valid) - y_valid) / net.targets_.scale[0]  # as it is trained on
    assert estimate.errors[0] == pytest.approx(np.mean(residual**2))
    penalty = net.memory_.penalty(trained.module_.named_parameters())
    assert estimate.penalties[0] == pytest.approx(penalty.item())


def test_without_a_task_learned_there_is_nothing_to_weigh(tasks):
    with pytest.raises(ValueError, match="learned no task yet"):
        estimate_lambda(quick(), *tasks[0])


def continual(step, **options):
    return make_continual_pipeline(StandardScaler(), step, **options)


AROUND = {
    "pipeline": continual,
    "updated pipeline": lambda net: continual(net, update_transformers=True),
    "target": ContinualTargetRegressor,
    "pipeline in target": lambda net: ContinualTargetRegressor(continual(net)),
    "target in pipeline": lambda net: continual(ContinualTargetRegressor(net)),
    "pipeline in pipeline": lambda net: continual(continual(net)),
}


def net_in(estimator):
    """Return the net inside a fitted estimator."""
    while not isinstance(estimator, EWCRegressor):
        steps = getattr(estimator, "steps", None)
        estimator = steps[-1][1] if steps else estimator.regressor_
    return estimator


@pytest.mark.parametrize("around", AROUND)
def test_what_is_around_the_net_passes_the_task_on_as_in_partial_fit(around, tasks, monkeypatch):
    """The net is given exactly what it would learn: all of it is held out and learned here."""
    heard = []

    def hearing(net, X, y, *args, **kwargs):
        heard.append((X, y))
        return arrival.checked_task(net, X, y, *args, **kwargs)

    for module in ("training.net", "selection.estimate"):
        monkeypatch.setattr(f"sklearn_ewc.{module}.checked_task", hearing)
    model = AROUND[around](quick(max_epochs=2)).partial_fit(*tasks[0])
    before = parameters(net_in(model))
    scales = [getattr(step, "mean_", None) for step in _parts(model)]
    estimate_lambda(model, *tasks[1], lambdas=[1.0])
    estimated = heard[-1]
    assert torch.equal(parameters(net_in(model)), before)
    assert scales == [getattr(step, "mean_", None) for step in _parts(model)]
    model.partial_fit(*tasks[1])
    for seen, learned in zip(estimated, heard[-1], strict=True):
        assert np.array_equal(seen, learned)


def _parts(model):
    while not isinstance(model, EWCRegressor):
        yield from (step for _, step in getattr(model, "steps", [])[:-1])
        yield from filter(None, [getattr(model, "transformer_", None)])
        model = model.steps[-1][1] if hasattr(model, "steps") else model.regressor_


@pytest.mark.parametrize("around", AROUND)
def test_the_best_lambda_is_set_by_its_full_name(around, tasks):
    model = AROUND[around](quick(max_epochs=1)).partial_fit(*tasks[0])
    estimate = estimate_lambda(model, *tasks[1], lambdas=[17.0])
    model.set_params(**estimate.best_params)
    assert net_in(model).ewc_lambda == 17.0
    assert estimate.name in model.get_params()


def test_a_transformer_that_cannot_be_copied_does_not_matter(tasks):
    lookup = Lookup(sqlite3.connect(":memory:"))
    model = make_continual_pipeline(lookup, quick(max_epochs=1), update_transformers=True)
    net = quick(max_epochs=1).partial_fit(*tasks[0])
    alone = estimate_lambda(net, *tasks[1], lambdas=[1.0])
    around = estimate_lambda(model.partial_fit(*tasks[0]), *tasks[1], lambdas=[1.0])
    assert np.array_equal(alone.errors, around.errors)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (make_pipeline(StandardScaler(), quick()), "partial_fit"),
        (SGDRegressor(), "ewc_lambda"),
        (EWCRegressor, "estimator"),
        (continual(quick()), "learned no task yet"),
        (ContinualTargetRegressor(quick()), "learned no task yet"),
        (continual(ContinualTargetRegressor(quick())), "learned no task yet"),
    ],
    ids=str,
)
def test_what_cannot_learn_one_task_more_is_refused(estimator, message, tasks):
    with pytest.raises((TypeError, ValueError), match=message):
        estimate_lambda(estimator, *tasks[0])


CONTAINERS = {
    "lists": (np.ndarray.tolist, np.ndarray.tolist),
    "tensors": (torch.as_tensor, torch.as_tensor),
    "pandas": (
        lambda X: pd.DataFrame(X, columns=["x"], index=np.arange(len(X))[::-1]),
        lambda y: pd.Series(y, index=np.arange(len(y))[::-1]),
    ),
    "polars": (lambda X: pl.DataFrame(X, schema=["x"]), pl.Series),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_data_may_come_in_any_container(container, tasks):
    of_X, of_y = CONTAINERS[container]
    (X, y), (new_X, new_y) = tasks[:2]
    expected = estimate_lambda(quick().partial_fit(X, y), new_X, new_y, lambdas=[1.0])
    net = quick().partial_fit(of_X(X), of_y(y))
    found = estimate_lambda(net, of_X(new_X), of_y(new_y), lambdas=[1.0])
    assert np.array_equal(found.errors, expected.errors)


class TwoInputs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.out = torch.nn.Linear(1, 1)

    def forward(self, a, b):
        return self.out(a) + self.out(b)


@pytest.mark.parametrize("kind", [dict, SliceDict])
def test_a_dict_of_inputs_is_cut_by_rows(kind, tasks):
    (X, y), (new_X, new_y) = tasks[:2]
    net = EWCRegressor(TwoInputs, max_epochs=1, random_state=0).partial_fit(kind(a=X, b=X), y)
    estimate = estimate_lambda(net, kind(a=new_X, b=new_X), new_y, lambdas=[0.0, 1.0])
    assert np.isfinite(estimate.errors).all()


def test_a_dataset_is_cut_by_rows(tasks):
    (X, y), (new_X, new_y) = tasks[:2]
    net = quick().partial_fit(X, y.reshape(-1, 1))
    expected = estimate_lambda(net, new_X, new_y.reshape(-1, 1), lambdas=[1.0])
    dataset = TensorDataset(torch.as_tensor(new_X), torch.as_tensor(new_y.reshape(-1, 1)))
    found = estimate_lambda(net, dataset, None, lambdas=[1.0])
    assert found.errors == pytest.approx(expected.errors)


@pytest.mark.parametrize("argument", ["validation_size", "random_state", "verbose"])
def test_an_argument_that_means_nothing_is_named(argument, tasks):
    net = quick(max_epochs=1).partial_fit(*tasks[0])
    with pytest.raises((ValueError, TypeError), match=argument):
        estimate_lambda(net, *tasks[1], **{argument: "a"})


def test_a_line_for_each_candidate_tells_how_far_it_is(tasks, capsys):
    net = quick(max_epochs=1, verbose=1)
    net.partial_fit(*tasks[0])
    capsys.readouterr()
    estimate_lambda(net, *tasks[1], lambdas=[0.1, 1.0])
    assert capsys.readouterr().out == ""
    estimate_lambda(net, *tasks[1], lambdas=[0.1, 1.0], verbose=1)
    title, first, second = capsys.readouterr().out.splitlines()
    assert title == "estimate_lambda: 2 trainings"
    assert first.startswith("[1/2] λ = 0.1: error ")
    assert first.endswith("s left)")
    assert second.startswith("[2/2] λ = 1: error ")


def test_a_lambda_at_which_training_diverges_is_the_worst_of_all(tasks):
    options = {"penalty_step": "gradient", "optimizer": torch.optim.SGD, "max_epochs": 20}
    net = quick(lr=0.01, **options).partial_fit(*tasks[0])
    estimate = estimate_lambda(net, *tasks[1], lambdas=[1e12, 1.0])
    assert estimate.errors[0] == estimate.penalties[0] == np.inf
    assert estimate.best == 1.0
    with pytest.raises(FloatingPointError, match="diverged at each of the λ"):
        estimate_lambda(net, *tasks[1], lambdas=[1e12])
