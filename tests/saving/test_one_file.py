"""Two arguments that are one file are refused, before anything is written or read."""

import io
import os

import pytest

from ..helpers import learn
from .helpers import saved, small, state


@pytest.fixture
def net(tasks):
    return learn(small(), tasks[:1])


def same_path(folder):
    return folder / "file", str(folder / "file")


def through_a_link(folder):
    (folder / "link").symlink_to(folder / "file")
    return folder / "link", folder / "file"


def through_the_parent(folder):
    return folder / "file", os.path.join(folder, "..", folder.name, "file")


def same_object(folder):
    file = io.BytesIO()
    return file, file


def open_file(folder):
    return open(folder / "file", "wb"), folder / "file"


PAIRS = pytest.mark.parametrize(
    "pair", [same_path, through_a_link, through_the_parent, same_object]
)
ARGUMENTS = pytest.mark.parametrize(
    ("first", "second"),
    [("f_params", "f_memory"), ("f_history", "f_optimizer"), ("f_criterion", "f_params")],
)


@PAIRS
@ARGUMENTS
def test_one_file_is_not_saved_to_twice(net, tmp_path, pair, first, second):
    (tmp_path / "file").write_bytes(b"old")
    files = pair(tmp_path)
    with pytest.raises(ValueError, match=f"({first}|{second}) and ({first}|{second}) are the same"):
        net.save_params(**dict(zip((first, second), files, strict=True)))
    assert (tmp_path / "file").read_bytes() == b"old"
    assert not list(tmp_path.glob(".*.saving"))
    if isinstance(files[0], io.BytesIO):
        assert files[0].getvalue() == b""


def test_an_open_file_is_the_file_of_its_path(net, tmp_path):
    file, path = open_file(tmp_path)
    with file, pytest.raises(ValueError, match="f_memory and f_params are the same file"):
        net.save_params(f_params=file, f_memory=path)


@PAIRS
@ARGUMENTS
def test_one_file_is_not_loaded_for_two(net, tmp_path, pair, first, second):
    (tmp_path / "file").write_bytes(saved(net, "f_params")["f_params"])
    before = state(net)
    files = dict(zip((first, second), pair(tmp_path), strict=True))
    with pytest.raises(ValueError, match="are the same file"):
        net.load_params(**files)
    assert state(net) == before
