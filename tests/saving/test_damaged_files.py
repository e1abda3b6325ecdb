"""Files whose bytes have changed."""

import pickle
import random

import numpy as np

from ..helpers import parameters
from .helpers import FORMATS, content, load, needs, saved, state


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
