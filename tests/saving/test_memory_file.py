"""The file of a memory holds it whole, and nothing else passes for one."""

import io
import json

import pytest
import torch

from sklearn_ewc import Memory, Task
from sklearn_ewc.data.targets import Values
from sklearn_ewc.saving.facts import Facts
from sklearn_ewc.saving.memory_file import (
    memory_from_file,
    memory_to_bytes,
    packed,
)

from .helpers import FORMATS, content, load, needs, saved, state


def test_a_memory_of_many_kinds_survives_its_file():
    anchor = {"b": torch.tensor([1.0, -0.0]), "a": torch.zeros(0, 3), "c": torch.tensor(5e-324)}
    task = Task(anchor, {k: v.abs() for k, v in anchor.items()}, 0.1, 1 / 3, 7)
    part = Task({"b": torch.ones(2)}, {"b": torch.full((2,), 1e38)})
    for memory in (Memory(), Memory(mode="online", gamma=0.1).consolidate(task).consolidate(part)):
        facts = Facts(seed_=2**32 - 1, dtype_="float32", targets_=Values(is_flat=False))
        loaded, known = memory_from_file(io.BytesIO(memory_to_bytes(memory, facts)))
        assert content(loaded) == content(memory)
        assert list(loaded.quadratic.centre) == list(memory.quadratic.centre)
        assert known == facts


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
    data = packed(tensors, json.dumps(numbers), use_safetensors, version="2")
    with pytest.raises(ValueError, match="version 2 of the format, this library reads 3"):
        load(pair[0], use_safetensors, f_memory=data)
