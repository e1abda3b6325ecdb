"""fit with a task column is the sequence of partial_fit, through whatever is around the net."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import NotFittedError, UnsetMetadataPassedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge, SGDClassifier, SGDRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from skorch import NeuralNetRegressor
from skorch.dataset import Dataset
from skorch.helper import SliceDict

from sklearn_ewc import (
    MLP,
    ContinualPipeline,
    ContinualTargetRegressor,
    TaskKFold,
    make_continual_pipeline,
)
from sklearn_ewc.wrapped import fitted_net

from ..helpers import parameters, quick


def in_pipeline(net, **options):
    return make_continual_pipeline(StandardScaler(), net, **options)


def in_target(net):
    return ContinualTargetRegressor(net)


NESTINGS = {
    "pipeline(net)": in_pipeline,
    "pipeline(net), updated": lambda net: in_pipeline(net, update_transformers=True),
    "target(net)": in_target,
    "target(pipeline(net))": lambda net: in_target(in_pipeline(net)),
    "pipeline(target(net))": lambda net: in_pipeline(in_target(net)),
    "pipeline(pipeline(net))": lambda net: make_continual_pipeline(
        MinMaxScaler(), in_pipeline(net)
    ),
    "target(pipeline(target(net)))": lambda net: in_target(in_pipeline(in_target(net))),
    "pipeline(target(pipeline(net)))": lambda net: make_continual_pipeline(
        MinMaxScaler(), in_target(in_pipeline(net))
    ),
}
# how task and sample_weight are named by steps
PREFIXES = {
    "pipeline(net)": "ewcregressor__",
    "target(pipeline(net))": "ewcregressor__",
    "pipeline(target(net))": "continualtargetregressor__",
    "pipeline(pipeline(net))": "continualpipeline__ewcregressor__",
    "target(pipeline(target(net)))": "continualtargetregressor__",
    "pipeline(target(pipeline(net)))": "continualtargetregressor__ewcregressor__",
}
nestings = pytest.mark.parametrize("nesting", NESTINGS.values(), ids=NESTINGS.keys())


@pytest.fixture
def stream():
    """A table whose inputs and targets move from task to task: X, y, task, weights."""
    rng = np.random.RandomState(0)
    task = np.repeat([3, 1, 2], [40, 30, 20])[rng.permutation(90)]
    X = rng.randn(90, 3) * task[:, None] + task[:, None]
    y = 100.0 * task + X @ [1.0, -2.0, 0.5]
    return X, y, task, rng.randint(1, 4, 90).astype(float)


def one_by_one(estimator, X, y, task, weight=None):
    for label in sorted(set(task)):
        rows = np.flatnonzero(task == label)
        weights = {} if weight is None else {"sample_weight": weight[rows]}
        estimator.partial_fit(X[rows], y[rows], **weights)
    return estimator


def assert_same(one, other, X):
    np.testing.assert_array_equal(one.predict(X), other.predict(X))
    nets = [fitted_net(estimator, "memory_") for estimator in (one, other)]
    np.testing.assert_array_equal(*map(parameters, nets))
    assert nets[0].n_tasks_ == nets[1].n_tasks_ == 3
    for ours, theirs in zip(nets[0].memory_.tasks, nets[1].memory_.tasks, strict=True):
        assert ours.n_samples == theirs.n_samples
        assert all(torch.equal(ours.anchor[name], theirs.anchor[name]) for name in ours.anchor)


# the same to the bit


@nestings
def test_fit_by_task_is_one_partial_fit_after_another(nesting, stream):
    X, y, task, _ = stream
    assert_same(nesting(quick()).fit(X, y, task=task), one_by_one(nesting(quick()), *stream[:3]), X)


@nestings
def test_fit_by_task_forgets_what_was_learned(nesting, stream):
    X, y, task, _ = stream
    again = nesting(quick()).fit(-X, 7 * y).fit(X, y, task=task)
    assert_same(again, one_by_one(nesting(quick()), X, y, task), X)


@nestings
def test_a_partial_fit_follows_on_fit_by_task(nesting, stream):
    X, y, task, _ = stream
    later, early = task == 3, task < 3
    model = nesting(quick()).fit(X[early], y[early], task=task[early])
    model.partial_fit(X[later], y[later])
    assert_same(model, one_by_one(nesting(quick()), X, y, task), X)


@nestings
def test_weights_are_cut_with_the_rows(nesting, stream):
    X, y, task, weight = stream
    expected = one_by_one(nesting(quick()), *stream)
    for form in (np.asarray, list, pd.Series):
        model = nesting(quick()).fit(X, y, task=task, sample_weight=form(weight))
        assert_same(model, expected, X)


@nestings
@pytest.mark.parametrize("alias", [True, "other"])
def test_metadata_reach_the_net_where_they_are_requested(nesting, stream, alias):
    X, y, task, weight = stream
    expected = one_by_one(nesting(quick()), *stream)
    with sklearn.config_context(enable_metadata_routing=True):
        net = quick().set_fit_request(task=True, sample_weight=alias)
        if alias == "other":
            net.set_fit_request(task="site", sample_weight=alias)
        net.set_partial_fit_request(sample_weight=False)  # fit goes by the requests for fit
        model = nesting(net)
        silence(model)
        names = {"site": task, "other": weight} if alias == "other" else {}
        model.fit(X, y, **(names or {"task": task, "sample_weight": weight}))
    assert_same(model, expected, X)


def silence(estimator):
    """Let no scaler inside ask whether the weights are its own."""
    for _, part in estimator.get_params().items():
        if isinstance(part, StandardScaler):
            part.set_fit_request(sample_weight=False).set_partial_fit_request(sample_weight=False)


@pytest.mark.parametrize("name", PREFIXES)
def test_the_name_of_a_step_before_a_keyword_means_the_same(name, stream):
    X, y, task, weight = stream
    nesting, prefix = NESTINGS[name], PREFIXES[name]
    named = {f"{prefix}task": task, f"{prefix}sample_weight": weight}
    model = nesting(quick()).fit(X, y, **named)
    assert_same(model, one_by_one(nesting(quick()), *stream), X)
    with pytest.raises(TypeError, match=f"task is given twice, as task and as {prefix}task"):
        model.fit(X, y, task=task, **named)


@nestings
def test_a_weight_of_the_task_reaches_the_net(nesting, stream):
    X, y, *_ = stream
    model = nesting(quick())
    for weight in (1.0, 0.5):
        model.partial_fit(X, y, task_weight=weight, sample_weight=np.ones(90))
    assert [task.weight for task in model.memory_.tasks] == [1.0, 0.5]


@nestings
def test_no_task_is_one_task(nesting, stream):
    X, y, *_ = stream
    model = nesting(quick()).fit(X, y, task=None, sample_weight=None)
    np.testing.assert_array_equal(model.predict(X), nesting(quick()).partial_fit(X, y).predict(X))
    assert model.n_tasks_ == 1


@pytest.mark.parametrize("name", ["target(net)", "target(pipeline(net))"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_the_weights_of_the_net_weight_the_scale_of_y(name, method, stream):
    X, y, task, weight = stream
    rows = task == 1 if method == "fit" else np.full(90, True)
    expected = np.average(y[rows], weights=weight[rows])
    tasks = {"task": task} if method == "fit" else {}
    for prefix in {"", PREFIXES.get(name, "")}:
        model = NESTINGS[name](quick())
        getattr(model, method)(X, y, **{f"{prefix}sample_weight": weight}, **tasks)
        assert model.transformer_.mean_ == pytest.approx(expected)
    with sklearn.config_context(enable_metadata_routing=True):
        net = quick().set_fit_request(task=True, sample_weight="w")
        model = NESTINGS[name](net.set_partial_fit_request(sample_weight="w"))
        getattr(model, method)(X, y, w=weight, **tasks)
    assert model.transformer_.mean_ == pytest.approx(expected)


# inputs of every kind


def as_list(X):
    return X.tolist()


def as_pandas(X):
    return pd.DataFrame(X, columns=["a", "b", "c"][: X.shape[1]], index=np.arange(90)[::-1])


def as_polars(X):
    return pytest.importorskip("polars").DataFrame(X, schema=["a", "b", "c"][: X.shape[1]])


def by_mask(data, mask):
    if isinstance(data, list):
        return [row for row, chosen in zip(data, mask, strict=True) if chosen]
    return (
        data.filter(mask) if hasattr(data, "filter") and not hasattr(data, "iloc") else data[mask]
    )


@nestings
@pytest.mark.parametrize("form", [as_list, torch.as_tensor, as_pandas, as_polars])
def test_data_come_in_any_form(nesting, form, stream):
    X, y, task, _ = stream
    X, y = form(X), form(np.c_[y, -y])
    model = nesting(quick()).fit(X, y, task=task.tolist())
    expected = nesting(quick())
    for label in (1, 2, 3):
        expected.partial_fit(by_mask(X, task == label), by_mask(y, task == label))
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    assert model.n_tasks_ == 3


class Sites(torch.nn.Module):
    """Takes inputs by name."""

    def __init__(self, n_outputs=1):
        super().__init__()
        self.linear = torch.nn.Linear(3, n_outputs)

    def forward(self, wide, narrow):
        return self.linear(torch.cat([wide, narrow], dim=1))


@pytest.mark.parametrize("form", [dict, SliceDict])
@pytest.mark.parametrize(
    "nesting",
    [in_target, lambda net: in_target(make_continual_pipeline(None, net)), make_continual_pipeline],
)
def test_inputs_by_name_are_cut_one_by_one(form, nesting, stream):
    X, y, task, _ = stream
    model = nesting(quick(module=Sites)).fit(form(wide=X[:, :2], narrow=X[:, 2:]), y, task=task)
    expected = nesting(quick(module=Sites))
    for label in (1, 2, 3):
        rows = task == label
        expected.partial_fit({"wide": X[rows, :2], "narrow": X[rows, 2:]}, y[rows])
    inputs = {"wide": X[:, :2], "narrow": X[:, 2:]}
    np.testing.assert_array_equal(model.predict(inputs), expected.predict(inputs))


def test_sparse_inputs_are_cut_by_rows(stream):
    X, y, task, _ = stream
    dense = FunctionTransformer(lambda X: X.toarray(), accept_sparse=True)
    model = make_continual_pipeline(dense, quick())
    for form in (sp.coo_array, sp.csr_matrix):
        clone(model).fit(form(X), y, task=task)
        np.testing.assert_array_equal(
            clone(model).fit(form(X), y, task=task).predict(form(X)),
            quick().fit(X, y, task=task).predict(X),
        )


def test_sparse_output_of_a_transformer_is_refused_by_the_net(stream):
    X, y, task, _ = stream
    sparse = FunctionTransformer(sp.csr_array)
    with pytest.raises(TypeError, match=r"(?i)sparse"):
        make_continual_pipeline(sparse, quick()).fit(X, y, task=task)


# other estimators


@pytest.mark.parametrize(
    "final",
    [
        SGDRegressor(random_state=0),
        MLPRegressor(hidden_layer_sizes=(5,), random_state=0),
        MultiOutputRegressor(SGDRegressor(random_state=0)),
    ],
    ids=lambda final: type(final).__name__,
)
@pytest.mark.parametrize("routing", [False, True])
def test_any_estimator_with_partial_fit_learns_task_by_task(final, stream, routing):
    X, y, task, _ = stream
    y = (np.c_[y, -y] if isinstance(final, MultiOutputRegressor) else y) / 100
    for nesting in (in_pipeline, in_target, NESTINGS["target(pipeline(net))"]):
        expected = one_by_one(nesting(clone(final)), X, y, task)
        with sklearn.config_context(enable_metadata_routing=routing):
            model = nesting(clone(final)).partial_fit(-X, y).fit(X, y, task=task)
        np.testing.assert_array_equal(model.predict(X), expected.predict(X))
        assert not hasattr(model, "n_tasks_")


def test_what_starts_warm_goes_on_from_where_it_was(stream):
    X, y, task, _ = stream
    y = y / 100
    model = in_pipeline(SGDRegressor(random_state=0, warm_start=True, tol=None))
    coefficients = model.fit(X, y)[-1].coef_.copy()
    expected = clone(model[-1]).partial_fit(X, y)
    expected.coef_, expected.intercept_ = coefficients, model[-1].intercept_.copy()
    expected.t_ = model[-1].t_
    scaler = StandardScaler().fit(X[task == 1])
    for label in (1, 2, 3):
        expected.partial_fit(scaler.transform(X[task == label]), y[task == label])
    np.testing.assert_array_equal(model.fit(X, y, task=task)[-1].coef_, expected.coef_)
    net = in_pipeline(quick(warm_start=True)).fit(X, y)
    start = parameters(net[-1])
    net.set_params(ewcregressor__max_epochs=1, ewcregressor__lr=1e-9).fit(X, y, task=task)
    assert net.n_tasks_ == 3
    torch.testing.assert_close(parameters(net[-1]), start, rtol=0, atol=1e-4)


def test_a_plain_skorch_net_is_left_as_its_clone_before_it_learns(stream):
    X, y, task, _ = (part.astype(np.float32) for part in stream)
    net = NeuralNetRegressor(
        MLP, module__n_features=3, module__n_outputs=1, verbose=0, train_split=None, max_epochs=2
    )
    predictions = []
    for warmed_up in (False, True):
        model = in_pipeline(clone(net))
        if warmed_up:
            model.fit(X, y[:, None])
        torch.manual_seed(0)
        predictions.append(model.fit(X, y[:, None], task=task).predict(X))
    np.testing.assert_array_equal(*predictions)


def test_what_else_is_told_to_the_final_step_passes_whole(stream):
    X, y, task, _ = stream
    classifier = in_pipeline(SGDClassifier(random_state=0))
    classifier.fit(X, y > 200, task=task, classes=[False, True])
    assert classifier.classes_.tolist() == [False, True]


def test_a_frozen_scaler_stays_and_a_fitted_one_is_fitted_anew(stream):
    X, y, task, _ = stream
    frozen = StandardScaler().fit(X)
    model = make_continual_pipeline(FrozenEstimator(frozen), StandardScaler(), quick())
    model.fit(X, y).fit(X, y, task=task)
    np.testing.assert_array_equal(frozen.mean_, X.mean(axis=0))
    np.testing.assert_array_equal(
        model[1].mean_, StandardScaler().fit(frozen.transform(X[task == 1])).mean_
    )


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (in_pipeline(Ridge()), "Ridge"),
        (in_target(Ridge()), "Ridge"),
        (in_target(in_pipeline(Ridge())), "Ridge"),
        (in_pipeline("passthrough"), "str"),
        (in_target(make_pipeline(StandardScaler(), quick())), "Pipeline.*ContinualPipeline"),
        (in_pipeline(TransformedTargetRegressor(quick())), "Trans.*ContinualTargetRegressor"),
        (in_pipeline(GridSearchCV(quick(), {})), "GridSearchCV"),
    ],
)
def test_what_has_no_partial_fit_is_named(model, kind, stream, routing):
    X, y, task, _ = stream
    with sklearn.config_context(enable_metadata_routing=routing):
        if routing:
            for part in model.get_params().values():
                if isinstance(part, type(quick())):
                    part.set_fit_request(task=True)
        with pytest.raises(TypeError, match=f"task: {kind}"):
            model.fit(X, y, task=task)
        if routing:
            return
    if "Pipeline" in kind:  # by the name of a step it would be another procedure
        with pytest.raises(TypeError, match=f"task: {kind}"):
            model.fit(X, y, ewcregressor__task=task)


def test_a_net_that_has_not_said_whether_it_wants_tasks_is_asked(stream):
    X, y, task, _ = stream
    with sklearn.config_context(enable_metadata_routing=True):
        for nesting in NESTINGS.values():
            with pytest.raises(UnsetMetadataPassedError, match=r"task.*EWCRegressor\.fit"):
                nesting(quick()).fit(X, y, task=task)


# all or nothing


class Counting(BaseEstimator):
    """Learns two tasks, and no third."""

    def fit(self, X, y):
        return self.partial_fit(X, y)

    def partial_fit(self, X, y):
        self.seen_ = [*getattr(self, "seen_", []), len(y)]
        if len(self.seen_) == 3:
            raise KeyboardInterrupt
        return self

    def predict(self, X):
        return np.full(len(X), float(sum(self.seen_)))


@nestings
@pytest.mark.parametrize("fitted", [False, True])
def test_what_fails_in_a_later_task_takes_all_of_them_back(nesting, fitted, stream):
    X, y, task, _ = stream
    model = nesting(Counting())
    if fitted:
        model.fit(X, y)
        before = model.predict(X)
    with pytest.raises(KeyboardInterrupt):
        model.fit(-X, y, task=task)
    if fitted:
        np.testing.assert_array_equal(model.predict(X), before)
    else:
        with pytest.raises(NotFittedError):
            model.predict(X)
        parts = [part for part in model.get_params().values() if isinstance(part, BaseEstimator)]
        assert not any(name.endswith("_") for part in parts for name in vars(part))


@nestings
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": [1, 2]}, "2 labels for 90 samples"),
        ({"task": [None] * 90}, "missing labels"),
        ({"y": np.zeros(91)}, "X and y have inconsistent numbers of samples: 90 and 91"),
        ({"y": np.r_[np.zeros(89), np.nan]}, "NaN"),
        ({"sample_weight": np.ones(80)}, "X and sample_weight have inc.*: 90 and 80"),
        ({"X": Dataset(np.zeros((90, 3)), np.zeros(90))}, "torch Dataset cannot be split"),
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else "",
)
def test_what_means_nothing_is_refused_before_anything_is_learned(nesting, change, message, stream):
    X, y, task, _ = stream
    model = nesting(quick()).fit(X, y, task=task)
    before = model.predict(X)
    with pytest.raises(ValueError, match=message):
        model.fit(**{"X": X, "y": y, "task": task, **change})
    np.testing.assert_array_equal(model.predict(X), before)
    assert model.n_tasks_ == 3


def test_all_targets_are_checked_before_the_first_task_is_learned(stream):
    X, y, task, _ = stream

    class Watching(Counting):
        calls = 0

        def partial_fit(self, X, y):
            Watching.calls += 1
            return super().partial_fit(X, y)

    y = np.where(task == 3, np.nan, y)
    for nesting in (in_target, NESTINGS["target(pipeline(net))"]):
        with pytest.raises(ValueError, match="y contains NaN"):
            nesting(Watching()).fit(X, y, task=task)
    assert Watching.calls == 0


# searches


@nestings
@pytest.mark.parametrize("routing", [False, True])
def test_a_search_scores_what_is_deployed(nesting, routing, stream):
    X, y, task, _ = stream
    with sklearn.config_context(enable_metadata_routing=routing):
        net = quick().set_fit_request(task=True) if routing else quick()
        model = nesting(net)
        splitter = TaskKFold(2)
        groups = {"groups": task}
        search = GridSearchCV(model, {}, cv=splitter).fit(X, y, task=task, **groups)
    assert search.best_estimator_.n_tasks_ == 3
    scores = []
    for train, test in splitter.split(X, groups=task):
        deployed = one_by_one(nesting(quick()), X[train], y[train], task[train])
        scores.append(deployed.score(X[test], y[test]))
    assert search.cv_results_["mean_test_score"][0] == np.mean(scores)


# what the net inside tells


@nestings
def test_the_net_inside_tells_of_its_tasks(nesting, stream):
    X, y, task, _ = stream
    model = nesting(quick())
    for attribute in ("n_tasks_", "memory_"):
        assert not hasattr(model, attribute)
        with pytest.raises(AttributeError, match=f"{type(model).__name__} has no {attribute}"):
            getattr(model, attribute)
    model.fit(X, y, task=task)
    net = fitted_net(model, "module_")
    assert model.n_tasks_ == 3
    assert model.memory_ is net.memory_
    assert model.history is net.history
    assert fitted_net(model, "memory_") is fitted_net(model, "history") is net
    assert not hasattr(clone(model), "n_tasks_")


@nestings
def test_other_estimators_have_no_tasks_to_tell_of(nesting, stream):
    X, y, *_ = stream
    model = nesting(SGDRegressor()).fit(X, y / 100)
    for attribute in ("n_tasks_", "memory_", "history"):
        assert not hasattr(model, attribute)


@nestings
def test_the_net_is_found_within_a_search_too(nesting, stream):
    X, y, task, _ = stream
    search = GridSearchCV(nesting(quick()), {}, cv=2).fit(X, y, task=task)
    net = fitted_net(search, "memory_")
    assert type(net) is type(quick())
    assert net is fitted_net(search.best_estimator_, "module_")


def test_an_empty_pipeline_has_nothing_to_tell():
    assert not hasattr(ContinualPipeline([]), "n_tasks_")
