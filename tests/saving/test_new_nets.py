"""What a new net takes from files: the dtype, an optimizer with a scheduler."""

import io

import numpy as np
import pytest
import torch
from skorch.callbacks import LRScheduler
from torch.optim import lr_scheduler

from ..helpers import learn, parameters
from .helpers import FORMATS, load, needs, saved, small, state


def new(**kwargs):
    return small(module__n_features=1, **kwargs).initialize()


@FORMATS
@pytest.mark.parametrize("names", [("f_params",), ("f_params", "f_memory"), ("f_memory",)])
def test_a_new_net_takes_the_dtype_of_a_file(tasks, use_safetensors, names):
    needs(use_safetensors)
    net = learn(small(normalize_y=False), tasks[:1])
    files = saved(net, *names, use_safetensors=use_safetensors)
    again = load(new(random_state=1, normalize_y=False), use_safetensors, **files)
    assert again.dtype_ == np.float64
    assert parameters(again).dtype == torch.float64
    if "f_params" in names:
        assert (again.predict(tasks[0][0]) == net.predict(tasks[0][0])).all()
    again.partial_fit(*tasks[1])


def test_a_new_net_with_an_optimizer_s_file_goes_on_in_its_dtype(tasks):
    net = learn(small(), tasks[:1])
    again = load(new(), **saved(net, "f_params", "f_optimizer"))
    assert str(again.optimizer_.state_dict()) == str(net.optimizer_.state_dict())


def test_a_net_that_has_learned_keeps_its_dtype(tasks):
    net = learn(small(), [(X.astype(np.float32), y.astype(np.float32)) for X, y in tasks[:1]])
    before = state(net)
    for name in ("f_params", "f_memory"):
        with pytest.raises(ValueError, match="float64"):
            load(net, **saved(learn(small(), tasks[:1]), name))
        assert state(net) == before


def test_a_new_net_that_a_file_does_not_fit_keeps_its_dtype(tasks):
    wide = learn(small(hidden_layer_sizes=(5,)), tasks[:1])
    net = new()
    before = state(net)
    for name in ("f_params", "f_memory"):
        with pytest.raises(ValueError, match=name):
            load(net, **saved(wide, name))
        assert state(net) == before
        assert parameters(net).dtype == torch.float32


def test_a_file_of_several_dtypes_leaves_the_choice_to_the_net(tasks):
    values = learn(small(), tasks[:1]).module_.state_dict()
    values["layers.0.bias"] = values["layers.0.bias"].float()
    file = io.BytesIO()
    torch.save(values, file)
    with pytest.raises(ValueError, match="has dtype torch.float64, not torch.float32"):
        load(new(), f_params=file.getvalue())


SCHEDULERS = {
    lr_scheduler.StepLR: {"step_size": 1},
    lr_scheduler.OneCycleLR: {"max_lr": 0.1, "total_steps": 20},
    lr_scheduler.CyclicLR: {"base_lr": 0.01, "max_lr": 0.1, "cycle_momentum": False},
    lr_scheduler.CosineAnnealingLR: {"T_max": 3},
    lr_scheduler.ReduceLROnPlateau: {},
}


@pytest.mark.parametrize("policy", SCHEDULERS, ids=lambda policy: policy.__name__)
def test_an_optimizer_with_a_scheduler_is_loaded_into_a_new_net(tasks, policy):
    def build():
        return small(callbacks=[LRScheduler(policy, **SCHEDULERS[policy])])

    net = learn(build(), tasks[:1])
    again = load(build(), **saved(net, "f_params", "f_optimizer", "f_memory"))
    assert str(again.optimizer_.state_dict()) == str(net.optimizer_.state_dict())
    again.partial_fit(*tasks[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("initial_lr", float("nan")),
        ("max_lr", "high"),
        ("min_lr", True),
        ("max_momentum", [0.9]),
        ("base_momentum", torch.ones(1)),
        ("another_lr", 0.1),
    ],
)
def test_what_no_scheduler_adds_is_refused(tasks, name, value):
    net = learn(small(), tasks[:1])
    content = net.optimizer_.state_dict()
    content["param_groups"][0][name] = value
    file = io.BytesIO()
    torch.save(content, file)
    before = state(net)
    with pytest.raises(ValueError, match=f"f_optimizer does not fit: its .*{name}"):
        load(net, f_optimizer=file.getvalue())
    assert state(net) == before
