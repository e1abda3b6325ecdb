"""Files that do not fit are refused, and change nothing."""

import io
import os
import pickle

import numpy as np
import pytest
import torch
from skorch.exceptions import NotInitializedError
from torch import nn

from sklearn_ewc import EWCRegressor

from ..helpers import learn, parameters
from .helpers import SIZES, load, saved, small, state


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


def test_a_history_that_is_none_is_refused(pair):
    before = state(pair[0])
    for data in ("", "{}", "[1]", '[{"batches": 1}]', "[{}]", "[", '{"a": 1}', "nul"):
        with pytest.raises(ValueError, match="f_history"):
            load(pair[0], f_history=data)
        assert state(pair[0]) == before


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
