"""Lines that tell how far work is."""

import numpy as np
import pytest

from sklearn_ewc import progress as progress_module
from sklearn_ewc.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    times = []
    monkeypatch.setattr(progress_module, "monotonic", lambda: times.pop(0))
    return times


def test_the_time_left_is_what_the_rest_will_take_at_the_same_pace(clock, capsys):
    clock.extend([0.0, 2.0, 100.0, 7200.0])
    progress = Progress("work", 4, verbose=1)
    for text, units in (("a", 1), ("b", 1), ("c", 2)):
        progress.done(text, units)
    assert capsys.readouterr().out.splitlines() == [
        "work",
        "[1/4] a (2.0 s, about 6.0 s left)",
        "[2/4] b (1 min 40 s, about 1 min 40 s left)",
        "[4/4] c (2 h 0 min)",
    ]


@pytest.mark.parametrize("verbose", [0, False, np.int64(0)])
def test_by_default_nothing_is_told(verbose, capsys):
    progress = Progress("work", 1, verbose)
    progress.done("a")
    assert capsys.readouterr().out == ""
    assert progress.finished == 1


@pytest.mark.parametrize("verbose", ["a", None, -1, 0.5])
def test_how_verbose_is_a_number(verbose):
    with pytest.raises(ValueError, match="verbose"):
        Progress("work", 1, verbose)
