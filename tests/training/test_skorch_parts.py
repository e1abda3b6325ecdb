"""The history over all tasks."""

import pickle

import pytest
from skorch.history import History

from sklearn_ewc.training.skorch_parts import TaskHistory

from ..helpers import learn, quick

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

    history = Counting({"epoch": n, "batches": []} for n in range(1000))
    history.new_batch()
    history.record_batch("loss", 1.0)
    history.record("loss", 1.0)
    assert history[-1, "batches", 0, "loss"] == 1.0
    assert history.n_copied == 0
