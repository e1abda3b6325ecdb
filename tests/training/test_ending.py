"""Whoever acts at the end of a task: what is written holds the task, wherever it ends."""

import pickle

import pytest
import torch
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, TrainEndCheckpoint
from torch import nn

from sklearn_ewc import EWCRegressor
from sklearn_ewc.training import ending, net

from ..helpers import parameters, quick


class Pickles(Callback):
    """Keeps a pickle of the net at the end of every task."""

    def on_train_end(self, net, **kwargs):
        self.pickled_ = pickle.dumps(net)


class Nudges(Callback):
    """Moves the parameters at the end of a task, as averages of weights do."""

    def on_train_end(self, net, **kwargs):
        with torch.no_grad():
            for p in net.module_.parameters():
                p.add_(0.1)


class Stops(Callback):
    def on_train_end(self, net, **kwargs):
        raise KeyboardInterrupt


class OwnHook(EWCRegressor):
    def on_train_end(self, net, X=None, y=None, **kwargs):
        self.written = pickle.dumps((self.n_tasks_, parameters(self)))


def best(kind, folder):
    if kind is EarlyStopping:
        return EarlyStopping("train_loss", patience=100, load_best=True)
    return Checkpoint("train_loss_best", dirname=folder, load_best=True, f_memory="memory.pt")


@pytest.fixture
def n_estimates(monkeypatch):
    """A list that grows with every estimate of a finished task."""
    estimates = []
    original = net.finished_task
    monkeypatch.setattr(net, "finished_task", lambda *args: estimates.append(0) or original(*args))
    return estimates


def continued(net, task):
    return parameters(net.partial_fit(*task))


def test_what_a_checkpoint_writes_at_the_end_holds_the_task(tasks, tmp_path):
    checkpoint = TrainEndCheckpoint(dirname=tmp_path, f_pickle="net.pkl", f_memory="memory.pt")
    live = quick(ewc_lambda=30.0, lr=0.01, callbacks=[checkpoint]).partial_fit(*tasks[0])
    pickled = pickle.loads((tmp_path / "train_end_net.pkl").read_bytes())
    loaded = quick(ewc_lambda=30.0, lr=0.01)
    loaded.load_params(
        f_params=tmp_path / "train_end_params.pt", f_memory=tmp_path / "train_end_memory.pt"
    )
    assert live.n_tasks_ == pickled.n_tasks_ == loaded.n_tasks_ == 1
    expected = continued(live, tasks[1])
    assert torch.equal(continued(pickled, tasks[1]), expected)
    assert torch.equal(continued(loaded, tasks[1]), expected)


@pytest.mark.parametrize("kind", [Checkpoint, EarlyStopping])
@pytest.mark.parametrize("is_first", [True, False])
def test_the_best_epoch_and_what_is_written_agree_in_any_order(tasks, tmp_path, kind, is_first):
    writer = Pickles()
    callbacks = [best(kind, tmp_path), writer]
    # a rate at which the last epoch is not the best
    net = quick(lr=0.5, max_epochs=12, callbacks=callbacks if is_first else callbacks[::-1])
    for number, task in enumerate(tasks[:2], start=1):
        net.partial_fit(*task)
        written = pickle.loads(next(c for _, c in net.callbacks_ if c is writer).pickled_)
        for one in (net, written):
            anchor = one.memory_.tasks[-1].anchor
            assert one.n_tasks_ == number
            assert all(torch.equal(p, anchor[name]) for name, p in one.module_.named_parameters())
    if is_first:
        assert torch.equal(parameters(written), parameters(net))


@pytest.mark.parametrize("callbacks", [[], [Pickles()], [Pickles(), Pickles()]])
def test_a_task_is_estimated_once_where_nobody_exchanges_its_parameters(
    tasks, callbacks, n_estimates
):
    quick(callbacks=callbacks).partial_fit(*tasks[0])
    assert len(n_estimates) == 1


@pytest.mark.parametrize("kind", [Checkpoint, EarlyStopping])
def test_a_task_is_estimated_once_where_the_best_epoch_is_loaded(
    tasks, tmp_path, kind, n_estimates
):
    quick(lr=0.5, callbacks=[best(kind, tmp_path), Pickles()]).partial_fit(*tasks[0])
    assert len(n_estimates) == 1


@pytest.mark.parametrize("is_first", [True, False])
def test_a_task_is_estimated_where_a_callback_has_moved_the_parameters(tasks, is_first):
    writer = Pickles()
    net = quick(callbacks=[Nudges(), writer] if is_first else [writer, Nudges()])
    net.partial_fit(*tasks[0])
    ends = [net, pickle.loads(writer.pickled_)]
    for one in ends:
        anchor = one.memory_.tasks[0].anchor
        assert all(torch.equal(p, anchor[name]) for name, p in one.module_.named_parameters())
    moved = not torch.equal(parameters(ends[0]), parameters(ends[1]))
    assert moved == (not is_first)


def test_buffers_that_a_callback_exchanges_are_part_of_where_a_task_ends(tasks, n_estimates):
    class Resets(Callback):
        def on_train_end(self, net, **kwargs):
            net.module_[0].running_var.fill_(4.0)

    module = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))
    quick(module=module, callbacks=[Resets()]).partial_fit(*tasks[0])
    assert len(n_estimates) == 2


def test_the_nets_own_hook_finds_the_task_in_the_memory(tasks):
    net = OwnHook(max_epochs=2, random_state=0).partial_fit(*tasks[0])
    n_tasks, written = pickle.loads(net.written)
    assert n_tasks == 1
    assert torch.equal(written, parameters(net))


def test_a_keyboard_interrupt_at_the_end_costs_no_task(tasks):
    writer = Pickles()
    net = quick(callbacks=[writer, Stops()]).partial_fit(*tasks[0])
    assert net.n_tasks_ == pickle.loads(writer.pickled_).n_tasks_ == 1


def test_what_fails_at_the_end_is_rolled_back_with_the_task(tasks):
    class Fails(Callback):
        def on_train_end(self, net, **kwargs):
            assert net.n_tasks_ == 2
            raise RuntimeError("boom")

    net = quick().partial_fit(*tasks[0])
    memory = net.memory_
    with pytest.raises(RuntimeError, match="boom"):
        net.set_params(callbacks=[Fails()]).partial_fit(*tasks[1])
    assert net.memory_ is memory


def test_hooks_that_write_nothing_are_skorchs_own():
    assert all(function.__module__.startswith("skorch.") for function in ending._WRITE_NOTHING)
