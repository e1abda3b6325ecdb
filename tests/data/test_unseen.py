"""Categories that a fitted encoder passes over."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)

from sklearn_ewc.data.unseen import unseen_categories, warn_of_unseen
from sklearn_ewc.pipeline import make_continual_pipeline

from ..helpers import quick

EARLY = pd.DataFrame({"carat": np.arange(20.0), "cut": ["a", "b"] * 10, "hue": [3, 5] * 10})
LATE = pd.DataFrame({"carat": np.arange(6.0), "cut": ["a", "d", "c"] * 2, "hue": [3, 5, 4] * 2})
Y = np.arange(20) / 3
UNSEEN = {"cut": ["c", "d"], "hue": [4]}


def as_polars(X):
    return pytest.importorskip("polars").DataFrame(X.to_dict("list"))


def as_list(X):
    return X.to_numpy().tolist()


def ignoring(**kwargs):
    return OneHotEncoder(handle_unknown="ignore", sparse_output=False, **kwargs)


ENCODERS = [
    ignoring(),
    OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=2),
    OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    TargetEncoder(cv=2),
]
encoders = pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: type(encoder).__name__)


@encoders
@pytest.mark.parametrize(
    "form",
    [pd.DataFrame, as_polars, np.asarray, as_list],
)
def test_an_encoder_names_what_it_has_never_seen(encoder, form):
    early, late = EARLY[["cut", "hue"]], LATE[["cut", "hue"]]
    encoder.fit(form(early), Y)
    named = hasattr(form(early), "columns")
    names = ("cut", "hue") if named else ("x0", "x1")
    expected = dict(zip(names, UNSEEN.values(), strict=True))
    assert unseen_categories(encoder, form(late)) == expected
    assert unseen_categories(encoder, form(early)) == {}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda encoder: ColumnTransformer([("e", encoder, ["cut", "hue"])], remainder="drop"),
        lambda encoder: ColumnTransformer([("e", encoder, [1, 2])], remainder=StandardScaler()),
        lambda encoder: ColumnTransformer([("e", encoder, slice(1, 3))]),
        lambda encoder: ColumnTransformer([("e", encoder, slice("cut", "hue"))]),
        lambda encoder: ColumnTransformer([("e", encoder, [False, True, True])]),
        lambda encoder: ColumnTransformer([("e", encoder, make_column_selector("cut|hue"))]),
        lambda encoder: ColumnTransformer([("n", "drop", ["carat"])], remainder=encoder),
        lambda encoder: make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="most_frequent"), encoder), ["cut", "hue"]),
            (StandardScaler(), ["carat"]),
        ),
        lambda encoder: make_column_transformer(
            (make_pipeline(None, "passthrough", encoder, None), ["cut", "hue"])
        ),
        lambda encoder: make_column_transformer(
            (make_union(encoder, FunctionTransformer(lambda X: X[["hue"]])), ["cut", "hue"])
        ),
        lambda encoder: FeatureUnion(
            [
                ("a", make_column_transformer((encoder, ["cut"]))),
                ("b", make_column_transformer((encoder, ["hue"]))),
                ("c", "drop"),
            ]
        ),
        lambda encoder: make_pipeline(
            make_column_transformer((encoder, ["cut", "hue"])), FunctionTransformer()
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:\\s*The format of the columns:FutureWarning")
def test_encoders_are_found_wherever_they_are(wrap):
    transformer = wrap(ignoring()).fit(EARLY, Y)
    assert unseen_categories(transformer, LATE) == UNSEEN
    assert unseen_categories(FrozenEstimator(transformer), LATE) == UNSEEN


@encoders
def test_every_encoder_is_found_beside_others(encoder):
    transformer = make_column_transformer((encoder, ["cut"]), (StandardScaler(), ["carat"]))
    assert unseen_categories(transformer.fit(EARLY, Y), LATE) == {"cut": ["c", "d"]}


def test_columns_of_an_array_are_named_by_their_place():
    transformer = make_column_transformer((ignoring(), [1]), (StandardScaler(), [0]))
    transformer.fit(EARLY.to_numpy())
    assert unseen_categories(transformer, LATE.to_numpy()) == {"x1": ["c", "d"]}
    assert unseen_categories(transformer, LATE.to_numpy().tolist()) == {"x1": ["c", "d"]}


def test_what_was_declared_was_seen():
    declared = ignoring(categories=[list("abcd"), [3, 4, 5]]).fit(EARLY[["cut", "hue"]])
    assert unseen_categories(declared, LATE[["cut", "hue"]]) == {}


def test_an_encoder_that_raises_by_itself_is_left_to_do_so():
    assert unseen_categories(OneHotEncoder().fit(EARLY[["cut"]]), LATE[["cut"]]) == {}


@pytest.mark.parametrize("missing", [np.nan, None])
def test_a_missing_value_is_a_category_like_others(missing):
    early = np.array([["a"], [missing]], dtype=object)
    late = np.array([[missing], [missing], ["a"], ["b"]], dtype=object)
    assert unseen_categories(ignoring().fit(early), late) == {"x0": ["b"]}
    (found,) = unseen_categories(ignoring().fit(early[:1]), late).values()
    assert len(found) == 2


def test_one_nan_is_as_good_as_another():
    early, late = np.array([[1.0], [np.nan]]), np.array([[np.nan], [2.0], [np.nan]])
    assert unseen_categories(ignoring().fit(early), late) == {"x0": [2.0]}
    (found,) = unseen_categories(ignoring().fit(early[:1]), late).values()
    assert len(found) == 2


def test_what_has_no_categories_is_never_asked():
    class Untouchable:
        def __getattr__(self, name):
            if name in ("categories_", "transformers_", "transformer_list", "steps"):
                raise AttributeError(name)
            raise AssertionError(name)

    assert unseen_categories(Untouchable(), None) == {}


def test_many_categories_are_counted():
    encoder = ignoring().fit([["a"]])
    with pytest.warns(UserWarning, match=r"columns x0: 'b0', 'b1', 'b2', 'b3', 'b4' and 4 more"):
        warn_of_unseen(encoder, [[f"b{number}"] for number in range(9)], "encoder", "task 2")


# in a pipeline


def table(**kwargs):
    return make_column_transformer((ignoring(**kwargs), ["cut"]), (StandardScaler(), ["carat"]))


def message(task):
    return rf"{task} has categories that step 'columntransformer'.*columns cut: 'c', 'd'"


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("around", [make_continual_pipeline, lambda x: x], ids=["nested", "flat"])
def test_a_later_task_with_other_categories_is_told_of(around, update):
    pipeline = around(make_continual_pipeline(table(), quick(), update_transformers=update))
    pipeline.partial_fit(EARLY, Y).partial_fit(EARLY, Y)
    with pytest.warns(UserWarning, match=message("task 3")):
        pipeline.partial_fit(LATE, Y[:6])
    assert pipeline.n_tasks_ == 3


def test_a_task_with_a_label_is_named_by_it():
    both, task = pd.concat([EARLY, LATE]), [2023] * 20 + [2024] * 6
    pipeline = make_continual_pipeline(table(), quick())
    with pytest.warns(UserWarning, match=message(r"task 2 \(2024\)")):
        pipeline.fit(both, np.zeros(26), task=task)


def test_nothing_is_said_of_the_first_task_of_declared_categories_and_of_predictions():
    pipeline = make_continual_pipeline(table(), quick()).fit(EARLY, Y)
    pipeline.predict(LATE)
    pipeline.fit(LATE, Y[:6])
    declared = make_continual_pipeline(table(categories=[list("abcd")]), quick())
    declared.partial_fit(EARLY, Y).partial_fit(LATE, Y[:6])
