"""Files are whole whatever happens."""

import itertools
import os
import random
import signal
import time

import pytest
import torch

from sklearn_ewc import Memory
from sklearn_ewc.curvature import Diagonal
from sklearn_ewc.memory.quadratic import Quadratic
from sklearn_ewc.saving import whole_file

from ..helpers import learn, parameters
from .helpers import small


def numbered(net, k):
    """Fill all that is saved with the number k."""
    with torch.no_grad():
        for value in net.module_.parameters():
            value.fill_(k)
    sums = {name: torch.full_like(p, k) for name, p in net.module_.named_parameters()}
    net.memory_ = Memory(n_tasks=k, quadratic=Quadratic(sums, sums, Diagonal(sums)))
    net.history_[:] = [{"batches": [{"k": k}] * 500}]
    for values in net.optimizer_.state_dict()["state"].values():
        values["exp_avg"].fill_(k)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_process_killed_while_saving_leaves_whole_files(tasks, tmp_path):
    net = small(hidden_layer_sizes=(60, 60), max_epochs=1).fit(*tasks[0])
    paths = {f"f_{name}": tmp_path / name for name in ("params", "optimizer", "history", "memory")}
    numbered(net, 1)
    net.save_params(**paths)
    last, generator = 1, random.Random(0)
    for _ in range(30):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for k in itertools.count(last):
                    numbered(net, k)
                    net.save_params(**paths)
                    os.write(writing, b"!")
            finally:
                os._exit(1)
        os.close(writing)
        with open(reading, "rb") as saved:  # a busy machine saves less in the same time
            saved.read(generator.randrange(4))
            time.sleep(generator.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        net.load_params(**paths)
        (k,) = parameters(net).unique().tolist()
        assert last <= k
        moments = [values["exp_avg"] for values in net.optimizer_.state_dict()["state"].values()]
        for other in (
            *{v for m in moments for v in m.unique().tolist()},
            net.history[0, "batches", 0, "k"],
        ):
            assert other in (k - 1, k, k + 1)
        assert net.n_tasks_ in (k - 1, k)  # never newer than the parameters
        last = int(k)
    assert last > 5
    assert list(tmp_path.glob(".*.saving"))  # some were killed while they wrote


@pytest.mark.parametrize("failing", ["f_params", "f_optimizer", "f_history", "f_memory"])
def test_a_save_that_fails_leaves_the_old_files(tasks, tmp_path, monkeypatch, failing):
    net = learn(small(), tasks[:1])
    names = ("f_params", "f_optimizer", "f_history", "f_memory")
    paths = {name: tmp_path / name for name in names}
    net.save_params(**paths)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    net.partial_fit(*tasks[1])
    fails = lambda *args, **kwargs: 1 / 0  # noqa: E731
    if failing == "f_history":
        net.history.record("unwritable", object())
    elif failing == "f_memory":
        object.__setattr__(net.memory_, "n_tasks", "many")
    else:
        monkeypatch.setattr(
            net.module_ if failing == "f_params" else net.optimizer_, "state_dict", fails
        )
    with pytest.raises((ZeroDivisionError, TypeError, ValueError)):
        net.save_params(**paths)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_keeps_its_mode_and_its_links(tmp_path):
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    with whole_file(str(link), "w") as file:
        file.write("new")
        assert target.read_text() == "old"
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["target"]


def test_a_device_is_written_to_and_not_replaced(tasks):
    learn(small(), tasks[:1]).save_params(f_memory=os.devnull)
    assert not os.path.isfile(os.devnull)
