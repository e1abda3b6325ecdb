"""A loaded net goes on as the one that was saved."""

import copy
import io
import os
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from skorch import NeuralNet
from skorch.callbacks import Checkpoint
from torch import nn

from sklearn_ewc import EWCRegressor

from ..helpers import learn, parameters
from .helpers import FORMATS, SIZES, content, load, needs, saved, small


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
from tests.saving.helpers import small
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


@FORMATS
@pytest.mark.parametrize("is_flat", [True, False])
@pytest.mark.parametrize("normalize_y", ["auto", False])
def test_parameters_alone_predict_as_the_saved_net(tasks, use_safetensors, is_flat, normalize_y):
    needs(use_safetensors)
    X, y = tasks[0]
    y = 100 + 10 * (y if is_flat else np.c_[y, y])
    net = small(normalize_y=normalize_y).partial_fit(X, y)
    sizes = {"module__n_features": 1, "module__n_outputs": net.n_outputs_}
    files = saved(net, "f_params", use_safetensors=use_safetensors)
    again = load(small(**sizes).initialize(), use_safetensors, **files)
    assert again.n_tasks_ == 0
    assert again.dtype_ == net.dtype_
    np.testing.assert_array_equal(again.predict(X), net.predict(X))


@FORMATS
def test_parameters_of_another_scale_of_y_do_not_go_with_a_memory(tasks, use_safetensors):
    needs(use_safetensors)
    X, y = tasks[0]
    first, second = small().partial_fit(X, y), small().partial_fit(X, 100 * y)
    before = first.predict(X)
    foreign = saved(second, "f_params", "f_memory", use_safetensors=use_safetensors)
    with pytest.raises(ValueError, match="^f_params does not fit: .* scale .* load f_memory too"):
        load(first, use_safetensors, f_params=foreign["f_params"])
    np.testing.assert_array_equal(first.predict(X), before)
    load(first, use_safetensors, **foreign)
    np.testing.assert_array_equal(first.predict(X), second.predict(X))


def test_new_parameters_load_into_a_net_that_has_learned(tasks):
    new = small(module__n_features=1, random_state=1).initialize()
    X, y = (part.astype(np.float32) for part in tasks[0])
    net = load(small().partial_fit(X, y), **saved(new, "f_params"))
    assert parameters(net).equal(parameters(new))


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
