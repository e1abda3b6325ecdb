"""Choosing λ by cross-validation over tasks."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LinearRegression
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.helper import SliceDict

from sklearn_ewc import (
    ContinualTargetRegressor,
    EWCRegressor,
    TaskKFold,
    make_continual_pipeline,
    search_lambda,
)

from ..helpers import parameters, quick


@pytest.fixture
def data(tasks):
    X, y = (np.concatenate(parts) for parts in zip(*tasks[:3], strict=True))
    return X, y, np.repeat([1, 2, 3], [len(y) for _, y in tasks[:3]])


def test_the_search_is_grid_search_over_the_task_column(data):
    X, y, task = data
    found = search_lambda(quick(), X, y, task, lambdas=[0, 30])
    by_hand = GridSearchCV(
        quick(), {"ewc_lambda": [0, 30]}, cv=TaskKFold(3, shuffle=True, random_state=0)
    ).fit(X, y, groups=task, task=task)
    assert isinstance(found, GridSearchCV)
    scores = [search.cv_results_["mean_test_score"] for search in (found, by_hand)]
    assert np.array_equal(*scores)
    assert scores[0][0] != scores[0][1]
    assert found.best_estimator_.n_tasks_ == 3


def test_the_search_finds_lambda_in_a_pipeline_and_leaves_it_as_it_was(data):
    X, y, task = data
    pipeline = make_pipeline(StandardScaler(), quick(ewc_lambda=7.0))
    found = search_lambda(
        pipeline, X, y, task, lambdas=[0, 30], cv=TaskKFold(2), scoring="neg_mean_absolute_error"
    )
    assert found.best_params_.keys() == {"ewcregressor__ewc_lambda"}
    assert found.n_splits_ == 2
    assert pipeline[-1].ewc_lambda == 7.0
    assert not pipeline[-1].__sklearn_is_fitted__()


def test_the_search_works_where_metadata_are_routed(data):
    X, y, task = data
    plain = search_lambda(quick(), X, y, task, lambdas=[0, 30])
    with sklearn.config_context(enable_metadata_routing=True):
        net = quick().set_fit_request(task=True)
        routed = search_lambda(net, X, y, task, lambdas=[0, 30])
        inside = search_lambda(make_pipeline(StandardScaler(), net), X, y, task, lambdas=[0, 30])
        cross_val_score(net, X, y, cv=TaskKFold(2), params={"task": task, "groups": task})
    assert np.array_equal(parameters(plain.best_estimator_), parameters(routed.best_estimator_))
    assert inside.best_estimator_[-1].n_tasks_ == 3


def test_an_estimator_without_lambda_is_refused(data):
    with pytest.raises(ValueError, match="one parameter ewc_lambda, found none"):
        search_lambda(LinearRegression(), *data)


def test_processes_find_what_one_process_finds(data):
    one, two = (
        search_lambda(quick(), *data, lambdas=[0, 30], n_jobs=n_jobs).cv_results_["mean_test_score"]
        for n_jobs in (None, 2)
    )
    assert np.array_equal(one, two)


def test_the_candidates_span_no_penalty_to_a_stiff_one(data):
    X, y, task = data
    net = EWCRegressor(hidden_layer_sizes=(4,), max_epochs=1, random_state=0)
    found = search_lambda(net, X, y, task, cv=2).cv_results_["param_ewc_lambda"]
    assert min(found) == 0
    assert max(found) == 1000


def continual(step):
    return make_continual_pipeline(StandardScaler(), step)


def plain(step):
    return make_pipeline(StandardScaler(), step)


AROUND = {
    "nothing": lambda net: net,
    "target": ContinualTargetRegressor,
    "pipeline": continual,
    "pipeline in target": lambda net: ContinualTargetRegressor(continual(net)),
    "target in pipeline": lambda net: continual(ContinualTargetRegressor(net)),
    "pipeline in pipeline": lambda net: continual(continual(net)),
    "plain pipeline": plain,
    "plain target": lambda net: TransformedTargetRegressor(net, transformer=StandardScaler()),
    "plain target in plain pipeline": lambda net: plain(TransformedTargetRegressor(net)),
    "plain pipeline in plain target": lambda net: TransformedTargetRegressor(plain(net)),
    "all of them": lambda net: plain(ContinualTargetRegressor(continual(net))),
}


def net_in(estimator):
    """Return the net inside a fitted estimator."""
    while not isinstance(estimator, EWCRegressor):
        steps = getattr(estimator, "steps", None)
        estimator = steps[-1][1] if steps else estimator.regressor_
    return estimator


@pytest.mark.parametrize("routed", [False, True], ids=["by name", "routed"])
@pytest.mark.parametrize("around", AROUND)
def test_the_tasks_reach_the_net_through_whatever_is_around_it(around, routed, data):
    X, y, task = data
    with sklearn.config_context(enable_metadata_routing=routed):
        net = quick(max_epochs=1)
        model = AROUND[around](net.set_fit_request(task=True) if routed else net)
        # where metadata are routed, a Pipeline has no score of its own around a target regressor
        found = search_lambda(model, X, y, task, lambdas=[0, 30], cv=2, scoring="r2")
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    assert net_in(found.best_estimator_).n_tasks_ == 3
    (name,) = found.best_params_
    assert model.get_params()[name] == 3.0


class TwoInputs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.out = torch.nn.Linear(1, 1)

    def forward(self, a, b):
        return self.out(a) + self.out(b)


CONTAINERS = {
    "lists": (np.ndarray.tolist, np.ndarray.tolist, list),
    "tensors": (torch.as_tensor, torch.as_tensor, torch.as_tensor),
    "pandas": (
        lambda X: pd.DataFrame(X, columns=["x"], index=np.arange(len(X))[::-1]),
        lambda y: pd.Series(y, index=np.arange(len(y))[::-1]),
        pd.Series,
    ),
    "polars": (lambda X: pl.DataFrame(X, schema=["x"]), pl.Series, pl.Series),
    "categories": (np.asarray, np.asarray, lambda task: pd.Categorical(task, ordered=True)),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_data_may_come_in_any_container(container, data):
    of_X, of_y, of_task = CONTAINERS[container]
    X, y, task = data
    expected = search_lambda(quick(), X, y, task, lambdas=[0, 30], cv=2)
    found = search_lambda(quick(), of_X(X), of_y(y), of_task(task), lambdas=[0, 30], cv=2)
    assert np.array_equal(
        found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )


@pytest.mark.parametrize(
    "of_values",
    [
        np.asarray,
        torch.as_tensor,
        np.ndarray.tolist,
        lambda a: pd.DataFrame(a, range(9, 9 + len(a))),
    ],
    ids=["arrays", "tensors", "lists", "frames"],
)
def test_a_dict_of_inputs_is_cut_by_rows(of_values, data):
    X, y, task = data
    net = EWCRegressor(TwoInputs, max_epochs=1, random_state=0)
    inputs = {"a": X, "b": X**2}
    expected = search_lambda(net, SliceDict(**inputs), y, task, lambdas=[0, 30], cv=2)
    inputs = {name: of_values(values) for name, values in inputs.items()}
    found = search_lambda(net, inputs, y, task, lambdas=[0, 30], cv=2)
    assert np.array_equal(
        found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )


def test_inputs_of_several_lengths_are_named(data):
    X, y, task = data
    with pytest.raises(ValueError, match="X: .*different lengths"):
        search_lambda(quick(), {"a": X, "b": X[:5]}, y, task)


SPLITTERS = {
    "a number": lambda data: 2,
    "drawn anew": lambda data: TaskKFold(2, shuffle=True),
    "by group": lambda data: LeaveOneGroupOut(),
    "at hand": lambda data: list(TaskKFold(2).split(data[0], groups=data[2])),
    "once only": lambda data: TaskKFold(2).split(data[0], groups=data[2]),
}


@pytest.mark.parametrize("splits", SPLITTERS)
def test_a_line_for_each_training_tells_how_far_it_is(splits, data, capsys):
    found = search_lambda(
        quick(max_epochs=1), *data, lambdas=[0, 30], cv=SPLITTERS[splits](data), verbose=1
    )
    title, *lines = capsys.readouterr().out.splitlines()
    n_fits = 2 * found.n_splits_
    assert title == f"search_lambda: {n_fits + 1} trainings"
    assert [line.split("]")[0] for line in lines] == [
        f"[{number}/{n_fits + 1}" for number in range(1, n_fits + 2)
    ]
    assert lines[0].startswith(f"[1/{n_fits + 1}] λ = 0: ")
    assert lines[-1].startswith(
        f"[{n_fits + 1}/{n_fits + 1}] best λ = {found.best_params_['ewc_lambda']}"
    )
    assert all("s left)" in line for line in lines[:-1])


@pytest.mark.parametrize(
    "scoring", [None, "neg_mean_squared_error", make_scorer(r2_score)], ids=str
)
def test_what_is_found_aloud_is_what_is_found_in_silence(scoring, data, capsys):
    silent, aloud = (
        search_lambda(quick(), *data, lambdas=[0, 30], cv=2, scoring=scoring, verbose=verbose)
        for verbose in (0, 1)
    )
    capsys.readouterr()
    assert np.array_equal(
        silent.cv_results_["mean_test_score"], aloud.cv_results_["mean_test_score"]
    )
    assert aloud.scoring is scoring
    X, y, _ = data
    assert aloud.score(X, y) == silent.score(X, y)
    assert capsys.readouterr().out == ""


def test_a_candidate_that_fails_everywhere_is_no_reason_to_stop_aloud(data, capsys):
    net = quick(penalty_step="gradient", lr=0.1, optimizer=torch.optim.SGD, max_epochs=20)
    X, y, task = data
    with pytest.warns(Warning, match="fits failed|non-finite"):
        found = search_lambda(net, X, y, task, lambdas=[0, 1e12], cv=2, verbose=1)
    assert np.isnan(found.cv_results_["mean_test_score"][1])
