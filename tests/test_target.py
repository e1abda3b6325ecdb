"""ContinualTargetRegressor: targets in the units of the first task."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import SGDRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_ewc import EWCRegressor
from sklearn_ewc.pipeline import make_continual_pipeline
from sklearn_ewc.rollback import all_or_nothing
from sklearn_ewc.target import ContinualTargetRegressor

from .helpers import learn, parameters, quick


@parametrize_with_checks(
    [
        ContinualTargetRegressor(
            EWCRegressor(hidden_layer_sizes=(20,), max_epochs=40, lr=0.05, random_state=0)
        ),
        ContinualTargetRegressor(SGDRegressor(random_state=0)),
    ]
)
def test_scikit_learns_own_check(estimator, check):
    check(estimator)


def large(tasks):
    """The tasks in units in which a net would not learn them."""
    return [(X, 1e6 + 1e4 * (k + 1) * y) for k, (X, y) in enumerate(tasks)]


# units


def test_the_target_is_standardised_as_on_the_first_task(tasks):
    tasks = large(tasks)
    regressor = learn(ContinualTargetRegressor(quick()), tasks)
    mean, scale = tasks[0][1].mean(), tasks[0][1].std()
    assert regressor.transformer_.mean_ == pytest.approx(mean)
    by_hand = learn(quick(), [(X, (y - mean) / scale) for X, y in tasks])
    np.testing.assert_allclose(parameters(regressor.regressor_), parameters(by_hand))
    X = tasks[1][0]
    np.testing.assert_allclose(regressor.predict(X), mean + scale * by_hand.predict(X))


def test_the_score_is_that_of_targets_in_their_own_units(tasks):
    X, y = large(tasks)[0]
    net = quick(hidden_layer_sizes=(50,), max_epochs=200, lr=0.01)
    assert ContinualTargetRegressor(net).partial_fit(X, y).score(X, y) > 0.8
    assert clone(net).set_params(normalize_y=False).partial_fit(X, y).score(X, y) < 0


def test_another_transformer_may_be_chosen(table):
    X, y, _ = table
    logarithm = FunctionTransformer(np.log, np.exp)
    regressor = ContinualTargetRegressor(quick(), transformer=logarithm)
    regressor.partial_fit(X, np.exp(y)).partial_fit(X, np.exp(-y))
    by_hand = quick().partial_fit(X, y).partial_fit(X, -y)
    np.testing.assert_allclose(regressor.predict(X), np.exp(by_hand.predict(X)))


def test_a_transformer_without_an_inverse_is_refused(table):
    X, y, _ = table
    regressor = ContinualTargetRegressor(quick(), transformer=Normalizer())
    with pytest.raises(TypeError, match="Normalizer.*inverse_transform"):
        regressor.partial_fit(X, y)


def test_neither_regressor_nor_transformer_is_fitted_in_place(tasks):
    net, scaler = quick(), StandardScaler()
    regressor = learn(ContinualTargetRegressor(net, transformer=scaler), tasks[:2])
    assert regressor.regressor_.memory_.n_tasks == 2
    assert not hasattr(net, "module_")
    assert not hasattr(scaler, "mean_")


# shapes


def test_predictions_have_the_shape_of_the_first_y(table):
    X, y, _ = table
    for target in (y, y[:, None], np.c_[y, 100 * y]):
        regressor = ContinualTargetRegressor(quick()).partial_fit(X, target)
        assert regressor.partial_fit(X, target).predict(X).shape == target.shape


def test_every_output_is_standardised_by_itself(table):
    X, y, _ = table
    net = quick(max_epochs=50, lr=0.03)
    regressor = ContinualTargetRegressor(net).partial_fit(X, np.c_[y, 1e6 - 1e3 * y])
    assert regressor.score(X, np.c_[y, 1e6 - 1e3 * y]) > 0.9


def test_the_regressor_may_see_fewer_outputs_than_there_are(table):
    X, y, _ = table
    outputs = np.c_[y, 2 * y, 3 * y]
    net = quick(max_epochs=50, lr=0.03)
    regressor = ContinualTargetRegressor(net, transformer=PCA(1)).partial_fit(X, outputs)
    assert regressor.regressor_.n_outputs_ == 1
    assert regressor.score(X, outputs) > 0.9


@pytest.mark.parametrize("form", [list, pd.Series, torch.as_tensor, lambda y: y.astype(object)])
def test_y_may_come_in_any_form(table, form):
    X, y, _ = table
    expected = ContinualTargetRegressor(quick()).partial_fit(X, y).predict(X)
    regressor = ContinualTargetRegressor(quick()).partial_fit(X, form(y))
    np.testing.assert_array_equal(regressor.predict(X), expected)


def test_a_global_wish_for_dataframes_changes_nothing(table):
    X, y, _ = table
    expected = ContinualTargetRegressor(quick()).partial_fit(X, y).predict(X)
    with sklearn.config_context(transform_output="pandas"):
        regressor = ContinualTargetRegressor(quick()).partial_fit(X, y)
        np.testing.assert_array_equal(regressor.predict(X), expected)


def test_it_takes_what_its_regressor_takes():
    for regressor in (quick(), SGDRegressor()):
        tags, expected = get_tags(ContinualTargetRegressor(regressor)), get_tags(regressor)
        assert tags.target_tags.multi_output == expected.target_tags.multi_output
        assert tags.input_tags == expected.input_tags


def test_columns_keep_their_names(table):
    X, y, _ = table
    regressor = ContinualTargetRegressor(quick())
    assert not hasattr(regressor, "n_features_in_")
    regressor.partial_fit(X, y)
    assert regressor.n_features_in_ == 3
    assert not hasattr(regressor, "feature_names_in_")
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    assert regressor.fit(frame, y).feature_names_in_.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("y", [None, [1.0, np.nan], [[1.0], [np.inf]], ["a", "b"]], ids=str)
def test_targets_that_are_no_numbers_are_refused(y):
    with pytest.raises(ValueError, match="y|NaN|infinity|convert"):
        ContinualTargetRegressor(quick()).partial_fit([[0.0], [1.0]], y)


# weights


def test_a_weight_of_two_is_the_same_as_the_sample_twice(tasks):
    weight = np.arange(40) % 3
    weighted = ContinualTargetRegressor(quick(batch_size=-1))
    repeated = clone(weighted)
    for X, y in large(tasks)[:2]:
        weighted.partial_fit(X, y, sample_weight=weight)
        repeated.partial_fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    X = tasks[0][0]
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X))
    assert weighted.regressor_.memory_.n_tasks == 2


def test_weights_pass_a_transformer_by_that_takes_none(table):
    X, y, _ = table
    weight = np.arange(90.0)
    identity = ContinualTargetRegressor(quick(), transformer=FunctionTransformer())
    identity.partial_fit(X, y, sample_weight=weight, task_weight=2.0)
    expected = quick().partial_fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(identity.predict(X), expected.predict(X))
    assert identity.regressor_.memory_.tasks[0].weight == 2.0


def test_weights_are_routed_where_they_are_requested(tasks):
    (X, y), *_ = large(tasks)
    weight = np.arange(40.0)
    expected = ContinualTargetRegressor(quick()).partial_fit(X, y, sample_weight=weight)
    with sklearn.config_context(enable_metadata_routing=True):
        net = quick().set_partial_fit_request(sample_weight="w").set_fit_request(task=True)
        regressor = ContinualTargetRegressor(net).partial_fit(X, y, w=weight)
        np.testing.assert_array_equal(regressor.predict(X), expected.predict(X))
        with pytest.raises(TypeError, match="sample_weight"):
            regressor.partial_fit(X, y, sample_weight=weight)
        assert regressor.fit(X, y, task=np.arange(40) % 2).regressor_.n_tasks_ == 2
        routing = regressor.get_metadata_routing()
        assert routing.consumes("partial_fit", ["w", "task"]) == {"w"}
        assert routing.consumes("fit", ["w", "task"]) == {"task"}


@pytest.mark.parametrize("routing", [False, True])
def test_what_predict_takes_passes_through(table, routing):
    class Shifting(SGDRegressor):
        def predict(self, X, shift=0.0):
            return super().predict(X) + shift

    X, y, _ = table
    with sklearn.config_context(enable_metadata_routing=routing):
        shifting = Shifting(random_state=0)
        if routing:
            shifting.set_predict_request(shift=True)
        regressor = ContinualTargetRegressor(shifting).partial_fit(X, y)
        np.testing.assert_allclose(
            regressor.predict(X, shift=2.0), regressor.predict(X) + 2 * y.std()
        )


# all or nothing


def test_a_first_task_that_fails_leaves_it_unfitted(tasks):
    X, y = tasks[0]
    regressor = ContinualTargetRegressor(quick())
    with pytest.raises(ValueError, match="inconsistent|samples"):
        regressor.partial_fit(X[:-1], y)
    assert set(vars(regressor)) == {"regressor", "transformer"}
    with pytest.raises(NotFittedError):
        regressor.predict(X)


class Dirty(SGDRegressor):
    """Learns before it fails."""

    def fit(self, X, y):
        return self.partial_fit(X, y)

    def partial_fit(self, X, y):
        super().partial_fit(X, y)
        if len(y) < 40:
            raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("net", [quick(), Dirty(random_state=0)], ids=["net", "dirty"])
def test_a_later_task_that_fails_leaves_it_as_it_was(tasks, net, method):
    X, y = tasks[1]
    regressor = learn(ContinualTargetRegressor(net), tasks[:2])
    before, fitted = regressor.predict(X), regressor.regressor_
    with pytest.raises((ValueError, KeyboardInterrupt)):
        getattr(regressor, method)(X[:-2], 7 * y[: -2 if isinstance(net, Dirty) else -1])
    np.testing.assert_array_equal(regressor.predict(X), before)
    assert regressor.regressor_ is fitted


def test_what_fails_around_it_takes_it_back_too(tasks):
    X, y = tasks[1]
    regressor = learn(ContinualTargetRegressor(quick()), tasks[:2])
    before = regressor.predict(X)

    def learn_and_fail(method):
        with all_or_nothing(regressor):
            getattr(regressor, method)(X, 7 * y)
            raise KeyboardInterrupt

    for method in ("partial_fit", "fit"):
        with pytest.raises(KeyboardInterrupt):
            learn_and_fail(method)
        np.testing.assert_array_equal(regressor.predict(X), before)
        assert regressor.regressor_.n_tasks_ == 2


# parameters and persistence


def test_lambda_can_be_changed_between_tasks(tasks):
    changed = ContinualTargetRegressor(quick(ewc_lambda=0)).partial_fit(*tasks[0])
    changed.set_params(regressor__ewc_lambda=100.0).partial_fit(*tasks[1])
    constant = learn(ContinualTargetRegressor(quick(ewc_lambda=100.0)), tasks[:2])
    X = tasks[0][0]
    np.testing.assert_array_equal(changed.predict(X), constant.predict(X))


def test_a_new_regressor_waits_for_fit(tasks):
    regressor = learn(ContinualTargetRegressor(quick()), tasks[:2])
    regressor.set_params(regressor=SGDRegressor(), regressor__alpha=0.1)
    assert regressor.partial_fit(*tasks[2]).regressor_.n_tasks_ == 3
    assert regressor.fit(*tasks[0]).regressor_.alpha == 0.1


def test_a_new_transformer_waits_for_fit(tasks):
    regressor = learn(ContinualTargetRegressor(quick()), tasks[:2])
    regressor.set_params(transformer=FunctionTransformer()).partial_fit(*tasks[2])
    assert isinstance(regressor.transformer_, StandardScaler)
    assert isinstance(regressor.fit(*tasks[0]).transformer_, FunctionTransformer)


def test_what_is_set_is_not_shared_with_the_fitted_regressor(tasks):
    regressor = make_continual_pipeline(StandardScaler(), quick())
    regressor = ContinualTargetRegressor(regressor).partial_fit(*tasks[0])
    net = quick()
    regressor.set_params(regressor__ewcregressor=net).partial_fit(*tasks[1])
    assert not hasattr(net, "module_")


def test_clone_and_fit_start_anew(tasks):
    regressor = learn(ContinualTargetRegressor(quick()), tasks[:2])
    for anew in (clone(regressor).partial_fit(*tasks[1]), regressor.fit(*tasks[1])):
        assert anew.transformer_.mean_ == pytest.approx(tasks[1][1].mean())
        assert anew.regressor_.n_tasks_ == 1


def test_a_pickled_one_goes_on_where_it_was(tasks):
    regressor = learn(ContinualTargetRegressor(quick()), tasks[:2])
    other = pickle.loads(pickle.dumps(regressor)).partial_fit(*tasks[2])
    X = tasks[0][0]
    expected = regressor.partial_fit(*tasks[2]).predict(X)
    np.testing.assert_array_equal(other.predict(X), expected)


def test_there_is_no_partial_fit_where_the_regressor_has_none():
    assert not hasattr(ContinualTargetRegressor(KernelRidge()), "partial_fit")


# composition


def test_lambda_is_chosen_over_tasks_that_arrive_in_one_table(table):
    X, y, task = table
    grid = {"regressor__ewc_lambda": [0.0, 10.0]}
    search = GridSearchCV(ContinualTargetRegressor(quick()), grid, cv=2).fit(X, y, task=task)
    assert search.best_estimator_.regressor_.n_tasks_ == 3


def test_it_is_the_same_within_a_pipeline_and_around_one(tasks):
    within = make_continual_pipeline(StandardScaler(), ContinualTargetRegressor(quick()))
    around = ContinualTargetRegressor(make_continual_pipeline(StandardScaler(), quick()))
    learn(within, large(tasks))
    learn(around, large(tasks))
    np.testing.assert_allclose(parameters(within[-1].regressor_), parameters(around.regressor_[-1]))


def test_it_is_the_same_within_a_pipeline_and_around_one_with_routing(tasks):
    weight = np.arange(40.0)
    with sklearn.config_context(enable_metadata_routing=True):
        net = quick().set_partial_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        within = make_continual_pipeline(scaler, ContinualTargetRegressor(net))
        around = ContinualTargetRegressor(make_continual_pipeline(scaler, net))
        for X, y in large(tasks)[:2]:
            within.partial_fit(X, y, sample_weight=weight)
            around.partial_fit(X, y, sample_weight=weight)
    X = tasks[0][0]
    np.testing.assert_allclose(within.predict(X), around.predict(X))
