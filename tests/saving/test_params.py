"""Files of a net: whole whatever happens, and refused wherever they do not fit."""

import copy
import io
import itertools
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from skorch import NeuralNet
from skorch.callbacks import Checkpoint
from skorch.exceptions import NotInitializedError
from torch import nn

from sklearn_ewc import EWCRegressor, Memory, Task
from sklearn_ewc.curvature import Diagonal
from sklearn_ewc.data.targets import Values
from sklearn_ewc.memory.quadratic import Quadratic
from sklearn_ewc.saving import whole_file
from sklearn_ewc.saving.facts import Facts
from sklearn_ewc.saving.memory_file import (
    memory_from_bytes,
    memory_tensors,
    memory_to_bytes,
    packed,
)

from ..helpers import learn, parameters

SIZES = {"hidden_layer_sizes": (4,), "max_epochs": 3}


def small(**kwargs):
    return EWCRegressor(**{**SIZES, "random_state": 0, **kwargs})


def needs(use_safetensors):
    if use_safetensors:
        pytest.importorskip("safetensors")


FORMATS = pytest.mark.parametrize("use_safetensors", [False, True], ids=["torch", "safetensors"])


def saved(net, *names, use_safetensors=False):
    files = {name: io.StringIO() if name == "f_history" else io.BytesIO() for name in names}
    net.save_params(**files, use_safetensors=use_safetensors)
    return {name: file.getvalue() for name, file in files.items()}


def load(net, use_safetensors=False, **contents):
    files = {
        name: io.StringIO(data) if isinstance(data, str) else io.BytesIO(data)
        for name, data in contents.items()
    }
    net.load_params(**files, use_safetensors=use_safetensors)
    return net


def state(net):
    """Everything that a failed load might have changed: attributes by identity, numbers by bits."""
    optimizer = net.optimizer_.state_dict()
    values = itertools.chain.from_iterable(one.values() for one in optimizer["state"].values())
    return (
        {name: id(value) for name, value in vars(net).items()},
        [value.numpy().tobytes() for value in net.module_.state_dict().values()],
        [value.numpy().tobytes() for value in values],
        repr(optimizer["param_groups"]),
        json.dumps(net.history.to_list()),
    )


def content(memory):
    tensors = dict(memory_tensors(memory))
    settings = (memory.store_tasks, memory.mode, memory.gamma, memory.n_tasks, memory.n_samples)
    numbers = [(task.weight, task.damping, task.n_samples, task.loss) for task in memory.tasks]
    listed = [(name, v.dtype, v.shape, v.numpy().tobytes()) for name, v in tensors.items()]
    return settings, memory.quadratic.constant, numbers, sorted(listed, key=lambda row: row[0])


# --- going on -----------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("store_tasks", [True, False])
@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loaded_net_goes_on_as_the_saved_one(tasks, use_safetensors, store_tasks, mode, dtype):
    needs(use_safetensors)
    tasks = [(X.astype(dtype), y.astype(dtype)) for X, y in tasks]
    settings = {"store_tasks": store_tasks, "mode": mode, "gamma": 0.5, "random_state": None}
    first = learn(small(**settings), tasks[:2])
    files = saved(first, "f_params", "f_history", "f_memory", use_safetensors=use_safetensors)
    second = load(small(**settings), use_safetensors, **files)
    assert content(second.memory_) == content(first.memory_)
    assert second.history == first.history
    for net in (first, second):
        learn(net, tasks[2:])
    assert parameters(second).equal(parameters(first))
    assert content(second.memory_) == content(first.memory_)
    assert second.history[:, "train_loss"] == first.history[:, "train_loss"]


def test_another_process_goes_on_as_this_one(tasks, tmp_path):
    net = learn(small(module__activation=nn.Tanh, random_state=None), tasks[:2])
    files = {name: str(tmp_path / name) for name in ("f_params", "f_memory")}
    net.save_params(**files)
    np.savez(tmp_path / "task.npz", X=tasks[2][0], y=tasks[2][1])
    script = f"""
import numpy as np, torch
from tests.saving.test_params import small
torch.set_num_threads(1)
net = small(module__activation=torch.nn.Tanh, random_state=None)
net.load_params(**{files!r})
task = np.load({str(tmp_path / "task.npz")!r})
net.partial_fit(task["X"], task["y"])
net.save_params(f_params={str(tmp_path / "result")!r})
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    net.partial_fit(*tasks[2])
    result = torch.load(tmp_path / "result", weights_only=True)
    assert all(value.equal(result[name]) for name, value in net.module_.state_dict().items())


@FORMATS
def test_buffers_dropout_and_task_weights_go_on_too(tasks, use_safetensors):
    needs(use_safetensors)

    def build():
        layers = nn.Linear(1, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 1)
        return small(module=nn.Sequential(*layers))

    first = build().partial_fit(*tasks[0], task_weight=0.5)
    files = saved(first, "f_params", "f_memory", use_safetensors=use_safetensors)
    second = load(build(), use_safetensors, **files)
    for net in (first, second):
        learn(net, tasks[1:])
    for name, value in first.module_.state_dict().items():
        assert value.equal(second.module_.state_dict()[name])


def test_what_the_first_task_decided_is_loaded():
    X = pd.DataFrame(np.random.RandomState(0).randn(30, 2), columns=["depth", "heat"])
    first = small().fit(X, np.c_[X["depth"], X["heat"]])
    second = load(small(), **saved(first, "f_params", "f_memory"))
    for name in ("seed_", "dtype_", "targets_", "n_outputs_", "n_features_in_", "n_tasks_"):
        assert getattr(second, name) == getattr(first, name)
    assert list(second.feature_names_in_) == ["depth", "heat"]
    assert second.feature_names_in_.dtype == object
    assert (second.predict(X) == first.predict(X)).all()
    with pytest.raises(ValueError, match="feature names"):
        second.predict(X[["heat", "depth"]])


def test_an_optimizer_and_a_criterion_are_loaded(tasks):
    first = learn(small(), tasks[:1])
    files = saved(first, "f_params", "f_optimizer", "f_criterion", "f_memory")
    second = load(small(), **files)
    ours, theirs = second.optimizer_.state_dict(), first.optimizer_.state_dict()
    assert str(ours) == str(theirs)
    assert ours["state"]


def test_parameters_are_read_by_plain_skorch_and_torch(tasks, tmp_path):
    net = learn(small(), tasks[:1])
    net.save_params(f_params=tmp_path / "params.pt")
    plain = EWCRegressor(**SIZES, random_state=1).fit(*tasks[1])
    NeuralNet.load_params(plain, f_params=str(tmp_path / "params.pt"))
    assert parameters(plain).equal(parameters(net))
    assert torch.load(tmp_path / "params.pt", weights_only=True).keys()


def test_a_checkpoint_saves_and_loads_the_memory(tasks, tmp_path):
    checkpoint = Checkpoint(dirname=str(tmp_path), monitor=None, f_memory="memory.pt")
    net = learn(small(callbacks=[checkpoint]), tasks[:2])
    again = learn(small(random_state=1), tasks[:1])
    again.load_params(checkpoint=checkpoint)
    assert parameters(again).equal(parameters(net))
    assert again.n_tasks_ == 1  # at the end of the last epoch its task was not consolidated
    assert len(again.history) == len(net.history)


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda net: pickle.loads(pickle.dumps(net)),
        lambda net: joblib.load(_rewound(net)),
    ],
    ids=["deepcopy", "pickle", "joblib"],
)
def test_copies_of_a_loaded_net_go_on(tasks, copied):
    net = load(small(), **saved(learn(small(), tasks[:1]), "f_params", "f_memory"))
    again = copied(net)
    for one in (net, again):
        one.partial_fit(*tasks[1])
    assert parameters(again).equal(parameters(net))


def _rewound(net):
    file = io.BytesIO()
    joblib.dump(net, file)
    file.seek(0)
    return file


def test_a_memory_of_many_kinds_survives_its_file():
    anchor = {"b": torch.tensor([1.0, -0.0]), "a": torch.zeros(0, 3), "c": torch.tensor(5e-324)}
    task = Task(anchor, {k: v.abs() for k, v in anchor.items()}, 0.1, 1 / 3, 7)
    part = Task({"b": torch.ones(2)}, {"b": torch.full((2,), 1e38)})
    for memory in (Memory(), Memory(mode="online", gamma=0.1).consolidate(task).consolidate(part)):
        facts = Facts(seed_=2**32 - 1, dtype_="float32", targets_=Values(is_flat=False))
        loaded, known = memory_from_bytes(memory_to_bytes(memory, facts))
        assert content(loaded) == content(memory)
        assert list(loaded.quadratic.centre) == list(memory.quadratic.centre)
        assert known == facts


# --- what does not fit --------------------------------------------------------------------------


def test_nothing_is_saved_or_loaded_before_there_is_a_net(tmp_path):
    for name in ("f_params", "f_memory", "f_optimizer"):
        with pytest.raises(NotInitializedError, match="save"):
            small().save_params(**{name: tmp_path / "file"})
    with pytest.raises(NotInitializedError, match="f_memory"):
        small().load_params(f_params=io.BytesIO(b""))
    assert not list(tmp_path.iterdir())


def test_arguments_that_are_no_files_are_refused(tasks):
    net = learn(small(), tasks[:1])
    with pytest.raises(TypeError, match="did you mean 'f_params'"):
        net.load_params(params="x")
    with pytest.raises(AttributeError, match="f_other"):
        net.load_params(f_other="x")
    with pytest.raises(FileNotFoundError):
        net.load_params(f_memory="no such file")


def test_a_module_of_one_s_own_is_saved_and_loaded(tasks):
    class WithGate(EWCRegressor):
        def initialize_module(self):
            super().initialize_module()
            self.gate_ = nn.Linear(1, 1).double()
            return self

    first, second = (learn(WithGate(**SIZES, random_state=k), tasks[:1]) for k in range(2))
    load(second, **saved(first, "f_gate"))
    assert second.gate_.weight.equal(first.gate_.weight)
    with pytest.raises(ValueError, match="f_gate does not fit: it lacks tensors: \\['bias'"):
        load(second, f_gate=saved(first, "f_params")["f_params"])


def _retyped(state, name, change):
    file = io.BytesIO()
    torch.save({**state, name: change(state[name])}, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v[:2], r"layers.0.weight has shape \(2, 1\), the estimator's \(4, 1\)"),
        (lambda v: v.float(), "layers.0.weight has dtype torch.float32, not torch.float64"),
        (lambda v: v * torch.nan, "layers.0.weight is not finite"),
        (lambda v: v.to_sparse(), "layers.0.weight is not a plain tensor"),
        (lambda v: 1.0, "layers.0.weight is not a plain tensor"),
    ],
)
def test_parameters_that_do_not_fit_are_named(tasks, change, message):
    net = learn(small(), tasks[:1])
    before = state(net)
    data = _retyped(net.module_.state_dict(), "layers.0.weight", change)
    with pytest.raises(ValueError, match=f"f_params does not fit: {message}"):
        load(net, f_params=data)
    assert state(net) == before


@pytest.mark.parametrize(
    "other",
    [
        {"hidden_layer_sizes": (5,)},
        {"hidden_layer_sizes": (4, 4)},
        {"optimizer": torch.optim.SGD},
    ],
    ids=str,
)
def test_the_optimizer_of_another_net_is_refused(tasks, other):
    net, stranger = learn(small(), tasks[:1]), learn(small(**other), tasks[:1])
    before = state(net)
    with pytest.raises(ValueError, match="f_optimizer does not fit"):
        load(net, **saved(stranger, "f_optimizer"))
    assert state(net) == before


def test_a_buffer_may_hold_infinities(tasks):
    class Masked(nn.Linear):
        def __init__(self):
            super().__init__(1, 1)
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    first, second = (learn(small(module=Masked, random_state=k), tasks[:1]) for k in range(2))
    load(second, **saved(first, "f_params"))
    assert parameters(second).equal(parameters(first))


@pytest.mark.parametrize(
    "fitted_on",
    [
        lambda X, y: (X.astype(np.float32), y.astype(np.float32)),
        lambda X, y: (np.c_[X, X], y),
        lambda X, y: (X, np.c_[y, y]),
    ],
    ids=["dtype_", "n_features_in_", "n_outputs_"],
)
def test_a_memory_of_other_data_is_refused(tasks, fitted_on, request):
    net, stranger = small().fit(*tasks[0]), small().fit(*fitted_on(*tasks[0]))
    before = state(net)
    with pytest.raises(ValueError, match=f"f_memory does not fit: {request.node.callspec.id} is"):
        load(net, **saved(stranger, "f_memory"))
    assert state(net) == before


def test_a_fresh_net_that_the_file_does_not_fit_stays_fresh(tasks):
    files = saved(learn(small(), tasks[:1]), "f_params", "f_memory")
    random_state = np.random.RandomState(0)
    for settings in ({"hidden_layer_sizes": (5,)}, {"random_state": random_state}):
        net = small(**settings)
        before = dict(vars(net))
        damaged = {**files, "f_params": files["f_params"][:-1]}
        with pytest.raises(ValueError, match="f_memory|f_params"):
            load(net, **damaged)
        assert vars(net) == before
    assert random_state.randint(2**31) == np.random.RandomState(0).randint(2**31)


def test_if_one_file_does_not_fit_none_is_loaded(tasks):
    first, second = learn(small(), tasks[:3]), learn(small(random_state=1), tasks[:1])
    files = saved(first, "f_params", "f_optimizer", "f_criterion", "f_history", "f_memory")
    for name in files:
        before = state(second)
        with pytest.raises(ValueError, match=name):
            load(second, **{**files, name: files[name][: len(files[name]) // 2]})
        assert state(second) == before


def test_an_interrupted_load_leaves_the_optimizer_as_it_was(tasks):
    class Interrupted(nn.MSELoss):
        def load_state_dict(self, state_dict, strict=True):
            raise KeyboardInterrupt

    first, second = (learn(small(criterion=Interrupted, lr=lr), tasks[:1]) for lr in (0.1, 0.2))
    before = state(second)
    with pytest.raises(KeyboardInterrupt):
        load(second, **saved(first, "f_optimizer", "f_criterion"))
    assert state(second) == before


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("proof that code was run",)


@pytest.mark.parametrize("name", ["f_params", "f_optimizer", "f_criterion", "f_memory"])
def test_no_code_of_a_file_is_run(tasks, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    net = learn(small(), tasks[:1])
    file = io.BytesIO()
    torch.save({"metadata": {}, "tensors": Malicious()}, file)
    for data in (file.getvalue(), pickle.dumps(Malicious())):
        with pytest.raises(ValueError, match=name):
            load(net, **{name: data})
    assert not list(tmp_path.iterdir())


# --- mutated files ------------------------------------------------------------------------------


def damaged(data, stranger, generator):
    """Yield a file cut, flipped, overwritten, spliced; then what never was that file."""
    size = len(data)
    for cut in np.linspace(0, size - 1, 300, dtype=int):
        yield data[:cut]
    for _ in range(2000):
        position, bit = generator.randrange(size), 1 << generator.randrange(8)
        yield data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :]
    for _ in range(150):
        start, length = generator.randrange(size), generator.randrange(1, 200)
        yield data[:start] + generator.randbytes(length) + data[start + length :]
        yield data[:start] + data[start + length :]
        yield data[:start] + stranger[start:]
        yield generator.randbytes(length)
    yield from (b"", b"{}", b"[]", b"null", pickle.dumps({}), stranger, data[::-1])


def refusals(net, name, files, expected, use_safetensors=False):
    """Count the files that are refused; the others must hold what the saved one held."""
    before, n_refused = state(net), 0
    memory, loaded = net.memory_, net.optimizer_.state_dict()
    for data in files:
        try:
            load(net, use_safetensors, **{name: data})
        except ValueError as error:
            refusal = str(error)
        else:
            refusal = None
        if refusal is not None:
            assert refusal.startswith((f"{name} does not fit: ", f"{name} cannot be read: "))
            assert state(net) == before
            n_refused += 1
        else:
            assert expected(net)
            net.memory_ = memory
            net.optimizer_.load_state_dict(loaded)
            before = state(net)
    return n_refused


@pytest.fixture
def pair():
    """A net of two tasks that was saved, one of other sizes."""
    rng = np.random.RandomState(0)
    nets = []
    for width in (3, 4):
        net = EWCRegressor(hidden_layer_sizes=(width,), max_epochs=1, batch_size=-1, random_state=0)
        nets.append(net.fit(rng.randn(20, 2), rng.randn(20), task=[0, 1] * 10))
    return nets


@FORMATS
def test_damaged_memories_are_refused(pair, use_safetensors):
    needs(use_safetensors)
    net, stranger = (saved(one, "f_memory", use_safetensors=use_safetensors) for one in pair)
    held = content(pair[0].memory_)
    files = damaged(net["f_memory"], stranger["f_memory"], random.Random(0))
    n_refused = refusals(
        pair[0],
        "f_memory",
        files,
        lambda loaded: content(loaded.memory_) == held,
        use_safetensors,
    )
    assert n_refused >= 1900


def test_damaged_parameters_are_refused(pair):
    net, stranger = (saved(one, "f_params") for one in pair)
    held = parameters(pair[0]).clone()
    files = damaged(net["f_params"], stranger["f_params"], random.Random(1))
    n_refused = refusals(pair[0], "f_params", files, lambda loaded: parameters(loaded).equal(held))
    assert n_refused >= 1700


def test_damaged_optimizers_are_refused(pair):
    net, stranger = (saved(one, "f_optimizer") for one in pair)
    held = str(pair[0].optimizer_.state_dict())
    files = damaged(net["f_optimizer"], stranger["f_optimizer"], random.Random(2))
    n_refused = refusals(
        pair[0], "f_optimizer", files, lambda net: str(net.optimizer_.state_dict()) == held
    )
    assert n_refused >= 1700


def _unpacked(memory):
    facts = Facts(seed_=0, dtype_="float64", targets_=Values(1), n_features_in_=2)
    content = torch.load(io.BytesIO(memory_to_bytes(memory, facts)), weights_only=True)
    return content["tensors"], json.loads(content["metadata"]["numbers"])


def forged(memory):
    """Yield memories of correct checksum whose content is wrong, and the name in the message."""
    tensors, numbers = _unpacked(memory)
    for name, value in tensors.items():
        others = [n for n, v in tensors.items() if v.shape != value.shape]
        wrong = [value.float(), value[..., None], value[:-1], value * torch.inf, -1 - value.abs()]
        for k, change in enumerate(wrong):
            if k < 4 or "curvature" in name:
                yield name, {**tensors, name: change}, numbers
        for other in others[:3]:
            yield ".", {**tensors, name: tensors[other], other: value}, numbers
        rest = {n: v for n, v in tensors.items() if n != name}
        yield "tensors", rest, numbers
        yield "tensors", {**rest, name + "_": value}, numbers
        yield "tensors", {**tensors, name + "_": value}, numbers
    for key in numbers:
        yield "", tensors, {k: v for k, v in numbers.items() if k != key}
        yield "", tensors, {**numbers, key: None}
    for key, values in {
        "facts": [("dtype_", "float16"), ("n_features_in_", -1), ("seed_", "")],
        "settings": [("gamma", 2.0), ("mode", "other"), ("n_tasks", 1), ("n_tasks", 2.5)],
    }.items():
        for name, value in values:
            wrong = {**numbers, key: {**numbers[key], name: value}}
            yield ("task" if name == "n_tasks" else name), tensors, wrong
    for name in ("n_outputs", "is_flat"):
        facts = {**numbers["facts"], "targets_": {**numbers["facts"]["targets_"], name: -1}}
        yield name, tensors, {**numbers, "facts": facts}
    for name in ("weight", "damping"):
        task = {**numbers["tasks"][0], name: -1.0}
        yield name, tensors, {**numbers, "tasks": [task, numbers["tasks"][1]]}
    yield "constant", tensors, {**numbers, "constant": -1.0}
    yield "constant", tensors, {**numbers, "constant": float("inf")}
    yield "lacks", tensors, {**numbers, "names": [*numbers["names"], "more"]}


@FORMATS
def test_forged_memories_are_refused(pair, use_safetensors):
    needs(use_safetensors)
    net = pair[0]
    before, n_refused = state(net), 0
    for name, tensors, numbers in forged(net.memory_):
        tensors = {n: v.clone(memory_format=torch.contiguous_format) for n, v in tensors.items()}
        data = packed(tensors, json.dumps(numbers), use_safetensors)
        with pytest.raises(ValueError, match="^f_memory (does not fit|cannot be read): ") as info:
            load(net, use_safetensors, f_memory=data)
        # a task refuses its own tensors, and names the parameter
        assert name in str(info.value) or name.split(".", 3)[-1] in str(info.value)
        assert state(net) == before
        n_refused += 1
    assert n_refused > 200


def test_tensors_exchanged_behind_valid_names_do_not_pass_the_checksum(pair):
    file = io.BytesIO(saved(pair[0], "f_memory")["f_memory"])
    content = torch.load(file, weights_only=True)
    first, second = (f"tasks.{k}.curvature.layers.0.weight" for k in (0, 1))
    tensors = content["tensors"]
    tensors[first], tensors[second] = tensors[second], tensors[first]
    file = io.BytesIO()
    torch.save(content, file)
    with pytest.raises(ValueError, match="f_memory does not fit: it is damaged"):
        load(pair[0], f_memory=file.getvalue())


@FORMATS
def test_another_version_is_named(pair, use_safetensors):
    needs(use_safetensors)
    tensors, numbers = _unpacked(pair[0].memory_)
    data = packed(tensors, json.dumps(numbers), use_safetensors, version="3")
    with pytest.raises(ValueError, match="version 3 of the format, this library reads 2"):
        load(pair[0], use_safetensors, f_memory=data)


def test_a_history_that_is_none_is_refused(pair):
    before = state(pair[0])
    for data in ("", "{}", "[1]", '[{"batches": 1}]', "[{}]", "[", '{"a": 1}', "nul"):
        with pytest.raises(ValueError, match="f_history"):
            load(pair[0], f_history=data)
        assert state(pair[0]) == before


# --- whole files --------------------------------------------------------------------------------


def numbered(net, k):
    """Fill all that is saved with the number k."""
    with torch.no_grad():
        for value in net.module_.parameters():
            value.fill_(k)
    sums = {name: torch.full_like(p, k) for name, p in net.module_.named_parameters()}
    net.memory_ = Memory(n_tasks=k, quadratic=Quadratic(sums, sums, Diagonal(sums)))
    net.history_[:] = [{"batches": [{"k": k}] * 500}]
    for values in net.optimizer_.state_dict()["state"].values():
        values["exp_avg"].fill_(k)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_process_killed_while_saving_leaves_whole_files(tasks, tmp_path):
    net = small(hidden_layer_sizes=(60, 60), max_epochs=1).fit(*tasks[0])
    paths = {f"f_{name}": tmp_path / name for name in ("params", "optimizer", "history", "memory")}
    numbered(net, 1)
    net.save_params(**paths)
    last, generator = 1, random.Random(0)
    for _ in range(30):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for k in itertools.count(last):
                    numbered(net, k)
                    net.save_params(**paths)
                    os.write(writing, b"!")
            finally:
                os._exit(1)
        os.close(writing)
        with open(reading, "rb") as saved:  # a busy machine saves less in the same time
            saved.read(generator.randrange(4))
            time.sleep(generator.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        net.load_params(**paths)
        (k,) = parameters(net).unique().tolist()
        assert last <= k
        moments = [values["exp_avg"] for values in net.optimizer_.state_dict()["state"].values()]
        for other in (
            *{v for m in moments for v in m.unique().tolist()},
            net.history[0, "batches", 0, "k"],
        ):
            assert other in (k - 1, k, k + 1)
        assert net.n_tasks_ in (k - 1, k)  # never newer than the parameters
        last = int(k)
    assert last > 5
    assert list(tmp_path.glob(".*.saving"))  # some were killed while they wrote


@pytest.mark.parametrize("failing", ["f_params", "f_optimizer", "f_history", "f_memory"])
def test_a_save_that_fails_leaves_the_old_files(tasks, tmp_path, monkeypatch, failing):
    net = learn(small(), tasks[:1])
    names = ("f_params", "f_optimizer", "f_history", "f_memory")
    paths = {name: tmp_path / name for name in names}
    net.save_params(**paths)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    net.partial_fit(*tasks[1])
    fails = lambda *args, **kwargs: 1 / 0  # noqa: E731
    if failing == "f_history":
        net.history.record("unwritable", object())
    elif failing == "f_memory":
        net.memory_ = replace(net.memory_, n_tasks="many")
    else:
        monkeypatch.setattr(
            net.module_ if failing == "f_params" else net.optimizer_, "state_dict", fails
        )
    with pytest.raises((ZeroDivisionError, TypeError, ValueError)):
        net.save_params(**paths)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_keeps_its_mode_and_its_links(tmp_path):
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    with whole_file(str(link), "w") as file:
        file.write("new")
        assert target.read_text() == "old"
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["target"]


def test_a_device_is_written_to_and_not_replaced(tasks):
    learn(small(), tasks[:1]).save_params(f_memory=os.devnull)
    assert not os.path.isfile(os.devnull)
