"""What a failure leaves behind: nothing."""

import signal

import pytest
import torch
from skorch.callbacks import (
    Callback,
    Freezer,
)
from torch import nn

from ..helpers import parameters, quick


class Fails(Callback):
    def __init__(self, error, epoch):
        self.error = error
        self.epoch = epoch

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            if isinstance(self.error, KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            raise self.error


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_whatever_interrupts_a_task_leaves_the_estimator_as_it_was(tasks, error, method):
    failing = quick(ewc_lambda=10.0, callbacks=[Fails(error, 8 if method == "partial_fit" else 3)])
    calm = quick(ewc_lambda=10.0)
    if method == "fit":
        failing.set_params(callbacks=None)
    failing.partial_fit(*tasks[0])
    calm.partial_fit(*tasks[0])
    if method == "fit":
        failing.set_params(callbacks=[Fails(error, 3)])
    before, memory, rows = parameters(failing), failing.memory_, list(failing.history)
    with pytest.raises(type(error)):
        getattr(failing, method)(*tasks[1])
    assert torch.equal(parameters(failing), before)
    assert failing.memory_ is memory
    assert list(failing.history) == rows
    failing.set_params(callbacks=None).partial_fit(*tasks[1])
    assert torch.equal(parameters(failing), parameters(calm.partial_fit(*tasks[1])))


def test_what_a_callback_froze_and_a_buffer_counted_come_back_after_a_failure(tasks):
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(1, 1)
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, X):
            self.calls += 1
            return self.linear(X)

    net = quick(module=Counts).partial_fit(*tasks[0])
    calls = net.module_.calls.clone()
    net.set_params(
        callbacks=[Freezer("linear.*", at=lambda net: True), Fails(RuntimeError("boom"), 6)]
    )
    with pytest.raises(RuntimeError):
        net.partial_fit(*tasks[1])
    assert all(p.requires_grad for p in net.module_.parameters())
    assert net.module_.calls == calls


def test_a_failed_first_fit_leaves_an_unfitted_estimator(tasks):
    net = quick(callbacks=[Fails(RuntimeError("boom"), 2)])
    before = dict(vars(net))
    with pytest.raises(RuntimeError, match="boom"):
        net.fit(*tasks[0])
    assert vars(net) == before
