"""The pictures: what is drawn, by the artists that hold it."""

import itertools
import sys
from dataclasses import replace
from importlib import import_module

import matplotlib as mpl
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

import sklearn_ewc
from sklearn_ewc import (
    ContinualTargetRegressor,
    Memory,
    Task,
    TaskKFold,
    make_continual_pipeline,
)
from sklearn_ewc.display import (
    FisherDisplay,
    LambdaDisplay,
    LossCurveDisplay,
    MemoryDisplay,
    TaskScoresDisplay,
)
from sklearn_ewc.evaluate import TaskScores, task_scores

from ..helpers import learn, quick

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def scores_of(n_tasks, scoring="R²"):
    rng = np.random.RandomState(0)
    names = tuple(f"task {k}" for k in range(1, n_tasks + 1))
    matrix = rng.uniform(0.2, 0.9, (n_tasks, n_tasks))
    return TaskScores(matrix, np.zeros(n_tasks), names, np.ones(n_tasks), None, scoring)


def shown_labels(axis):
    axis.figure.canvas.draw()
    return [label for label in axis.get_ticklabels() if label.get_text()]


def overlap(labels):
    """Tell whether labels that are not turned cover each other."""
    boxes = [label.get_window_extent() for label in labels if label.get_rotation() == 0]
    return any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


# scores on tasks


@pytest.mark.parametrize("n_tasks", [1, 2, 4, 30])
def test_a_line_follows_each_task_from_when_it_was_learned(n_tasks):
    scores = scores_of(n_tasks)
    display = TaskScoresDisplay.from_scores(scores)
    assert len(display.lines_) == n_tasks
    for j, line in enumerate(display.lines_):
        assert line.get_xdata().tolist() == list(range(j + 1, n_tasks + 1))
        assert line.get_ydata().tolist() == scores.scores[j:, j].tolist()
    means = [scores.scores[i, : i + 1].mean() for i in range(n_tasks)]
    assert display.mean_line_.get_ydata() == pytest.approx(means)
    labels = shown_labels(display.ax_.xaxis)
    assert [labels[0].get_text(), labels[-1].get_text()] == ["task 1", f"task {n_tasks}"]
    assert not overlap(labels)


def test_names_are_left_out_at_even_steps():
    names = [str(number) for number in range(1, 31)]
    _, ax = plt.subplots(figsize=(5.6, 4))
    display = TaskScoresDisplay.from_scores(replace(scores_of(30), names=names), ax=ax)
    shown = [int(label.get_text()) for label in shown_labels(display.ax_.xaxis)]
    steps = np.diff(shown)[:-1]  # the last name is there in any case
    assert len(steps) > 2
    assert len(set(steps)) == 1


def test_few_tasks_have_a_legend_and_many_a_colour_bar():
    few, many = (TaskScoresDisplay.from_scores(scores_of(n)) for n in (4, 30))
    names = [text.get_text() for text in few.ax_.get_legend().get_texts()]
    assert names == ["task 1", "task 2", "task 3", "task 4", "mean so far"]
    assert few.colorbar_ is None
    assert len(many.ax_.get_legend().get_texts()) == 1
    labels = [label.get_text() for label in many.colorbar_.ax.get_yticklabels()]
    assert labels == ["task 1", "task 15", "task 30"]


@pytest.mark.parametrize("n_tasks", [2, 4, 30])
def test_the_matrix_shows_every_score_with_its_number_where_there_is_room(n_tasks):
    scores = scores_of(n_tasks)
    display = TaskScoresDisplay.from_scores(scores, kind="matrix")
    assert np.array_equal(display.image_.get_array(), scores.scores)
    numbers = [text.get_text() for text in display.texts_]
    assert numbers in ([f"{value:.2f}" for value in scores.scores.flat], [])
    assert bool(numbers) == (n_tasks < 30)
    assert not overlap(shown_labels(display.ax_.xaxis))


def test_one_bad_score_does_not_take_the_colours_of_all_others():
    scores = scores_of(4)
    scores.scores[0, 3] = -1000.0
    scores.scores[1, 3] = np.nan
    display = TaskScoresDisplay.from_scores(scores, kind="matrix")
    assert -1.0 < display.image_.norm.vmin < display.image_.norm.vmax < 1.0
    assert display.colorbar_.extend == "min"
    assert [display.texts_[k].get_text() for k in (3, 7)] == ["−1000.00", "nan"]


def test_names_that_do_not_fit_side_by_side_are_turned():
    n_tasks = 12
    names = [f"a long name {k}" for k in range(n_tasks)]
    display = TaskScoresDisplay.from_scores(replace(scores_of(n_tasks), names=names), kind="matrix")
    labels = shown_labels(display.ax_.xaxis)
    assert len(labels) == n_tasks
    assert {label.get_rotation() for label in labels} == {45}
    assert {label.get_rotation() for label in shown_labels(display.ax_.yaxis)} == {0}


def test_scores_are_computed_from_an_estimator(tasks):
    display = TaskScoresDisplay.from_estimator(quick(), tasks[:2], scoring="neg_mean_squared_error")
    expected = task_scores(quick(), tasks[:2], scoring="neg_mean_squared_error")
    assert np.array_equal(display.scores.scores, expected.scores)
    assert "negative mean squared error" in display.ax_.get_ylabel()


def test_an_unknown_kind_is_refused_before_anything_is_learned(tasks):
    with pytest.raises(ValueError, match="kind must be 'lines' or 'matrix', got 'heatmap'"):
        TaskScoresDisplay.from_estimator(None, tasks, kind="heatmap")


# losses


@pytest.mark.parametrize("wrap", ["net", "pipeline", "target"])
def test_loss_and_penalty_of_every_epoch_are_drawn_and_tasks_marked(tasks, wrap):
    net = quick(ewc_lambda=10.0)
    pipeline = make_continual_pipeline(StandardScaler(), net)
    estimator = {"net": net, "pipeline": pipeline, "target": ContinualTargetRegressor(pipeline)}[
        wrap
    ]
    for X, y in tasks[:3]:
        estimator.partial_fit(X, y)
    display = LossCurveDisplay.from_estimator(estimator)
    fitted = {"net": lambda: net, "pipeline": lambda: estimator[-1]}.get(
        wrap, lambda: estimator.regressor_[-1]
    )()
    assert display.train_line_.get_ydata().tolist() == fitted.history[:, "train_loss"]
    penalty = display.penalty_line_.get_ydata()
    assert np.isnan(penalty[:5]).all()  # 0 in the first task, which a logarithm has no place for
    assert penalty[5:].tolist() == fitted.history[5:, "penalty"]
    assert display.valid_line_ is None
    assert display.ax_.get_yscale() == "log"
    marks = [label.get_text() for label in shown_labels(display.task_axis_.xaxis)]
    assert marks == ["1", "2", "3"]


def test_a_validation_loss_is_drawn_where_there_is_one(tasks):
    def halves(dataset, y=None, **kwargs):
        return torch.utils.data.random_split(dataset, [0.5, 0.5], torch.Generator().manual_seed(0))

    net = quick(train_split=halves).partial_fit(*tasks[0])
    display = LossCurveDisplay.from_estimator(net)
    assert display.valid_line_.get_ydata().tolist() == net.history[:, "valid_loss"]


def test_losses_that_a_logarithm_has_no_place_for_are_drawn_on_a_linear_axis():
    display = LossCurveDisplay(tasks=[1, 2], train_loss=[0.5, -0.5], penalty=[0.0, 1.0]).plot()
    assert display.ax_.get_yscale() == "linear"
    assert display.penalty_line_.get_ydata().tolist() == [0.0, 1.0]


def test_a_penalty_of_next_to_nothing_does_not_squash_the_losses():
    display = LossCurveDisplay(tasks=[1, 2], train_loss=[1.0, 0.1], penalty=[0.0, 1e-20]).plot()
    assert display.ax_.get_ylim()[0] == pytest.approx(1e-4)


@pytest.mark.parametrize("least", [0.1, -1.0])
def test_the_legend_covers_no_curve(least):
    losses = np.tile([3.0, least], 20)
    display = LossCurveDisplay(tasks=np.ones(40), train_loss=losses, penalty=np.zeros(40)).plot()
    display.figure_.canvas.draw()
    legend = display.ax_.get_legend().get_window_extent()
    highest = display.ax_.transData.transform((1, 3.0))[1]
    assert legend.y0 > highest


def test_every_second_task_is_shaded():
    display = LossCurveDisplay(
        tasks=[1, 1, 2, 2, 2, 3, 4], train_loss=np.ones(7), penalty=np.ones(7)
    ).plot()
    spans = [patch.get_extents() for patch in display.ax_.patches]
    shaded = [display.ax_.transData.inverted().transform(span)[:, 0].tolist() for span in spans]
    assert np.allclose(shaded, [[2.5, 5.5], [6.5, 7.5]])


def test_thirty_tasks_have_readable_marks():
    display = LossCurveDisplay(
        tasks=np.repeat(np.arange(1, 31), 4), train_loss=np.ones(120), penalty=np.ones(120)
    ).plot()
    labels = shown_labels(display.task_axis_.xaxis)
    assert 5 < len(labels) <= 30
    assert not overlap(labels)


# importance


def test_each_column_is_a_tasks_shares_of_its_fisher(tasks):
    net = learn(quick(), tasks[:2])
    display = FisherDisplay.from_estimator(net)
    columns = display.image_.get_array()
    assert columns.shape == (len(display.names), 3)
    assert np.allclose(columns.sum(axis=0), 1.0)
    fisher = net.memory_.tasks[1].fisher
    total = sum(float(value.sum()) for value in fisher.values())
    expected = [float(fisher[name].sum()) / total for name in display.names]
    assert np.allclose(columns[:, 1], expected, rtol=1e-6)


def test_room_left_is_the_part_held_no_more_firmly_than_one_task_holds_on_average(tasks):
    net = learn(quick(), tasks[:3])
    display = FisherDisplay.from_estimator(net)
    stiffness = net.memory_.quadratic.curvature.diagonal()
    every = torch.cat([value.flatten() for value in stiffness.values()])
    for name, room, bar in zip(display.names, display.room, display.bars_, strict=True):
        free = (stiffness[name] <= every.mean() / 3).double().mean()
        assert room == pytest.approx(float(free))
        assert bar.get_width() == pytest.approx(room)


def test_room_online_counts_faded_tasks_for_less(tasks):
    net = learn(quick(mode="online", gamma=0.5), tasks[:3])
    stiffness = net.memory_.quadratic.curvature.diagonal()
    every = torch.cat([value.flatten() for value in stiffness.values()])
    expected = [
        float((value <= every.mean() / 1.75).double().mean()) for value in stiffness.values()
    ]
    assert FisherDisplay.from_estimator(net).room == pytest.approx(expected)


def test_a_task_that_froze_a_layer_has_no_share_there():
    ones = {"w": torch.ones(2), "b": torch.ones(1)}
    memory = Memory().consolidate(Task(ones, ones))
    memory = memory.consolidate(Task({"b": ones["b"]}, {"b": ones["b"]}))
    net = quick().fit(np.zeros((4, 1)), np.arange(4.0))
    net.memory_ = memory
    display = FisherDisplay.from_estimator(net)
    assert np.allclose(display.shares, [[2 / 3, 0], [1 / 3, 1]])
    assert np.allclose(display.total_share, [0.5, 0.5])


@pytest.mark.parametrize("n_tasks", [2, 29, 30])
def test_importance_of_many_tasks_has_a_colour_bar_for_its_numbers(n_tasks):
    shares = np.full((4, n_tasks), 0.25)
    display = FisherDisplay(
        names="abcd", sizes=[1] * 4, shares=shares, total_share=shares[:, 0], room=[0, 0.1, 0.5, 1]
    ).plot()
    assert bool(display.texts_) == (n_tasks == 2) == (display.colorbar_ is None)
    labels = shown_labels(display.share_ax_.xaxis)
    assert [labels[0].get_text(), labels[-1].get_text()] == ["1", "all"]
    assert not overlap(labels)
    percents = [label.get_text() for label in shown_labels(display.room_ax_.yaxis)]
    assert percents == ["0%", "10%", "50%", "100%"]
    assert display.room_ax_.get_title() == "room left: 40%"
    assert display.room_ax_.get_ylim() == display.share_ax_.get_ylim()


def test_without_stored_tasks_the_sums_alone_are_drawn(tasks):
    net = learn(quick(store_tasks=False), tasks[:3])
    assert FisherDisplay.from_estimator(net).image_.get_array().shape[1] == 1


# λ


def test_old_tasks_and_the_newest_are_drawn_over_lambda(tasks):
    lambdas = [30.0, 0.0, 1.0]
    display = LambdaDisplay.from_estimator(quick(), tasks[:3], lambdas=lambdas)
    old, newest = display.lines_
    assert old.get_xdata().tolist() == [0.0, 1.0, 30.0]
    for value, found in zip((0.0, 1.0, 30.0), old.get_ydata(), strict=True):
        last = task_scores(quick(ewc_lambda=value), tasks[:3]).scores[-1]
        assert found == pytest.approx(last[:2].mean())
    assert [line.get_label() for line in (old, newest)] == ["old tasks", "newest task"]
    assert [label.get_text() for label in shown_labels(display.ax_.xaxis)] == ["0", "1", "30"]


def test_a_search_is_drawn_with_its_spread(tasks):
    X, y = (np.concatenate(parts) for parts in zip(*tasks[:2], strict=True))
    task = np.repeat([0, 1], [len(y) for _, y in tasks[:2]])
    pipeline = make_continual_pipeline(StandardScaler(), quick())
    search = GridSearchCV(pipeline, {"ewcregressor__ewc_lambda": [0.0, 30.0]}, cv=TaskKFold(2))
    search.fit(X, y, groups=task, ewcregressor__task=task)
    display = LambdaDisplay.from_search(search)
    (line,) = display.lines_
    assert line.get_ydata().tolist() == search.cv_results_["mean_test_score"].tolist()
    assert len(display.bands_) == 1


@pytest.mark.parametrize(
    ("lambdas", "scale"), [([0, 1, 10], "symlog"), ([1, 10], "log"), ([0], "linear")]
)
def test_lambda_zero_has_its_place_left_of_the_logarithm(lambdas, scale):
    display = LambdaDisplay(lambdas, {"a": lambdas}).plot()
    assert display.ax_.get_xscale() == scale
    assert [label.get_text() for label in shown_labels(display.ax_.xaxis)] == [
        f"{value}" for value in lambdas
    ]


def searched(grid, **kwargs):
    def loss(net, X, y):
        if net.ewc_lambda == 7 or net.damping == 0.7:
            raise ValueError
        return net.ewc_lambda - 10 * net.damping

    scorer = {"scoring": loss, **kwargs}
    X, y = np.linspace(-1, 1, 8).reshape(-1, 1), np.linspace(0, 1, 8)
    search = GridSearchCV(quick(max_epochs=1), grid, cv=2, error_score=np.nan, **scorer)
    return search.fit(X, y, task=np.tile([0, 1], 4))


def test_of_several_candidates_with_one_lambda_the_best_is_drawn():
    grid = [{"ewc_lambda": [3.0, 1.0], "damping": [0.1, 0.2]}, {"damping": [0.0]}]
    display = LambdaDisplay.from_search(searched(grid))
    (line,) = display.lines_
    assert line.get_xdata().tolist() == [1.0, 3.0]
    assert line.get_ydata().tolist() == [0.0, 2.0]


def test_a_lambda_that_is_chosen_for_each_task_has_no_place_among_the_numbers():
    grid = {"ewc_lambda": ["auto", 3.0, 1.0]}
    (line,) = LambdaDisplay.from_search(searched(grid, scoring="r2")).lines_
    assert line.get_xdata().tolist() == [1.0, 3.0]


@pytest.mark.filterwarnings("ignore:Scoring failed", "ignore:One or more of the test")
def test_a_fit_that_failed_leaves_a_gap():
    grid = {"ewc_lambda": [1.0, 7.0, 3.0], "damping": [0.0, 0.7]}
    (line,) = LambdaDisplay.from_search(searched(grid)).lines_
    assert np.array_equal(line.get_ydata(), [1.0, 3.0, np.nan], equal_nan=True)


def test_of_several_scores_the_one_that_refit_names_is_drawn():
    scoring = ["r2", "neg_mean_squared_error"]
    grid = {"ewc_lambda": [1.0, 3.0]}
    search = searched(grid, scoring=scoring, refit="neg_mean_squared_error")
    display = LambdaDisplay.from_search(search)
    found = search.cv_results_["mean_test_neg_mean_squared_error"]
    assert display.scores["test score"].tolist() == found.tolist()
    assert display.ax_.get_ylabel() == "negative mean squared error"
    with pytest.raises(ValueError, match="refit must name the one to draw"):
        LambdaDisplay.from_search(searched(grid, scoring=scoring, refit=False))


def test_a_search_over_something_else_is_refused():
    with pytest.raises(ValueError, match="search must have one parameter ewc_lambda, found none"):
        LambdaDisplay.from_search(searched({"damping": [0.1]}))
    with pytest.raises(NotFittedError):
        LambdaDisplay.from_search(GridSearchCV(quick(), {"ewc_lambda": [1.0]}))


# what is stored


@pytest.mark.parametrize("curvature", ["diagonal", "kronecker"])
def test_bars_are_as_long_as_what_is_stored(tasks, curvature):
    net = learn(quick(curvature=curvature, replay="auto"), tasks[:3])
    display = MemoryDisplay.from_estimator(net)
    n_bytes = net.memory_.n_bytes
    assert display.n_bytes == n_bytes
    assert [bar.get_width() for bar in display.bars_] == [sum(n) for n in n_bytes.values()]
    assert [len(sizes) for sizes in n_bytes.values()] == [1, 3, 3]
    sums, single, inputs = (text.get_text() for text in display.texts_)
    assert sums.endswith("however many tasks")
    assert ", 3 × " in single
    assert ", 3 × " in inputs


def test_what_is_not_stored_has_no_bar(tasks):
    display = MemoryDisplay.from_estimator(learn(quick(store_tasks=False), tasks[:2]))
    assert [text.get_text() for text in display.texts_][1:] == ["none stored"] * 2


def test_sizes_are_told_in_units_that_one_reads():
    display = MemoryDisplay(n_bytes={"sums": [1_234_567], "tasks": [999], "inputs": [2_000] * 3})
    texts = [text.get_text() for text in display.plot().texts_]
    assert texts == ["1.23 MB, however many tasks", "999 B, 1 × 999 B", "6 kB, 3 × 2 kB"]


# what they share


@pytest.mark.parametrize(
    "draw",
    [
        lambda net, ax: TaskScoresDisplay.from_scores(scores_of(3), ax=ax),
        lambda net, ax: LossCurveDisplay.from_estimator(net, ax=ax),
        lambda net, ax: FisherDisplay.from_estimator(net, ax=ax),
        lambda net, ax: MemoryDisplay.from_estimator(net, ax=ax),
        lambda net, ax: LambdaDisplay([1.0, 2.0], {"a": [0.1, 0.2]}).plot(ax=ax),
    ],
    ids=["scores", "losses", "Fisher", "memory", "lambda"],
)
def test_a_display_draws_in_the_axes_it_is_given(tasks, draw):
    net = learn(quick(), tasks[:2])
    figure, ax = plt.subplots()
    display = draw(net, ax)
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("cls", [LossCurveDisplay, FisherDisplay, MemoryDisplay])
def test_what_holds_no_net_or_no_task_is_refused(cls):
    with pytest.raises(NotFittedError):
        cls.from_estimator(quick())
    with pytest.raises(TypeError, match="LinearRegression has no (history|memory_)"):
        cls.from_estimator(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]))


def test_lambda_needs_an_old_task_and_a_parameter(tasks):
    with pytest.raises(ValueError, match="at least two tasks"):
        LambdaDisplay.from_estimator(quick(), tasks[:1], lambdas=[1.0])
    with pytest.raises(ValueError, match="must have one parameter ewc_lambda, found none"):
        LambdaDisplay.from_estimator(BaseEstimator(), tasks[:2], lambdas=[1.0])


def test_a_missing_matplotlib_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="TaskScoresDisplay.plot requires matplotlib"):
        TaskScoresDisplay.from_scores(scores_of(2))


def test_matplotlib_is_not_imported_before_something_is_drawn(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("sklearn_ewc.display")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sklearn_ewc, "display", None)  # or it stays the one imported here
    display = import_module("sklearn_ewc.display")
    assert display.TaskScoresDisplay is not TaskScoresDisplay
    display.TaskScoresDisplay(scores_of(2))
