"""What users override of a net, as in skorch, and what they cannot do."""

import io
from collections import Counter

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from sklearn_ewc import EWCRegressor

from ..helpers import learn, parameters, quick

SETTINGS = {"hidden_layer_sizes": (8,), "max_epochs": 3, "random_state": 0, "batch_size": 16}


class Overrides(EWCRegressor):
    """Overrides what skorch's documentation says may be, with its signatures."""

    def get_iterator(self, dataset, training=False):
        return super().get_iterator(dataset, training=training)

    def train_step_single(self, batch, **fit_params):
        return super().train_step_single(batch, **fit_params)

    def validation_step(self, batch, **fit_params):
        return super().validation_step(batch, **fit_params)

    def evaluation_step(self, batch, training=False):
        return super().evaluation_step(batch, training=training)

    def infer(self, x, **fit_params):
        return super().infer(x, **fit_params)

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return super().get_loss(y_pred, y_true, *args, **kwargs)

    def get_split_datasets(self, X, y=None, **fit_params):
        return super().get_split_datasets(X, y, **fit_params)

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)

    def save_params(self, *args, **kwargs):
        super().save_params(*args, **kwargs)


def test_overrides_that_call_ours_change_nothing(tasks):
    ours, theirs = (learn(kind(**SETTINGS), tasks[:2]) for kind in (EWCRegressor, Overrides))
    assert torch.equal(parameters(ours), parameters(theirs))
    theirs.save_params(f_params=io.BytesIO())


def test_notify_of_ones_own_hears_of_all(tasks):
    heard = Counter()

    class Notifies(EWCRegressor):
        def notify(self, method_name, **kwargs):
            heard[method_name] += 1
            super().notify(method_name, **kwargs)

    Notifies(**SETTINGS).partial_fit(*tasks[0])
    assert heard["on_epoch_begin"] == heard["on_epoch_end"] == 3
    assert heard["on_train_begin"] == heard["on_train_end"] == 1
    assert heard["on_batch_begin"] == heard["on_batch_end"] == 9


def test_training_past_the_memory_is_refused(tasks):
    net = quick().partial_fit(*tasks[0])
    with pytest.raises(TypeError, match="has no fit_loop: learn a task by partial_fit"):
        net.fit_loop(*tasks[1])


class Exchanges(Callback):
    """Puts another layer in the place of the first."""

    def on_epoch_begin(self, net, **kwargs):
        if net.n_tasks_ == 1:
            net.module_.layers[0] = nn.Linear(1, 8).double()


def test_a_layer_exchanged_in_mid_task_is_refused_and_comes_back(tasks):
    net = quick(callbacks=[Exchanges()]).partial_fit(*tasks[0])
    before, layer = parameters(net), net.module_.layers[0]
    with pytest.raises(ValueError, match=r"exchanged the parameters \['layers.0.bias', 'layers.0"):
        net.partial_fit(*tasks[1])
    assert net.module_.layers[0] is layer
    assert torch.equal(parameters(net), before)


def test_a_module_that_is_frozen_as_a_whole_is_refused(tasks):
    module = nn.Linear(1, 1).requires_grad_(False)
    with pytest.raises(ValueError, match="module has no parameter with requires_grad=True"):
        quick(module=module).partial_fit(*tasks[0])


@pytest.mark.parametrize("accelerator", ["cpu", 3])
def test_an_accelerator_that_is_none_is_named(tasks, accelerator):
    with pytest.raises(TypeError, match=f"accelerator must be None or .* got {accelerator!r}"):
        quick(accelerator=accelerator).partial_fit(*tasks[0])
    net = quick().partial_fit(*tasks[0]).set_params(accelerator=accelerator)
    with pytest.raises(TypeError, match="accelerator"):
        net.partial_fit(*tasks[1])
    assert net.n_tasks_ == 1


class Duck:
    """A callback to skorch, without being one, that keeps a list."""

    def __init__(self):
        self.losses = []

    def initialize(self):
        return self

    def set_params(self, **params):
        return self

    def on_epoch_end(self, net, **kwargs):
        self.losses.append(net.history[-1, "train_loss"])
        if net.n_tasks_ == 1:
            raise RuntimeError("boom")

    def _nothing(self, net, **kwargs):
        pass

    on_train_begin = on_train_end = on_epoch_begin = _nothing
    on_batch_begin = on_batch_end = on_grad_computed = _nothing


def test_what_is_no_callback_but_serves_as_one_comes_back_too(tasks):
    duck = Duck()
    net = quick(callbacks=[("duck", duck)]).partial_fit(*tasks[0])
    before = list(duck.losses)
    with pytest.raises(RuntimeError, match="boom"):
        net.partial_fit(*tasks[1])
    assert duck.losses == before


# what would fail later, or without a word


def test_a_task_of_which_no_batch_is_left_is_refused_and_undone(tasks):
    X, y = tasks[0]
    net = quick(batch_size=32, iterator_train__drop_last=True).partial_fit(X, y)
    before = parameters(net)
    with pytest.raises(ValueError, match="no batch to train on: batch_size=32 with drop_last"):
        net.partial_fit(X[:20], y[:20])
    assert net.n_tasks_ == 1
    assert torch.equal(parameters(net), before)


class GaussianNLL(nn.Module):
    """Mean and logarithm of the variance for one target."""

    def forward(self, output, y):
        mean, log_var = output[:, :1], output[:, 1:]
        return (log_var + (y - mean) ** 2 / log_var.exp()).mean()


def test_a_module_with_more_columns_than_y_predicts_all_of_them(tasks):
    net = quick(module=nn.Linear(1, 2), criterion=GaussianNLL)
    assert net.partial_fit(*tasks[0]).predict(tasks[0][0]).shape == (40, 2)


@pytest.mark.parametrize("width", [np.int64(4), np.array([4, 3]), (np.int32(4),)], ids=repr)
def test_widths_may_be_numpys(tasks, width):
    assert (
        quick(hidden_layer_sizes=width).partial_fit(*tasks[0]).module_.layers[0].out_features == 4
    )


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_codes_of_any_size_go_into_an_embedding(tasks, dtype):
    class Sites(nn.Module):
        def __init__(self):
            super().__init__()
            self.site, self.out = nn.Embedding(3, 2), nn.Linear(3, 1)

        def forward(self, site, t):
            return self.out(torch.cat([self.site(site), t], 1))

    X, y = tasks[0]
    data = {"site": np.arange(len(X), dtype=dtype) % 3, "t": X}
    assert quick(module=Sites).partial_fit(data, y).predict(data).shape == y.shape


def test_a_module_widened_between_tasks_is_refused_by_its_shapes(tasks):
    net = quick().partial_fit(*tasks[0])
    net.module_.layers[0], net.module_.layers[2] = (
        nn.Linear(1, 9).double(),
        nn.Linear(9, 1).double(),
    )
    with pytest.raises(
        ValueError, match=r"shape \(9, 1\) at 'layers.0.weight', the memory \(8, 1\)"
    ):
        net.partial_fit(*tasks[1])


class Stream(IterableDataset):
    def __iter__(self):
        yield np.ones(3, "float32"), np.float32(1)

    def __len__(self):
        return 1


@pytest.mark.parametrize("X", [Stream(), DataLoader(Stream())], ids=["stream", "loader"])
def test_streams_are_refused_by_what_x_may_be(X):
    with pytest.raises(TypeError, match="X is a .*: it must be an array, a dict of arrays, or"):
        quick().partial_fit(X)
