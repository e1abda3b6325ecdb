"""What is tried before a task is trained: batches of the sizes that it will have."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler

from sklearn_ewc.data.batches import TensorBatches
from sklearn_ewc.training.processes import Processes
from sklearn_ewc.training.sizes import batch_sizes

from ..helpers import quick


def normed(norm=None):
    return nn.Sequential(nn.Linear(2, 4), norm or nn.BatchNorm1d(4), nn.Linear(4, 1))


def data(n_samples):
    X = np.random.RandomState(0).randn(n_samples, 2)
    return X, X.sum(axis=1)


class Counts(Callback):
    n_begun = 0

    def on_train_begin(self, net, **kwargs):
        self.n_begun += 1


REFUSED = {
    "the last batch": (33, {}, "33 samples in batches of 32: .*, leave the last .*drop_last=True"),
    "a single sample": (1, {}, "1 sample in batches of 1: learn more samples"),
    "every batch": (
        8,
        {"batch_size": 1},
        "8 samples in batches of 1: choose another batch_size, or",
    ),
    "a loader's": (9, {"batch_size": 8, "iterator_train": DataLoader}, "9 samples in batches of 8"),
    "a numpy integer": (9, {"batch_size": np.int64(4)}, "9 samples in batches of 4"),
    "training's own": (9, {"iterator_train__batch_size": 4}, "9 samples in batches of 4"),
}


@pytest.mark.parametrize(("n_samples", "settings", "message"), REFUSED.values(), ids=REFUSED)
def test_a_batch_too_small_for_a_layer_is_refused_before_training(n_samples, settings, message):
    counts = Counts()
    net = quick(module=normed(), callbacks=[("counts", counts)], **settings)
    with pytest.raises(
        ValueError, match=f"^BatchNorm1d cannot take a batch of 1 sample .*{message}"
    ):
        net.partial_fit(*data(n_samples))
    assert counts.n_begun == 0


ALLOWED = {
    "full batches": (64, {}),
    "the rest left out": (33, {"iterator_train__drop_last": True}),
    "the rest left out by a loader": (
        33,
        {"iterator_train": DataLoader, "iterator_train__drop_last": True},
    ),
    "small ones in evaluation": (8, {"iterator_valid__batch_size": 1}),
    "one sample held out": (9, {"train_split": ValidSplit(9), "batch_size": 8}),
    "a sampler's": (
        33,
        {"iterator_train": DataLoader, "iterator_train__sampler": SubsetRandomSampler(range(32))},
    ),
    "another norm": (33, {"module": normed(nn.LayerNorm(4))}),
}


@pytest.mark.parametrize(("n_samples", "settings"), ALLOWED.values(), ids=ALLOWED)
def test_batches_that_training_never_sees_do_not_matter(n_samples, settings):
    net = quick(**{"module": normed(), "max_epochs": 1, **settings})
    assert net.partial_fit(*data(n_samples)).n_tasks_ == 1


@pytest.mark.parametrize("n_samples", [1, 33])
def test_where_statistics_are_held_a_single_row_is_enough(n_samples):
    net = quick(module=normed(), max_epochs=1).partial_fit(*data(32))
    assert net.partial_fit(*data(n_samples)).n_tasks_ == 2
    with pytest.raises(ValueError, match="BatchNorm1d cannot take a batch of 1 sample"):
        net.set_params(remember_buffers=False).partial_fit(*data(n_samples))


@pytest.mark.parametrize("n_samples", [64, 33, 1])
def test_a_norm_by_the_batch_in_evaluation_too_is_refused_before_training(n_samples):
    net = quick(module=normed(nn.BatchNorm1d(4, track_running_stats=False)))
    with pytest.raises(ValueError, match="BatchNorm1d .*fisher='auto' takes each by itself in ev"):
        net.partial_fit(*data(n_samples))
    net.set_params(fisher="batch")
    if n_samples == 64:
        assert net.partial_fit(*data(64)).n_tasks_ == 1
        return
    with pytest.raises(ValueError, match=f"evaluation takes {n_samples} sample.? in batches of"):
        net.partial_fit(*data(n_samples))


class Picky(nn.Linear):
    """Takes at least three rows in training, and fails by a fault of its own if told to."""

    fault = ""

    def forward(self, X):
        if self.training and len(X) < 3:
            raise IndexError("too few")
        if self.fault == ("training" if self.training else "evaluation"):
            raise KeyError("a fault of its own")
        return super().forward(X)


def test_a_layer_of_ones_own_is_named_with_what_it_said():
    with pytest.raises(ValueError, match=r"^Picky cannot take a batch of 2 samples \(too few\)"):
        quick(module=Picky(2, 1), batch_size=4).partial_fit(*data(6))


@pytest.mark.parametrize("n_samples", [6, 1])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_a_fault_that_any_batch_meets_is_raised_as_it_is(mode, n_samples):
    module = Picky(2, 1)
    module.fault = mode
    error = KeyError if n_samples == 6 or mode == "evaluation" else IndexError
    with pytest.raises(error):
        quick(module=module).partial_fit(*data(n_samples))


def test_the_sizes_of_batches_are_those_that_come():
    dataset = torch.utils.data.TensorDataset(torch.zeros(10, 1), torch.zeros(10))
    for options in ({"batch_size": 4}, {"batch_size": 5}, {"batch_size": 12}, {"batch_size": 1}):
        for drop_last in (False, True):
            for kind in (TensorBatches, DataLoader):
                iterator = kind(dataset, drop_last=drop_last, **options)
                sizes = {len(y) for _, y in iterator}
                assert set(batch_sizes(iterator, 10)) == sizes or not sizes


class Two:
    num_processes = 2


@pytest.mark.parametrize(("n_rows", "expected"), [(1, [1]), (2, [1]), (3, [2, 1]), (8, [4])])
def test_the_shares_of_two_processes_differ_by_a_row(n_rows, expected):
    assert Processes(Two()).share_sizes(n_rows) == expected
    assert Processes().share_sizes(n_rows) == [n_rows]
