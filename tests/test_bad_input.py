"""Every kind of bad input to every public function: an error that names the argument, no change.

What `fit` refuses with arrays in the right place is in ``test_validation.py``;
what concerns one function alone (a task's Fisher, a matrix of scores, a
pipeline's columns) is beside the other tests of that function.
"""

import contextlib
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_ewc import (
    ContinualTargetRegressor,
    Memory,
    Task,
    TaskKFold,
    diagonal_fisher,
    estimate_lambda,
    make_continual_pipeline,
    search_lambda,
)
from sklearn_ewc.evaluate import average_score, forward_transfer, gap_closed, task_scores

from .helpers import quick as quick_net

X, Y = np.arange(12.0).reshape(6, 2) / 6, np.arange(6.0) / 3
DAYS = np.arange("2020-01-01", "2020-01-07", dtype="datetime64[D]")
RAGGED = [[1.0, 2.0], [3.0], [4.0, 5.0], [6.0], [7.0, 8.0], [9.0]]
REFUSED = (ValueError, TypeError)


def quick(**kwargs):
    return quick_net(**{"hidden_layer_sizes": (3,), "max_epochs": 1, **kwargs})


def fitted(**kwargs):
    return quick(**kwargs).partial_fit(X, Y)


def state(net):
    """Return all that must not change: attributes, and the numbers inside them."""
    tensors = {}
    if hasattr(net, "module_"):
        tensors = {name: p.detach().numpy().tobytes() for name, p in net.module_.named_parameters()}
        for k, task in enumerate(net.memory_.tasks):
            for name in task.anchor:
                tensors[k, name] = task.anchor[name].numpy().tobytes()
                tensors[k, name, "F"] = task.fisher[name].numpy().tobytes()
    return dict(vars(net)), tensors, list(net.history_ or ())


def named(argument):
    return rf"(?<!\w){re.escape(argument)}(?!\w)"


def datasets(X, *rest):
    return TensorDataset(torch.as_tensor(X), *map(torch.as_tensor, rest))


# X, wherever it is taken

BAD_X = {
    "scalar": 1.0,
    "None": None,
    "text": "a",
    "object": object(),
    "class": LinearRegression,
    "generator": (row for row in X),
    "set": {1.0, 2.0},
    "empty list": [],
    "ragged": RAGGED,
    "objects": np.full((6, 2), object()),
    "bytes": np.full((6, 2), b"a"),
    "structured": np.zeros(6, dtype=[("a", "f8"), ("b", "f8")]),
    "dates": np.c_[DAYS, DAYS],
    "durations": np.c_[DAYS - DAYS[0], DAYS - DAYS[0]],
    "frame of dates": pd.DataFrame({"a": DAYS, "b": DAYS}),
    "series": pd.Series(Y),
    "no columns": X[:, :0],
    "no rows": X[:0],
    "NaN": np.full((6, 2), np.nan),
    "infinity": np.full((6, 2), -np.inf),
    "complex": X + 1j,
    "sparse": scipy.sparse.csr_array(X),
    "sparse dict": scipy.sparse.dok_array(X),
    "empty dict": {},
    "dict of text": {"X": np.full((6, 2), "a")},
    "dict of ragged lists": {"X": RAGGED},
    "dict of dates": {"X": np.c_[DAYS, DAYS]},
}
BAD_DATASETS = {
    "no samples": datasets(X[:0], Y[:0]),
    "no targets": datasets(X),
}
FRAMES = {
    "missing integers": pd.array([1, 2, 3, 4, 5, None], dtype="Int64"),
    "missing floats": pd.array([1.0, 2, 3, 4, 5, None], dtype="Float64"),
    "missing booleans": pd.array([True, False, None] * 2, dtype="boolean"),
    "strings": pd.array(list("abcdef"), dtype="string"),
    "categories": pd.Categorical(list("abcdef")),
}


@pytest.mark.parametrize("kind", BAD_X)
def test_bad_inputs_are_named_and_change_nothing(kind):
    fresh, net = quick(), fitted()
    for estimator, methods in ((fresh, ["fit", "partial_fit"]), (net, ["fit", "partial_fit"])):
        before = state(estimator)
        for method in methods:
            with pytest.raises(REFUSED, match=named("X") + "|2D|2-dim"):
                getattr(estimator, method)(BAD_X[kind], Y)
        assert state(estimator) == before
    before = state(net)
    with pytest.raises(REFUSED, match=named("X")):
        net.predict(BAD_X[kind])
    with pytest.raises(REFUSED, match=named("X")):
        net.score(BAD_X[kind], Y)
    assert state(net) == before


@pytest.mark.parametrize("kind", BAD_DATASETS)
def test_a_bad_dataset_is_named_and_changes_nothing(kind):
    for estimator, method in ((quick(), "fit"), (fitted(), "partial_fit"), (fitted(), "predict")):
        before = state(estimator)
        with pytest.raises(ValueError, match="X is a Dataset"):
            getattr(estimator, method)(BAD_DATASETS[kind])
        assert state(estimator) == before


@pytest.mark.parametrize("method", ["partial_fit", "predict"])
def test_a_dataset_of_other_columns_is_refused(method):
    net = fitted()
    before = state(net)
    with pytest.raises(ValueError, match="X has 3 features, but 2"):
        getattr(net, method)(datasets(np.zeros((6, 3)), np.zeros((6, 1))))
    assert state(net) == before


@pytest.mark.parametrize("values", FRAMES.values(), ids=FRAMES)
def test_missing_or_nameless_values_in_a_frame_are_refused(values):
    frame = pd.DataFrame({"a": Y, "b": Y})
    net = quick().partial_fit(frame, Y)
    before = state(net)
    for call in (net.fit, net.partial_fit):
        with pytest.raises(REFUSED, match=named("X")):
            call(frame.assign(b=values), Y)
        with pytest.raises(REFUSED, match=named("y")):
            call(frame, pd.Series(values))
    with pytest.raises(REFUSED, match=named("X")):
        net.predict(frame.assign(b=values))
    assert state(net) == before


def test_another_number_of_axes_is_refused():
    with pytest.raises(ValueError, match=named("X")):
        fitted().predict(np.zeros((6, 2, 2)))


# y, weights, labels

BAD_Y = {
    "scalar": 1.0,
    "text": "a",
    "object": object(),
    "set": {1.0},
    "dict": {"y": Y},
    "ragged": RAGGED,
    "objects": np.full(6, object()),
    "list of text": list("abcdef"),
    "list of None": [None] * 6,
    "dates": DAYS,
    "durations": DAYS - DAYS[0],
    "no columns": X[:, :0],
    "three axes": np.zeros((6, 1, 1)),
    "complex": Y + 1j,
    "sparse": scipy.sparse.csr_array(X),
    "too short": Y[:5],
    "empty": Y[:0],
}
BAD_WEIGHTS = {
    "text": "balanced",
    "object": object(),
    "dict": {"weight": Y},
    "ragged": RAGGED,
    "list of text": list("abcdef"),
    "dates": DAYS,
    "two columns": X,
    "one column": Y[:, np.newaxis],
    "complex": Y + 1j,
    "sparse": scipy.sparse.csr_array(X),
    "infinity": np.full(6, np.inf),
    "missing": pd.Series([1, 2, 3, 4, 5, None], dtype="Int64"),
    "too short": Y[:5],
    "empty": Y[:0],
    "zero for all": 0.0,
    "NaN for all": np.nan,
    "infinity for all": np.inf,
    "negative for all": -1.0,
}
BAD_LABELS = {
    "scalar": 1,
    "text": "aaaaaa",
    "object": object(),
    "dict": {"task": Y},
    "set": {1},
    "empty": [],
    "ragged": RAGGED,
    "tuples": [(1, 2)] * 6,
    "objects": [object()] * 6,
    "complex": Y + 1j,
    "sparse": scipy.sparse.csr_array(X),
    "no time": np.array(["NaT"] * 6, dtype="datetime64[D]"),
    "missing categories": pd.Categorical(["a", None] * 3),
    "missing ordered categories": pd.Categorical(["a", None] * 3, ordered=True),
}
ARGUMENTS = [
    *[("y", kind, value) for kind, value in BAD_Y.items()],
    *[("sample_weight", kind, value) for kind, value in BAD_WEIGHTS.items()],
    *[("task", kind, value) for kind, value in BAD_LABELS.items()],
]


@pytest.mark.parametrize(
    ("argument", "value"),
    [(a, v) for a, _, v in ARGUMENTS],
    ids=[f"{a}-{k}" for a, k, _ in ARGUMENTS],
)
def test_bad_targets_weights_and_labels_are_named_and_change_nothing(argument, value):
    for estimator in (quick(), fitted()):
        before = state(estimator)
        for method in ("fit", "partial_fit") if argument != "task" else ("fit",):
            with pytest.raises(REFUSED, match=named(argument)):
                getattr(estimator, method)(**{"X": X, "y": Y, argument: value})
        assert state(estimator) == before


@pytest.mark.parametrize(
    "value", [None, "1", 1j, np.complex128(1), [1.0], np.ones(1), pd.NA, 10**400]
)
def test_what_is_no_real_number_is_no_setting(value):
    net = fitted()
    before = state(net)
    with pytest.raises(ValueError, match="^task_weight must be a finite number"):
        net.partial_fit(X, Y, task_weight=value)
    assert state(net) == before
    for name in ("ewc_lambda", "damping", "gamma", "lr"):
        with pytest.raises(ValueError, match=f"^{name} must be a finite number"):
            quick(**{name: value}).fit(X, Y)


BAD_SETTINGS = [
    *[("lr", value) for value in (-1.0, np.nan, np.inf)],
    *[("max_epochs", value) for value in (-1, 1.5, "3", None)],
    *[("batch_size", value) for value in (0, -2, 1.5, "all", None)],
    *[("hidden_layer_sizes", value) for value in ((0,), (-1,), (1.5,), "a", 0)],
    *[("module", value) for value in ("mlp", None)],
    *[("criterion", value) for value in ("mse", None)],
    *[("optimizer", value) for value in ("adam", None)],
    *[("iterator_train", value) for value in ("a", None)],
    *[("iterator_valid", value) for value in ("a", None)],
    *[("train_split", value) for value in (5, "a")],
    *[("device", value) for value in ("tpu9", None, 3.5)],
    *[(name, ["exact"]) for name in ("fisher", "mode", "penalty_step")],
    *[(name, np.array(["exact", "batch"])) for name in ("fisher", "mode", "penalty_step")],
]


@pytest.mark.parametrize(("name", "value"), BAD_SETTINGS, ids=str)
def test_a_setting_of_the_wrong_kind_is_named_and_changes_nothing(name, value):
    net = quick(**{name: value})
    before = state(net)
    for method in ("fit", "partial_fit"):
        with pytest.raises(REFUSED, match=f"^{name} "):
            getattr(net, method)(X, Y)
    assert state(net) == before


@pytest.mark.parametrize(
    "settings",
    [
        {"callbacks": [3]},
        {"device": "tpu9"},
        {"criterion": "mse"},
        {"max_epochs": -1},
    ],
    ids=str,
)
def test_a_bad_setting_between_tasks_leaves_what_was_learned(settings):
    net = fitted()
    _, tensors, history = state(net)
    with pytest.raises(REFUSED):
        net.set_params(**settings).partial_fit(X, Y)
    assert state(net)[1:] == (tensors, history)


@pytest.mark.parametrize(
    ("settings", "weight"),
    [({}, 1e308), ({"damping": 1e308}, 1.0)],
    ids=["task weight", "damping"],
)
def test_a_memory_that_overflows_is_refused(settings, weight):
    net = quick(**settings)
    with pytest.raises(ValueError, match="too large to be added up"):
        net.partial_fit(X, Y, task_weight=weight)
    assert not net.__sklearn_is_fitted__()


def test_a_lambda_beyond_float32_is_taken_or_refused():
    net = quick(ewc_lambda=1e39, penalty_step="gradient").partial_fit(X.astype(np.float32), Y)
    with contextlib.suppress(*REFUSED, FloatingPointError):
        net.partial_fit(X, Y)
    assert all(p.isfinite().all() for p in net.module_.parameters())


# memory and Fisher

ONES = torch.ones(2)


def without_check(error, **arguments):
    reason = "raises an unnamed error of another kind" if error else "is let through"
    mark = pytest.mark.xfail(strict=True, reason=reason, raises=error or pytest.fail.Exception)
    return pytest.param(arguments, marks=mark)


@pytest.mark.parametrize(
    "arguments",
    [
        {"weight": None},
        {"weight": "1"},
        {"weight": np.nan},
        {"damping": -1.0},
        {"damping": [0.1]},
        {"weight": 10**400},
        {"anchor": None},
        {"fisher": {"a": [1.0, 1.0]}},
        {"anchor": {"a": np.ones(2)}},
        {"fisher": {"a": ONES + 1j}},
        {"n_samples": -1},
    ],
    ids=str,
)
def test_what_a_task_cannot_be_made_of_is_refused(arguments):
    with pytest.raises(REFUSED):
        Task(**{"anchor": {"a": ONES}, "fisher": {"a": ONES}, **arguments})


@pytest.mark.parametrize(
    "params",
    [
        None,
        3,
        "a",
        {},
        nn.Linear(1, 1),
        {"a": np.ones(2)},
        {"a": torch.ones(3)},
        {"a": [1.0, 1.0]},
    ],
    ids=str,
)
def test_what_a_penalty_has_no_parameters_in_is_refused(params):
    memory = Memory().consolidate(Task({"a": ONES}, {"a": ONES}))
    with pytest.raises(REFUSED):
        memory.penalty(params)


@pytest.mark.parametrize("task", [None, "a", {"a": ONES}], ids=str)
def test_what_is_no_task_is_not_consolidated(task):
    with pytest.raises(TypeError, match="task"):
        Memory().consolidate(task)


IN, OUT = torch.ones(4, 2), torch.zeros(4, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"batches": None},
        {"batches": 3},
        {"batches": [IN]},
        {"batches": [(X, Y)]},
        {"batches": [(IN, None)]},
        {"batches": [(IN, OUT[:3])]},
        {"batches": [(IN, torch.zeros(4, 2))]},
        {"batches": [(IN, OUT, -torch.ones(4))]},
        {"batches": [(IN, OUT, torch.full((4,), np.nan))]},
        {"kind": None},
        {"kind": 3},
        {"batches": [(IN,)]},
        {"batches": [(IN[:0], OUT[:0])]},
        without_check(RuntimeError, batches=[(torch.ones(4, 3), OUT)]),
        {"batches": [(IN, OUT, torch.ones(3))]},
        {"module": None},
        {"batches": [(IN, OUT, torch.tensor([-1.0, 2, 2, 2]))]},
        {"batches": [(IN, OUT, torch.full((4,), np.inf))]},
        {"batches": [(np.nan * IN, OUT)]},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_what_has_no_fisher_is_refused_and_the_module_stays(arguments):
    line = nn.Linear(2, 1)
    before = [p.clone() for p in line.parameters()]
    settings = {"module": line, "criterion": nn.MSELoss(), "batches": [(IN, OUT)], **arguments}
    with pytest.raises(REFUSED):
        diagonal_fisher(**settings)
    assert line.training
    assert all(map(torch.equal, before, line.parameters()))


# what is around the estimator


@pytest.mark.parametrize("kind", ["ragged", "text", "complex", "no rows", "infinity", "object"])
@pytest.mark.parametrize(
    "wrap", [ContinualTargetRegressor, lambda net: make_continual_pipeline(StandardScaler(), net)]
)
def test_bad_inputs_change_nothing_in_what_wraps_the_net(wrap, kind):
    outer = wrap(quick())
    with pytest.raises(REFUSED):
        outer.partial_fit(BAD_X[kind], Y)
    outer.partial_fit(X, Y)
    net = outer.regressor_ if hasattr(outer, "regressor_") else outer[-1]
    before = state(net)
    with pytest.raises(REFUSED):
        outer.partial_fit(BAD_X[kind], Y)
    with pytest.raises(REFUSED):
        outer.predict(BAD_X[kind])
    assert state(net) == before


@pytest.mark.parametrize("kind", BAD_Y)
@pytest.mark.parametrize("wrap", ["pipeline", "target"])
def test_bad_targets_change_nothing_in_what_wraps_the_net(wrap, kind):
    pipeline = make_continual_pipeline(StandardScaler(), quick())
    outer = pipeline if wrap == "pipeline" else ContinualTargetRegressor(quick())
    outer.partial_fit(X, Y)
    net = outer[-1] if wrap == "pipeline" else outer.regressor_
    before = state(net)
    with pytest.raises(REFUSED):
        outer.partial_fit(X, BAD_Y[kind])
    assert state(net) == before


TASKS = np.repeat([0, 1], 6)
ROWS, TARGETS = np.arange(24.0).reshape(12, 2) / 12, np.arange(12.0) / 6


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("estimator", None),
        ("estimator", "net"),
        ("estimator", quick),
        ("X", np.full((12, 2), np.nan)),
        ("X", ROWS + 1j),
        ("y", None),
        ("y", np.full(12, np.nan)),
        ("task", 1),
        ("task", TASKS[:5]),
        ("task", [*TASKS[1:], None]),
        ("task", [*TASKS[1:], np.nan]),
        ("task", [*TASKS[1:], "a"]),
        ("lambdas", []),
        ("lambdas", 3.0),
        ("lambdas", None),
        ("lambdas", "1"),
        ("lambdas", [0.0, -1.0]),
        ("lambdas", [1.0, np.nan]),
        ("lambdas", [1.0, None]),
        ("cv", None),
        ("cv", 2.5),
        ("n_jobs", "two"),
        ("scoring", "nope"),
    ],
    ids=str,
)
def test_a_search_names_what_it_cannot_use(argument, value):
    arguments = {"estimator": quick(), "X": ROWS, "y": TARGETS, "task": TASKS, "lambdas": [0, 1]}
    with pytest.raises(REFUSED, match=named(argument)):
        search_lambda(**{**arguments, "cv": 2, argument: value})


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("estimator", None),
        ("estimator", quick()),
        ("X", np.full((12, 2), np.nan)),
        ("X", ROWS[:, :1]),
        ("X", ROWS + 1j),
        ("y", None),
        ("y", np.c_[TARGETS, TARGETS]),
        ("y", np.r_[TARGETS[:-1], np.nan]),
        ("y", TARGETS[:5]),
        ("lambdas", []),
        ("lambdas", 3.0),
        ("lambdas", "1"),
        ("lambdas", [1.0, -1.0]),
        ("lambdas", [1.0, np.inf]),
    ],
    ids=str,
)
def test_an_estimate_names_what_it_cannot_use_and_changes_nothing(argument, value):
    net = fitted()
    before = state(net)
    arguments = {"estimator": net, "X": ROWS, "y": TARGETS, "lambdas": [1.0], argument: value}
    with pytest.raises(REFUSED, match=named(argument)):
        estimate_lambda(**arguments)
    assert state(net) == before


@pytest.mark.parametrize("bad_row", range(12))
def test_an_estimate_sees_bad_values_in_the_held_out_part_too(bad_row):
    y = np.where(np.arange(12) == bad_row, np.nan, TARGETS)
    with pytest.raises(ValueError, match="y contains NaN"):
        estimate_lambda(fitted(), ROWS, y)


def test_an_estimate_takes_an_iterator_of_lambdas_and_a_series():
    estimate = estimate_lambda(fitted(), ROWS, pd.Series(TARGETS), lambdas=iter([1.0, 2.0]))
    assert estimate.lambdas == (1.0, 2.0)
    assert np.isfinite(estimate.errors).all()


@pytest.mark.parametrize("groups", [[*"aaaaa", None], [0.0] * 5 + [np.nan], [1] * 5, 1, X], ids=str)
def test_folds_need_a_task_for_every_sample(groups):
    with pytest.raises(REFUSED, match="groups"):
        next(TaskKFold(2).split(X, groups=groups))


@pytest.mark.parametrize("n_splits", [0, 1, -1, 2.5, "a", None])
def test_folds_are_two_or_more(n_splits):
    with pytest.raises(ValueError, match="folds|n_splits"):
        TaskKFold(n_splits)


@pytest.mark.parametrize("kind", ["ragged", "None", "NaN", "no rows", "complex", "dates"])
def test_scores_of_bad_tasks_change_nothing(kind):
    net = fitted()
    before = state(net)
    for tasks in ([(BAD_X[kind], Y)], [(X, Y), (BAD_X[kind], Y)]):
        with pytest.raises(REFUSED, match=named("X")):
            task_scores(net, tasks)
    with pytest.raises(REFUSED, match=named("X")):
        task_scores(net, [(X, Y)], test_tasks=[(BAD_X[kind], Y)])
    assert state(net) == before


@pytest.mark.parametrize(
    "scores", [None, "a", 3, RAGGED, np.zeros((2, 3)), np.full((2, 2), "a")], ids=str
)
def test_a_measure_of_what_is_no_matrix_is_refused(scores):
    with pytest.raises(REFUSED):
        average_score(scores)
    with pytest.raises(REFUSED):
        forward_transfer(scores, [0.0, 0.0])


@pytest.mark.parametrize("score", [None, "a", 1j, np.ones(2)], ids=str)
def test_a_gap_of_no_numbers_is_refused(score):
    with pytest.raises(REFUSED):
        gap_closed(score, 0.0, 1.0)


# the same values in another form

DTYPES = ["i1", "i8", "u2", "?", "f2", "f4", "f8", "longdouble", ">f4", ">f8", ">i4"]
FORMS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "reversed": lambda array: np.ascontiguousarray(array[::-1])[::-1],
    "every other": lambda array: np.repeat(array, 2, axis=0)[::2],
    "read-only": lambda array: _read_only(array.copy()),
    "unaligned": lambda array: _unaligned(array),
    "mapped": None,
    "list": lambda array: array.tolist(),
    "tensor": lambda array: torch.from_numpy(native(array)),
}
MAGNITUDES = [0.0, 1.0, -2.5, 1e-310, 5e-324, 1e-45, 3e4, 1e30, 1e39, 1e300, 1.7e308]


def _read_only(array):
    array.flags.writeable = False
    return array


def _unaligned(array):
    buffer = np.zeros(array.nbytes + 1, np.uint8)
    buffer[1:] = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    return buffer[1:].view(array.dtype).reshape(array.shape)


def native(array):
    """Return the plain array that scikit-learn would make of another: float32, else float64."""
    return np.array(
        array, dtype=np.float32 if array.dtype.newbyteorder("=") == "f4" else np.float64
    )


def learned_or_refused(X, y):
    """Return parameters and predictions of a net on (X, y), or None where it was refused whole."""
    net = quick()
    before = state(net)
    try:
        net.partial_fit(X, y)
    except (*REFUSED, FloatingPointError):
        assert state(net) == before
        return None
    learned = [*(p.detach().numpy() for p in net.module_.parameters()), net.predict(X)]
    assert all(np.isfinite(values).all() for values in learned)
    return learned


def assert_same(one, other):
    assert (one is None) == (other is None)
    for a, b in zip(one or (), other or (), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mapped")


@given(
    dtype=st.sampled_from(DTYPES),
    form=st.sampled_from(list(FORMS)),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 4)),
    n_outputs=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_the_form_of_an_array_does_not_matter(folder, dtype, form, shape, n_outputs, seed):
    rng = np.random.RandomState(seed)
    X = (rng.randint(0, 100, shape) / (1 if np.dtype(dtype).kind in "iu?" else 8)).astype(dtype)
    y = (rng.randn(*(shape[0], n_outputs)[: 1 + bool(n_outputs)])).astype(np.float64)
    plain = native(X)
    if form == "mapped":
        mapped = np.memmap(folder / "X", dtype=X.dtype, mode="w+", shape=X.shape)
        mapped[:] = X
        mapped.flush()
        given_X = np.memmap(folder / "X", dtype=X.dtype, mode="r", shape=X.shape)
    else:
        given_X = FORMS[form](X)
    if form == "list":
        plain = np.array(X.tolist(), dtype=np.float64)
    assert_same(learned_or_refused(given_X, y), learned_or_refused(plain, y))


@given(rows=st.integers(1, 6), columns=st.integers(1, 4))
def test_broadcast_arrays_are_learned_as_if_they_were_written_out(rows, columns):
    X, y = np.broadcast_to(0.5, (rows, columns)), np.broadcast_to(np.float32(2), (rows,))
    assert_same(learned_or_refused(X, y), learned_or_refused(X.copy(), y.copy()))


@given(dtype=st.sampled_from(["Int64", "Float64", "boolean", "int64", "float32", "bool"]))
def test_nullable_columns_without_gaps_are_learned_as_plain_ones(dtype):
    X = pd.DataFrame({"a": [0, 1, 1, 0], "b": [1, 0, 1, 0]}).astype(dtype)
    plain = X.astype("float32" if dtype == "float32" else "float64").to_numpy()
    y = np.array([1.0, 2.0, 3.0, 4.0])
    assert_same(learned_or_refused(X, y), learned_or_refused(plain, y))
    assert_same(learned_or_refused(plain, X["a"]), learned_or_refused(plain, plain[:, 0]))


def test_polars_frames_are_learned_as_plain_arrays():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": X[:, 0], "b": X[:, 1]})
    assert_same(learned_or_refused(frame, polars.Series(Y)), learned_or_refused(X, Y))


@pytest.mark.filterwarnings("ignore:overflow encountered")
@given(
    x=st.lists(st.sampled_from(MAGNITUDES), min_size=4, max_size=4),
    y=st.lists(st.sampled_from(MAGNITUDES), min_size=4, max_size=4),
    dtype=st.sampled_from([np.float32, np.float64]),
    first=st.booleans(),
    settings=st.sampled_from([{}, {"hidden_layer_sizes": ()}, {"max_epochs": 0}]),
)
def test_huge_and_tiny_values_are_learned_or_refused_whole(x, y, dtype, first, settings):
    net = quick(**settings)
    if not first:
        net.partial_fit(X.astype(dtype), Y)
    before = state(net)
    rows = np.c_[x, x[::-1]]
    try:
        net.partial_fit(rows, y)
    except (*REFUSED, FloatingPointError):
        assert state(net) == before
        return
    assert net.n_tasks_ == 2 - first
    assert np.isfinite(net.predict(X)).all()
    assert all(p.isfinite().all() for p in net.module_.parameters())
    for task in net.memory_.tasks:
        assert all(value.isfinite().all() for value in task.fisher.values())
