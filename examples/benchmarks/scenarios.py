"""Scenarios of tasks that arrive one after another, from data that need no download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from sklearn.datasets import load_diabetes, load_digits, make_friedman1
from sklearn.model_selection import train_test_split

NOISE = 0.25
KNOTS = np.array(
    [
        (-2.0, -0.25),
        (-1.75, 0.45),
        (-1.4, -0.5),
        (-1.0, -1.9),
        (-0.6, -0.3),
        (-0.15, 1.85),
        (0.25, 0.75),
        (0.55, 1.0),
        (0.9, 0.45),
        (1.5, -0.8),
        (2.0, -0.3),
    ]
)


@dataclass(frozen=True)
class Scenario:
    """Tasks in order; each split is a list of (X, y), one per task."""

    name: str
    train: list[tuple[np.ndarray, np.ndarray]]
    test: list[tuple[np.ndarray, np.ndarray]]
    hidden_layer_sizes: tuple[int, ...] = (100,)


def curve(x: np.ndarray) -> np.ndarray:
    """Return the demonstration's curve."""
    return CubicSpline(KNOTS[:, 0], KNOTS[:, 1])(x)


def curve_tasks(n_samples: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return four tasks, noisy samples of a quarter of the curve each."""
    rng = np.random.RandomState(seed)
    tasks = []
    for start in (-2, -1, 0, 1):
        x = rng.uniform(start, start + 1, n_samples)
        tasks.append((x.reshape(-1, 1), curve(x) + NOISE * rng.randn(n_samples)))
    return tasks


def demonstration(seed: int) -> Scenario:
    """Four quarters of a noisy curve."""
    return Scenario(
        "demonstration",
        curve_tasks(250, seed),
        curve_tasks(250, seed + 1000),
        hidden_layer_sizes=(100, 100, 100, 100),
    )


def friedman(seed: int) -> Scenario:
    """Friedman's function; each task is a quarter of the range of its fourth input."""
    X, y = make_friedman1(2000, noise=1.0, random_state=seed)
    return _split("Friedman by range", X, y, np.digitize(X[:, 3], [0.25, 0.5, 0.75]), seed)


def diabetes(seed: int) -> Scenario:
    """Diabetes progression; each task is a third of the patients, by age."""
    X, y = load_diabetes(return_X_y=True)
    thirds = np.quantile(X[:, 0], [1 / 3, 2 / 3])
    return _split("diabetes by age", X, y, np.digitize(X[:, 0], thirds), seed)


def permuted_digits(seed: int) -> Scenario:
    """Digits as ten outputs; each of four tasks shuffles the pixels in its own way."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.RandomState(seed)
    orders = [np.arange(64), *(rng.permutation(64) for _ in range(3))]
    X = np.concatenate([X[:, order] for order in orders]) / 16
    y = np.tile(np.eye(10)[y], (4, 1))
    return _split("permuted digits", X, y, np.repeat(np.arange(4), len(y) // 4), seed)


SCENARIOS: tuple[Callable[[int], Scenario], ...] = (
    demonstration,
    friedman,
    diabetes,
    permuted_digits,
)


def _split(name: str, X: np.ndarray, y: np.ndarray, task: np.ndarray, seed: int) -> Scenario:
    """Standardise the inputs and hold out a quarter of every task."""
    X = (X - X.mean(0)) / (X.std(0) + 1e-12)
    train, test = [], []
    for label in np.unique(task):
        rows = task == label
        X_train, X_test, y_train, y_test = train_test_split(X[rows], y[rows], random_state=seed)
        train.append((X_train, y_train))
        test.append((X_test, y_test))
    return Scenario(name, train, test)
