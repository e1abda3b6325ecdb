"""Buffers that move in training: held from the second task on, or let go."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from sklearn_ewc import EWCRegressor

from ..helpers import learn, parameters, quick


class Centred(nn.Module):
    """Subtracts a running mean that it assigns anew."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, X):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * X.detach().mean()
        return X - self.mean


class Root(nn.Module):
    """Owns a running mean itself, beside its layers."""

    def __init__(self):
        super().__init__()
        self.inner, self.dropout, self.out = nn.Linear(1, 4), nn.Dropout(0.5), nn.Linear(4, 1)
        self.register_buffer("mean", torch.full((2,), torch.nan))

    def forward(self, X):
        if self.training:
            self.mean.fill_(X.mean().item())
        return self.out(self.dropout(torch.tanh(self.inner(X - self.mean[0]))))


class Images(nn.Module):
    """A convolution over a column taken for a picture, for the norms of pictures."""

    def __init__(self, norm):
        super().__init__()
        self.before, self.norm, self.after = nn.Conv1d(1, 3, 1), norm, nn.Linear(3, 1)

    def forward(self, X):
        picture = self.norm(self.before(torch.cat([X, X**2], 1)[:, None]))
        return self.after(torch.tanh(picture).mean(2))


def chain(*middle):
    return nn.Sequential(nn.Linear(1, 4), *middle, nn.Tanh(), nn.Linear(4, 1))


def tied():
    first, second = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    second.running_mean, second.running_var = first.running_mean, first.running_var
    return chain(first, second)


MODULES = {
    "BatchNorm1d": lambda: chain(nn.BatchNorm1d(4)),
    "without affine": lambda: chain(nn.BatchNorm1d(4, affine=False)),
    "cumulative": lambda: chain(nn.BatchNorm1d(4, momentum=None)),
    "lazy": lambda: chain(nn.LazyBatchNorm1d()),
    "nested": lambda: nn.Sequential(chain(nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.3)))),
    "two that share": tied,
    "InstanceNorm1d": lambda: Images(nn.InstanceNorm1d(3, track_running_stats=True)),
    "spectral norm": lambda: nn.Sequential(
        nn.Linear(1, 4), nn.Tanh(), nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
    ).append(nn.Linear(4, 1)),
    "spectral norm by a hook": lambda: nn.Sequential(
        nn.Linear(1, 4), nn.Tanh(), nn.utils.spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 1)
    ),
    "assigned": lambda: nn.Sequential(Centred(), chain()),
    "the module's own": Root,
}


def buffers(net):
    return {name: value.clone() for name, value in net.bare_module_.named_buffers()}


def are_equal(some, others):
    return all(torch.equal(value, others[name]) for name, value in some.items())


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_from_the_second_task_on_no_buffer_moves_unless_let_go(tasks, make):
    settings = {"module": make, "ewc_lambda": 1e12, "max_epochs": 2}
    held, free = (quick(**settings, remember_buffers=flag) for flag in (True, False))
    before, predicted = buffers(held.partial_fit(*tasks[0])), held.predict(tasks[0][0])
    assert before
    assert are_equal(before, buffers(free.partial_fit(*tasks[0])))
    for net in (held, free):
        net.partial_fit(*tasks[3])
    # torch 2.6 writes InstanceNorm's in evaluation too, as their mean over a batch of copies
    torch.testing.assert_close(buffers(held), before, rtol=1e-12, atol=0.0)
    np.testing.assert_allclose(held.predict(tasks[0][0]), predicted, atol=1e-6)
    assert not are_equal(before, buffers(free))


def test_a_power_iteration_that_has_converged_is_noticed_all_the_same(tasks):
    net = quick(module=MODULES["spectral norm"](), max_epochs=1).partial_fit(*tasks[0])
    layer = net.module_[2].parametrizations.weight[0]
    net.module_.train()
    for _ in range(2000):
        net.module_[2].weight  # noqa: B018
    before = buffers(net)
    net.partial_fit(*tasks[1])
    assert are_equal(before, buffers(net))
    assert not layer.training


@pytest.mark.parametrize("forgotten", ["lambda", "weight", "memory"])
def test_buffers_are_free_where_nothing_is_remembered(tasks, forgotten):
    net = quick(module=chain(nn.BatchNorm1d(4)), warm_start=True)
    net.partial_fit(*tasks[0], task_weight=0.0 if forgotten == "weight" else 1.0)
    before = buffers(net)
    if forgotten == "lambda":
        net.set_params(ewc_lambda=0.0)
    (net.fit if forgotten == "memory" else net.partial_fit)(*tasks[1])
    assert not are_equal(before, buffers(net))


class Watches(Callback):
    """Notes which parts are in training mode at every step of a task, and meddles."""

    def __init__(self, X=None):
        self.X, self.modes = X, []

    def on_batch_begin(self, net, **kwargs):
        if net.n_tasks_ == 1 and self.X is not None:
            net.predict(self.X)
            net.module_.train()
            net.set_params(ewc_lambda=0.0)

    def on_grad_computed(self, net, **kwargs):
        if net.n_tasks_ == 1:
            self.modes.append({name for name, part in net.module_.named_modules() if part.training})


class Block(nn.Module):
    """Has a running mean and a dropout of its own."""

    def __init__(self):
        super().__init__()
        self.centred, self.norm = Centred(), nn.BatchNorm1d(4)
        self.norm.add_module("dropout", nn.Dropout(0.5))

    def forward(self, X):
        return self.norm.dropout(self.norm(self.centred(X)))


@pytest.mark.parametrize("meddles", [False, True])
def test_only_the_owners_of_buffers_are_in_evaluation_whatever_callbacks_do(tasks, meddles):
    watcher = Watches(tasks[0][0] if meddles else None)
    net = quick(module=chain(Block()), callbacks=[watcher]).partial_fit(*tasks[0])
    before = buffers(net)
    net.partial_fit(*tasks[1])
    assert are_equal(before, buffers(net))
    expected = {"", "0", "1", "1.norm.dropout", "2", "3"}
    assert watcher.modes
    assert all(modes == expected for modes in watcher.modes)


def test_dropout_stays_on_below_a_module_at_rest_after_a_callback_has_predicted(tasks):
    watcher = Watches(tasks[0][0])
    learn(quick(module=Root(), callbacks=[watcher]), tasks[:2])
    assert all(modes == {"inner", "dropout", "out"} for modes in watcher.modes)


def test_a_step_of_ones_own_keeps_them_at_rest_too(tasks):
    class Steps(EWCRegressor):
        def train_step_single(self, batch, **fit_params):
            self.module_.eval()
            self._set_training(True)
            y_pred = self.infer(batch[0])
            loss = self.get_loss(y_pred, batch[1], X=batch[0], training=True)
            loss.backward()
            return {"loss": loss, "y_pred": y_pred}

    net = Steps(chain(nn.BatchNorm1d(4)), max_epochs=2, random_state=0).partial_fit(*tasks[0])
    before = buffers(net)
    assert are_equal(before, buffers(net.partial_fit(*tasks[1])))


class Copies(Callback):
    def on_epoch_end(self, net, **kwargs):
        self.copies = []  # or they would hold those of the epoch before
        self.copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]


def test_nothing_stays_on_the_net_nor_on_copies_made_in_mid_task(tasks):
    net = quick(module=chain(nn.BatchNorm1d(4)), callbacks=[("copies", Copies())])
    learn(net, tasks[:2])
    for one in (net, *dict(net.callbacks_)["copies"].copies):
        one._set_training(True)
        assert all(part.training for part in one.module_.modules())


class Fails(Callback):
    def on_epoch_end(self, net, **kwargs):
        if net.n_tasks_ == 1:
            raise RuntimeError("boom")


def test_a_task_that_fails_leaves_buffers_and_modes_as_they_were(tasks):
    net = quick(module=chain(nn.BatchNorm1d(4)), callbacks=[Fails()]).partial_fit(*tasks[0])
    before = buffers(net)
    modes = [part.training for part in net.module_.modules()]
    with pytest.raises(RuntimeError, match="boom"):
        net.partial_fit(*tasks[1])
    assert are_equal(before, buffers(net))
    assert [part.training for part in net.module_.modules()] == modes
    net._set_training(True)
    assert all(part.training for part in net.module_.modules())


@pytest.mark.parametrize("store_tasks", [True, False])
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_net_loaded_from_files_goes_on_to_the_bit(tasks, store_tasks, mode):
    settings = {"module": chain(nn.BatchNorm1d(4)), "store_tasks": store_tasks, "mode": mode}
    net = quick(**settings).partial_fit(*tasks[0])
    files = {name: io.BytesIO() for name in ("f_params", "f_memory")}
    net.save_params(**files)
    for file in files.values():
        file.seek(0)
    loaded = quick(**settings)
    loaded.partial_fit(*tasks[0]).load_params(**files)
    for one in (net, loaded):
        one.partial_fit(*tasks[1])
    assert torch.equal(parameters(net), parameters(loaded))
    assert are_equal(buffers(net), buffers(loaded))


class Cached(nn.Module):
    """Keeps its last input, in training and in evaluation, and drops some of it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(()))

    def forward(self, X):
        self.last = X.detach().mean()
        return nn.functional.dropout(X, 0.5, self.training)


def test_what_moves_in_evaluation_too_is_not_put_there(tasks):
    watcher = Watches()
    learn(quick(module=chain(Cached()), callbacks=[watcher]), tasks[:2])
    assert all("1" in modes for modes in watcher.modes)
