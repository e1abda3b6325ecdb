"""The history: skorch's, that counts the epochs of all tasks and keeps what it should."""

import copy
import json
import pickle

import pytest
import torch
from skorch.callbacks import Callback, Checkpoint, Initializer, LoadInitState
from skorch.history import History

from sklearn_ewc.training.history import TaskHistory

from ..helpers import learn, parameters, quick

# it is skorch's

ROWS = [
    {"epoch": 1, "loss": 3.0, "batches": [{"loss": 2.0}, {"loss": 4.0}]},
    {"epoch": 2, "loss": 1.0, "batches": [{"loss": 1.0}], "extra": 5},
]
INDICES = [
    0,
    -1,
    slice(None),
    slice(1, None),
    (-1, "loss"),
    (0, ("epoch", "loss")),
    (slice(None), "loss"),
    (slice(None), ("loss", "extra")),
    (0, "batches", 1),
    (0, "batches", -1, "loss"),
    (-1, "batches", slice(None), "loss"),
    (slice(None), "batches", slice(None), "loss"),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_it_is_indexed_as_skorchs(index):
    assert TaskHistory(ROWS)[index] == History(ROWS)[index]


@pytest.mark.parametrize("index", [(0, "extra"), (-1, "batches", 0, "nothing"), 7])
def test_what_is_not_there_raises_as_in_skorch(index):
    with pytest.raises((KeyError, IndexError)) as ours:
        TaskHistory(ROWS)[index]
    with pytest.raises(ours.type):
        History(ROWS)[index]


def test_a_net_keeps_its_history_through_pickle_and_clone_of_tasks(tasks):
    net = learn(quick(), tasks[:2])
    assert type(net.history) is TaskHistory
    assert pickle.loads(pickle.dumps(net)).history == net.history


def test_a_row_costs_the_same_however_many_there_are():
    """skorch copies all rows at every access; here none is touched but the last."""

    class Counting(TaskHistory):
        n_copied = 0

        def to_list(self):
            self.n_copied += len(self)
            return super().to_list()

    history = Counting({"epoch": n, "batches": []} for n in range(1, 1001))
    history.new_batch()
    history.record_batch("loss", 1.0)
    history.record("loss", 1.0)
    assert history[-1, "batches", 0, "loss"] == 1.0
    assert history.n_copied == 0


# what is let go of


@pytest.fixture
def shortened():
    """A history of three epochs, of which two were let go."""
    history = TaskHistory(ROWS)
    history.begin_task(keeps_rows=False)
    history.new_epoch()
    history.record("epoch", len(history))
    history.record("loss", 7.0)
    return history


def test_rows_that_were_let_go_count(shortened):
    assert len(shortened) == 3
    assert list(shortened) == [{"epoch": 3, "loss": 7.0, "batches": []}]
    assert shortened[2] is shortened[-1]
    assert shortened[2, "loss"] == 7.0
    assert shortened[:, "loss"] == shortened[1:, "loss"] == [7.0]
    assert shortened[3:] == []


def test_the_last_row_that_was_let_go_can_be_read(shortened):
    assert shortened[-2, "loss"] == shortened[1, "loss"] == ROWS[1]["loss"]
    assert shortened[1, "batches"] == []


@pytest.mark.parametrize("index", [0, -3, (0, "loss"), 3, -4])
def test_rows_that_were_let_go_are_not_there(shortened, index):
    with pytest.raises(IndexError):
        shortened[index]


def test_a_history_that_was_stored_goes_on_counting(shortened):
    for again in (
        pickle.loads(pickle.dumps(shortened)),
        TaskHistory(json.loads(json.dumps(shortened.to_list()))),
    ):
        assert again == shortened
        assert len(again) == 3
        assert again.n_let_go == 2


ODD = [
    {"epoch": 1, "loss": float("inf"), "batches": []},
    {"epoch": 2, "loss": 1.5, "batches": [{"a": 1.0}, {"a": 2, "b": True}]},
    {"epoch": 3, "loss": 1, "flag": None, "batches": [{}, {"a": 2**80}]},
    {"epoch": -4, "loss": "text", "batches": [{"a": [1, 2]}]},
    {},
]


@pytest.mark.parametrize("rows", [[], ROWS, ODD, ODD[:2], ROWS + ODD], ids=len)
def test_a_pickle_holds_every_value_in_its_type(rows):
    for copied in (pickle.loads(pickle.dumps(TaskHistory(rows))), copy.deepcopy(TaskHistory(rows))):
        assert type(copied) is TaskHistory
        assert repr(copied) == repr(TaskHistory(rows))


def test_a_task_s_rows_take_less_than_sixty_bytes_an_epoch_in_a_pickle(tasks):
    net = learn(quick(max_epochs=100), tasks[:2])
    sizes = [len(pickle.dumps(net.partial_fit(*tasks[2]).history)) for _ in range(2)]
    assert sizes[1] - sizes[0] < 60 * 100


@pytest.mark.parametrize("epoch", [0, -3, 10**40, "x", None, 1.5])
def test_a_first_epoch_that_is_none_is_refused(epoch):
    with pytest.raises(ValueError, match="first epoch"):
        TaskHistory([{"epoch": epoch, "batches": []}])


def test_batches_are_kept_for_the_last_task_alone(tasks):
    net = learn(quick(), tasks[:2])
    n_batches = [len(row["batches"]) for row in net.history]
    assert n_batches == [0] * 5 + [2] * 5
    assert len(net.history[:, "train_loss"]) == len(net.history) == 10


class Fails(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise RuntimeError("boom")


@pytest.mark.parametrize("store_tasks", [True, False])
def test_a_task_that_fails_leaves_the_history_as_it_was(tasks, store_tasks):
    net = learn(quick(store_tasks=store_tasks), tasks[:2])
    history, rows, n_let_go = net.history, list(net.history), net.history.n_let_go
    with pytest.raises(RuntimeError, match="boom"):
        net.set_params(callbacks=[Fails()]).partial_fit(*tasks[2])
    assert net.history is history
    assert list(history) == rows
    assert history.n_let_go == n_let_go == (0 if store_tasks else 5)


# nothing but memory differs with store_tasks


class Halves(Callback):
    """Acts at an epoch that it counts by the history."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 8:
            with torch.no_grad():
                for p in net.module_.parameters():
                    p.mul_(0.5)


@pytest.mark.parametrize(
    "callback", [Halves(), Initializer("*weight", fn=torch.nn.init.ones_), Callback()]
)
def test_store_tasks_changes_nothing_of_the_training(tasks, callback):
    stored, summed = (
        learn(quick(store_tasks=store, callbacks=[callback]), tasks[:3]) for store in (True, False)
    )
    assert torch.equal(parameters(stored), parameters(summed))
    assert len(stored.history) == len(summed.history) == 15
    assert summed.history[:, "epoch"] == [11, 12, 13, 14, 15]
    assert stored.history[-5:, "train_loss"] == summed.history[:, "train_loss"]


# what a callback loads


@pytest.mark.parametrize("n_before", [0, 1])
def test_the_history_that_a_callback_loads_at_the_beginning_goes_on(tasks, tmp_path, n_before):
    every_epoch = Checkpoint(dirname=tmp_path, monitor=None, f_memory="memory.pt")
    learn(quick(callbacks=[every_epoch]), tasks[: n_before + 1])  # and the process dies
    again = Checkpoint(dirname=tmp_path, monitor=None, f_memory="memory.pt")
    net = quick(max_epochs=2, callbacks=[LoadInitState(again), again])
    net.partial_fit(*tasks[n_before])
    assert net.n_tasks_ == n_before + 1
    assert net.history[:, "epoch"] == list(range(1, 5 * (n_before + 1) + 3))


def test_a_history_of_skorchs_own_goes_on_too(tasks):
    net = quick().partial_fit(*tasks[0])
    net.history_ = History(net.history)
    assert net.partial_fit(*tasks[1]).history[:, "epoch"] == list(range(1, 11))


def test_a_history_loaded_later_takes_the_place_of_the_present_one(tasks, tmp_path):
    checkpoint = Checkpoint(dirname=tmp_path, monitor=None, f_params=None)
    quick(callbacks=[checkpoint]).partial_fit(*tasks[0])
    net = quick(max_epochs=1).partial_fit(*tasks[0])

    class Loads(Callback):
        def on_train_begin(self, net, **kwargs):
            net.load_params(checkpoint=checkpoint)

    net.set_params(callbacks=[Loads()]).partial_fit(*tasks[1])
    assert net.history[:, "epoch"] == [1, 2, 3, 4, 5, 6]
