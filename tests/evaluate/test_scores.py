"""Scores after each task, and the measures of them."""

import time

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.linear_model import LinearRegression, SGDRegressor
from sklearn.metrics import make_scorer, mean_absolute_error, mean_squared_error, r2_score
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetRegressor
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit

from sklearn_ewc import MLP, EWCRegressor
from sklearn_ewc.evaluate import (
    GapClosed,
    TaskScores,
    average_score,
    backward_transfer,
    forgetting,
    forward_transfer,
    gap_closed,
    gap_closed_by,
    task_scores,
)
from sklearn_ewc.evaluate import scores as scores_module

from ..helpers import learn, parameters, quick, unscaled


class FrozenPipeline(Pipeline):
    """A pipeline that fits its transformers on the first task only."""

    def partial_fit(self, X, y):
        *transformers, (_, learner) = self.steps
        for _, transformer in transformers:
            if not hasattr(transformer, "n_features_in_"):
                transformer.fit(X, y)
            X = transformer.transform(X)
        learner.partial_fit(X, y)
        return self


def scaled(estimator):
    return FrozenPipeline([("scale", StandardScaler()), ("learn", estimator)])


def task_scores_of(scores, untrained=None):
    n_tasks = len(scores)
    return TaskScores(
        scores=np.array(scores),
        untrained=np.zeros(n_tasks) if untrained is None else np.array(untrained),
        names=tuple(f"task {number}" for number in range(1, n_tasks + 1)),
        times=np.ones(n_tasks),
        estimator=None,
        scoring="R²",
    )


# Worked by hand
# R = 0.8 0.1 0.2    average: (0.5 + 0.6 + 0.9) / 3
#     0.9 0.7 0.4    backward: ((0.5 − 0.8) + (0.6 − 0.7)) / 2
#     0.5 0.6 0.9    forgetting: ((0.9 − 0.5) + (0.7 − 0.6)) / 2
# b = 0.3 0.2 −0.1   forward: ((0.1 − 0.2) + (0.4 + 0.1)) / 2
THREE = [[0.8, 0.1, 0.2], [0.9, 0.7, 0.4], [0.5, 0.6, 0.9]], [0.3, 0.2, -0.1]
# R = 1 9 0 0   average: (3 + 4 + 5 + 8) / 4
#     2 6 0 0   backward: ((3 − 1) + (4 − 6) + (5 − 7)) / 3
#     0 5 7 4   forgetting: ((2 − 3) + (9 − 4) + (7 − 5)) / 3
#     3 4 5 8   b = 5 1 2 −3   forward: ((9 − 1) + (0 − 2) + (4 + 3)) / 3
FOUR = [[1, 9, 0, 0], [2, 6, 0, 0], [0, 5, 7, 4], [3, 4, 5, 8]], [5, 1, 2, -3]
WORKED = [
    (average_score, 2 / 3, 5),
    (backward_transfer, -0.2, -2 / 3),
    (forgetting, 0.25, 2),
    (forward_transfer, 0.2, 13 / 3),
]


@pytest.mark.parametrize(("measure", "of_three", "of_four"), WORKED)
def test_a_measure_equals_what_was_worked_by_hand(measure, of_three, of_four):
    for (matrix, untrained), expected in ((THREE, of_three), (FOUR, of_four)):
        options = {"untrained": untrained} if measure is forward_transfer else {}
        assert measure(matrix, **options) == pytest.approx(expected)
        found = measure(task_scores_of(matrix, untrained))
        assert isinstance(found, float)
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("measure", [backward_transfer, forgetting, forward_transfer])
def test_what_one_task_leaves_undefined_is_refused(measure):
    with pytest.raises(ValueError, match="undefined for one task"):
        measure(task_scores_of([[0.5]]))


def test_the_average_over_one_task_is_its_score():
    assert average_score([[0.5]]) == 0.5


@pytest.mark.parametrize("measure", [case[0] for case in WORKED])
@pytest.mark.parametrize("shape", [(3,), (3, 2), (0, 0), (2, 2, 2)])
def test_what_is_no_square_matrix_is_refused(measure, shape):
    with pytest.raises(ValueError, match="scores must be a square matrix"):
        measure(np.zeros(shape))


def test_forward_transfer_of_a_bare_matrix_needs_the_untrained_scores():
    with pytest.raises(ValueError, match="needs untrained"):
        forward_transfer(THREE[0])
    with pytest.raises(ValueError, match="untrained has shape"):
        forward_transfer(THREE[0], untrained=[0.0, 0.1])


def test_untrained_scores_that_are_given_count_before_those_that_are_there():
    scores = task_scores_of(*THREE)
    assert forward_transfer(scores, untrained=[0, 0, 0]) == pytest.approx((0.1 + 0.4) / 2)


# task_scores

ESTIMATORS = [
    quick(),
    quick(fisher="empirical", store_tasks=False),
    scaled(quick()),
    scaled(scaled(quick())),
    SGDRegressor(random_state=0),
    MLPRegressor(hidden_layer_sizes=(8,), random_state=0),
    scaled(SGDRegressor(random_state=0)),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: type(one).__name__)
def test_a_score_is_that_of_an_estimator_that_learned_the_tasks_so_far(estimator, tasks):
    result = task_scores(estimator, tasks, test_tasks=tasks[::-1])
    for i in range(4):
        learned = learn(clone(estimator), tasks[: i + 1])
        expected = [r2_score(y, learned.predict(X)) for X, y in tasks[::-1]]
        np.testing.assert_allclose(result.scores[i], expected, rtol=1e-12)
    np.testing.assert_array_equal(
        result.estimator.predict(tasks[0][0]), learned.predict(tasks[0][0])
    )
    assert (result.names, result.scoring) == (("task 1", "task 2", "task 3", "task 4"), "R²")


def test_the_estimator_itself_is_not_changed(tasks):
    net = quick().partial_fit(*tasks[0])
    before = parameters(net)
    result = task_scores(net, tasks[1:])
    gap_closed_by(net, tasks[1:])
    assert (net.n_tasks_, result.estimator.n_tasks_) == (1, 3)
    assert (net.max_epochs, net.ewc_lambda) == (5, 3.0)
    torch.testing.assert_close(parameters(net), before, rtol=0, atol=0)


def test_without_test_tasks_the_training_data_are_scored(tasks):
    one, other = task_scores(quick(), tasks), task_scores(quick(), tasks, test_tasks=tasks)
    np.testing.assert_array_equal(one.scores, other.scores)


def test_tasks_in_a_dict_are_named_and_their_test_data_found_by_name(tasks):
    named = dict(zip("abcd", tasks, strict=True))
    result = task_scores(quick(), named, test_tasks=dict(reversed(named.items())))
    assert result.names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(result.scores, task_scores(quick(), tasks).scores)
    in_order = task_scores(quick(), named, test_tasks=tasks[::-1])
    np.testing.assert_array_equal(in_order.scores, result.scores[:, ::-1])


def test_names_that_are_no_strings_become_strings(tasks):
    assert task_scores(quick(), dict(enumerate(tasks))).names == ("0", "1", "2", "3")


class Clocked(RegressorMixin, BaseEstimator):
    """Learns for as many seconds as there are samples, predicts for a hundred."""

    now = 0.0

    def fit(self, X, y):
        return self.partial_fit(X, y)

    def partial_fit(self, X, y):
        Clocked.now += len(X)
        return self

    def predict(self, X):
        Clocked.now += 100
        return np.zeros(len(X))


def test_times_are_those_of_learning_alone(monkeypatch, tasks):
    monkeypatch.setattr(scores_module, "perf_counter", lambda: Clocked.now)
    halves = [(X[: 10 * k], y[: 10 * k]) for k, (X, y) in enumerate(tasks, start=1)]
    np.testing.assert_array_equal(task_scores(Clocked(), halves).times, [10, 20, 30, 40])


def test_times_are_in_seconds(tasks):
    start = time.perf_counter()
    times = task_scores(quick(), tasks).times
    assert (times > 0).all()
    assert times.sum() < time.perf_counter() - start


# the untrained row


def initial(estimator, tasks, **step):
    """A clone that has learned in vain, its learning rate 0."""
    return clone(estimator).set_params(**step).partial_fit(*tasks[0])


@pytest.mark.parametrize(("wrap", "prefix"), [(lambda one: one, ""), (scaled, "learn__")])
def test_the_untrained_row_of_a_net_is_its_initial_network(wrap, prefix, tasks):
    estimator = wrap(quick())
    still = initial(estimator, tasks, **{f"{prefix}lr": 0.0})
    expected = [still.score(X, y) for X, y in tasks]
    np.testing.assert_allclose(task_scores(estimator, tasks).untrained, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"criterion": torch.nn.HuberLoss},  # its exact Fisher is zero far from the data
        {"train_split": ValidSplit(5), "callbacks": [EarlyStopping(load_best=True)]},
        {
            "train_split": ValidSplit(5),
            "callbacks": [("stop", EarlyStopping(load_best=True))],
            "callbacks__stop__patience": 3,
        },
    ],
    ids=["without curvature", "with a best epoch", "with a callback's parameter"],
)
def test_there_is_an_untrained_network_also(settings, tasks):
    far = [(X, y + 5) for X, y in tasks]
    net = quick(lr=0.1, **settings)
    still = initial(quick(), far, lr=0.0)
    expected = [still.score(X, y) for X, y in far]
    np.testing.assert_allclose(task_scores(net, far).untrained, expected, rtol=1e-9)


def test_a_plain_skorch_net_has_an_untrained_network_too(tasks):
    tasks = [(X.astype("float32"), y.astype("float32").reshape(-1, 1)) for X, y in tasks]
    net = NeuralNetRegressor(MLP(1), max_epochs=1, verbose=0)
    still = clone(net).initialize()
    expected = [still.score(X, y) for X, y in tasks]
    np.testing.assert_allclose(task_scores(net, tasks).untrained, expected, rtol=1e-6)


def test_the_untrained_row_of_other_estimators_is_the_mean_of_the_first_task(tasks):
    mean = tasks[0][1].mean()
    expected = [-np.mean((y - mean) ** 2) for _, y in tasks]
    for estimator in (
        SGDRegressor(),
        scaled(SGDRegressor()),
        MLPRegressor(hidden_layer_sizes=(8,)),
    ):
        result = task_scores(estimator, tasks, scoring="neg_mean_squared_error")
        np.testing.assert_allclose(result.untrained, expected)


# scoring


def worst(estimator, X, y):
    return -np.abs(estimator.predict(X) - y).max()


@pytest.mark.parametrize(
    ("scoring", "expected", "label"),
    [
        ("neg_mean_absolute_error", lambda y, z: -mean_absolute_error(y, z), None),
        (worst, lambda y, z: -np.abs(y - z).max(), "worst"),
        (make_scorer(mean_squared_error), mean_squared_error, "make_scorer(mean_squared_error"),
        (None, r2_score, "R²"),
    ],
)
def test_scores_are_those_of_the_scorer(scoring, expected, label, tasks):
    result = task_scores(quick(), tasks, scoring=scoring)
    values = [expected(y, result.estimator.predict(X)) for X, y in tasks]
    np.testing.assert_allclose(result.scores[-1], values, rtol=1e-12)
    assert result.scoring.startswith(label or scoring)


class OwnScore(BaseEstimator):
    """Scores in its own way, and is no regressor."""

    def fit(self, X, y):
        return self

    def partial_fit(self, X, y):
        return self

    def score(self, X, y):
        return 7.0


def test_a_score_of_its_own_is_named_after_the_estimator(tasks):
    result = task_scores(OwnScore(), tasks)
    assert result.scoring == "OwnScore.score"
    assert (result.scores == 7).all()


# what is wrong


@pytest.mark.parametrize("function", [task_scores, gap_closed_by])
def test_an_estimator_that_cannot_go_on_learning_is_named(function, tasks):
    with pytest.raises(TypeError, match="LinearRegression has no partial_fit"):
        function(LinearRegression(), tasks)


PAIR = (np.zeros((2, 1)), np.zeros(2))


@pytest.mark.parametrize("function", [task_scores, gap_closed_by])
@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "^tasks is empty", {"tasks": []}),
        (ValueError, "^tasks is empty", {"tasks": {}}),
        (TypeError, "^tasks must be a sequence or dict", {"tasks": 3}),
        (TypeError, "^tasks must hold pairs .* 'task 1' is not one", {"tasks": PAIR}),
        (TypeError, "^tasks must hold pairs .* 'task 2'", {"tasks": [PAIR, (*PAIR, PAIR[1])]}),
        (TypeError, "^tasks must hold pairs .* 'a'", {"tasks": {"a": PAIR[0]}}),
        (ValueError, "^test_tasks is empty", {"tasks": [PAIR], "test_tasks": []}),
        (TypeError, "^test_tasks must hold pairs", {"tasks": [PAIR], "test_tasks": PAIR}),
        (
            ValueError,
            "^test_tasks has 2 .* tasks has 1",
            {"tasks": [PAIR], "test_tasks": [PAIR] * 2},
        ),
        (ValueError, "^test_tasks lacks 'a'", {"tasks": {"a": PAIR}, "test_tasks": {"b": PAIR}}),
        (TypeError, "^scoring must be None", {"tasks": [PAIR], "scoring": ["r2", "max_error"]}),
        (TypeError, "^scoring must return a number", {"tasks": [PAIR], "scoring": lambda *_: {}}),
    ],
)
def test_an_argument_that_means_nothing_is_named(function, error, message, arguments):
    with pytest.raises(error, match=message):
        function(quick(), **arguments)


# the data frame


def test_the_data_frame_has_the_untrained_row_and_one_for_each_task_learned(tasks):
    result = task_scores(quick(), {"first": tasks[0], "second": tasks[1]})
    frame = result.to_frame()
    assert frame.index.tolist() == ["untrained", "first", "second"]
    assert frame.columns.tolist() == ["first", "second"]
    np.testing.assert_array_equal(frame.loc["untrained"], result.untrained)
    np.testing.assert_array_equal(frame.loc["second"], result.scores[1])


# the gap


def test_the_gap_closed_is_the_place_between_the_two_ends():
    assert gap_closed(0.5, sequential=0.2, joint=0.8) == pytest.approx(0.5)
    assert gap_closed(-0.1, sequential=0.2, joint=0.8) == pytest.approx(-0.5)
    assert gap_closed(0.95, sequential=0.2, joint=0.8) == pytest.approx(1.25)


def test_the_gap_closed_takes_the_average_of_task_scores():
    ends = task_scores_of([[0.9, 0.0], [0.1, 0.3]]), task_scores_of([[0.9, 0.0], [0.7, 0.9]])
    assert gap_closed(task_scores_of([[0.9, 0.0], [0.4, 0.6]]), *ends) == pytest.approx(0.5)
    assert gap_closed(0.5, ends[0], 0.8) == pytest.approx(0.5)


@pytest.mark.parametrize("joint", [0.2, 0.1, np.nan])
def test_without_a_gap_there_is_nothing_to_close(joint):
    with pytest.warns(UserWarning, match="no gap to close"):
        assert np.isnan(gap_closed(0.5, sequential=0.2, joint=joint))


@pytest.mark.parametrize(("wrap", "prefix"), [(lambda one: one, ""), (scaled, "learn__")])
def test_both_ends_of_the_gap_are_the_same_net_without_penalty_and_with_all_data(
    wrap, prefix, tasks
):
    net = wrap(quick(lr=0.01, max_epochs=30, ewc_lambda=30))
    held_out = [(X[::-1] + 0.01, y[::-1]) for X, y in tasks]
    result = gap_closed_by(net, tasks, test_tasks=held_out, scoring="neg_mean_squared_error")

    def error(learner):
        return np.mean([mean_squared_error(y, learner.predict(X)) for X, y in held_out])

    without = clone(net).set_params(**{f"{prefix}ewc_lambda": 0})
    everything = [np.concatenate(part) for part in zip(*tasks, strict=True)]
    assert result.score == pytest.approx(-error(learn(clone(net), tasks)))
    assert result.sequential == pytest.approx(-error(learn(without, tasks)))
    assert result.joint == pytest.approx(-error(clone(net).fit(*everything)))
    assert result.gap_closed == gap_closed(result.score, result.sequential, result.joint)
    assert 0 < result.gap_closed < 1


def test_the_score_of_the_gap_is_the_average_of_the_task_scores(tasks):
    net = quick(lr=0.01, max_epochs=30)
    assert gap_closed_by(net, tasks).score == average_score(task_scores(net, tasks))


def test_no_penalty_closes_no_gap(tasks):
    assert gap_closed_by(quick(lr=0.01, max_epochs=30, ewc_lambda=0), tasks).gap_closed == 0


def test_an_estimator_without_a_penalty_has_no_ends(tasks):
    with pytest.raises(TypeError, match="SGDRegressor has no parameter ewc_lambda"):
        gap_closed_by(SGDRegressor(), tasks)


def as_frames(X, y):
    return pd.DataFrame(X, columns=["x"]), pd.Series(y)


def as_lists(X, y):
    return X.tolist(), y.tolist()


@pytest.mark.parametrize("form", [as_frames, as_lists])
def test_data_frames_and_lists_give_the_scores_of_arrays(form, tasks):
    net = quick(lr=0.01, max_epochs=30)
    others = [form(X, y) for X, y in tasks]
    expected = task_scores(net, tasks)
    np.testing.assert_array_equal(task_scores(net, others).scores, expected.scores)
    assert gap_closed_by(net, others) == gap_closed_by(net, tasks)


class Sum(torch.nn.Module):
    """Takes its inputs by name."""

    def __init__(self):
        super().__init__()
        self.left, self.right = MLP(1, 1, (8,)), MLP(1, 1, (8,))

    def forward(self, left, right):
        return self.left(left) + self.right(right)


def test_inputs_in_a_dict_are_joined_name_by_name(tasks):
    named = [({"left": X, "right": X**2}, y) for X, y in tasks]
    net = EWCRegressor(Sum, lr=0.01, max_epochs=30, random_state=0)
    result = gap_closed_by(net, named)
    assert isinstance(result, GapClosed)
    joined = {key: np.concatenate([X[key] for X, _ in named]) for key in ("left", "right")}
    joint = clone(net).fit(joined, np.concatenate([y for _, y in tasks]))
    expected = np.mean([joint.score(X, y) for X, y in named])
    assert result.joint == pytest.approx(expected)


def test_polars_frames_are_joined_by_rows(tasks):
    frames = [(pl.DataFrame(X, schema=["x"]), pl.Series(y)) for X, y in tasks[:2]]
    assert gap_closed_by(unscaled(), frames) == gap_closed_by(unscaled(), tasks[:2])


def test_a_line_for_each_task_tells_how_far_it_is(tasks, capsys):
    named = {"north": tasks[0], "south": tasks[1]}
    task_scores(quick(), named)
    assert capsys.readouterr().out == ""
    scores = task_scores(quick(), named, verbose=1).scores
    title, first, second = capsys.readouterr().out.splitlines()
    assert title == "task_scores: 2 tasks"
    assert first.startswith(f"[1/2] north: average score {scores[0].mean():.3g} (")
    assert first.endswith("s left)")
    assert second.startswith("[2/2] south: ")


def test_a_line_for_each_task_of_each_way_to_learn_tells_how_far_it_is(tasks, capsys):
    gap_closed_by(unscaled(), tasks[:2], verbose=1)
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "gap_closed_by: 2 tasks, 3 times"
    assert [line.split(" (")[0] for line in lines] == [
        "[1/6] as it is: task 1",
        "[2/6] as it is: task 2",
        "[3/6] without a penalty: task 1",
        "[4/6] without a penalty: task 2",
        "[6/6] at once: all tasks",
    ]
