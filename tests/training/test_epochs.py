"""How long a task is trained, how the rate falls, and what is told of it meanwhile."""

import re

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping, LRScheduler, ProgressBar
from skorch.dataset import ValidSplit

from sklearn_ewc import EWCRegressor
from sklearn_ewc.training.epochs import n_epochs

from ..helpers import learn, parameters, quick


class Planned:
    """What is read of a net."""

    def __init__(self, max_epochs="auto", optimizer=torch.optim.SGD):
        self.max_epochs = max_epochs
        self.optimizer_ = optimizer([torch.zeros(1, requires_grad=True)])


class Rates(Callback):
    """Keeps the rate of every epoch, per task."""

    def on_train_begin(self, net, **kwargs):
        self.rates = [*getattr(self, "rates", []), []]

    def on_epoch_begin(self, net, **kwargs):
        self.rates[-1].append(net.optimizer_.param_groups[0]["lr"])


def rates_of(tasks, **settings):
    rates = Rates()
    callbacks = [rates, *settings.pop("callbacks", [])]
    learn(quick(callbacks=callbacks, **{"max_epochs": "auto", **settings}), tasks)
    return rates.rates


@pytest.mark.parametrize(
    ("n_batches", "expected"),
    [(0, 500), (1, 500), (2, 250), (3, 200), (250, 200), (1000, 50), (1563, 31), (31_250, 10)],
)
def test_the_number_of_steps_is_bounded_and_not_that_of_epochs(n_batches, expected):
    assert n_epochs(Planned(), range(n_batches)) == expected


@pytest.mark.parametrize("n_batches", [1, 10, 100_000])
def test_an_integer_is_as_in_skorch(n_batches):
    assert n_epochs(Planned(7), range(n_batches)) == 7
    assert n_epochs(Planned(np.int64(0)), range(n_batches)) == 0


def test_what_has_no_bounds_takes_two_hundred():
    assert n_epochs(Planned(), iter([])) == 200
    assert n_epochs(Planned(optimizer=torch.optim.LBFGS), range(1)) == 200


def test_the_rate_falls_to_zero_in_the_last_quarter_of_every_task(tasks):
    for rates in rates_of([(X[:20], y[:20]) for X, y in tasks[:2]], lr=0.01, batch_size=7):
        assert len(rates) == 200
        assert rates[:150] == [0.01] * 150
        np.testing.assert_allclose(rates[150:], 0.01 * (np.arange(50, 0, -1) - 0.5) / 50)


def test_an_integer_number_of_epochs_is_trained_at_one_rate(tasks):
    assert rates_of(tasks[:2], max_epochs=12, lr=0.01) == [[0.01] * 12] * 2


def test_a_schedule_of_ones_own_takes_the_place_of_the_default(tasks):
    schedule = LRScheduler("ExponentialLR", gamma=0.99)
    (rates,) = rates_of([(tasks[0][0][:20], tasks[0][1][:20])], callbacks=[schedule], batch_size=7)
    np.testing.assert_allclose(rates, 1e-3 * 0.99 ** np.arange(200))


def test_a_rate_that_a_callback_sets_stays_while_it_falls(tasks):
    class Halves(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 199:
                net.set_params(lr=0.5)

    X, y = tasks[0]
    (rates,) = rates_of([(X[:20], y[:20])], callbacks=[Halves()], batch_size=7)
    assert rates[-1] == pytest.approx(0.5 / 3)  # from the last but one epoch's share to the last's


def test_lbfgs_keeps_its_rate(tasks):
    settings = {"optimizer": torch.optim.LBFGS, "optimizer__max_iter": 1, "batch_size": -1}
    (rates,) = rates_of([(tasks[0][0][:5], tasks[0][1][:5])], lr=0.1, **settings)
    assert rates == [0.1] * 200


def test_early_stopping_ends_a_task_before(tasks):
    stopping = EarlyStopping("train_loss", patience=2, threshold=1e9)
    assert [len(rates) for rates in rates_of(tasks[:2], callbacks=[stopping])] == [3, 3]


def test_the_same_task_ends_the_same(tasks):
    X, y = tasks[0]
    first, second = (EWCRegressor(random_state=0).partial_fit(X[:9], y[:9]) for _ in range(2))
    assert len(first.history) == 500
    assert torch.equal(parameters(first), parameters(second))


# what is told meanwhile


def test_verbose_announces_each_task_and_tells_epochs_and_time_left(tasks, capsys):
    learn(quick(verbose=1), tasks[:2])
    first, header, _, *rows = capsys.readouterr().out.splitlines()
    assert first == "task 1"
    assert header.split() == ["epoch", "penalty", "train_loss", "dur", "time", "left"]
    assert rows[5] == "task 2"
    for number, (one, two) in enumerate(zip(rows[:5], rows[6:], strict=True), start=1):
        for row in (one, two):
            assert row.split()[0] == f"{number}/5"
            assert re.search(r" \d+:\d\d:\d\d$", row)


def test_time_left_is_that_of_the_epochs_to_come(tasks, capsys, monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr("sklearn_ewc.training.skorch_parts.time", clock)

    class Takes(Callback):
        def on_epoch_begin(self, net, **kwargs):
            clock.now += 90.0

    learn(quick(verbose=1, max_epochs=3, callbacks=[Takes()]), tasks[:2])
    left = [line.split()[-1] for line in capsys.readouterr().out.splitlines() if "/3" in line]
    assert left == ["0:03:00", "0:01:30", "0:00:00"] * 2


def test_telling_changes_neither_training_nor_history(tasks, capsys):
    told, silent = (learn(quick(verbose=verbose), tasks[:2]) for verbose in (1, 0))
    assert torch.equal(parameters(told), parameters(silent))
    assert [row.keys() for row in told.history] == [row.keys() for row in silent.history]


def test_a_sink_is_told_at_any_verbosity_also_from_mid_task_on(tasks, capsys):
    lines = []
    learn(quick(callbacks__print_log__sink=lines.append), tasks[:2])
    assert [line for line in lines if line.startswith("task")] == ["task 1", "task 2"]

    class Asks(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.verbose = int(len(net.history) >= 3)

    quick(callbacks=[Asks()]).partial_fit(*tasks[0])
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert rows == ["epoch", "-------", "3/5", "4/5", "5/5"]


@pytest.mark.parametrize("batches", ["auto", "count", 3])
@pytest.mark.parametrize("store_tasks", [True, False])
def test_a_progress_bar_counts_the_batches_of_every_epoch_of_every_task(
    tasks, store_tasks, batches, monkeypatch
):
    bars = []

    class Bar:
        def __init__(self, total, leave):
            self.total, self.n, self.is_open = total, 0, True
            bars.append(self)

        def set_postfix(self, values, refresh):
            assert values.keys() <= {"train_loss", "valid_loss"}
            assert values

        def update(self):
            self.n += 1

        def close(self):
            self.is_open = False

    monkeypatch.setattr("skorch.callbacks.logging.tqdm.tqdm", Bar)
    callbacks = [ProgressBar(batches_per_epoch=batches)]
    split = ValidSplit(4)  # 30 rows to train on, 10 to score
    net = quick(callbacks=callbacks, train_split=split, batch_size=16, store_tasks=store_tasks)
    learn(net, tasks[:2])
    assert [bar.n for bar in bars] == [3] * 10
    assert not any(bar.is_open for bar in bars)
    assert {bar.total for bar in bars[1:5] + bars[6:]} == {3}
