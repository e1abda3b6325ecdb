"""Settings by the names of others, and samplers that choose the rows of training."""

import inspect
import typing

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPRegressor
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from sklearn_ewc import EWCRegressor, diagonal_fisher
from sklearn_ewc.curvature import FISHERS, KINDS, Fisher, Kind
from sklearn_ewc.memory import MODES, PENALTY_STEPS, Mode, PenaltyStep
from sklearn_ewc.training.settings import CHECKS, NAMES_HERE

from ..helpers import parameters, quick

X = np.random.RandomState(0).randn(60, 3)
Y = X[:, 0] - X[:, 1]

# the names of MLPRegressor


@pytest.mark.parametrize("name", NAMES_HERE)
def test_a_parameter_of_mlpregressor_is_told_by_its_name_here(name):
    net = quick(**{name: 0.5})
    with pytest.raises(ValueError, match=f"no parameter '{name}': set "):
        net.fit(X, Y)
    with pytest.raises(ValueError, match=f"(?s)Invalid parameter '{name}' .*: set "):
        quick().set_params(**{name: 0.5})


def test_every_parameter_of_mlpregressor_is_one_here_or_is_told():
    theirs = set(inspect.signature(MLPRegressor).parameters)
    ours = set(inspect.signature(EWCRegressor).parameters)
    assert theirs - ours <= NAMES_HERE.keys()
    assert not NAMES_HERE.keys() & ours


def test_the_names_told_are_right():
    net = quick(
        module__activation=nn.Tanh,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        optimizer__nesterov=True,
        optimizer__weight_decay=1e-4,
        callbacks=[EarlyStopping()],
        train_split=ValidSplit(10),
        iterator_train__shuffle=False,
        lr=1e-3,
    )
    assert net.fit(X, Y).n_tasks_ == 1
    quick(optimizer__betas=(0.9, 0.999), optimizer__eps=1e-8).fit(X, Y)


def test_the_automatic_batch_size_of_mlpregressor_is_told():
    with pytest.raises(ValueError, match=r"^batch_size .* -1 for all, .*'auto' is min\(200"):
        quick(batch_size="auto").fit(X, Y)


@pytest.mark.parametrize("widths", [8, np.int64(8), [8], (8,), np.array([8]), range(8, 9)])
def test_widths_are_one_number_or_any_sequence(widths):
    net = quick(hidden_layer_sizes=widths).fit(X, Y)
    assert torch.equal(parameters(net), parameters(quick(hidden_layer_sizes=(8,)).fit(X, Y)))


def test_the_words_of_a_setting_are_those_of_its_type():
    hints = typing.get_type_hints(EWCRegressor.__init__)
    for name, alias, words in [
        ("fisher", Fisher, FISHERS),
        ("mode", Mode, MODES),
    ]:
        assert hints[name] == alias | typing.Literal["auto"]
        assert typing.get_args(alias) == words
        assert CHECKS[name].keywords["known"] == ("auto", *words)
    for name, alias, words in [
        ("curvature", Kind, tuple(KINDS)),
        ("penalty_step", PenaltyStep, PENALTY_STEPS),
    ]:
        assert hints[name] == alias
        assert typing.get_args(alias) == words == tuple(CHECKS[name].keywords["known"])


# samplers


def samplers():
    generator = torch.Generator().manual_seed(3)
    weighted = WeightedRandomSampler(torch.ones(60), 60, generator=generator)
    return {
        "sampler": weighted,
        "batch_sampler": BatchSampler(SequentialSampler(range(60)), 7, drop_last=True),
    }


@pytest.mark.parametrize("iterator", [None, DataLoader])
@pytest.mark.parametrize("name", ["sampler", "batch_sampler"])
def test_a_sampler_says_which_rows_are_trained_on(name, iterator):
    kind = {} if iterator is None else {"iterator_train": iterator}
    net = quick(**{f"iterator_train__{name}": samplers()[name], **kind}).fit(X, Y)
    sizes = [row["train_batch_size"] for row in net.history[-1]["batches"]]
    assert sizes == ([32, 28] if name == "sampler" else [7] * 8)


def test_a_sampler_draws_from_its_own_generator():
    first, second = (
        parameters(quick(iterator_train__sampler=samplers()["sampler"]).fit(X, Y)) for _ in range(2)
    )
    assert torch.equal(first, second)
    before = torch.get_rng_state()
    quick(iterator_train__sampler=samplers()["sampler"]).fit(X, Y)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("sampler", [SubsetRandomSampler([3, 4]), RandomSampler(range(60))])
def test_the_fisher_sees_every_row_whatever_the_sampler(sampler):
    net = quick(iterator_train__sampler=sampler).fit(X, Y)
    batch = (torch.as_tensor(X), torch.as_tensor(Y).unsqueeze(1))
    expected = diagonal_fisher(net.module_, nn.MSELoss(), [batch])
    for name, value in net.memory_.tasks[0].fisher.items():
        torch.testing.assert_close(value, expected[name])


def test_a_sampler_and_a_shuffle_that_was_asked_for_exclude_each_other():
    options = {"iterator_train__sampler": samplers()["sampler"], "iterator_train__shuffle": True}
    with pytest.raises(ValueError, match="sampler option is mutually exclusive"):
        quick(**options).fit(X, Y)


@pytest.mark.parametrize("name", ["sampler", "batch_sampler"])
def test_predictions_and_the_fisher_have_no_sampler(name):
    with pytest.raises(ValueError, match=f"^iterator_valid__{name} would mix up predictions"):
        quick(**{f"iterator_valid__{name}": samplers()[name]}).fit(X, Y)


def test_the_number_of_batches_is_that_of_the_sampler():
    net = quick(iterator_train__sampler=SubsetRandomSampler([3, 4])).fit(X, Y)
    assert len(net.get_iterator(net.get_dataset(X, Y), training=True)) == 1
