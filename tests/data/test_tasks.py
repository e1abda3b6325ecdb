"""The order in which tasks are learned."""

import warnings
from datetime import date

import numpy as np
import pandas as pd
import pytest
import torch

from sklearn_ewc.data.tasks import rows_by_task, tasks_to_learn

from ..helpers import quick

MONTHS = ["Jan", "Feb", "Mar"]


def as_polars(labels):
    return pytest.importorskip("polars").Series(labels)


def order(task):
    return [label for label, _ in tasks_to_learn(task, len(task))]


def test_each_task_comes_with_its_rows():
    tasks = tasks_to_learn(["b", "a", "b", "c", "a"], 5)
    assert [(label, rows.tolist()) for label, rows in tasks] == [
        ("a", [1, 4]),
        ("b", [0, 2]),
        ("c", [3]),
    ]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([10, 2, 1], [1, 2, 10]),
        ([0.5, -1.0, 0.25], [-1.0, 0.25, 0.5]),
        ([True, False], [False, True]),
        ([date(2024, 2, 1), date(2023, 3, 1)], [date(2023, 3, 1), date(2024, 2, 1)]),
    ],
    ids=["whole", "real", "bool", "dates"],
)
def test_numbers_and_dates_have_their_own_order(labels, expected):
    for form in (list, lambda values: np.array(values, dtype=object), pd.Series):
        assert order(form(labels)) == expected


@pytest.mark.parametrize(
    "labels",
    [
        ["task 1", "task 2", "task 10"],
        ["2", "10", "100"],
        ["a1", "a01b", "a2"],
        ["2023-9", "2023-10", "2024-1"],
        ["2023-09-01", "2023-10-01", "2024-01-01"],
        ["site", "site 1", "sites"],
        ["", "1", "x"],
        ["v1.9.1", "v1.10.0"],
        ["a²", "b"],
        ["north", "south 1", "south ٢"],
    ],
    ids=str,
)
@pytest.mark.parametrize("form", [list, np.array, pd.Series, as_polars, pd.Categorical])
def test_numbers_in_text_count_as_numbers(labels, form):
    shuffled = form([labels[i] for i in np.random.RandomState(0).permutation(len(labels))] * 2)
    assert order(shuffled) == labels


@pytest.mark.parametrize(
    "task",
    [
        pd.Categorical(MONTHS, categories=MONTHS, ordered=True),
        pd.Series(MONTHS, dtype=pd.CategoricalDtype(MONTHS, ordered=True)),
        pd.Series(MONTHS, dtype=pd.CategoricalDtype(["unused", *MONTHS], ordered=True)),
    ],
    ids=["Categorical", "Series", "unused"],
)
def test_categories_with_an_order_keep_it(task):
    assert order(task) == MONTHS
    assert order(task[::-1]) == MONTHS


def test_an_enum_of_polars_is_an_order_too():
    polars = pytest.importorskip("polars")
    for categories in (MONTHS, ["unused", *MONTHS]):
        task = polars.Series(MONTHS, dtype=polars.Enum(categories))
        assert order(task) == order(task[::-1]) == MONTHS


# the warning


@pytest.mark.parametrize(
    ("task", "learned", "found"),
    [
        (np.repeat(MONTHS, 20), "'Feb', 'Jan', 'Mar'", "'Jan', 'Feb', 'Mar'"),
        (["task 2", "task 10", "task 1"] * 1, "'task 1', 'task 2', 'task 10'", "'task 2', 'task"),
        (np.repeat(["b", "a"], [1, 50]), "'a', 'b'", "'b', 'a'"),
        # a late row of January in February
        (["Jan"] * 9 + ["Feb", "Jan"] + ["Feb"] * 8, "'Feb', 'Jan'", "'Jan', 'Feb'"),
    ],
    ids=["months", "numbered", "uneven", "a stray"],
)
@pytest.mark.parametrize("form", [list, np.array, pd.Series, as_polars, pd.Categorical])
def test_text_that_goes_against_the_order_of_the_rows_is_told_of(task, learned, found, form):
    with pytest.warns(UserWarning, match=f"in the order {learned}, but.*in the order {found}"):
        tasks_to_learn(form(task), len(task))


@pytest.mark.parametrize(
    "task",
    [
        np.repeat(["Apr", "Feb", "May"], 20),
        np.array(["c", "a", "b"] * 20),
        np.random.RandomState(0).permutation(np.repeat(MONTHS, 20)),
        np.repeat([3, 1, 2], 20),
        np.repeat(pd.to_datetime(["2024-01-01", "2023-01-01"]), 20),
        ["b"] * 20,
    ],
    ids=["as the rows", "in turn", "shuffled", "numbers", "dates", "one task"],
)
def test_where_the_rows_have_no_other_order_nothing_is_said(task):
    tasks_to_learn(task, len(task))


def test_what_the_warning_advises_ends_it():
    for task in (list(np.repeat(MONTHS, 5)), np.repeat(MONTHS, 5), pd.Series(MONTHS)):
        with pytest.warns(UserWarning, match="pandas.Categorical") as caught:
            tasks_to_learn(task, len(task))
        advice = str(caught[0].message).split("pass ")[1]
        assert order(eval(advice, {"pandas": pd, "task": task})) == MONTHS


def test_the_warning_comes_once_a_fit_and_not_from_the_folds_alone():
    X, y, task = np.zeros((30, 1)), np.zeros(30), np.repeat(MONTHS, 10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quick(max_epochs=1).fit(X, y, task=task)
        rows_by_task(task, 30)  # how folds are made
    assert [type(warning.message) for warning in caught] == [UserWarning]


def test_many_labels_are_not_all_listed():
    task = [f"{number:02} months" for number in range(20)][::-1]
    with pytest.warns(UserWarning, match=r"'05 months', …, but"):
        tasks_to_learn(task, 20)


def test_the_order_that_is_documented_is_the_one_that_is_learned():
    X = torch.arange(40.0)[:, None].numpy()
    task = np.array(["task 10", "task 2", "task 1", "task 2"] * 10)
    net = quick().fit(X, X[:, 0], task=task)
    assert [one.n_samples for one in net.memory_.tasks] == [10, 20, 10]
