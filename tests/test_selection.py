"""Choosing λ by cross-validation over tasks."""

import numpy as np
import pytest
import sklearn
import torch
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_ewc import EWCRegressor, TaskKFold, estimate_lambda, search_lambda
from sklearn_ewc.selection import LambdaEstimate

from .helpers import parameters, quick

TASK = np.repeat(["a", "b", "c"], [30, 9, 4])


@pytest.fixture
def data(tasks):
    X, y = (np.concatenate(parts) for parts in zip(*tasks[:3], strict=True))
    return X, y, np.repeat([1, 2, 3], [len(y) for _, y in tasks[:3]])


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("labels", [TASK, np.asarray(TASK == "a", dtype=float), list(TASK)])
def test_every_fold_holds_its_share_of_every_task(labels, shuffle):
    splitter = TaskKFold(4, shuffle=shuffle, random_state=0 if shuffle else None)
    tested = []
    for train, test in splitter.split(np.zeros((43, 1)), groups=labels):
        assert not set(train) & set(test)
        assert len(train) + len(test) == 43
        for label in set(labels):
            n_samples = np.sum(np.asarray(labels) == label)
            n_tested = np.sum(np.asarray(labels)[test] == label)
            assert n_tested in (n_samples // 4, -(-n_samples // 4))
        tested.extend(test)
    assert sorted(tested) == list(range(43))


def test_a_continuous_target_does_not_disturb_the_folds():
    y = np.linspace(0, 1, 43)
    for target in (y, None):
        tested = [test for _, test in TaskKFold(3).split(np.zeros((43, 1)), target, TASK)]
        assert [len(test) for test in tested] == [15, 14, 14]


def test_folds_need_the_tasks():
    with pytest.raises(ValueError, match="needs groups, the task of every sample"):
        list(TaskKFold(3).split(np.zeros((9, 1))))


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


def test_both_errors_are_those_of_the_net_that_learned_the_rest(tasks):
    net = quick(ewc_lambda=7.0).partial_fit(*tasks[0])
    before = parameters(net)
    estimate = estimate_lambda(net, *tasks[1], lambdas=[7.0])
    assert torch.equal(parameters(net), before)
    X, X_valid, y, y_valid = train_test_split(*tasks[1], test_size=0.25, random_state=0)
    trained = quick(ewc_lambda=7.0).partial_fit(*tasks[0]).partial_fit(X, y)
    assert estimate.errors[0] == pytest.approx(np.mean((trained.predict(X_valid) - y_valid) ** 2))
    penalty = net.memory_.penalty(trained.module_.named_parameters())
    assert estimate.penalties[0] == pytest.approx(penalty.item())


def test_without_a_task_learned_there_is_nothing_to_weigh(tasks):
    with pytest.raises(ValueError, match="learned no task yet"):
        estimate_lambda(quick(), *tasks[0])
