"""What trials at several λ leave alone."""

import io
import threading

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    Freezer,
    GradientNormClipping,
    Initializer,
    LRScheduler,
    PrintLog,
    TrainEndCheckpoint,
)
from skorch.dataset import ValidSplit

from sklearn_ewc import EWCRegressor, Memory, estimate_lambda
from sklearn_ewc.training import estimate
from sklearn_ewc.training.arrival import checked_task
from sklearn_ewc.training.lambda_trials import trials

from ..helpers import parameters, quick, unscaled


def tried(net, task, ewc_lambda=1.0):
    """Return error and penalty of a trial that is given all but a quarter of a task."""
    (result,) = trials(
        net, checked_task(net, *task, sample_weight=None, first=False), [ewc_lambda], 0.25, 0
    )
    return result


def learned(net, task):
    """Return the same of a net that has learned as much."""
    order = np.random.RandomState(0).permutation(len(task[1]))
    held_out, rows = np.split(order, [len(order) // 4])
    X, y = task
    before = net.memory_
    net.partial_fit(X[rows], y[rows])
    scale = 1.0 if net.targets_.scale is None else net.targets_.scale[0]
    residual = (net.predict(X[held_out]) - y[held_out]) / scale  # as trained on
    return np.mean(residual**2), before.penalty(dict(net.module_.named_parameters())).item()


class Counts(Callback):
    """A callback of the user's own, with what cannot be copied."""

    def __init__(self):
        self.lock = threading.Lock()
        self.calls = 0

    def on_epoch_end(self, net, **kwargs):
        self.calls += 1


def noisy(net, X, y):
    raise AssertionError("nobody looks at this score")


SHAPING = {
    "schedule": lambda: [LRScheduler("StepLR", step_size=1, gamma=0.3)],
    "plateau": lambda: [
        EpochScoring("r2", name="fit", lower_is_better=False, on_train=True),
        LRScheduler("ReduceLROnPlateau", monitor="fit", patience=0, factor=0.1, mode="min"),
    ],
    "stop": lambda: [EarlyStopping("train_loss", patience=1, threshold=0.9)],
    "stop by a score": lambda: [
        BatchScoring("r2", name="fit", lower_is_better=False, on_train=True),
        EarlyStopping("fit", patience=1, threshold=0.9, sink=io.StringIO().write, load_best=True),
    ],
    "clipping": lambda: [GradientNormClipping(1e-3)],
    "freezer": lambda: [Freezer("layers.0*", at=8)],
    "initializer": lambda: [Initializer("*bias", fn=torch.nn.init.ones_, at=7)],
}


@pytest.mark.parametrize("shape", SHAPING)
def test_a_trial_is_trained_as_partial_fit_trains(shape, tasks):
    net = unscaled(ewc_lambda=1.0, lr=0.01, callbacks=SHAPING[shape]()).partial_fit(*tasks[0])
    plain = unscaled(ewc_lambda=1.0, lr=0.01).partial_fit(*tasks[0])
    found = tried(net, tasks[1])
    assert found != tried(plain, tasks[1])
    assert found == pytest.approx(learned(net, tasks[1]))


def test_callbacks_that_reach_outside_do_not_run(tasks, tmp_path, capsys):
    lines, own = [], Counts()
    callbacks = [
        Checkpoint(dirname=tmp_path / "best", monitor="train_loss_best"),
        TrainEndCheckpoint(dirname=tmp_path / "end"),
        PrintLog(sink=lines.append),
        own,
        EarlyStopping("train_loss", 1, threshold=0.9, sink=lines.append, load_best=True),
        ("unread", EpochScoring(noisy, on_train=True)),
    ]
    net = quick(callbacks=callbacks[:-1]).partial_fit(*tasks[0])
    net.callbacks_.append(("unread", callbacks[-1][1].initialize()))
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert files
    before, n_lines, n_calls = parameters(net), len(lines), own.calls
    result = tried(net, tasks[1])
    assert np.isfinite(result).all()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == files
    assert (len(lines), own.calls) == (n_lines, n_calls)
    assert torch.equal(parameters(net), before)
    assert capsys.readouterr().out == ""


def test_what_a_callback_keeps_in_a_list_is_not_added_to(tasks):
    class Remembers(EarlyStopping):
        def __init__(self):
            super().__init__("train_loss")
            self.seen = []
            self.file = io.TextIOWrapper(io.BytesIO())

        def on_epoch_end(self, net, **kwargs):
            self.seen.append(net.history[-1, "train_loss"])

    callback = Remembers()
    net = quick(callbacks=[callback]).partial_fit(*tasks[0])
    seen = list(callback.seen)
    tried(net, tasks[1])
    assert callback.seen == seen


def test_the_random_numbers_of_partial_fit_are_not_drawn_by_trials(tasks):
    def built():
        split = ValidSplit(KFold(4, shuffle=True, random_state=np.random.RandomState(0)))
        return quick(
            random_state=np.random.RandomState(3),
            train_split=split,
            iterator_train__generator=torch.Generator().manual_seed(5),
        )

    net, undisturbed = (built().partial_fit(*tasks[0]) for _ in range(2))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, second = tried(net, tasks[1]), tried(net, tasks[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert first == second
    for one in (net, undisturbed):
        one.partial_fit(*tasks[1])
    assert torch.equal(parameters(net), parameters(undisturbed))
    assert len(net.history) == len(undisturbed.history)


class KeepsTensors(torch.nn.Module):
    """Keeps what it has computed, as attention and recurrent modules do."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x):
        self.last = self.layer(x)
        self.hidden = (self.last, [self.layer(x)])
        return self.last


def test_a_module_that_keeps_tensors_can_be_tried(tasks):
    net = EWCRegressor(KeepsTensors, max_epochs=1, random_state=0)
    net.partial_fit(*tasks[0])
    net.module_(torch.zeros(2, 1, dtype=torch.float64))
    found = tried(net, tasks[1])
    net.set_params(ewc_lambda=1.0)
    assert found == pytest.approx(learned(net, tasks[1]))


def test_a_net_may_hold_what_cannot_be_copied(tasks):
    class Locked(EWCRegressor):
        def __init__(self, hidden_layer_sizes=(8,), max_epochs=2, random_state=0):
            super().__init__(
                hidden_layer_sizes=hidden_layer_sizes,
                max_epochs=max_epochs,
                random_state=random_state,
            )

    net = Locked().partial_fit(*tasks[0])
    net.lock_ = threading.Lock()
    assert np.isfinite(tried(net, tasks[1])).all()


def test_a_module_that_cannot_be_copied_is_named(tasks):
    net = quick(max_epochs=1).partial_fit(*tasks[0])
    net.module_.lock = threading.Lock()
    with pytest.raises(TypeError, match="module cannot be copied"):
        tried(net, tasks[1])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_error_is_a_mean_over_samples(reduction, tasks):
    net = quick(criterion__reduction=reduction, lr=1e-4, batch_size=7).partial_fit(*tasks[0])
    net.set_params(ewc_lambda=1.0)
    found, _ = tried(net, tasks[1])
    assert found == pytest.approx(learned(net, tasks[1])[0])


def test_a_trial_takes_no_curvature_and_consolidates_nothing(tasks, monkeypatch):
    net = quick(max_epochs=1).partial_fit(*tasks[0])

    def refuses(*args, **kwargs):
        raise AssertionError("a trial only trains")

    monkeypatch.setattr(estimate, "curvature_and_loss", refuses)
    monkeypatch.setattr(Memory, "consolidate", refuses)
    assert estimate_lambda(net, *tasks[1], lambdas=[1.0]).best == 1.0


def test_a_training_that_diverged_in_finite_numbers_costs_infinitely_much(tasks):
    options = {"optimizer": torch.optim.SGD, "penalty_step": "gradient", "max_epochs": 20}
    net = quick(lr=0.05, **options).partial_fit(*tasks[0])
    assert tried(net, tasks[1], ewc_lambda=30.0) == (np.inf, np.inf)
    assert np.isfinite(tried(net, tasks[1], ewc_lambda=1.0)).all()
