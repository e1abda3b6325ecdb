"""What all tests share."""

import os

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # or one of check_estimator's checks is skipped

import numpy as np
import pytest
import torch
from benchmarks.scenarios import curve_tasks
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("deterministic", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("deterministic")


@pytest.fixture(autouse=True)
def seeded_modules():
    """Modules that a test builds itself start from the same parameters every time."""
    torch.manual_seed(0)


@pytest.fixture
def tasks() -> list[tuple[np.ndarray, np.ndarray]]:
    """Four small tasks: the quarters of the demonstration's curve."""
    return curve_tasks(40, seed=0)


@pytest.fixture
def table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A table of 90 rows: X, y and a task column of three labels in mixed order."""
    rng = np.random.RandomState(0)
    X = rng.randn(90, 3)
    return X, X @ [1.0, -2.0, 0.5] + 0.1 * rng.randn(90), np.tile(["c", "a", "b"], 30)
