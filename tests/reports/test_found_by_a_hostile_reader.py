"""What a hostile reader found: each program in short, with the outcome that it should have."""

import copy
import io
import os
import pickle
import signal
import threading
import time
import zipfile

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn
from torch.nn.utils import prune

from sklearn_ewc import ContinualTargetRegressor, EWCRegressor, diagonal_fisher

from .. import reference
from ..helpers import learn, parameters, quick
from ..injector import Kind, interrupted_twice
from .small import Fails, Linear, Steps, files_of, fisher, rows

X, Y = rows()


class Interrupting:
    """Is interrupted before, or after, its n-th call, and is then what it stands for."""

    def __init__(self, function, n=1, after=False):
        self.function, self.left, self.after = function, n, after

    def __call__(self, *args, **kwargs):
        self.left -= 1
        if self.left == 0 and not self.after:
            raise KeyboardInterrupt
        result = self.function(*args, **kwargs)
        if self.left == 0:
            raise KeyboardInterrupt
        return result

    def __get__(self, instance, owner=None):
        return self if instance is None else lambda *args, **kwargs: self(instance, *args, **kwargs)


def assert_goes_on_like(net, twin):
    """The next task leads two nets to the same parameters."""
    assert torch.equal(*(parameters(one.partial_fit(X, -Y)) for one in (net, twin)))


# files


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_as_torch_closes_a_file_is_raised_and_leaves_no_file(monkeypatch, tmp_path):
    net = quick().partial_fit(X, Y)
    writer = torch.serialization._open_zipfile_writer_buffer
    monkeypatch.setattr(writer, "__exit__", Interrupting(writer.__exit__))
    with pytest.raises(KeyboardInterrupt):
        net.save_params(f_params=tmp_path / "params.pt")
    assert list(tmp_path.iterdir()) == []
    net.save_params(f_params=tmp_path / "params.pt")
    quick(module__n_features=3).initialize().load_params(f_params=tmp_path / "params.pt")


@pytest.mark.parametrize(("module", "name"), [(torch, "save"), (os, "fsync"), (os, "replace")])
def test_ctrl_c_while_saving_is_a_keyboard_interrupt_whatever_runs(
    monkeypatch, tmp_path, module, name
):
    def pressed(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return function(*args, **kwargs)

    net, path, function = quick().partial_fit(X, Y), tmp_path / "params.pt", getattr(module, name)
    net.save_params(f_params=path)
    monkeypatch.setattr(module, name, pressed)
    with pytest.raises(KeyboardInterrupt):
        net.partial_fit(X, -Y).save_params(f_params=path)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    net.load_params(f_params=path)


def test_two_files_on_one_path_are_refused_unwritten(tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(ValueError, match="f_memory and f_params are the same file"):
        quick().partial_fit(X, Y).save_params(f_params=path, f_memory=path)
    assert not path.exists()


def test_a_compressed_record_is_refused_unread():
    net = quick().partial_fit(X, Y)
    bomb = io.BytesIO()
    with (
        zipfile.ZipFile(files_of(net, "f_params")["f_params"]) as good,
        zipfile.ZipFile(bomb, "w") as bad,
    ):
        for name in good.namelist():
            bad.writestr(name, good.read(name))
        bad.writestr("archive/data/99", bytes(2**20), zipfile.ZIP_DEFLATED)
    bomb.seek(0)
    with pytest.raises(ValueError, match="f_params does not fit: .* is compressed"):
        net.load_params(f_params=bomb)


@pytest.mark.parametrize("name", ["f_memory", "f_optimizer"])
def test_a_tensor_that_repeats_one_number_is_refused_unbuilt(name):
    net = quick().partial_fit(X, Y)
    content, large = torch.load(files_of(net, name)[name]), torch.zeros(1).expand(10**9)
    if name == "f_memory":
        content["tensors"]["centre.layers.0.bias"] = large
    else:
        content["state"][0]["exp_avg"] = large
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    with pytest.raises(ValueError, match=f"{name} does not fit: .* overlaps itself"):
        net.load_params(**{name: file})


def test_an_optimizer_whose_rate_a_scheduler_set_is_loaded():
    def net():
        return quick(callbacks=[LRScheduler("StepLR", step_size=1)])

    first, second = net().partial_fit(X, Y), net()
    second.load_params(**files_of(first, "f_params", "f_optimizer", "f_memory"))
    ours, theirs = (one.optimizer_.state_dict()["param_groups"] for one in (second, first))
    assert ours == theirs


# what fails leaves nothing behind


def test_a_callback_of_a_first_fit_that_fails_is_as_new():
    class FailsAtOnce(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise RuntimeError("on purpose")

    stop = EarlyStopping()
    before = dict(vars(stop))
    with pytest.raises(RuntimeError, match="on purpose"):
        quick(train_split=ValidSplit(3), callbacks=[stop, FailsAtOnce()]).fit(X, Y)
    assert vars(stop) == before


def test_a_device_that_holds_no_numbers_is_refused_and_the_parameters_stay():
    net = quick().partial_fit(X, Y)
    before = net.predict(X)
    with pytest.raises(ValueError, match="device 'meta'"):
        net.set_params(device="meta")
    assert net.device == "cpu"
    assert np.array_equal(net.predict(X), before)


def test_a_refused_set_params_sets_nothing():
    net = quick(lr=0.25).partial_fit(X, Y)
    with pytest.raises(TypeError, match="criterion"):
        net.set_params(lr=9.0, criterion=5)
    assert net.lr == net.optimizer_.param_groups[0]["lr"] == 0.25
    assert net.criterion is nn.MSELoss


def test_a_second_interrupt_while_the_first_is_undone_empties_nothing():
    kind = Kind(lambda: quick(max_epochs=1).partial_fit(X, Y), lambda net: net.partial_fit(X, -Y))
    outcomes = [interrupted_twice(kind, position) for position in range(0, 60, 5)]
    assert {outcome.verdict for outcome in outcomes} == {"undone"}
    assert all(outcome.place for outcome in outcomes)


class Masked(Linear):
    """Has a buffer whose values are one number in memory."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(1).expand(3))

    def forward(self, X):
        return self.layer(X * self.mask)


class Centred(Linear):
    """Binds its buffer anew in every batch."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, X):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * X.mean(0)
        return self.layer(X - self.mean)


class Counting(Linear):
    """Counts its batches in a plain attribute."""

    n_batches = 0

    def forward(self, X):
        self.n_batches += self.training
        return self.layer(X)


class Listing(Fails):
    """Keeps a list of losses, until it fails."""

    def __init__(self):
        self.losses = []

    def on_epoch_end(self, net, **kwargs):
        self.losses.append(net.history[-1, "train_loss"])
        super().on_epoch_end(net)


def failed(module):
    """A net whose second task has failed, and a twin that learned the first alone."""
    net, twin = (quick(module=module, callbacks=[Listing()]).partial_fit(X, Y) for _ in range(2))
    with pytest.raises(RuntimeError, match="^on purpose$"):
        net.partial_fit(X + 5, Y)
    return net, twin


def test_a_failure_is_undone_where_a_buffer_repeats_its_values():
    net, twin = failed(Masked)
    assert len(net.history) == len(twin.history)
    assert np.array_equal(net.predict(X), twin.predict(X))


def test_a_failure_brings_a_rebound_buffer_back():
    net, twin = failed(Centred)
    assert torch.equal(net.module_.mean, twin.module_.mean)
    assert np.array_equal(net.predict(X), twin.predict(X))


def test_a_failure_brings_attributes_modes_and_a_callback_s_lists_back():
    net, twin = failed(Counting)
    seen = [
        (one.module_.n_batches, one.module_.training, dict(one.callbacks_)["Listing"].losses)
        for one in (net, twin)
    ]
    assert seen[0] == seen[1]


def test_an_interrupt_as_gradients_are_switched_on_again_leaves_them_on(monkeypatch):
    net, twin = (quick().partial_fit(X, Y) for _ in range(2))
    leave = Interrupting(torch.no_grad.__exit__)
    monkeypatch.setattr(torch.no_grad, "__exit__", leave)
    with pytest.raises(KeyboardInterrupt):
        net.partial_fit(X, -Y)
    assert torch.is_grad_enabled()
    assert_goes_on_like(net, twin)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_between_two_hooks_leaves_none_in_the_module(monkeypatch, n, after):
    net, twin = (quick(fisher="exact").partial_fit(X, Y) for _ in range(2))
    register = Interrupting(nn.Module.register_forward_hook, n, after)
    monkeypatch.setattr(nn.Module, "register_forward_hook", register)
    with pytest.raises(KeyboardInterrupt):
        net.partial_fit(X, -Y)
    assert not any(part._forward_hooks for part in net.module_.modules())
    assert_goes_on_like(pickle.loads(pickle.dumps(net)), twin)


@pytest.mark.parametrize("name", ["regressor_", "y_is_flat_", "n_features_in_"])
def test_an_interrupt_while_a_wrapper_stores_its_results_leaves_none_of_them(name):
    class Interrupted(ContinualTargetRegressor):
        armed = True

        def __setattr__(self, attribute, value):
            if attribute == name and Interrupted.armed:
                Interrupted.armed = False
                raise KeyboardInterrupt
            super().__setattr__(attribute, value)

    model = Interrupted(quick())
    before = dict(vars(model))
    try:
        model.partial_fit(X, Y)
    except KeyboardInterrupt:
        assert vars(model) == before
        model.partial_fit(X, Y)
    assert model.n_tasks_ == 1


# what a module may do


def test_the_fisher_takes_no_axis_as_long_as_the_batch_for_the_samples():
    module = Steps(steps_first=True)
    for n_steps in (7, 8, 9):
        X, y = torch.randn(8, n_steps, 3), torch.randn(8, 1)
        fast = diagonal_fisher(module, nn.MSELoss(), [(X, y)], "empirical")
        slow = reference.fisher(module, nn.MSELoss(), X, y, "empirical")
        torch.testing.assert_close(fast, slow)


def test_a_net_that_puts_the_steps_first_learns_and_remembers_as_one_that_does_not():
    rng = np.random.RandomState(0)
    sequences = (3 * rng.randn(32, 1, 3) + rng.randn(32, 8, 3)).astype("float32")
    y, size = sequences.mean((1, 2)), sequences.shape[1]
    first, last = (
        quick(module=Steps, module__steps_first=one, batch_size=size).partial_fit(sequences, y)
        for one in (True, False)
    )
    torch.testing.assert_close(fisher(first), fisher(last))


class InPlace(Linear):
    def forward(self, X):
        X.mul_(2.0)
        return self.layer(X)


class OutOfPlace(Linear):
    def forward(self, X):
        return self.layer(2.0 * X)


def test_a_module_that_overwrites_its_input_learns_and_remembers_as_one_that_does_not():
    before = X.copy()
    one, other = (quick(module=kind).partial_fit(X, Y) for kind in (InPlace, OutOfPlace))
    assert torch.equal(parameters(one), parameters(other))
    torch.testing.assert_close(fisher(one), fisher(other))
    assert np.array_equal(X, before)


class ByKeyword(Linear):
    def forward(self, X):
        return self.layer(input=X)


def test_a_layer_may_get_its_input_by_keyword():
    one, other = (quick(module=kind).partial_fit(X, Y) for kind in (ByKeyword, Linear))
    torch.testing.assert_close(fisher(one), fisher(other))


class Pruned(Linear):
    def __init__(self):
        super().__init__()
        prune.l1_unstructured(self.layer, "weight", 0.5)


def test_a_pruned_net_is_pickled_and_copied_as_soon_as_it_has_learned():
    net = quick(module=Pruned).partial_fit(X, Y)
    for again in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert np.array_equal(again.predict(X), net.predict(X))


def test_a_train_step_of_one_s_own_may_add_up_gradients():
    class Accumulating(EWCRegressor):
        n_steps = 0

        def get_loss(self, *args, **kwargs):
            return super().get_loss(*args, **kwargs) / 2

        def train_step(self, batch, **fit_params):
            n = len(self.history[-1, "batches"])
            step = self.train_step_single(batch, **fit_params)
            if n % 2 == 0:
                Accumulating.n_steps += 1
                self.optimizer_.step()
                self.optimizer_.zero_grad()
            return step

    net = Accumulating(max_epochs=2, batch_size=10, random_state=0)
    before = parameters(net.partial_fit(X, Y)).clone()
    assert (net.n_tasks_, Accumulating.n_steps) == (1, 4)
    assert not torch.equal(parameters(net.partial_fit(X, -Y)), before)


def test_a_compiled_criterion_is_as_it_was_after_a_fisher_pass():
    criterion, module = torch.compile(nn.MSELoss(), backend="eager"), nn.Linear(3, 1)
    inputs, y = torch.randn(9, 3), torch.randn(9, 1)
    before = float(criterion(module(inputs).detach(), y))
    diagonal_fisher(module, criterion, [(inputs, y)])
    after = criterion(module(inputs).detach(), y)
    assert after.shape == ()
    assert float(after) == before


# numbers of any size


@pytest.mark.parametrize("normalize_y", ["auto", False])
@pytest.mark.parametrize("ewc_lambda", [0.0, 1e12, 1e30])
def test_a_huge_lambda_on_huge_data_makes_no_nan(normalize_y, ewc_lambda):
    options = {"normalize_y": normalize_y, "ewc_lambda": ewc_lambda, "lr": 0.01}
    net = learn(quick(**options), [(X * 1e10, Y * 1e10), (X * 1e10, -Y * 1e10)])
    assert np.isfinite(net.predict(X * 1e10)).all()
    assert np.isfinite(net.history[-1, "penalty"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("weight", "ewc_lambda"), [(1e-50, 1e50), (1e40, 1e-40)])
def test_the_weight_of_a_task_and_lambda_may_lie_beyond_float32(dtype, weight, ewc_lambda):
    def moved(weight, ewc_lambda):
        table, y = X.astype(dtype), Y.astype(dtype)
        net = quick(hidden_layer_sizes=(), optimizer=torch.optim.SGD, lr=0.05, damping=0.0)
        net.partial_fit(table, y, task_weight=weight).set_params(ewc_lambda=ewc_lambda)
        return parameters(net.partial_fit(table, -y)).clone(), net.history[-1, "penalty"]

    (found, penalty), (expected, expected_penalty) = moved(weight, ewc_lambda), moved(1.0, 1.0)
    torch.testing.assert_close(found, expected)
    assert penalty == pytest.approx(expected_penalty, rel=1e-4)


# processes and threads


class DrawsForLong(Linear):
    """Takes its time over dropout, in any thread but the main one."""

    is_drawing = threading.Event()

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.3)

    def forward(self, X):
        if threading.current_thread() is not threading.main_thread():
            self.is_drawing.set()
            time.sleep(0.01)
        return self.layer(self.dropout(X))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_while_a_thread_trains_can_train():
    def train():
        quick(module=DrawsForLong).partial_fit(X, Y)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for _ in range(3):
            DrawsForLong.is_drawing.clear()
            DrawsForLong.is_drawing.wait(timeout=10)
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # ends a process that waits for a lock
                train()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        thread.join()


def test_a_copy_predicts_in_another_thread_and_disturbs_no_training():
    layers = nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1)
    net = quick(module=nn.Sequential(*layers), max_epochs=20).partial_fit(X, Y)
    twin, served = (copy.deepcopy(net) for _ in range(2))
    expected, is_over, found = served.predict(X), threading.Event(), []

    def serve():
        while not is_over.is_set() or not found:
            found.append(np.array_equal(served.predict(X), expected))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        net.partial_fit(X, -Y)
    finally:
        is_over.set()
        thread.join()
    assert all(found)
    assert torch.equal(parameters(net), parameters(twin.partial_fit(X, -Y)))
