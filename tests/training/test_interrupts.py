"""A callback's KeyboardInterrupt ends the task; Ctrl-C rolls it back."""

import signal
import threading

import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from sklearn_ewc import EWCRegressor

from ..helpers import parameters, quick

HOOKS = ["on_epoch_begin", "on_batch_begin", "on_grad_computed", "on_batch_end", "on_epoch_end"]


def at_second_epoch(action):
    """A hook that does something from the second epoch on, or whenever an epoch has begun."""

    def hook(net, *args, **kwargs):
        if len(net.history) == 2:
            action()

    return hook


def raising():
    raise KeyboardInterrupt


def pressing():
    signal.raise_signal(signal.SIGINT)


def callback_with(hook, action, kind=Callback):
    callback = kind() if kind is Callback else kind(monitor="train_loss")
    setattr(callback, hook, at_second_epoch(action))
    return callback


@pytest.mark.parametrize("kind", [Callback, EarlyStopping])
@pytest.mark.parametrize("hook", HOOKS)
def test_any_hook_of_any_callback_ends_a_task_by_keyboard_interrupt(tasks, hook, kind):
    net = quick().partial_fit(*tasks[0])
    net.set_params(callbacks=[callback_with(hook, raising, kind)])
    net.history_.clear()
    net.partial_fit(*tasks[1])
    assert net.n_tasks_ == 2
    assert len(net.history) == 2
    net.set_params(callbacks=None).partial_fit(*tasks[2])
    assert net.n_tasks_ == 3


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_of_the_net_itself_ends_a_task_too(tasks, hook):
    def stops(self, net, *args, **kwargs):
        getattr(EWCRegressor, hook)(self, net, *args, **kwargs)
        at_second_epoch(raising)(net)

    kind = type("Stops", (EWCRegressor,), {hook: stops})
    net = kind(max_epochs=5, random_state=0).partial_fit(*tasks[0])
    assert net.n_tasks_ == 1
    assert len(net.history) == 2


@pytest.mark.parametrize("hook", HOOKS)
def test_ctrl_c_in_a_hook_rolls_the_task_back(tasks, hook):
    net = quick().partial_fit(*tasks[0])
    net.history_.clear()
    net.set_params(callbacks=[callback_with(hook, pressing)])
    before, handler = parameters(net), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        net.partial_fit(*tasks[1])
    assert net.n_tasks_ == 1
    assert torch.equal(parameters(net), before)
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_in_the_module_rolls_the_task_back(tasks):
    class Interrupted(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(1, 1)
            self.calls = 0

        def forward(self, X):
            self.calls += 1
            if self.calls == 8:
                pressing()
            return self.linear(X)

    net = quick(module=Interrupted)
    with pytest.raises(KeyboardInterrupt):
        net.partial_fit(*tasks[0])
    assert not net.__sklearn_is_fitted__()


def test_a_hook_that_stops_after_it_swallowed_ctrl_c_does_not_end_the_task(tasks):
    def swallowing():
        try:
            pressing()
        except KeyboardInterrupt:
            raising()

    net = quick(callbacks=[callback_with("on_epoch_end", swallowing)])
    with pytest.raises(KeyboardInterrupt):
        net.partial_fit(*tasks[0])


def test_a_handler_of_ones_own_goes_on_handling_interrupts(tasks, monkeypatch):
    pressed = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        net = quick(callbacks=[callback_with("on_epoch_end", pressing)]).partial_fit(*tasks[0])
    finally:
        signal.signal(signal.SIGINT, previous)
    assert pressed == [signal.SIGINT]
    assert len(net.history) == net.max_epochs


def test_ignored_interrupts_stay_ignored(tasks):
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        net = quick(callbacks=[callback_with("on_epoch_end", pressing)]).partial_fit(*tasks[0])
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)
    assert net.n_tasks_ == 1


def test_a_callback_ends_a_task_in_another_thread(tasks):
    net = quick(callbacks=[callback_with("on_epoch_end", raising)])
    thread = threading.Thread(target=net.partial_fit, args=tasks[0])
    thread.start()
    thread.join()
    assert net.n_tasks_ == 1
    assert len(net.history) == 2


def test_a_handler_that_a_callback_installs_stays(tasks):
    def own(number, frame):
        raise KeyboardInterrupt

    previous = signal.getsignal(signal.SIGINT)
    try:
        installing = callback_with("on_epoch_end", lambda: signal.signal(signal.SIGINT, own))
        quick(callbacks=[installing]).partial_fit(*tasks[0])
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, previous)
