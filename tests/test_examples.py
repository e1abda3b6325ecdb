"""The README's code and the examples run."""

import runpy
import sys
from pathlib import Path

import pytest

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
