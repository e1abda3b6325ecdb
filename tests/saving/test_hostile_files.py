"""Files that ask for more memory than the estimator has are refused before it is given."""

import io
import json
import os
import zipfile

import pytest
import torch
from torch import nn

from sklearn_ewc.saving.skeleton import Skeleton

from ..helpers import learn
from .helpers import load, saved, small, state

FILES = pytest.mark.parametrize("name", ["f_params", "f_optimizer", "f_memory"])
LARGE = 10**9


@pytest.fixture
def net(tasks):
    return learn(small(), tasks[:1])


def tensors_of(content, name):
    return {
        "f_params": content,
        "f_optimizer": content.get("state", {}).get(0),
        "f_memory": content.get("tensors"),
    }[name]


def with_tensor(net, name, change):
    """Return a file of the net in which one tensor is another."""
    content = torch.load(io.BytesIO(saved(net, name)[name]))
    tensors = tensors_of(content, name)
    key = next(key for key, value in tensors.items() if value.ndim == 2)
    tensors[key] = change(tensors[key])
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def rewritten(data, change=lambda name, record: record, kind=zipfile.ZIP_STORED, more=()):
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)), kind)
        for name, record in more:
            new.writestr(name, record)
    return file.getvalue()


def refused(net, message, use_safetensors=False, **files):
    (name,) = files
    before = state(net)
    with pytest.raises(ValueError, match=f"^{name} .*{message}"):
        load(net, use_safetensors, **files)
    assert state(net) == before


@FILES
def test_a_compressed_record_is_refused(net, name):
    data = rewritten(saved(net, name)[name], kind=zipfile.ZIP_DEFLATED)
    refused(net, "is compressed", **{name: data})


@FILES
@pytest.mark.parametrize(
    "record", ["archive/data/99", "archive/more", "other/data/0", "archive/constants.pkl"]
)
def test_a_foreign_record_is_refused(net, name, record):
    data = rewritten(saved(net, name)[name], more=[(record, bytes(9))])
    refused(net, "record", **{name: data})


@FILES
@pytest.mark.parametrize("change", [lambda record: record + bytes(8), lambda record: record[:-8]])
def test_a_record_larger_or_smaller_than_named_is_refused(net, name, change):
    def changed(name, record):
        return change(record) if name.endswith("data/0") else record

    refused(net, "bytes", **{name: rewritten(saved(net, name)[name], changed)})


@FILES
@pytest.mark.parametrize(
    "view",
    [
        lambda v: torch.zeros(1, dtype=v.dtype).expand(LARGE),
        lambda v: torch.zeros(1, dtype=v.dtype).expand(v.shape),
        lambda v: torch.zeros(4, dtype=v.dtype).as_strided((4, 1), (0, 1)),
        lambda v: torch.zeros(9, dtype=v.dtype).as_strided((4, 4), (1, 1)),
    ],
    ids=["large", "of the same shape", "stride 0", "overlapping"],
)
def test_a_tensor_that_overlaps_itself_is_refused(net, name, view):
    refused(net, "overlaps itself", **{name: with_tensor(net, name, view)})


@FILES
def test_a_storage_larger_than_its_tensor_is_refused(net, name):
    def part(value):
        return torch.zeros(1000, dtype=value.dtype)[: value.numel()].view(value.shape)

    refused(net, "bytes, its tensors need", **{name: with_tensor(net, name, part)})


@FILES
def test_a_tensor_larger_than_its_storage_is_refused(net, name):
    key = "archive/data.pkl"

    def larger(record_name, record):  # the numbers 4 and 1 of a shape become 4 and 255
        return (
            record.replace(b"K\x04K\x01\x86", b"K\x04K\xff\x86") if record_name == key else record
        )

    refused(net, "beyond its storage", **{name: rewritten(saved(net, name)[name], larger)})


@FILES
def test_shapes_are_compared_before_the_numbers_are_read(net, name, monkeypatch):
    data = with_tensor(net, name, lambda value: torch.zeros(5, 7, dtype=value.dtype))
    with monkeypatch.context() as patched:
        patched.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("numbers were read"))
        refused(net, r"has shape \(5, 7\)", **{name: data})


@pytest.mark.parametrize(
    "copied", [lambda v, shape: v, lambda v, shape: v.view(shape)], ids=["same", "view"]
)
@pytest.mark.parametrize("name", ["f_memory", "f_optimizer"])
def test_tensors_do_not_share_their_numbers(net, name, copied):
    content = torch.load(io.BytesIO(saved(net, name)[name]))
    tensors = tensors_of(content, name)
    first, second = [key for key, value in tensors.items() if value.ndim == 2][:2]
    tensors[second] = copied(tensors[first], tensors[second].shape)
    file = io.BytesIO()
    torch.save(content, file)
    refused(net, "its tensors need|in several places", **{name: file.getvalue()})


class Allocates:
    def __init__(self, function, *args):
        self.made = function, args

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize(
    "made", [(bytearray, 2**40), (torch.Tensor, 2**40), (torch.FloatTensor, 2**40)], ids=repr
)
@FILES
def test_a_pickle_allocates_nothing_by_the_sizes_in_it(net, name, made):
    file = io.BytesIO()
    torch.save({"state": {}, "param_groups": Allocates(*made)}, file)
    refused(net, "", **{name: file.getvalue()})


def test_what_a_file_names_is_a_placeholder_and_cannot_be_changed():
    poison = b"\x80\x02ccollections\nCounter\nN}X\x06\x00\x00\x00updateK\x01s\x86b."
    with pytest.raises(ValueError, match="changes a type"):
        Skeleton(poison).load()
    skeleton = Skeleton(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    skeleton.load()
    assert skeleton.unknown == {"os.system"}


def test_a_memo_of_a_large_number_takes_no_memory():
    assert Skeleton(b"\x80\x02Nr\xff\xff\xff\x7f.").load() is None


@pytest.mark.parametrize("name", ["f_params", "f_memory"])
@pytest.mark.parametrize("case", ["header", "offsets", "longer", "shape", "nested"])
def test_a_safetensors_file_is_judged_by_its_header(net, name, case):
    pytest.importorskip("safetensors")
    data = saved(net, name, use_safetensors=True)[name]
    length = int.from_bytes(data[:8], "little")
    header, numbers = json.loads(data[8 : 8 + length]), data[8 + length :]
    key = next(k for k in header if k.endswith("layers.0.weight"))
    if case == "offsets":
        others = [v["data_offsets"] for k, v in header.items() if "bias" in k]
        header[key]["data_offsets"] = next(one for one in others if one[1] - one[0] == 32)
    if case == "shape":
        header[key]["shape"] = [LARGE, LARGE]
    encoded = json.dumps(header).encode()
    if case == "nested":
        encoded = b"[" * 10**5
    size = 2**62 if case == "header" else len(encoded)
    numbers += bytes(8) if case == "longer" else b""
    refused(net, "", True, **{name: size.to_bytes(8, "little") + encoded + numbers})


def test_a_safetensors_file_longer_than_its_tensors_is_not_read(net, monkeypatch):
    safetensors = pytest.importorskip("safetensors.torch")
    data = saved(net, "f_params", use_safetensors=True)["f_params"]
    monkeypatch.setattr(safetensors, "load", lambda data: pytest.fail("numbers were read"))
    refused(net, "its tensors need", True, f_params=data + bytes(9))


def test_a_nested_history_and_one_that_is_too_large_are_refused(net, monkeypatch, tmp_path):
    refused(net, "RecursionError", f_history="[" * 10**5)
    history = saved(net, "f_history")["f_history"]
    monkeypatch.setattr("sklearn_ewc.saving.files.LARGEST_HISTORY", len(history) - 1)
    refused(net, "more than", f_history=history)
    (tmp_path / "history").write_text(history)
    with pytest.raises(ValueError, match="f_history"):
        net.load_params(f_history=tmp_path / "history")
    monkeypatch.setattr("sklearn_ewc.saving.writing.LARGEST_HISTORY", len(history) - 1)
    with pytest.raises(ValueError, match="f_history"):
        net.save_params(f_history=io.StringIO())
    monkeypatch.undo()
    load(net, f_history=history)


class Odd(nn.Module):
    """Tensors that are views, and a state of many kinds."""

    def __init__(self):
        super().__init__()
        self.first, self.tied = nn.Linear(1, 1), nn.Linear(1, 1)
        self.tied.weight = self.first.weight
        self.norm = nn.BatchNorm1d(1)
        self.register_buffer("part", torch.arange(1000.0)[3:6])
        self.register_buffer("none", torch.zeros(4)[:0])

    def forward(self, X):
        return self.norm(self.tied(self.first(X)))

    def get_extra_state(self):
        numbers = {"bytes": b"abc", "bytearray": bytearray(b"x"), "set": {1}, "complex": 1j}
        return {**numbers, "size": torch.Size([2]), "dtype": torch.float32, "int": 2**70}

    def set_extra_state(self, state):
        self.extra = state


def test_views_ties_and_extra_states_are_saved_and_loaded(tasks):
    tasks = [(X.astype("f"), y.astype("f")) for X, y in tasks[:1]]  # in which views stay views
    first, second = (learn(small(module=Odd, random_state=k), tasks) for k in range(2))
    load(second, **saved(first, "f_params"))
    for name, value in first.module_.state_dict().items():
        other = second.module_.state_dict()[name]
        assert value.equal(other) if isinstance(value, torch.Tensor) else value == other
    assert second.module_.extra == first.module_.get_extra_state()


def test_the_views_of_one_storage_that_fill_it_are_loaded(net):
    values = net.module_.state_dict()
    vector = torch.cat([value.reshape(-1) for value in values.values()]) + 1
    pieces = vector.split([value.numel() for value in values.values()])
    file = io.BytesIO()
    torch.save(
        {name: piece.view_as(values[name]) for name, piece in zip(values, pieces, strict=True)},
        file,
    )
    load(net, f_params=file.getvalue())
    assert torch.cat([v.reshape(-1) for v in net.module_.state_dict().values()]).equal(vector)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there is no such device")
def test_a_device_without_end_is_not_read(net):
    with pytest.raises(ValueError, match="f_params"):
        net.load_params(f_params="/dev/zero")


def test_a_user_who_trusts_a_file_loads_what_torch_loads(net):
    net.set_params(torch_load_kwargs={"weights_only": False})
    load(net, **saved(net, "f_params", "f_optimizer", "f_memory"))
