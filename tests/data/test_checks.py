"""Errors that a person can act on, raised before anything changes."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_ewc import MLP, EWCRegressor
from sklearn_ewc.data.tasks import rows_by_task

X, Y = np.arange(12.0).reshape(6, 2), np.arange(6.0)
DATASET = TensorDataset(torch.zeros(4, 2), torch.zeros(4, 1))


def with_value(value, array=X):
    changed = array.copy()
    changed.flat[3] = value
    return changed


def quick(**kwargs):
    options = {"hidden_layer_sizes": (4,), "max_epochs": 2, "random_state": 0, **kwargs}
    return EWCRegressor(**options)


class Flat(nn.Module):
    """Returns (n_samples,), which MSELoss would broadcast against (n_samples, 1)."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, X):
        return self.linear(X).squeeze(1)


class Transposed(Flat):
    def forward(self, X):
        return self.linear(X).T


BAD_DATA = {
    "NaN in X": ({"X": with_value(np.nan)}, "X contains NaN"),
    "infinite X": ({"X": with_value(np.inf)}, "X contains infinity"),
    "NaN in y": ({"y": with_value(np.nan, Y)}, "y contains NaN"),
    "infinite y": ({"y": with_value(np.inf, Y)}, "y contains infinity"),
    "sparse": ({"X": scipy.sparse.csr_array(X)}, "[Ss]parse"),
    "empty": ({"X": X[:0], "y": Y[:0]}, "0 sample"),
    "text in X": ({"X": np.full((6, 2), "a")}, "could not convert string|dtype='numeric'"),
    "text in y": ({"y": np.full(6, "a")}, "could not convert string|unknown label|dtype"),
    "complex": ({"X": X + 1j}, "[Cc]omplex"),
    "one axis": ({"X": Y}, "Expected 2D array"),
    "no y": ({"y": None}, "requires y"),
    "length of y": ({"y": Y[:-1]}, "inconsistent numbers of samples"),
    "length of weights": ({"sample_weight": np.ones(5)}, "sample_weight.shape"),
    "negative weight": ({"sample_weight": -np.ones(6)}, "[Nn]egative values.*sample_weight"),
    "no weight": ({"sample_weight": np.zeros(6)}, "Sample weights must|sample_weight must"),
    "NaN weight": ({"sample_weight": np.full(6, np.nan)}, "sample_weight contains NaN"),
    "dict without y": ({"X": {"X": X}, "y": None}, "requires y"),
    "dict of unequal lengths": ({"X": {"X": X[:5]}}, "inconsistent numbers of samples"),
    "NaN in a dict": ({"X": {"X": with_value(np.nan)}}, r"X\['X'\] contains NaN"),
    "dataset and y": ({"X": DATASET}, "belong in the dataset"),
    "dataset and weights": (
        {"X": DATASET, "y": None, "sample_weight": np.ones(4)},
        "belong in the dataset",
    ),
}
BAD_AFTER_FIRST = {
    "another number of features": ({"X": X[:, :1]}, "X has 1 features.*expecting 2"),
    "another number of outputs": ({"y": np.c_[Y, Y]}, "y has 2 outputs.*fitted with 1"),
    "too large for float32": ({"X": 1e300 * (X + 1)}, "too large for dtype|infinity"),
}
BAD_SETTINGS = {
    "negative lambda": ({"ewc_lambda": -1.0}, "ewc_lambda.*-1.0"),
    "infinite lambda": ({"ewc_lambda": np.inf}, "ewc_lambda.*inf"),
    "NaN lambda": ({"ewc_lambda": np.nan}, "ewc_lambda.*nan"),
    "lambda as text": ({"ewc_lambda": "10"}, "ewc_lambda.*'10'"),
    "negative damping": ({"damping": -0.1}, "damping.*-0.1"),
    "infinite damping": ({"damping": np.inf}, "damping.*inf"),
    "unknown fisher": (
        {"fisher": "Exact"},
        "fisher.*'exact', 'empirical', 'batch'.*got 'Exact'",
    ),
    "unknown mode": (
        {"mode": "Online"},
        "mode must be one of 'auto', 'offline', 'online', got 'Online'",
    ),
    "unknown step": ({"penalty_step": "prox"}, "'proximal', 'gradient', got 'prox'"),
    "negative gamma": ({"gamma": -0.1}, "gamma must be a finite number >= 0, got -0.1"),
    "growing gamma": ({"gamma": 1.5}, "gamma must be at most 1, got 1.5"),
    "no curvature": ({"criterion": nn.L1Loss}, "L1Loss has no curvature.*'empirical'"),
}


class RootMeanSquare(nn.Module):
    def forward(self, output, target):
        return (output - target).square().mean().sqrt()


class OwnSquare(nn.Module):
    def forward(self, output, target):
        return (output - target).square().mean()


BAD_MODULES = {
    "broadcasting criterion": ({"module": Flat, "criterion": OwnSquare}, "targets of shape"),
    "not a mean": ({"criterion": RootMeanSquare}, "RootMeanSquare.*not the mean over its samples"),
    "empty batches": ({"batch_size": 0}, "batch_size must be positive"),
    "seed of text": ({"random_state": "a"}, "cannot be used to seed"),
    "zero Fisher": (
        {"criterion": nn.HuberLoss, "criterion__delta": 1e-9},
        "exact Fisher of this task is zero",
    ),
    "flat output": ({"module": Flat}, r"shape \(6,\) for targets of shape \(6, 1\)"),
    "transposed output": ({"module": Transposed}, r"shape \(1, 6\) for a batch of 6 samples"),
    "too many outputs": (
        {"module": MLP, "module__n_outputs": 3},
        r"shape \(6, 3\) for targets of shape \(6, 1\)",
    ),
    "unknown parameter": ({"module__width": 3}, "unexpected keyword argument 'width'"),
}


def unchanged(net, before, parameters):
    assert vars(net) == before
    for p, value in zip(net.module_.parameters(), parameters, strict=True):
        assert torch.equal(p, value)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_are_refused_before_anything_changes(case, method):
    arguments, message = BAD_DATA[case]
    fresh = quick()
    before = dict(vars(fresh))
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(fresh, method)(**{"X": X, "y": Y, **arguments})
    assert vars(fresh) == before
    net = quick().fit(X, Y)
    before, parameters = dict(vars(net)), [p.clone() for p in net.module_.parameters()]
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(net, method)(**{"X": X, "y": Y, **arguments})
    unchanged(net, before, parameters)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("case", BAD_AFTER_FIRST)
def test_later_tasks_are_held_to_the_first(case):
    arguments, message = BAD_AFTER_FIRST[case]
    net = quick().fit(X.astype(np.float32), Y)
    before, parameters = dict(vars(net)), [p.clone() for p in net.module_.parameters()]
    with pytest.raises(ValueError, match=message):
        net.partial_fit(**{"X": X, "y": Y, **arguments})
    unchanged(net, before, parameters)


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_settings_that_mean_nothing_are_refused_before_anything_changes(case):
    settings, message = BAD_SETTINGS[case]
    fresh = quick(**settings)
    before = dict(vars(fresh))
    with pytest.raises(ValueError, match=message):
        fresh.fit(X, Y)
    assert vars(fresh) == before
    net = quick().fit(X, Y).set_params(**settings)
    before, parameters = dict(vars(net)), [p.clone() for p in net.module_.parameters()]
    with pytest.raises(ValueError, match=message):
        net.partial_fit(X, Y)
    unchanged(net, before, parameters)


@pytest.mark.parametrize("case", BAD_MODULES)
def test_a_module_that_does_not_fit_the_data_is_refused(case):
    settings, message = BAD_MODULES[case]
    net = quick(**settings)
    before = dict(vars(net))
    with pytest.raises((ValueError, TypeError), match=message):
        net.fit(X, Y)
    assert vars(net) == before


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, "1", None])
def test_a_task_weight_that_means_nothing_is_refused(value):
    with pytest.raises(ValueError, match="task_weight"):
        quick().partial_fit(X, Y, task_weight=value)


def test_a_users_own_criterion_decides_on_shapes_itself():
    class Quantiles(nn.Module):
        def forward(self, output, target):
            error = target - output
            levels = torch.tensor([0.1, 0.5, 0.9], dtype=output.dtype)
            return torch.maximum(levels * error, (levels - 1) * error).mean()

    net = quick(module__n_outputs=3, criterion=Quantiles, fisher="empirical")
    assert net.fit(X, Y, task=[0, 0, 0, 1, 1, 1]).n_tasks_ == 2


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ([1, 2], ValueError, "2 labels for 6 samples"),
        ([1, 1, 1, 2, 2, np.nan], ValueError, "missing labels"),
        (["a", "a", "a", "b", "b", None], ValueError, "missing labels"),
        (pd.array([1, 1, 1, 2, 2, None], dtype="Int64"), ValueError, "missing labels"),
        ([1, 1, 1, 2, 2, "a"], TypeError, "cannot be sorted"),
        (np.array(["a", "a", "a", 1, 1, 1], dtype=object), TypeError, "cannot be sorted"),
        (np.zeros((6, 2)), ValueError, "1d array"),
    ],
    ids=["length", "NaN", "None", "NA", "mixed list", "mixed", "two columns"],
)
def test_labels_that_mean_nothing_are_refused(task, error, message):
    net = quick()
    before = dict(vars(net))
    with pytest.raises(error, match=message):
        net.fit(X, Y, task=task)
    assert vars(net) == before


def test_a_task_without_any_weight_is_refused():
    weight = [1, 1, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="every task"):
        quick().fit(X, Y, task=[0, 0, 0, 1, 1, 1], sample_weight=weight)


def test_a_training_part_without_any_weight_is_refused():
    split = ValidSplit(3)
    weight = np.r_[np.ones(2), np.zeros(4)]  # the first fold is for validation
    net = quick(train_split=split)
    before = dict(vars(net))
    with pytest.raises(ValueError, match="some sample that is trained on"):
        net.fit(X, Y, sample_weight=weight)
    assert vars(net) == before


def test_parameters_that_do_not_fit_together_are_set_all_or_none():
    net = quick().fit(X, Y)
    with pytest.raises(TypeError, match="nope"):
        net.set_params(criterion=nn.HuberLoss, criterion__nope=3)
    assert net.criterion is nn.MSELoss
    net.partial_fit(X, Y)


def test_a_callback_without_a_validation_part_is_told_what_to_set():
    with pytest.raises(ValueError, match="EarlyStopping monitors 'valid_loss'.*train_split"):
        quick(callbacks=[EarlyStopping()]).fit(X, Y)
    quick(callbacks=[EarlyStopping(monitor="train_loss")]).fit(X, Y)


def test_a_misspelt_parameter_with_an_underscore_is_refused():
    with pytest.raises(ValueError, match="no parameter 'lambda_'"):
        quick(lambda_=3.0).fit(X, Y)


def test_a_dataset_cannot_be_split_by_task():
    with pytest.raises(ValueError, match="cannot be split by task"):
        quick().fit(DATASET, task=[0, 0, 1, 1])


def test_rows_are_grouped_in_the_sorted_order_of_labels():
    rows = rows_by_task(["b", "a", "b", "c"], 4)
    assert [index.tolist() for index in rows] == [[1], [0, 2], [3]]
    unordered = pd.Series(pd.Categorical(["b", "a"], categories=["b", "a"]))
    assert [index.tolist() for index in rows_by_task(unordered, 2)] == [[1], [0]]
