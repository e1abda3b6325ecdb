"""What of skorch is replaced, and what is not: hooks, routing."""

from collections import Counter

import pytest
import sklearn
from sklearn.model_selection import GroupKFold
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit

from sklearn_ewc import EWCRegressor
from sklearn_ewc.training.skorch_parts import is_heard

from ..helpers import quick

# hooks and routing are skorch's own


HOOKS = {
    "on_train_begin": 1,
    "on_epoch_begin": 5,
    "on_batch_begin": 15,
    "on_grad_computed": 15,
    "on_batch_end": 15,
    "on_epoch_end": 5,
    "on_train_end": 1,
}


class Duck:
    """What skorch calls on callbacks, without being one."""

    def __init__(self):
        self.heard = Counter()

    def initialize(self):
        return self

    def get_params(self, deep=True):
        return {}

    def set_params(self, **params):
        return self

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)

        def hook(net, **kwargs):
            self.heard[name] += 1

        return hook


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_set_on_an_instance_is_called(tasks, hook):
    callback, heard = Callback(), Counter()

    def count(net, **kwargs):
        heard[hook] += 1

    setattr(callback, hook, count)
    quick(batch_size=16, callbacks=[callback]).partial_fit(*tasks[0])
    assert heard[hook] == HOOKS[hook]


def test_an_object_with_the_hooks_of_a_callback_is_called(tasks):
    duck = Duck()
    quick(batch_size=16, callbacks=[duck]).partial_fit(*tasks[0])
    assert duck.heard == HOOKS


@pytest.mark.parametrize("hook", ["on_grad_computed", "on_batch_end"])
@pytest.mark.parametrize("how", ["class", "instance", "duck", "net"])
def test_who_listens_is_told_apart_from_who_does_not(tasks, hook, how):
    listener = {"class": type("Hears", (Callback,), {hook: lambda self, net, **kwargs: None})()}
    listener["instance"], listener["duck"], listener["net"] = Callback(), Duck(), Callback()
    setattr(listener["instance"], hook, lambda net, **kwargs: None)
    kind = EWCRegressor
    if how == "net":
        kind = type("Hears", (EWCRegressor,), {hook: lambda self, net, **kwargs: None})
    net = kind(max_epochs=1, callbacks=[listener[how]]).partial_fit(*tasks[0])
    assert is_heard(net, hook)
    assert not is_heard(quick(callbacks=[Callback()]).partial_fit(*tasks[0]), hook)


def test_metadata_that_fit_has_no_parameter_for_are_not_advertised():
    with sklearn.config_context(enable_metadata_routing=True):
        split = ValidSplit(GroupKFold(2).set_split_request(groups=True))
        net = quick(train_split=split).set_fit_request(task=True)
        routed = net.get_metadata_routing()
        assert routed.consumes("fit", {"groups", "task"}) == {"task"}


@pytest.mark.parametrize("key", ["valid_loss", "valid_loss_best"])
@pytest.mark.parametrize("look", [lambda h, key: h[-1][key], lambda h, key: h[-1, key]])
def test_a_callback_that_looks_for_a_validation_loss_is_told_that_there_is_none(tasks, key, look):
    class Looks(Callback):
        def on_epoch_end(self, net, **kwargs):
            look(net.history, key)

    net = quick(callbacks=[("mine", Looks())])
    with pytest.raises(ValueError, match=f"callback mine looks for .*{key}.*train_split"):
        net.partial_fit(*tasks[0])
    assert not net.__sklearn_is_fitted__()
    assert quick(callbacks=[Looks()], train_split=ValidSplit(4)).partial_fit(*tasks[0]).n_tasks_


def test_a_key_that_a_callback_misses_elsewhere_is_its_own_fault(tasks):
    class Looks(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history[-1]["loss"]

    with pytest.raises(KeyError, match="loss"):
        quick(callbacks=[Looks()]).partial_fit(*tasks[0])
