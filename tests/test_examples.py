"""The README's code and the examples run."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from .readme import blocks

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_readmes_code_runs_from_top_to_bottom(capsys):
    namespace = {}
    for block in blocks("python"):
        exec(block, namespace)  # later blocks build on earlier ones, as for a reader
    assert namespace["net"].n_tasks_ == namespace["again"].n_tasks_ == 3
    assert namespace["net"].score(namespace["X"], namespace["y"]) > 0.5
    assert namespace["model"].score(namespace["stones"], namespace["price"]) > 0.6
    assert namespace["pipeline"].n_tasks_ == 2
    assert namespace["search"].best_params_["ewcregressor__ewc_lambda"] > 0
    assert namespace["estimate"].best in (1, 10, 100)


def test_a_loop_of_ones_own_remembers_both_tasks(capsys):
    runpy.run_path(str(EXAMPLES / "own_loop.py"))
    errors = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(errors) == 2
    assert max(errors) < 0.01


@pytest.mark.parametrize("script", ["four_tasks.py"])
def test_the_demonstration_draws_its_picture(script, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "picture.png"
    monkeypatch.setattr(sys, "argv", [script, "--quick", "--output", str(picture)])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert picture.stat().st_size > 10_000
    assert "noise floor 0.0625" in capsys.readouterr().out


def test_permuted_mnist_forgets_what_is_not_learned_at_once(tmp_path, monkeypatch, capsys):
    digits = load_digits()
    images = np.pad(15 * digits.images.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))
    arrays = {"X": images.astype(np.uint8), "y": digits.target.astype(np.uint8)}
    parts = {"train": slice(300), "test": slice(300, 600)}
    path = tmp_path / "mnist.npz"
    np.savez(path, **{f"{name}_{p}": arrays[name][parts[p]] for name in arrays for p in parts})
    script = EXAMPLES / "benchmarks" / "permuted_mnist.py"
    options = "--rows 200 --tasks 3 --epochs 8 --seeds 1 --methods none diagonal online kronecker"
    options += " joint"
    monkeypatch.setattr(sys, "argv", [str(script), "--data", str(path), *options.split()])
    runpy.run_path(str(script), run_name="__main__")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "mean" in line]
    accuracy = {words[0]: float(words[words.index("accuracy") + 1]) for words in lines}
    assert list(accuracy) == ["none", "diagonal", "online", "kronecker", "joint"]
    assert 40 < accuracy["none"] < accuracy["joint"] - 5 < 100
    assert accuracy["diagonal"] != accuracy["none"] != accuracy["online"]
    assert accuracy["kronecker"] > accuracy["none"]
