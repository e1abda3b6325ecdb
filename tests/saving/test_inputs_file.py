"""Densities of old inputs in the file of a memory: whole, as numbers, and nothing else passes."""

import io
import json

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from sklearn_ewc.saving.memory_file import packed

from ..helpers import learn, parameters
from .helpers import FORMATS, load, needs, saved, small, state

DENSITIES = ["auto", GaussianMixture(2, covariance_type="diag"), KernelDensity(bandwidth=0.1)]


def with_flags(tasks):
    """Return tasks with a one-hot category and a constant beside the input."""
    flags = [np.eye(2)[np.arange(len(y)) % 2] for _, y in tasks]
    return [
        (np.c_[X, flag, np.full(len(y), 0.1)], y) for (X, y), flag in zip(tasks, flags, strict=True)
    ]


@FORMATS
@pytest.mark.parametrize("replay", DENSITIES, ids=lambda replay: type(replay).__name__)
@pytest.mark.parametrize("store_tasks", [True, False])
def test_a_net_that_replays_goes_on_from_its_files(tasks, replay, store_tasks, use_safetensors):
    needs(use_safetensors)
    tasks = with_flags(tasks)
    settings = {"replay": replay, "store_tasks": store_tasks, "ewc_lambda": 0}
    net = learn(small(**settings), tasks[:2])
    files = saved(net, "f_params", "f_memory", use_safetensors=use_safetensors)
    again = load(small(**settings), use_safetensors, **files)
    for one in (net, again):
        one.partial_fit(*tasks[2])
    assert torch.equal(parameters(again), parameters(net))
    assert len(again.memory_.inputs) == 3


class Own:
    """An estimator that no file of numbers can hold."""

    def fit(self, X):
        self.width = X.shape[1]

    def sample(self, n):
        return np.zeros((n, self.width))


@pytest.mark.parametrize("replay", [Own(), KernelDensity(kernel="tophat")], ids=["own", "tophat"])
def test_what_is_not_all_numbers_is_refused_before_anything_is_written(tasks, replay, tmp_path):
    net = small(replay=replay).partial_fit(*tasks[0])
    with pytest.raises(ValueError, match="^f_memory holds numbers alone.*replay"):
        net.save_params(f_params=tmp_path / "params", f_memory=tmp_path / "memory")
    assert not list(tmp_path.iterdir())


def unpacked(net):
    content = torch.load(io.BytesIO(saved(net, "f_memory")["f_memory"]), weights_only=True)
    return content["tensors"], json.loads(content["metadata"]["numbers"])


def forged(tensors, numbers):
    """Yield contents of which the inputs are wrong, with a correct checksum."""
    for name, value in tensors.items():
        if not name.startswith("inputs."):
            continue
        rest = {other: kept for other, kept in tensors.items() if other != name}
        yield rest, numbers
        yield {**rest, name + "_": value}, numbers
        for wrong in (value.float(), value[..., None], value * torch.nan, value[:0]):
            yield {**tensors, name: wrong}, numbers
        if "levels" not in name:
            yield {**tensors, name: value[..., :-1]}, numbers
        if "means" not in name and "levels" not in name:
            yield {**tensors, name: -value}, numbers
            yield {**tensors, name: value + 1}, numbers
    inputs = numbers["inputs"]
    wrong_values = {
        "weight": [-1.0, None, "1"],
        "n_columns": [0, 3, 5, -1, 1.5, None],
        "drawn": [[], [0], [0, 1, 1], [0, 1, 9], [0.0, 1.0, 2.0], None],
        "levels": [[], [[3]], [[3], [1, 1]], [[3], [1, 9]], [[3], [1]], [[3], None], None],
    }
    for key, values in wrong_values.items():
        for value in values:
            yield tensors, {**numbers, "inputs": [{**inputs[0], key: value}, *inputs[1:]]}
        without = {name: value for name, value in inputs[0].items() if name != key}
        yield tensors, {**numbers, "inputs": [without, *inputs[1:]]}
    for value in (None, [], {}, inputs[:1], [*inputs, inputs[0]], [None, None]):
        yield tensors, {**numbers, "inputs": value}
    yield tensors, {**numbers, "inputs": [{**inputs[0], "more": 1}, inputs[1]]}


@FORMATS
def test_forged_inputs_are_refused(tasks, use_safetensors):
    needs(use_safetensors)
    net = learn(small(replay="auto"), with_flags(tasks)[:2])
    before, n_refused = state(net), 0
    for tensors, numbers in forged(*unpacked(net)):
        whole = {n: v.clone(memory_format=torch.contiguous_format) for n, v in tensors.items()}
        data = packed(whole, json.dumps(numbers), use_safetensors)
        with pytest.raises(ValueError, match="^f_memory (does not fit|cannot be read): "):
            load(net, use_safetensors, f_memory=data)
        assert state(net) == before
        n_refused += 1
    assert n_refused > 80


def test_inputs_of_more_tasks_than_were_learned_are_refused(tasks):
    net = small(replay="auto").partial_fit(*tasks[0])
    tensors, numbers = unpacked(net)
    numbers["inputs"] *= 2
    tensors.update({n.replace("inputs.0", "inputs.1"): v.clone() for n, v in tensors.items()})
    with pytest.raises(ValueError, match="f_memory does not fit: it has inputs of 2 tasks, of 1"):
        load(net, f_memory=packed(tensors, json.dumps(numbers)))
