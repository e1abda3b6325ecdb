"""What users override of a net, as in skorch, and what they cannot do."""

import io
from collections import Counter

import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

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
