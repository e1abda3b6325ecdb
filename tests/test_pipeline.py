"""ContinualPipeline: a Pipeline with partial_fit."""

import copy
import pickle
import threading

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError, UnsetMetadataPassedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge, SGDClassifier, SGDRegressor
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback

from sklearn_ewc import EWCRegressor
from sklearn_ewc.pipeline import ContinualPipeline, make_continual_pipeline

from .helpers import learn, parameters, quick


def steps():
    net = EWCRegressor(hidden_layer_sizes=(20,), max_epochs=40, lr=0.05, random_state=0)
    return [("scale", StandardScaler()), ("net", net)]


# fit puts fitted steps into the parameter `steps`, as it always has in scikit-learn
SHARED_WITH_PIPELINE = {
    "check_estimators_overwrite_params": "fits its steps in place",
    "check_dont_overwrite_parameters": "fits its steps in place",
}


@parametrize_with_checks(
    [ContinualPipeline(steps()), ContinualPipeline(steps(), update_transformers=True)],
    expected_failed_checks=lambda _: SHARED_WITH_PIPELINE,
)
def test_scikit_learns_own_check(estimator, check):
    check(estimator)


def test_what_fails_scikit_learns_check_fails_it_in_a_plain_pipeline_too():
    results = check_estimator(Pipeline(steps()), on_skip=None, on_fail=None)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    assert failed == set(SHARED_WITH_PIPELINE)


class Counting(TransformerMixin, BaseEstimator):
    """Counts, for all its clones, how often it was fitted."""

    n_fits = 0

    def fit(self, X, y=None):
        Counting.n_fits += 1
        self.fitted_ = True
        return self

    def transform(self, X):
        check_is_fitted(self)
        return X


class Dirty(RegressorMixin, BaseEstimator):
    """Changes itself before it fails."""

    def __init__(self, error=ValueError):
        self.error = error

    def fit(self, X, y):
        return self.partial_fit(X, y)

    def partial_fit(self, X, y):
        if not hasattr(self, "seen_"):
            self.seen_, self.bound_ = [], self.predict
        self.seen_.append(len(y))
        if np.isnan(y).any():
            raise self.error("a target is not a number")
        return self

    def predict(self, X):
        return np.full(len(X), float(sum(self.seen_)))


def spoiled(y):
    return np.where(np.arange(len(y)) == 3, np.nan, y)


# which call is the first


def test_the_scaler_is_fitted_to_the_first_task_and_then_stays(tasks):
    pipeline = learn(make_continual_pipeline(StandardScaler(), quick()), tasks)
    scaler = StandardScaler().fit(tasks[0][0])
    np.testing.assert_array_equal(pipeline[0].mean_, scaler.mean_)
    by_hand = learn(quick(), [(scaler.transform(X), y) for X, y in tasks])
    np.testing.assert_array_equal(parameters(pipeline[-1]), parameters(by_hand))
    X = tasks[2][0]
    np.testing.assert_array_equal(pipeline.predict(X), by_hand.predict(scaler.transform(X)))


def test_partial_fit_goes_on_from_fit(tasks):
    (X, y), *later = tasks
    fitted = make_continual_pipeline(StandardScaler(), quick()).fit(X, y)
    expected = learn(make_continual_pipeline(StandardScaler(), quick()), tasks)
    np.testing.assert_array_equal(parameters(learn(fitted, later)[-1]), parameters(expected[-1]))


@pytest.mark.parametrize("anew", [clone, lambda pipeline: pipeline.fit(*later_task())])
def test_clone_and_fit_start_anew(tasks, anew):
    pipeline = anew(learn(make_continual_pipeline(StandardScaler(), quick()), tasks[:2]))
    if not hasattr(pipeline[0], "mean_"):
        pipeline.partial_fit(*later_task())
    assert pipeline[0].mean_ == pytest.approx(later_task()[0].mean(axis=0))
    assert pipeline[-1].n_tasks_ == 1


def later_task():
    X = np.linspace(5, 6, 30).reshape(-1, 1)
    return X, X.ravel()


def test_a_pickled_pipeline_goes_on_where_it_was(tasks):
    pipeline = learn(make_continual_pipeline(StandardScaler(), quick()), tasks[:2])
    other = pickle.loads(pickle.dumps(pipeline))
    learn(pipeline, tasks[2:])
    np.testing.assert_array_equal(parameters(learn(other, tasks[2:])[-1]), parameters(pipeline[-1]))


def test_a_new_net_starts_with_a_new_scaler(tasks):
    pipeline = learn(make_continual_pipeline(StandardScaler(), quick()), tasks[:2])
    pipeline.set_params(ewcregressor=quick()).partial_fit(*later_task())
    assert pipeline[0].mean_ == pytest.approx(5.5)


def test_a_new_transformer_is_not_fitted_on_the_side(tasks):
    pipeline = learn(make_continual_pipeline(StandardScaler(), quick()), tasks[:2])
    pipeline.set_params(standardscaler=MinMaxScaler())
    with pytest.raises(NotFittedError, match="MinMaxScaler"):
        pipeline.partial_fit(*tasks[2])
    assert pipeline[-1].n_tasks_ == 2


def test_the_steps_are_the_objects_that_were_passed(tasks):
    scaler, net = StandardScaler(), quick()
    pipeline = learn(make_continual_pipeline(scaler, net), tasks[:2])
    assert pipeline[0] is scaler
    assert pipeline[-1] is net


def test_other_columns_than_before_are_refused(table):
    X, y, _ = table
    pipeline = make_continual_pipeline(StandardScaler(), quick())
    pipeline.partial_fit(pd.DataFrame(X, columns=["a", "b", "c"]), y)
    with pytest.raises(ValueError, match="features"):
        make_continual_pipeline(StandardScaler(), quick()).fit(X, y).partial_fit(X[:, :2], y)
    with pytest.raises(ValueError, match="feature names"):
        pipeline.partial_fit(pd.DataFrame(X, columns=["c", "b", "a"]), y)


# updating transformers


def test_transformers_are_updated_before_they_transform_where_asked(tasks):
    pipeline = make_continual_pipeline(StandardScaler(), quick(), update_transformers=True)
    scaler, net = StandardScaler(), quick()
    for X, y in tasks:
        pipeline.partial_fit(X, y)
        net.partial_fit(scaler.partial_fit(X).transform(X), y)
    np.testing.assert_array_equal(pipeline[0].mean_, scaler.mean_)
    np.testing.assert_array_equal(parameters(pipeline[-1]), parameters(net))


def test_what_cannot_be_updated_and_what_is_frozen_stays(table):
    X, y, _ = table
    frozen = StandardScaler().fit(X[:10])
    pipeline = make_continual_pipeline(
        FrozenEstimator(frozen), PCA(2), quick(), update_transformers=True
    )
    pipeline.partial_fit(X, y)
    components = pipeline[1].components_.copy()
    pipeline.partial_fit(5 + X[:, [1, 2, 0]], y)
    np.testing.assert_array_equal(frozen.mean_, X[:10].mean(axis=0))
    np.testing.assert_array_equal(pipeline[1].components_, components)


def test_moving_the_scaler_under_the_net_forgets(tasks):
    def remembered(update):
        net = quick(hidden_layer_sizes=(50, 50), max_epochs=200, ewc_lambda=100.0)
        pipeline = make_continual_pipeline(StandardScaler(), net, update_transformers=update)
        return learn(pipeline, tasks[:2]).score(*tasks[0])

    assert remembered(update=False) > 0.7
    assert remembered(update=True) < 0.2


@pytest.mark.parametrize("update", ["scale", None, ["scale"]])
def test_to_update_or_not_is_a_bool(tasks, update):
    pipeline = make_continual_pipeline(StandardScaler(), quick(), update_transformers=update)
    with pytest.raises(ValueError, match="'update_transformers' parameter of ContinualPipeline"):
        pipeline.partial_fit(*tasks[0])


# all or nothing


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("net", [quick(), Dirty(), Dirty(KeyboardInterrupt)])
def test_a_first_task_that_fails_leaves_every_step_unfitted(tasks, net, method, tmp_path):
    X, y = tasks[0]
    for memory in (None, str(tmp_path)):
        pipeline = make_continual_pipeline(StandardScaler(), clone(net), memory=memory)
        with pytest.raises((ValueError, KeyboardInterrupt)):
            getattr(pipeline, method)(X, spoiled(y))
        for step in pipeline:
            assert not any(name.endswith("_") and name[0] != "_" for name in vars(step)), step
            with pytest.raises(NotFittedError):
                step.transform(X) if step is pipeline[0] else pipeline.predict(X)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("net", [quick(), Dirty()])
def test_a_later_task_that_fails_leaves_every_step_as_it_was(tasks, net, update, method):
    X, y = tasks[1]
    pipeline = make_continual_pipeline(StandardScaler(), clone(net), update_transformers=update)
    learn(pipeline, tasks[:2])
    before, mean, objects = pipeline.predict(X), pipeline[0].mean_.copy(), list(pipeline)
    with pytest.raises(ValueError, match="NaN|not a number"):
        getattr(pipeline, method)(X + 1, spoiled(y))
    np.testing.assert_array_equal(pipeline.predict(X), before)
    np.testing.assert_array_equal(pipeline[0].mean_, mean)
    assert pipeline[0].n_samples_seen_ == (80 if update else 40)
    assert all(one is other for one, other in zip(pipeline, objects, strict=True))
    if isinstance(net, Dirty):
        assert pipeline[-1].bound_.__self__ is pipeline[-1]
    assert learn(pipeline, tasks[2:3])[0].mean_ == pytest.approx(
        np.concatenate([X for X, _ in tasks[: 3 if update else 1]]).mean()
    )


def test_a_pipeline_within_a_pipeline_is_rolled_back_with_it(tasks):
    X, y = tasks[0]
    inner = make_continual_pipeline(StandardScaler(), Dirty())
    outer = make_continual_pipeline(MinMaxScaler(), inner)
    learn(outer, tasks[:2])
    before = outer.predict(X)
    with pytest.raises(ValueError, match="not a number"):
        outer.fit(X, spoiled(y))
    np.testing.assert_array_equal(outer.predict(X), before)


def test_neither_a_frozen_step_nor_one_that_rolls_back_itself_is_copied(tasks):
    class HasALock(Callback):
        lock = None

        def on_train_begin(self, net, **kwargs):
            self.lock = threading.Lock()

    class Scaler(StandardScaler):
        def fit(self, X, y=None):
            self.lock_ = threading.Lock()
            return super().fit(X, y)

    pipeline = make_continual_pipeline(Scaler(), quick(callbacks=[HasALock()]))
    assert learn(pipeline, tasks[:2])[-1].n_tasks_ == 2
    for step in pipeline:
        with pytest.raises(TypeError, match="pickle"):
            copy.deepcopy(step)


# metadata


def test_weights_reach_the_steps_they_name(tasks):
    (X0, y0), (X1, y1) = tasks[:2]
    weight = np.arange(40.0)
    pipeline = make_continual_pipeline(StandardScaler(), quick())
    by_name = {
        "standardscaler__sample_weight": weight,
        "ewcregressor__sample_weight": weight,
        "ewcregressor__task_weight": 2.0,
    }
    pipeline.partial_fit(X0, y0, **by_name).partial_fit(X1, y1, **by_name)
    scaler, net = StandardScaler().fit(X0, sample_weight=weight), quick()
    for X, y in tasks[:2]:
        net.partial_fit(scaler.transform(X), y, sample_weight=weight, task_weight=2.0)
    np.testing.assert_array_equal(parameters(pipeline[-1]), parameters(net))
    assert pipeline[-1].memory_.tasks[1].weight == 2.0


def test_weights_without_a_step_are_the_final_steps(tasks):
    weight = np.arange(40.0)
    bare = make_continual_pipeline(StandardScaler(), quick())
    named = clone(bare)
    for X, y in tasks[:2]:
        bare.partial_fit(X, y, sample_weight=weight, task_weight=2.0)
        named.partial_fit(X, y, ewcregressor__sample_weight=weight, ewcregressor__task_weight=2.0)
    np.testing.assert_array_equal(parameters(bare[-1]), parameters(named[-1]))
    assert bare.memory_.tasks[1].weight == 2.0


def test_what_no_step_takes_is_refused_by_the_final_one(tasks):
    X, y = tasks[0]
    pipeline = make_continual_pipeline(StandardScaler(), quick())
    for method in ("fit", "partial_fit"):
        with pytest.raises(TypeError, match="colour"):
            getattr(pipeline, method)(X, y, colour="red")
        with pytest.raises(TypeError, match="sample_weight is given twice"):
            getattr(pipeline, method)(
                X, y, sample_weight=np.ones(40), ewcregressor__sample_weight=np.ones(40)
            )


@pytest.mark.parametrize("update", [False, True])
def test_weights_are_routed_to_the_steps_that_request_them(tasks, update):
    weight, other = np.arange(40.0), np.arange(40.0)[::-1]
    with sklearn.config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight="of_inputs")
        scaler.set_partial_fit_request(sample_weight="of_inputs")
        net = quick().set_partial_fit_request(sample_weight=True)
        pipeline = make_continual_pipeline(scaler, net, update_transformers=update)
        for X, y in tasks[:2]:
            pipeline.partial_fit(X, y, sample_weight=weight, of_inputs=other)
    expected_scaler, expected = StandardScaler(), quick()
    for number, (X, y) in enumerate(tasks[:2]):
        if number == 0 or update:
            expected_scaler.partial_fit(X, sample_weight=other)
        expected.partial_fit(expected_scaler.transform(X), y, sample_weight=weight)
    np.testing.assert_array_equal(parameters(net), parameters(expected))


def test_what_no_step_has_requested_is_refused(tasks):
    X, y = tasks[0]
    with sklearn.config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_continual_pipeline(scaler, quick())
        with pytest.raises(TypeError, match=r"ContinualPipeline.partial_fit.*\{'colour'\}"):
            pipeline.partial_fit(X, y, colour="red")
        with pytest.raises(UnsetMetadataPassedError, match=r"EWCRegressor.partial_fit"):
            pipeline.partial_fit(X, y, sample_weight=np.ones(40))
        assert not hasattr(scaler, "mean_")
        pipeline[-1].set_partial_fit_request(sample_weight=True)
        pipeline.partial_fit(X, y, sample_weight=np.ones(40))


def test_the_routing_of_partial_fit_can_be_asked_for():
    with sklearn.config_context(enable_metadata_routing=True):
        net = quick().set_partial_fit_request(sample_weight=True, task_weight="of_task")
        scaler = StandardScaler().set_partial_fit_request(sample_weight="of_inputs")
        pipeline = make_continual_pipeline(scaler, None, net)
        names = ["sample_weight", "of_task", "of_inputs", "colour"]
        consumed = pipeline.get_metadata_routing().consumes("partial_fit", names)
        assert consumed == {"sample_weight", "of_task"}
        pipeline.set_params(update_transformers=True)
        consumed = pipeline.get_metadata_routing().consumes("partial_fit", names)
        assert consumed == {"sample_weight", "of_task", "of_inputs"}


def test_weights_are_routed_through_a_pipeline_within_a_pipeline(tasks):
    weight = np.arange(40.0)
    with sklearn.config_context(enable_metadata_routing=True):
        net = quick().set_partial_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        nested = make_continual_pipeline(
            FunctionTransformer(), make_continual_pipeline(scaler, net)
        )
        for X, y in tasks[:2]:
            nested.partial_fit(X, y, sample_weight=weight)
    flat = make_continual_pipeline(StandardScaler(), quick())
    for X, y in tasks[:2]:
        flat.partial_fit(X, y, ewcregressor__sample_weight=weight)
    np.testing.assert_array_equal(parameters(net), parameters(flat[-1]))


def test_inputs_among_the_metadata_are_transformed_too(tasks):
    class Watching(RegressorMixin, BaseEstimator):
        def fit(self, X, y):
            return self

        def partial_fit(self, X, y, X_valid=None):
            self.X_valid_ = X_valid
            return self

    (X0, y0), (X1, y1) = tasks[:2]
    with sklearn.config_context(enable_metadata_routing=True):
        watching = Watching().set_partial_fit_request(X_valid=True)
        pipeline = make_continual_pipeline(StandardScaler(), watching, transform_input=["X_valid"])
        scaler = StandardScaler().fit(X0)
        for X, y in [(X0, y0), (X1, y1)]:
            pipeline.partial_fit(X, y, X_valid=X[:5])
            np.testing.assert_array_equal(watching.X_valid_, scaler.transform(X[:5]))


@pytest.mark.parametrize("update", [False, True])
def test_what_transform_requests_reaches_it_on_every_task(tasks, update):
    class Shift(BaseEstimator):
        def fit(self, X, y=None):
            return self

        partial_fit = fit

        def transform(self, X, shift=0.0):
            return X + shift

        def __sklearn_is_fitted__(self):
            return True

    with sklearn.config_context(enable_metadata_routing=True):
        shift = Shift().set_transform_request(shift=True)
        pipeline = make_continual_pipeline(shift, quick(), update_transformers=update)
        for X, y in tasks[:2]:
            pipeline.partial_fit(X, y, shift=2.0)
    by_hand = learn(quick(), [(X + 2.0, y) for X, y in tasks[:2]])
    np.testing.assert_array_equal(parameters(pipeline[-1]), parameters(by_hand))


# what else a Pipeline does


@pytest.mark.parametrize("absent", ["passthrough", None])
def test_an_absent_step_lets_the_data_through(tasks, absent):
    pipeline = learn(make_continual_pipeline(absent, StandardScaler(), absent, quick()), tasks[:2])
    expected = learn(make_continual_pipeline(StandardScaler(), quick()), tasks[:2])
    np.testing.assert_array_equal(parameters(pipeline[-1]), parameters(expected[-1]))


def test_a_net_alone_is_a_pipeline(tasks):
    pipeline = learn(make_continual_pipeline(quick()), tasks)
    np.testing.assert_array_equal(parameters(pipeline[-1]), parameters(learn(quick(), tasks)))


@pytest.mark.parametrize("final", [Ridge(), "passthrough", None], ids=str)
def test_there_is_no_partial_fit_where_the_final_step_has_none(tasks, final):
    pipeline = make_continual_pipeline(StandardScaler(), final)
    assert not hasattr(pipeline, "partial_fit")
    with pytest.raises(AttributeError, match="This 'ContinualPipeline' has no attribute 'part"):
        pipeline.partial_fit(*tasks[0])
    pipeline.fit(*tasks[0])


def test_there_is_no_partial_fit_in_an_empty_pipeline():
    assert not hasattr(ContinualPipeline([]), "partial_fit")


def test_a_class_in_place_of_an_instance_is_named(tasks):
    steps = [("net", EWCRegressor)]
    with pytest.raises((TypeError, AttributeError)) as plain:
        Pipeline(steps).fit(*tasks[0])
    with pytest.raises(plain.type) as ours:
        ContinualPipeline(steps).fit(*tasks[0])
    assert str(ours.value) == str(plain.value)
    with pytest.raises(TypeError, match="EWCRegressor.*class"):
        ContinualPipeline(steps).partial_fit(*tasks[0])


def test_any_estimator_with_partial_fit_learns_in_it(table):
    X, y, _ = table
    regressor = make_continual_pipeline(StandardScaler(), SGDRegressor(random_state=0))
    classifier = make_continual_pipeline(StandardScaler(), SGDClassifier(random_state=0))
    scaler = StandardScaler().fit(X)
    expected = SGDRegressor(random_state=0)
    for sign in (1, -1):
        regressor.partial_fit(sign * X, y)
        expected.partial_fit(scaler.transform(sign * X), y)
        classifier.partial_fit(sign * X, sign * y > 0, sgdclassifier__classes=[False, True])
    np.testing.assert_array_equal(regressor[-1].coef_, expected.coef_)
    assert classifier.classes_.tolist() == [False, True]


def test_a_slice_is_a_continual_pipeline():
    pipeline = make_continual_pipeline(
        StandardScaler(), PCA(), quick(), update_transformers=True, verbose=True
    )
    part = pipeline[1:]
    assert type(part) is ContinualPipeline
    assert part.update_transformers
    assert part.verbose
    assert [name for name, _ in part.steps] == ["pca", "ewcregressor"]
    assert pipeline["pca"] is pipeline[1] is part[0]


def test_parameters_of_steps_are_set_between_tasks(tasks):
    pipeline = make_continual_pipeline(StandardScaler(), quick()).partial_fit(*tasks[0])
    pipeline.set_params(ewcregressor__ewc_lambda=100.0).partial_fit(*tasks[1])
    constant = make_continual_pipeline(StandardScaler(), quick(ewc_lambda=100.0))
    learn(constant, tasks[:2])
    np.testing.assert_array_equal(parameters(pipeline[-1]), parameters(constant[-1]))


def test_the_output_between_steps_may_be_a_dataframe(table):
    X, y, _ = table
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    pipeline = make_continual_pipeline(StandardScaler(), quick()).set_output(transform="pandas")
    pipeline.partial_fit(frame, y).partial_fit(frame, y)
    assert pipeline[-1].feature_names_in_.tolist() == ["a", "b", "c"]
    assert isinstance(pipeline[:-1].transform(frame), pd.DataFrame)


def test_transformers_are_cached_and_never_fitted_in_place_then(tasks, tmp_path):
    Counting.n_fits = 0
    counting = Counting()
    for _ in range(2):
        pipeline = make_continual_pipeline(counting, quick(), memory=str(tmp_path))
        learn(pipeline, tasks[:3])
    assert Counting.n_fits == 1
    assert not hasattr(counting, "fitted_")
    assert pipeline[0] is not counting
    assert pipeline[-1].n_tasks_ == 3


def test_it_shows_its_steps_and_their_times(tasks, capsys):
    pipeline = make_continual_pipeline(StandardScaler(), quick(), verbose=True)
    assert "EWCRegressor" in pipeline._repr_html_()
    assert repr(pipeline).startswith("ContinualPipeline(steps=[('standardscaler',")
    learn(pipeline, tasks[:2])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(")")[1].split(",")[0] for line in lines] == [
        " Processing standardscaler",
        " Processing ewcregressor",
    ] * 2


def test_lambda_is_chosen_over_tasks_that_arrive_in_one_table(table):
    X, y, task = table
    grid = {"ewcregressor__ewc_lambda": [0.0, 10.0], "update_transformers": [False, True]}
    pipeline = make_continual_pipeline(StandardScaler(), quick())
    search = GridSearchCV(pipeline, grid, cv=KFold(2)).fit(X, y, task=task)
    assert search.best_estimator_.n_tasks_ == 3
    for candidate, score in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        scores = []
        for train, test in KFold(2).split(X):
            deployed = clone(pipeline).set_params(**candidate)
            for label in "abc":
                rows = train[task[train] == label]
                deployed.partial_fit(X[rows], y[rows])
            scores.append(deployed.score(X[test], y[test]))
        assert score == np.mean(scores)
    assert search.best_estimator_.partial_fit(X, y)[-1].n_tasks_ == 4
