"""A memory's file tells the sizes of the module that it goes with: they are judged unbuilt."""

import io
import json

import pytest
import torch
from torch import nn

from sklearn_ewc import MLP
from sklearn_ewc.saving.memory_file import packed
from sklearn_ewc.saving.safetensors_file import safetensors_load

from ..helpers import learn
from .helpers import FORMATS, load, needs, saved, small

BUILT = []


class Recorded(MLP):
    """Remembers where it was built."""

    def __init__(self, n_features, n_outputs, hidden_layer_sizes):
        BUILT.append(torch.empty(0).device.type)
        super().__init__(n_features, n_outputs, hidden_layer_sizes)


class Numeric(MLP):
    """Computes with its numbers while it is built, which the meta device has none of."""

    def __init__(self, n_features, n_outputs, hidden_layer_sizes):
        super().__init__(n_features, n_outputs, hidden_layer_sizes)
        self.scale = float(next(self.parameters()).detach().sum())


def content_of(data, use_safetensors):
    if use_safetensors:
        return safetensors_load(io.BytesIO(data), lambda metadata, outline: None)
    content = torch.load(io.BytesIO(data))
    return content["metadata"], content["tensors"]


def forged(data, use_safetensors, empty=False, **facts):
    """Return a file with other facts, whole by its checksum."""
    metadata, tensors = content_of(data, use_safetensors)
    numbers = json.loads(metadata["numbers"])
    n_outputs = facts.pop("n_outputs", None)
    numbers["facts"].update(facts)
    if n_outputs is not None:
        numbers["facts"]["targets_"]["n_outputs"] = n_outputs
    if empty:
        numbers.update(names=[], parts=[], tasks=[], constant=0.0)
        numbers["settings"].update(n_tasks=0)
        tensors = {}
    return packed(tensors, json.dumps(numbers), use_safetensors)


@FORMATS
@pytest.mark.parametrize("facts", [{"n_features_in_": 10**7}, {"n_outputs": 10**7}], ids=str)
def test_sizes_that_are_not_those_of_the_tensors_are_refused_unbuilt(tasks, facts, use_safetensors):
    needs(use_safetensors)
    data = saved(learn(small(), tasks[:1]), "f_memory", use_safetensors=use_safetensors)
    net = small(module=Recorded)
    before = dict(vars(net))
    BUILT.clear()
    with pytest.raises(ValueError, match="^f_memory does not fit: .* has shape"):
        load(net, use_safetensors, f_memory=forged(data["f_memory"], use_safetensors, **facts))
    assert BUILT == ["meta"]
    assert vars(net) == before


@FORMATS
def test_sizes_of_which_a_file_holds_nothing_are_bounded(tasks, use_safetensors):
    needs(use_safetensors)
    data = saved(learn(small(), tasks[:1]), "f_memory", use_safetensors=use_safetensors)
    large = forged(data["f_memory"], use_safetensors, empty=True, n_features_in_=10**9)
    with pytest.raises(ValueError, match="^f_memory .*4000000009 numbers .* it holds none"):
        load(small(), use_safetensors, f_memory=large)
    modest = forged(data["f_memory"], use_safetensors, empty=True, n_features_in_=10)
    assert load(small(), use_safetensors, f_memory=modest).n_features_in_ == 10


@pytest.mark.parametrize("module", [MLP, Numeric, nn.Linear])
def test_a_file_loads_into_a_new_net_of_any_module(tasks, module):
    net = learn(small(module=module), tasks[:1])
    again = load(small(module=module), **saved(net, "f_params", "f_memory"))
    assert again.n_tasks_ == 1
    assert (again.predict(tasks[0][0]) == net.predict(tasks[0][0])).all()


def test_a_file_loads_into_a_new_net_whose_layers_learn_their_sizes(tasks):
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.LazyLinear(1)

        def forward(self, X):
            return self.linear(X)

    net = learn(small(module=Lazy), tasks[:1])
    again = load(small(module=Lazy), **saved(net, "f_params", "f_memory"))
    assert (again.predict(tasks[0][0]) == net.predict(tasks[0][0])).all()
