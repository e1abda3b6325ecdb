"""Nets that are saved and loaded, and what they hold."""

import io
import itertools
import json

import pytest

from sklearn_ewc import EWCRegressor
from sklearn_ewc.saving.memory_file import (
    memory_tensors,
)

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
