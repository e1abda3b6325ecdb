"""EWCRegressor as a scikit-learn estimator."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from sklearn_ewc import EWCRegressor, Memory

from .helpers import parameters, quick


class Float32Regressor(EWCRegressor):
    """Sees every table in float32."""

    def fit(self, X, y=None, task=None, sample_weight=None):
        return super().fit(_single(X), y, task, sample_weight)

    def partial_fit(self, X, y=None, sample_weight=None, task_weight=1.0):
        return super().partial_fit(_single(X), y, sample_weight, task_weight)

    def predict(self, X):
        return super().predict(_single(X))


def _single(X):
    return X.astype(np.float32) if getattr(X, "dtype", None) == np.float64 else X


def expected_failures(estimator):
    """None, but two that ask float32 for what it is not."""
    if isinstance(estimator, Float32Regressor):
        return {
            "check_sample_weight_equivalence_on_dense_data": "wants 1e-7, float32 has 1.2e-7",
            "check_regressor_multioutput": "wants predictions in float64 whatever X",
        }
    return {}


BRIEF = {"max_epochs": 50, "lr": 0.01}


@parametrize_with_checks(
    [
        EWCRegressor(),
        EWCRegressor(fisher="empirical", **BRIEF),
        EWCRegressor(fisher="batch", **BRIEF),
        EWCRegressor(store_tasks=False, **BRIEF),
        EWCRegressor(curvature="kronecker", **BRIEF),
        EWCRegressor(replay="auto", **BRIEF),
        EWCRegressor(hidden_layer_sizes=(20, 10), **BRIEF),
        Float32Regressor(**BRIEF),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learns_own_check(estimator, check):
    check(estimator)


def assert_same_parameters(one, other):
    torch.testing.assert_close(parameters(one), parameters(other), rtol=0, atol=0)


# fit, partial_fit and tasks


def test_fit_with_labels_is_partial_fit_in_sorted_label_order(table):
    X, y, task = table
    by_labels = quick().fit(X, y, task=task)
    one_by_one = quick()
    for label in "abc":
        one_by_one.partial_fit(X[task == label], y[task == label])
    assert by_labels.n_tasks_ == 3
    assert_same_parameters(by_labels, one_by_one)


def test_the_order_of_rows_does_not_change_the_order_of_tasks(table):
    X, y, task = table
    order = np.random.RandomState(0).permutation(len(y))
    sizes = [2, 3, 5]
    task = np.repeat(["a", "b", "c"], [20, 30, 40])
    for rows in (np.arange(90), order):
        net = quick().fit(X[rows], y[rows], task=task[rows])
        assert [stored.n_samples for stored in net.memory_.tasks] == [20, 30, 40], sizes


def test_an_ordered_categorical_sorts_in_its_own_order(table):
    X, y, task = table
    ordered = pd.Categorical(task, categories=["c", "a", "unused", "b"], ordered=True)
    one_by_one = quick()
    for label in "cab":
        one_by_one.partial_fit(X[task == label], y[task == label])
    assert_same_parameters(quick().fit(X, y, task=ordered), one_by_one)
    assert_same_parameters(quick().fit(X, y, task=pd.Series(ordered)), one_by_one)


def test_fit_starts_anew(table):
    X, y, task = table
    net = quick().fit(X, y, task=task).fit(X, y)
    assert net.n_tasks_ == 1
    assert len(net.history) == 5
    assert_same_parameters(net, quick().fit(X, y))


def test_warm_start_keeps_the_parameters_and_forgets_the_memory(table):
    X, y, task = table
    net = quick(warm_start=True).fit(X, y, task=task)
    before = parameters(net)
    net.set_params(max_epochs=0).fit(X, y)
    assert net.n_tasks_ == 1
    assert len(net.history) == 0
    torch.testing.assert_close(parameters(net), before, rtol=0, atol=0)


def test_lambda_makes_no_difference_without_tasks(table):
    X, y, _ = table
    assert_same_parameters(quick(ewc_lambda=0).fit(X, y), quick(ewc_lambda=1e6).fit(X, y))


def test_lambda_can_be_changed_between_tasks(tasks):
    (X0, y0), (X1, y1) = tasks[:2]
    changed = quick(ewc_lambda=0).partial_fit(X0, y0)
    changed.set_params(ewc_lambda=100.0).partial_fit(X1, y1)
    constant = quick(ewc_lambda=100.0).partial_fit(X0, y0).partial_fit(X1, y1)
    assert_same_parameters(changed, constant)


def test_a_penalty_forgets_less_than_none(tasks):
    (X0, y0), (X1, y1), *_ = tasks

    def forgotten(ewc_lambda):
        net = quick(hidden_layer_sizes=(50, 50), max_epochs=200, lr=0.01, ewc_lambda=ewc_lambda)
        before = net.partial_fit(X0, y0).score(X0, y0)
        return before - net.partial_fit(X1, y1).score(X0, y0)

    assert forgotten(100.0) < 0.1 * forgotten(0.0)


def test_a_task_of_weight_zero_leaves_no_trace_in_the_penalty(tasks):
    (X0, y0), (X1, y1), *_ = tasks
    forgotten = quick(ewc_lambda=100.0).partial_fit(X0, y0, task_weight=0).partial_fit(X1, y1)
    free = quick(ewc_lambda=0).partial_fit(X0, y0).partial_fit(X1, y1)
    torch.testing.assert_close(parameters(forgotten), parameters(free))


def test_task_weight_multiplies_lambda(tasks):
    (X0, y0), (X1, y1), *_ = tasks
    weighted = quick(ewc_lambda=1.0).partial_fit(X0, y0, task_weight=50.0).partial_fit(X1, y1)
    plain = quick(ewc_lambda=50.0).partial_fit(X0, y0).partial_fit(X1, y1)
    torch.testing.assert_close(parameters(weighted), parameters(plain))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fisher", ["exact", "empirical", "batch"])
def test_a_weight_of_two_is_the_same_as_the_sample_twice(tasks, fisher, dtype):
    net = quick(batch_size=-1, fisher=fisher, ewc_lambda=100.0)
    twice = clone(net)
    digits = np.finfo(dtype).eps * 1e4
    for X, y in tasks[:2]:
        X, weight = X.astype(dtype), np.arange(len(y)) % 3
        net.partial_fit(X, y, sample_weight=weight)
        twice.partial_fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    torch.testing.assert_close(parameters(net), parameters(twice), rtol=digits, atol=digits)
    for name, value in net.memory_.tasks[1].fisher.items():
        expected = twice.memory_.tasks[1].fisher[name]
        torch.testing.assert_close(value, expected, rtol=10 * digits, atol=digits)


@pytest.mark.parametrize("store_tasks", [True, False])
def test_keeping_the_tasks_or_only_their_sums_trains_the_same(tasks, store_tasks):
    net = quick(store_tasks=store_tasks)
    for X, y in tasks:
        net.partial_fit(X, y)
    assert len(net.memory_.tasks) == (4 if store_tasks else 0)
    expected = quick()
    for X, y in tasks:
        expected.partial_fit(X, y)
    assert_same_parameters(net, expected)


def test_the_memory_holds_the_parameters_at_the_end_of_each_task(tasks):
    net = quick()
    ends = []
    for X, y in tasks:
        net.partial_fit(X, y)
        ends.append(parameters(net))
    for end, task in zip(ends, net.memory_.tasks, strict=True):
        assert torch.equal(torch.cat([p.flatten() for p in task.anchor.values()]), end)


# shapes and dtypes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_follows_the_first_x(tasks, dtype):
    (X0, y0), (X1, y1), *_ = tasks
    net = quick().partial_fit(X0.astype(dtype), y0).partial_fit(X1, y1)
    assert net.predict(X0).dtype == dtype
    assert {p.dtype for p in net.module_.parameters()} == {getattr(torch, np.dtype(dtype).name)}


def test_predictions_have_the_shape_of_y(table):
    X, y, _ = table
    assert quick().fit(X, y).predict(X).shape == (90,)
    assert quick().fit(X, y[:, None]).predict(X).shape == (90, 1)
    assert quick().fit(X, np.c_[y, y]).predict(X).shape == (90, 2)


def test_several_outputs_are_learned_task_by_task(table):
    X, y, task = table
    net = quick(max_epochs=50, lr=0.03).fit(X, np.c_[y, -y], task=task)
    assert net.score(X, np.c_[y, -y]) > 0.9


@pytest.mark.parametrize("form", ["list", "tensor", "fortran", "reversed", "read-only", "frame"])
def test_x_may_come_in_any_form_of_table(table, form):
    X, y, task = table
    expected = quick().fit(X, y, task=task)
    read_only = X.copy()
    read_only.flags.writeable = False
    table_in = {
        "list": X.tolist(),
        "tensor": torch.as_tensor(X),
        "fortran": np.asfortranarray(X),
        "reversed": X[::-1].copy()[::-1],
        "read-only": read_only,
        "frame": pd.DataFrame(X, columns=["a", "b", "c"]),
    }[form]
    net = quick().fit(table_in, pd.Series(y), task=list(task))
    assert_same_parameters(net, expected)
    np.testing.assert_array_equal(net.predict(table_in), expected.predict(X))


def test_a_dataframe_gives_its_columns_a_name(table):
    X, y, _ = table
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    net = quick().fit(frame, y)
    assert net.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        net.partial_fit(frame[["b", "a", "c"]], y)


def test_training_does_not_touch_the_users_data(table):
    X, y, _ = table
    X_before, y_before = X.copy(), y.copy()
    overwrites_its_input = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 1))
    quick(module=overwrites_its_input, batch_size=-1).fit(X, y).predict(X)
    np.testing.assert_array_equal(X, X_before)
    np.testing.assert_array_equal(y, y_before)


# parameters


def test_clone_is_unfitted_and_has_the_same_parameters():
    net = quick(
        module__activation=nn.Tanh, optimizer__betas=(0.5, 0.9), callbacks__print_log=None
    ).fit([[0.0], [1.0]], [0.0, 1.0])
    copy = clone(net)
    assert copy.get_params(deep=False) == net.get_params(deep=False)
    with pytest.raises(NotFittedError):
        copy.predict([[0.0]])


def test_nested_parameters_reach_their_component():
    net = quick().set_params(module__activation=nn.Tanh, optimizer__betas=(0.5, 0.9), lr=0.1)
    net.fit([[0.0], [1.0]], [0.0, 1.0])
    assert isinstance(net.module_.layers[1], nn.Tanh)
    assert net.optimizer_.param_groups[0]["betas"] == (0.5, 0.9)
    assert net.optimizer_.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_layer_sizes": (9,)},
        {"module__activation": nn.Tanh},
        {"module": nn.Linear},
    ],
    ids=["hidden_layer_sizes", "module__activation", "module"],
)
def test_what_would_rebuild_the_module_waits_for_fit_and_never_drops_the_memory(table, change):
    X, y, _ = table
    net = quick().fit(X, y)
    before, predicted = parameters(net), net.predict(X)
    net.set_params(**change)
    with pytest.raises(ValueError, match=next(iter(change))):
        net.partial_fit(X, y)
    assert net.n_tasks_ == 1
    assert torch.equal(parameters(net), before)
    np.testing.assert_array_equal(net.predict(X), predicted)
    net.fit(X, y).partial_fit(X, y)
    assert len(parameters(net)) != len(before) or "activation" in str(change)


def test_a_setting_of_the_module_can_be_set_back(table):
    X, y, _ = table
    net = quick(module__activation=nn.Tanh).fit(X, y)
    net.set_params(module__activation=nn.ReLU, hidden_layer_sizes=(9,))
    net = pickle.loads(pickle.dumps(net))
    net.set_params(module__activation=nn.Tanh, hidden_layer_sizes=(8,)).partial_fit(X, y)
    assert net.n_tasks_ == 2


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.5},
        {"optimizer": torch.optim.SGD},
        {"optimizer__weight_decay": 0.1},
        {"optimizer__param_groups": [("layers.0*", {"lr": 0.5})]},
        {"iterator_train__shuffle": False},
        {"iterator_train": DataLoader},
        {"criterion": nn.HuberLoss},
        {"criterion": nn.HuberLoss, "criterion__delta": 5.0, "normalize_y": True},
        {"batch_size": 7},
        {"max_epochs": 3},
    ],
    ids=lambda change: "-".join(change),
)
def test_a_parameter_set_between_tasks_is_that_of_the_next_task(tasks, change):
    (X0, y0), (X1, y1), *_ = tasks
    net = quick().partial_fit(X0, y0).set_params(**change)
    assert {name: net.get_params()[name] for name in change} == change
    unchanged = quick().partial_fit(X0, y0).partial_fit(X1, y1)
    net.partial_fit(X1, y1)
    assert not torch.equal(parameters(net), parameters(unchanged))
    other = clone(quick(**change)).partial_fit(X0, y0)
    other.module_.load_state_dict(unchanged.memory_.tasks[0].anchor)
    other.memory_ = Memory().consolidate(unchanged.memory_.tasks[0])
    assert_same_parameters(net, other.partial_fit(X1, y1))


def test_a_callback_can_change_the_learning_rate_during_training(tasks):
    class Halves(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.set_params(lr=net.lr / 2)

    net = quick(callbacks=[Halves()], optimizer=torch.optim.SGD, lr=1.0, max_epochs=3)
    net.fit(*tasks[0])
    assert net.lr == net.optimizer_.param_groups[0]["lr"] == 0.125


def test_an_unknown_parameter_is_named():
    with pytest.raises(ValueError, match="ewc_lamda"):
        EWCRegressor().set_params(ewc_lamda=1.0)
    with pytest.raises(ValueError, match="ewc_lamda"):
        EWCRegressor(ewc_lamda=1.0).fit([[0.0], [1.0]], [0.0, 1.0])


def test_the_representation_shows_what_was_changed():
    assert repr(EWCRegressor(ewc_lambda=30.0)) == "EWCRegressor(ewc_lambda=30.0)"
    pipeline = make_pipeline(StandardScaler(), EWCRegressor())
    assert "EWCRegressor" in pipeline._repr_html_()


def test_a_regressor_has_no_probabilities():
    assert not hasattr(EWCRegressor(), "predict_proba")


# persistence


@pytest.mark.parametrize("module", ["joblib", "pickle"])
def test_a_round_trip_between_tasks_changes_nothing(tasks, module, tmp_path):
    (X0, y0), (X1, y1), *_ = tasks
    net = quick(module=nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)))
    net.partial_fit(X0, y0)
    if module == "pickle":
        copy = pickle.loads(pickle.dumps(net))
    else:
        joblib.dump(net, tmp_path / "net")
        copy = joblib.load(tmp_path / "net")
    assert_same_parameters(copy.partial_fit(X1, y1), net.partial_fit(X1, y1))


def test_no_seed_gives_another_net_every_time_and_a_seed_the_same(table):
    X, y, task = table
    assert_same_parameters(quick().fit(X, y, task=task), quick().fit(X, y, task=task))
    nets = [quick(random_state=None).fit(X, y) for _ in range(2)]
    assert not torch.equal(*map(parameters, nets))


# composition


def test_lambda_is_chosen_in_a_pipeline_by_what_is_remembered_of_all_tasks(tasks):
    X = np.concatenate([X for X, _ in tasks])
    y = np.concatenate([y for _, y in tasks])
    task = np.repeat(np.arange(4), 40)
    pipeline = make_pipeline(
        StandardScaler(), EWCRegressor(hidden_layer_sizes=(50, 50), max_epochs=60, random_state=0)
    )
    search = GridSearchCV(
        pipeline,
        {"ewcregressor__ewc_lambda": [0.0, 100.0]},
        cv=KFold(3, shuffle=True, random_state=0),
    )
    search.fit(X, y, ewcregressor__task=task)
    assert search.best_params_ == {"ewcregressor__ewc_lambda": 100.0}
    assert search.best_estimator_[-1].n_tasks_ == 4


def test_task_and_weights_are_routed(table):
    X, y, task = table
    with sklearn.config_context(enable_metadata_routing=True):
        net = quick().set_fit_request(task=True)
        grid = {"ewcregressor__ewc_lambda": [0.0, 1.0]}
        search = GridSearchCV(make_pipeline(StandardScaler(), net), grid, cv=2)
        assert search.fit(X, y, task=task).best_estimator_[-1].n_tasks_ == 3

        weighted = quick().set_fit_request(task=True, sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, weighted)
        pipeline.fit(X, y, task=task, sample_weight=np.arange(90.0))
        inputs = pipeline[0].transform(X)
        expected = quick().fit(inputs, y, task=task, sample_weight=np.arange(90.0))
        assert_same_parameters(pipeline[-1], expected)

        requests = quick().set_partial_fit_request(sample_weight=True, task_weight=False)
        routed = requests._metadata_request.partial_fit.requests
        assert routed == {"sample_weight": True, "task_weight": False}


def test_two_processes_find_what_one_does(table):
    X, y, task = table
    grid = {"ewc_lambda": [0.0, 10.0]}
    scores = [
        GridSearchCV(quick(), grid, cv=2, n_jobs=n_jobs).fit(X, y, task=task).cv_results_
        for n_jobs in (1, 2)
    ]
    np.testing.assert_array_equal(scores[0]["mean_test_score"], scores[1]["mean_test_score"])


def test_a_transformed_target_is_learned(table):
    X, y, task = table
    net = TransformedTargetRegressor(quick(max_epochs=50, lr=0.03), transformer=StandardScaler())
    assert net.fit(X, 1000 * y, task=task).score(X, 1000 * y) > 0.9


def test_cross_validation_shares_nothing_between_folds(table):
    X, y, _ = table
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    net = quick(module=module)
    scores = [cross_val_score(net, X, y, cv=3) for _ in range(2)]
    np.testing.assert_array_equal(*scores)


# a search for λ


def test_a_search_for_lambda_that_knows_no_tasks_is_warned(table):
    X, y, task = table
    for net in (quick(max_epochs=1), make_pipeline(StandardScaler(), quick(max_epochs=1))):
        name = next(name for name in net.get_params() if name.endswith("ewc_lambda"))
        search = GridSearchCV(net, {name: [0.0, 1.0]}, cv=2)
        with pytest.warns(UserWarning, match="one task, on which ewc_lambda has no effect"):
            search.fit(X, y)
        search.fit(X, y, **{name.removesuffix("ewc_lambda") + "task": task})


def test_one_task_after_another_is_no_search_for_lambda(tasks):
    net = quick(max_epochs=1).set_params(ewc_lambda=10.0)
    net.partial_fit(*tasks[0]).set_params(ewc_lambda=30.0).partial_fit(*tasks[1])
    assert net.fit(*tasks[0]).n_tasks_ == 1
    assert quick(max_epochs=1, ewc_lambda=10.0).fit(*tasks[0]).n_tasks_ == 1
