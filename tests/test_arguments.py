"""Every argument of every public function and every kind of wrong value: the error names it.

What is accepted all the same is listed with its reason. That nothing changes where
something is refused is in ``test_bad_input.py``.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_ewc import (
    MLP,
    ContinualPipeline,
    ContinualTargetRegressor,
    EWCRegressor,
    Memory,
    Task,
    diagonal_fisher,
    estimate_lambda,
    make_continual_pipeline,
    search_lambda,
)
from sklearn_ewc.arguments import naming, shown
from sklearn_ewc.curvature import curvature_of
from sklearn_ewc.evaluate import task_scores
from sklearn_ewc.selection import TaskKFold

from .helpers import quick as quick_net
from .wrong_values import scalars, tables

# what torch says of its own tensors among the wrong values, once
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*quantize:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*quantize:UserWarning"),
]

X, Y = np.arange(12.0).reshape(6, 2) / 6, np.arange(6.0) / 3
ROWS, TARGETS, TASKS = (
    np.arange(24.0).reshape(12, 2) / 12,
    np.arange(12.0) / 6,
    np.repeat([0, 1], 6),
)
SIX = np.repeat([0, 1], 3)
ONES, IN, OUT = torch.ones(2), torch.ones(4, 2), torch.zeros(4, 1)

NUMBERS = ("fraction", "one and a half", "zero", "two", "large")
COUNTS = ("zero", "two", "large")
SWITCHES = ("true", "false")
DEFAULT = {"the default": ("None",)}
# what can be sorted and counted is a label, whatever it is
LABELS = (
    "words",
    "words in objects",
    "structured",
    "dates",
    "dates in objects",
    "numpy dates in objects",
    "numpy durations in lists",
    "pandas zoned dates",
    "pandas durations",
    "pandas periods",
    "pandas dates in objects",
    "pandas categories of dates",
    "pandas words",
    "pandas categories",
    "polars dates",
    "polars times of day",
    "polars durations",
    "polars words",
    "polars categories",
    "huge integers",
)
ONE_LABEL = (
    "words in objects",
    "structured",
    "numpy dates in objects",
    "numpy durations in lists",
    "polars times of day",
    "huge integers",
)


@dataclass(frozen=True)
class Argument:
    """An argument, how it is passed, what is accepted and why, and what is not tried."""

    where: str
    name: str
    call: Callable[[Any], Any]
    accepted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kinds: Callable[[], dict[str, Any]] = scalars
    left_out: tuple[str, ...] = ()

    def __str__(self):
        return f"{self.where}-{self.name}"


def quick(**settings):
    return quick_net(**{"hidden_layer_sizes": (3,), "max_epochs": 1, **settings})


def fitted():
    return quick().partial_fit(X, Y)


NET = fitted()


def setting(name, accepted, left_out=()):
    return Argument(
        "EWCRegressor", name, lambda v: quick(**{name: v}).fit(X, Y), accepted, left_out=left_out
    )


SETTINGS = [
    setting("module", {}),
    setting(
        "hidden_layer_sizes",
        {
            "left to the module": ("None",),
            "one width": ("two",),
            "widths": ("list", "tuple"),
            "no hidden layer": ("empty list", "empty array"),
        },
        left_out=("large",),  # more memory than there is
    ),
    setting("ewc_lambda", {"numbers": NUMBERS}),
    setting("replay", DEFAULT),
    setting("weigh_by", {}),
    setting("curvature", {}),
    setting("fisher", {}),
    setting("damping", {"numbers": NUMBERS}),
    setting("store_tasks", {"switches": SWITCHES}),
    setting("mode", {}),
    setting("gamma", {"numbers up to 1": ("fraction", "zero")}),
    setting("penalty_step", {}),
    setting("remember_buffers", {"switches": SWITCHES}),
    setting("criterion", {}),
    setting("normalize_y", {"switches": SWITCHES}),
    setting("optimizer", {}),
    setting("lr", {"numbers": ("fraction", "zero")}, left_out=("two", "large")),
    setting("max_epochs", {"counts": ("zero", "two")}, left_out=("large",)),  # never ends
    setting("batch_size", {"sizes": ("two", "large", "huge")}),
    setting("iterator_train", {}),
    setting("iterator_valid", {}),
    setting("dataset", {}),
    setting("train_split", DEFAULT),
    setting(
        "callbacks", {"none": ("None", "empty list"), "skorch's way to none": ("list of None",)}
    ),
    setting(
        "predict_nonlinearity",
        {"none": ("None",), "called by predict": ("class", "class of numbers", "function")},
    ),
    setting("warm_start", {"switches": SWITCHES}),
    setting("verbose", {"switches": SWITCHES, "how much": COUNTS}),
    setting("device", {}),
    setting("compile", {"switches": ("false",)}, left_out=("true",)),  # slow
    setting("use_caching", {"switches": SWITCHES}),
    setting("torch_load_kwargs", {**DEFAULT, "names and values": ("dict",)}),
    setting("accelerator", DEFAULT),
    setting(
        "random_state",
        {**DEFAULT, "seeds": ("zero", "two"), "0 and 1 for scikit-learn": SWITCHES},
    ),
]


def pipeline(**settings):
    return make_continual_pipeline(StandardScaler(), quick(), **settings)


def target(**settings):
    return ContinualTargetRegressor(quick(), **settings)


AROUND = {"ContinualPipeline": pipeline, "ContinualTargetRegressor": target}
WAYS = {
    "fit": lambda model, X: model.fit(X, Y),
    "fit of tasks": lambda model, X: model.fit(X, Y, task=SIX),
    "partial_fit": lambda model, X: model.partial_fit(X, Y),
}
NESTINGS = {
    "": lambda model: model,
    " in a pipeline": lambda model: ContinualPipeline([("inner", model)]),
    " in a target": ContinualTargetRegressor,
}


def data(where, name, call, accepted=(), left_out=()):
    return Argument(where, name, call, dict(accepted), tables, left_out)


DATA = [
    # whether a module takes images or sequences is its own business
    data("fit", "X", lambda v: quick().fit(v, Y), left_out=("three axes",)),
    data("partial_fit", "X", lambda v: NET.partial_fit(v, Y)),
    data("predict", "X", NET.predict, {"rows of any number": ("too few rows",)}),
    data("score", "X", lambda v: NET.score(v, Y)),
    data("fit", "y", lambda v: quick().fit(X, v)),
    data("partial_fit", "y", lambda v: NET.partial_fit(X, v)),
    data("score", "y", lambda v: NET.score(X, v)),
    data("fit", "sample_weight", lambda v: quick().fit(X, Y, sample_weight=v), DEFAULT),
    data("partial_fit", "sample_weight", lambda v: NET.partial_fit(X, Y, v), DEFAULT, ("None",)),
    data("score", "sample_weight", lambda v: NET.score(X, Y, v), DEFAULT),
    data("fit", "task", lambda v: quick().fit(X, Y, task=v), {**DEFAULT, "labels": LABELS}),
    data("ContinualPipeline", "y", lambda v: pipeline().fit(X, v)),
    data(
        "ContinualTargetRegressor",
        "X",
        lambda v: ContinualTargetRegressor(quick()).fit(v, Y),
        left_out=("three axes",),
    ),
    data("ContinualTargetRegressor", "y", lambda v: ContinualTargetRegressor(quick()).fit(X, v)),
    data("estimate_lambda", "X", lambda v: estimate_lambda(NET, v, Y, lambdas=[1.0])),
    data("estimate_lambda", "y", lambda v: estimate_lambda(NET, X, v, lambdas=[1.0])),
    data(
        "ContinualPipeline",
        "X",
        lambda v: make_continual_pipeline("passthrough", quick()).fit(v, Y),
        left_out=("three axes",),
    ),
    *[
        data(where, name, lambda v, f=wrapped, n=name: f().fit(X, Y, **{n: v}), accepted)
        for where, wrapped in AROUND.items()
        for name, accepted in [
            ("task", {**DEFAULT, "labels": LABELS}),
            ("sample_weight", DEFAULT),
        ]
    ],
    data("search_lambda", "X", lambda v: search(X=v, y=Y, task=SIX), left_out=("three axes",)),
    data("search_lambda", "y", lambda v: search(X=X, y=v, task=SIX)),
    data(
        "search_lambda",
        "task",
        lambda v: search(X=X, y=Y, task=v, cv=[(np.arange(6), np.arange(6))]),
        {"labels": LABELS},
    ),
    data(
        "TaskKFold",
        "groups",
        lambda v: list(TaskKFold(2).split(X, groups=v)),
        {"labels of more than one sample": ONE_LABEL},
    ),
]


def task(**changes):
    return Task(**{"anchor": {"a": ONES}, "curvature": {"a": ONES}, **changes})


def memory():
    return Memory().consolidate(task())


def curvature(function, **changes):
    line = nn.Linear(2, 1)
    return function(
        **{"module": line, "criterion": nn.MSELoss(), "batches": [(IN, OUT)], **changes}
    )


def scores(**changes):
    return task_scores(**{"estimator": quick(), "tasks": [(X, Y)], **changes})


def search(**changes):
    known = {"estimator": quick(), "X": ROWS, "y": TARGETS, "task": TASKS, "lambdas": [0], "cv": 2}
    return search_lambda(**{**known, **changes})


def estimate(**changes):
    return estimate_lambda(**{"estimator": NET, "X": X, "y": Y, "lambdas": [1.0], **changes})


def folds(**settings):
    return list(TaskKFold(**{"n_splits": 2, "shuffle": True, **settings}).split(X, groups=SIX))


def keyword(where, name, function, accepted=(), left_out=()):
    return Argument(where, name, lambda v: function(**{name: v}), dict(accepted), scalars, left_out)


FILES = ("f_params", "f_optimizer", "f_criterion", "f_history", "f_memory")
PATHS = ("text", "number in text")  # files of these names, which are there or not
NUMBER, LOSS = {"numbers": NUMBERS}, {"numbers": (*NUMBERS, "negative", "negative integer")}
SWITCH = {"switches": SWITCHES}
SEED = {**DEFAULT, "seeds": ("zero", "two"), "0 and 1 for scikit-learn": SWITCHES}
LAMBDAS = ("generator", "list", "tuple", "set", "array", "array of one", "series")
OTHERS = [
    keyword("partial_fit", "task_weight", lambda **v: fitted().partial_fit(X, Y, **v), NUMBER),
    *[keyword("save_params", name, NET.save_params, DEFAULT, PATHS) for name in FILES],
    *[keyword("load_params", name, NET.load_params, DEFAULT, PATHS) for name in FILES],
    keyword("save_params", "use_safetensors", NET.save_params, SWITCH),
    keyword("load_params", "use_safetensors", NET.load_params, SWITCH),
    keyword("load_params", "checkpoint", NET.load_params, DEFAULT),
    keyword("Task", "anchor", task),
    keyword("Task", "curvature", task),
    keyword("Task", "weight", task, NUMBER),
    keyword("Task", "damping", task, NUMBER),
    keyword("Task", "n_samples", task, {**DEFAULT, "counts": COUNTS}),
    keyword("Task", "loss", task, {**DEFAULT, **LOSS}),
    keyword("Memory", "store_tasks", Memory, SWITCH),
    keyword("Memory", "mode", Memory),
    keyword("Memory", "gamma", Memory, {"numbers up to 1": ("fraction", "zero")}),
    keyword("Memory", "weigh_by", Memory),
    keyword("Memory", "tasks", Memory),
    keyword("Memory", "n_tasks", Memory, {"counts": COUNTS}),
    keyword("Memory", "n_samples", Memory, {"unknown": ("None",), "counts": COUNTS}),
    keyword("Memory", "loss", Memory, {"unknown": ("None",), **LOSS}),
    keyword("Memory", "quadratic", Memory),
    keyword("Memory", "inputs", Memory),
    keyword("consolidate", "task", Memory().consolidate),
    keyword("consolidate", "inputs", lambda **v: Memory().consolidate(task(), **v), DEFAULT),
    keyword("penalty", "params", lambda **v: memory().penalty(**v)),
    keyword("bound", "params", lambda **v: memory().bound(**v)),
    keyword("bound", "ewc_lambda", lambda **v: memory().bound({"a": ONES}, **v), NUMBER),
    keyword(
        "bound",
        "n_samples",
        lambda **v: memory().bound({"a": ONES}, **v),
        {**DEFAULT, "counts": ("two", "large")},
    ),
    *[
        keyword(function.__name__, name, lambda f=function, **v: curvature(f, **v), accepted)
        for function, name, accepted in [
            (curvature_of, "module", {}),
            (curvature_of, "batches", {}),
            (curvature_of, "fisher", {}),
            (curvature_of, "kind", {}),
            (curvature_of, "reduce", DEFAULT),
            (curvature_of, "generator", DEFAULT),
            (diagonal_fisher, "module", {}),
            (diagonal_fisher, "batches", {}),
            (diagonal_fisher, "kind", {}),
            (diagonal_fisher, "reduce", DEFAULT),
        ]
    ],
    *[
        keyword(
            function.__name__,
            "criterion",
            lambda f=function, **v: curvature(f, **v),
            left_out=("class", "class of numbers", "function"),  # called, as any criterion is
        )
        for function in (curvature_of, diagonal_fisher)
    ],
    keyword("task_scores", "estimator", scores),
    keyword("task_scores", "tasks", scores),
    keyword("task_scores", "test_tasks", scores, DEFAULT),
    keyword(
        "task_scores", "scoring", scores, DEFAULT, left_out=("class", "class of numbers")
    ),  # called, as any scorer is
    keyword("search_lambda", "estimator", search),
    keyword("search_lambda", "cv", search, {"a number of folds": ("two",)}),
    keyword(
        "search_lambda", "scoring", search, DEFAULT, left_out=("class", "class of numbers")
    ),  # called, as any scorer is
    keyword(  # processes take seconds to start
        "search_lambda", "n_jobs", search, DEFAULT, left_out=("two", "negative integer")
    ),
    keyword(
        "estimate_lambda",
        "validation_size",
        estimate,
        {**DEFAULT, "a part": ("fraction",), "a number of rows": ("two",)},
    ),
    keyword("estimate_lambda", "random_state", estimate, SEED),
    *[
        keyword(where, "lambdas", function, {"numbers": LAMBDAS})
        for where, function in {"search_lambda": search, "estimate_lambda": estimate}.items()
    ],
    *[
        keyword(where, "verbose", function, {"how much": (*COUNTS, *SWITCHES)})
        for where, function in {
            "search_lambda": search,
            "estimate_lambda": estimate,
            "task_scores": scores,
        }.items()
    ],
    keyword("TaskKFold", "n_splits", folds, {"a number": ("two",)}),
    keyword("TaskKFold", "shuffle", folds, SWITCH),
    keyword("TaskKFold", "random_state", folds, SEED),
    keyword("estimate_lambda", "estimator", lambda estimator: estimate_lambda(estimator, X, Y)),
    keyword("ContinualPipeline", "update_transformers", lambda **v: learned(**v), SWITCH),
    keyword("ContinualPipeline", "verbose", lambda **v: learned(**v), SWITCH),
    keyword("ContinualPipeline", "transform_input", lambda **v: learned(**v), DEFAULT),
    keyword(
        "ContinualPipeline", "memory", lambda **v: learned(**v), DEFAULT, (*PATHS, "empty text")
    ),
    *[
        Argument(
            f"ContinualPipeline{nesting}.{way}",
            "steps",
            lambda v, learn=learn, around=around: learn(around(ContinualPipeline(v)), X),
            # an empty pipeline has no partial_fit, as it has none of the methods of a final step
            left_out=("empty list",) if way == "partial_fit" else (),
        )
        for way, learn in WAYS.items()
        for nesting, around in NESTINGS.items()
    ],
    *[
        keyword(
            where,
            "task_weight",
            lambda f=wrapped, **v: f().partial_fit(X, Y).partial_fit(X, Y, **v),
            NUMBER,
        )
        for where, wrapped in AROUND.items()
    ],
    keyword(
        "ContinualTargetRegressor",
        "regressor",
        lambda regressor: ContinualTargetRegressor(regressor).fit(X, Y),
    ),
    keyword(
        "ContinualTargetRegressor",
        "transformer",
        lambda transformer: ContinualTargetRegressor(quick(), transformer=transformer).fit(X, Y),
        DEFAULT,
    ),
]


def learned(**settings):
    return pipeline(**settings).partial_fit(X, Y)


def outcome(argument, value):
    """Return what a call with a value comes to, in words."""
    try:
        argument.call(value)
    except (ValueError, TypeError, FloatingPointError) as error:  # the last: diverged, with lr=…
        is_named = re.search(rf"(?<!\w){re.escape(argument.name)}(?!\w)", str(error))
        return "refused" if is_named else f"not named in {error!r}"
    except Exception as error:
        return f"another kind of error, {error!r}"
    return "accepted"


@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize("argument", SETTINGS + DATA + OTHERS, ids=str)
def test_a_wrong_value_is_refused_by_the_name_of_its_argument(argument):
    accepted = {kind for kinds in argument.accepted.values() for kind in kinds}
    kinds = argument.kinds()
    assert accepted | set(argument.left_out) <= kinds.keys()
    found = {
        kind: outcome(argument, value)
        for kind, value in kinds.items()
        if kind not in argument.left_out
    }
    wrong = {
        kind: what
        for kind, what in found.items()
        if what != ("accepted" if kind in accepted else "refused")
    }
    assert not wrong


def test_every_parameter_of_the_regressor_is_in_the_table():
    parameters = set(inspect.signature(EWCRegressor).parameters) - {"kwargs"}
    assert {argument.name for argument in SETTINGS} == parameters


@pytest.mark.parametrize(
    "function",
    [
        search_lambda,
        estimate_lambda,
        task_scores,
        TaskKFold,
        ContinualPipeline,
        ContinualTargetRegressor,
        Task,
        Memory,
    ],
    ids=lambda function: function.__name__,
)
def test_every_parameter_of_what_is_around_it_is_in_the_table(function):
    names = {
        argument.name
        for argument in DATA + OTHERS
        if argument.where.split(".")[0] == function.__name__
    }
    assert inspect.signature(function).parameters.keys() <= names


@pytest.mark.parametrize("name", ["max_epochs", "verbose", "criterion", "fisher", "device"])
def test_a_wrong_value_that_is_set_between_tasks_is_named_too(name):
    net = fitted()
    with pytest.raises((ValueError, TypeError), match=rf"(?<!\w){name}(?!\w)"):
        net.set_params(**{name: object()}).partial_fit(X, Y)


def test_a_rate_at_which_training_diverges_is_named():
    with pytest.raises(FloatingPointError, match="with lr=2"):
        quick(lr=2).fit(X, Y)


def test_an_error_is_renamed_once_and_keeps_its_kind():
    with pytest.raises(TypeError, match=r"^y: of another kind$"), naming("y"):
        raise TypeError("of another kind")
    with pytest.raises(ValueError, match=r"^y is late$"), naming("y"):
        raise ValueError("y is late")
    with pytest.raises(ValueError, match=r"^n: too large$"), naming("n"):
        raise OverflowError("too large")


def test_a_long_value_is_shown_in_short():
    assert len(shown(list(range(1000)))) < 100
    assert len(shown(np.zeros(1000))) < 100


WRONG_ELEMENTS = {
    "text": lambda row: ("a", 1.0),
    "None": lambda row: (None, 1.0),
    "text targets": lambda row: (torch.ones(2), "a"),
    "no targets": lambda row: (torch.ones(2), None),
    "not a number": lambda row: (torch.full((2,), torch.nan), torch.ones(1)),
    "infinite targets": lambda row: (torch.ones(2), torch.full((1,), torch.inf)),
    "negative weights": lambda row: (torch.ones(2), torch.ones(1), -1.0),
    "single values": lambda row: 3.0,
    "ragged": lambda row: (torch.ones(2 + row), torch.ones(1)),
    "complex": lambda row: (torch.ones(2) * 1j, torch.ones(1)),
    "sets": lambda row: ({1.0}, torch.ones(1)),
}


class Given(torch.utils.data.Dataset):
    def __init__(self, element):
        self.element = element

    def __len__(self):
        return 6

    def __getitem__(self, row):
        return self.element(row)


@pytest.mark.parametrize("kind", WRONG_ELEMENTS)
def test_a_dataset_of_wrong_elements_is_refused_before_training(kind):
    for net, method in ((quick(), "fit"), (fitted(), "partial_fit")):
        before = dict(vars(net))
        with pytest.raises((ValueError, TypeError), match=r"^X (is a Dataset|has 1 features)"):
            getattr(net, method)(Given(WRONG_ELEMENTS[kind]))
        assert vars(net) == before


def test_a_dataset_that_has_no_length_is_refused():
    with pytest.raises((ValueError, TypeError), match="X is a Dataset"):
        quick().fit(torch.utils.data.Dataset())


def test_an_mlp_names_the_widths_that_it_cannot_have():
    for widths in ("a", None, 1.5, [0.5], iter([3])):
        with pytest.raises((ValueError, TypeError), match="hidden_layer_sizes"):
            MLP(2, hidden_layer_sizes=widths)


def test_steps_that_are_none_are_named():
    with pytest.raises((ValueError, TypeError), match="steps"):
        ContinualPipeline("a").fit(X, Y)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["masked table", "masked rows"])
def test_transformers_do_not_get_what_is_under_a_mask(kind, way):
    for model in (pipeline(), ContinualTargetRegressor(pipeline())):
        with pytest.raises(ValueError, match="^X: some values are masked"):
            WAYS[way](model, tables()[kind])


def test_a_search_does_not_show_plain_transformers_what_is_under_a_mask():
    plain = make_pipeline(StandardScaler(), quick())
    with pytest.raises(ValueError, match="^X: some values are masked"):
        search(estimator=plain, X=tables()["masked table"], y=Y, task=SIX)


def test_dates_in_a_pipeline_are_for_its_transformers_to_read():
    """A scaler takes them as they are stored; another may take months out of them."""
    read = {
        "table of dates",
        "durations",
        "numpy dates in objects",
        "numpy durations in lists",
        "pandas zoned dates",
        "pandas durations",
        "pandas categories of dates",
        "polars dates",
        "polars times",
        "polars durations",
    }
    for kind in read:
        assert pipeline().fit(tables()[kind], Y).n_tasks_ == 1
