"""An interrupt while files are saved leaves the old ones, or comes when all are new."""

import os
import signal
import sys
import threading
from collections import Counter

import pytest
import torch

from sklearn_ewc.saving.whole_file import write_whole

from ..helpers import learn
from .helpers import small, state

NAMES = ("f_memory", "f_history", "f_params", "f_optimizer")


class Interrupt:
    """Interrupts at the n-th line of the modules that write."""

    modules = ("sklearn_ewc/saving", "torch/serialization", "contextlib", "json/encoder")

    def __init__(self, n):
        self.left = n

    def __call__(self, frame, event, argument):
        name = frame.f_code.co_filename.replace(os.sep, "/")
        if not any(module in name for module in self.modules):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return self


def interrupted(function, n):
    """Tell whether a function was interrupted, and how many lines before its n-th it ended."""
    before, trace, interrupt = signal.getsignal(signal.SIGINT), sys.gettrace(), Interrupt(n)
    sys.settrace(interrupt)
    try:
        function()
        was_interrupted = False
    except KeyboardInterrupt:
        was_interrupted = True
    finally:
        sys.settrace(trace)
    assert signal.getsignal(signal.SIGINT) is before
    return was_interrupted, interrupt.left


@pytest.fixture
def two(tasks):
    return learn(small(), tasks[:1]), learn(small(), tasks[:2])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_line_leaves_all_old_files_or_all_new(two, tmp_path):
    old, new = two
    paths = {name: tmp_path / name for name in NAMES}
    old.save_params(**paths)
    _, left = interrupted(lambda: new.save_params(**paths), 10**9)
    expected = {name: len(data) for name, data in contents(tmp_path).items()}
    old.save_params(**paths)
    n_lines, before, found = 10**9 - left, contents(tmp_path), Counter()
    # the last lines, of the moving into place, and some of those before
    for n in (*range(1, n_lines - 120, n_lines // 40), *range(n_lines - 120, n_lines - 5, 3)):
        raised, _ = interrupted(lambda: new.save_params(**paths), n)
        assert raised
        after = contents(tmp_path)
        is_new = after.keys() == before.keys() and all(after[k] != before[k] for k in after)
        assert is_new or after == before
        found[is_new] += 1
        if is_new:
            assert {name: len(data) for name, data in after.items()} == expected
            old.save_params(**paths)
            before = contents(tmp_path)
    assert found[True] > 3
    assert found[False] > 30


def test_an_interrupt_as_torch_closes_its_file_ends_nothing_but_the_saving(two, tmp_path):
    close = torch.serialization._open_zipfile_writer_buffer.__exit__.__code__

    def interrupt(frame, event, argument):
        if frame.f_code is close:
            sys.settrace(None)
            raise KeyboardInterrupt

    trace = sys.gettrace()
    sys.settrace(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            two[0].save_params(f_params=tmp_path / "file")
    finally:
        sys.settrace(trace)
    assert not list(tmp_path.iterdir())


def test_interrupts_are_not_held_back_in_other_threads(two, tmp_path):
    thread = threading.Thread(target=two[0].save_params, args=(tmp_path / "file",))
    thread.start()
    thread.join()
    assert (tmp_path / "file").exists()


def test_an_ignored_interrupt_stays_ignored(tmp_path):
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        write_whole([(tmp_path / "file", b"whole")])
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_everything_is_serialised_before_anything_is_written(two, tmp_path, kind):
    if kind == "safetensors":
        pytest.importorskip("safetensors")
    net = two[0]
    before = state(net)
    net.history.record("unwritable", object())

    class File:
        def write(self, data):
            pytest.fail("something was written")

    with pytest.raises(TypeError):
        net.save_params(
            f_params=File(),
            f_memory=File(),
            f_history=tmp_path / "history",
            use_safetensors=kind == "safetensors",
        )
    del net.history[-1]["unwritable"]
    assert state(net) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no such device")
def test_no_space_leaves_the_old_files(two, tmp_path):
    path = tmp_path / "params"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="space"):
        two[0].save_params(f_params=path, f_memory="/dev/full")
    assert contents(tmp_path) == {"params": b"old"}
