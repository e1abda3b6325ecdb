"""Scenarios of tasks that arrive one after another, from data that need no download.

Each function takes a seed and returns a :class:`Scenario`; its docstring says why a
net that is simply trained on one task after another forgets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, make_friedman1
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
    """Four quarters of a noisy curve.

    While it learns one quarter, nothing holds the net's curve on the others.
    """
    return Scenario(
        "demonstration",
        curve_tasks(250, seed),
        curve_tasks(250, seed + 1000),
        hidden_layer_sizes=(100, 100, 100, 100),
    )


def friedman(seed: int) -> Scenario:
    """Friedman's function; each task is a quarter of the range of its fourth input.

    y is linear in that input, so that the last task's function, carried on, is good for
    the others too: what is forgotten is little, and how the nine others matter.
    """
    X, y = make_friedman1(2000, noise=1.0, random_state=seed)
    return _split("Friedman by range", X, y, np.digitize(X[:, 3], [0.25, 0.5, 0.75]), seed)


def diabetes(seed: int) -> Scenario:
    """Diabetes progression; each task is a third of the patients, by age.

    One function, nearly linear, serves all, but 110 noisy rows do not show it: the
    net learns the last ones closely, and loses what it knew from the others.
    """
    X, y = load_diabetes(return_X_y=True)
    thirds = np.quantile(X[:, 0], [1 / 3, 2 / 3])
    return _split("diabetes by age", X, y, np.digitize(X[:, 0], thirds), seed)


def permuted_digits(seed: int) -> Scenario:
    """Digits as ten outputs; each of four tasks shuffles the pixels in its own way.

    The tasks have no function in common, and every one moves every weight.
    """
    X, y = load_digits(return_X_y=True)
    rng = np.random.RandomState(seed)
    orders = [np.arange(64), *(rng.permutation(64) for _ in range(3))]
    X = np.concatenate([X[:, order] for order in orders]) / 16
    y = np.tile(np.eye(10)[y], (4, 1))
    return _split("permuted digits", X, y, np.repeat(np.arange(4), len(y) // 4), seed)


def sines(seed: int) -> Scenario:
    """Five sines on the same interval, told apart by a one-hot context alone.

    No task sees the columns of the others at work: what all contexts share, the last
    one rewrites.
    """
    rng = np.random.RandomState(seed)
    task = np.repeat(np.arange(5), 200)
    x = rng.uniform(-1, 1, len(task))
    amplitude = np.array([1.0, 0.5, 1.5, 0.75, 1.25])[task]
    frequency = np.array([1.0, 2.0, 1.5, 2.5, 0.5])[task]
    y = amplitude * np.sin(np.pi * frequency * x + task) + 0.1 * rng.randn(len(x))
    X = np.column_stack([x, np.eye(5)[task]])
    return _held_out("sines by context", X, y, task, seed, (64, 64))


def stones_by_clarity(seed: int) -> Scenario:
    """Prices of stones; each of four tasks is two of the eight grades of clarity.

    The same carats and colours cost more in every task, so that the last task's level
    and slope are wrong for the others.
    """
    X, y, _, clarity = _stones(seed)
    return _held_out("stones by clarity", X, y, clarity // 2, seed, (64, 64))


def stones_by_carat(seed: int) -> Scenario:
    """Prices of stones; each of four tasks is a quarter of them, by carat.

    Price grows faster than carat: a net that goes on to heavy stones extrapolates
    from there to light ones, which cost a fraction.
    """
    X, y, carat, _ = _stones(seed)
    quarters = np.quantile(carat, [0.25, 0.5, 0.75])
    return _held_out("stones by carat", X, y, np.digitize(carat, quarters), seed, (64, 64))


def arm(seed: int) -> Scenario:
    """Where twelve coordinates of an arm of three joints are; each task is a part of the turn.

    The shoulder turns through a fifth of the circle in every task, and outside of it
    nothing holds the sine and cosine that all outputs are made of.
    """
    rng = np.random.RandomState(seed)
    angles = rng.uniform([-np.pi, -1.5, -1.5], [np.pi, 1.5, 1.5], (1500, 3))
    links = np.exp(1j * angles.cumsum(axis=1)) * [1.0, 0.7, 0.4]
    joints = np.column_stack([np.zeros(len(links)), links.cumsum(axis=1)])
    points = np.column_stack([(joints[:, :-1] + joints[:, 1:]) / 2, joints[:, 1:]])
    y = np.column_stack([points.real, points.imag]) + 0.05 * rng.randn(len(points), 12)
    task = ((angles[:, 0] + np.pi) / (2 * np.pi) * 5).astype(int)
    return _split("arm by angle", angles, y, task, seed, (100, 100))


def consumption(seed: int) -> Scenario:
    """Electricity over a year; each of twelve tasks is a month.

    Winter heats and summer cools, days have another course in each, and demand grows:
    a month that has gone by is not seen again.
    """
    rng = np.random.RandomState(seed)
    day, hour = rng.uniform(0, 365, 1800), rng.uniform(0, 24, 1800)
    season = np.cos(2 * np.pi * (day - 15) / 365)  # 1 in the middle of January
    warmth = 12 - 11 * season + 4 * np.sin(2 * np.pi * (hour - 9) / 24) + 3 * rng.randn(1800)
    weekend = (day.astype(int) % 7 > 4).astype(float)
    evening = np.exp(-(((hour - 19 + 1.5 * season) / 3) ** 2))
    morning = np.exp(-(((hour - 8) / 2) ** 2)) * (1 - 0.7 * weekend)
    weather = 0.12 * np.maximum(16 - warmth, 0) + 0.15 * np.maximum(warmth - 21, 0)
    y = weather + (1.2 + 0.6 * season) * evening + morning + day / 365 + 0.15 * rng.randn(1800)
    turn = 2 * np.pi * hour / 24
    X = np.column_stack([day, np.sin(turn), np.cos(turn), warmth, weekend])
    return _split("electricity by month", X, y, (day / 365 * 12).astype(int), seed, (64, 64))


def tumours(seed: int) -> Scenario:
    """Concave points of breast tumours from nine other means; each task is a quarter, by radius.

    Small tumours are smooth and large ones are not: the last, steep task is no guide to
    the first, and with a hundred noisy rows each it is soon learned by heart.
    """
    X = load_breast_cancer().data[:, :10]
    quarters = np.digitize(X[:, 0], np.quantile(X[:, 0], [0.25, 0.5, 0.75]))
    concave_points = X[:, 7] / X[:, 7].std()
    return _split("tumours by radius", np.delete(X, 7, axis=1), concave_points, quarters, seed)


# the defaults of `ewc_lambda` and `damping` were chosen on these; the others have no part in them
CHOSEN_ON: tuple[Callable[[int], Scenario], ...] = (
    demonstration,
    friedman,
    diabetes,
    permuted_digits,
)
SCENARIOS: tuple[Callable[[int], Scenario], ...] = (
    *CHOSEN_ON,
    sines,
    stones_by_clarity,
    stones_by_carat,
    arm,
    consumption,
    tumours,
)


def _stones(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return columns, price, carat and clarity of 1,600 stones, made up to be like diamonds."""
    rng = np.random.RandomState(seed)
    carat = np.exp(rng.normal(-0.3, 0.5, 1600)).clip(0.2, 3)
    colour, clarity = rng.randint(7, size=1600), rng.randint(8, size=1600)
    depth = rng.normal(size=1600)
    worth = np.exp(0.13 * clarity - 0.09 * colour * np.sqrt(carat) - 0.05 * depth**2)
    price = 4 * carat**1.8 * worth * np.exp(0.08 * rng.randn(1600))  # in thousands
    X = np.column_stack([_standardised(np.column_stack([carat, depth])), np.eye(7)[colour]])
    return np.column_stack([X, np.eye(8)[clarity]]), price, carat, clarity


def _split(
    name: str,
    X: np.ndarray,
    y: np.ndarray,
    task: np.ndarray,
    seed: int,
    hidden_layer_sizes: tuple[int, ...] = (100,),
) -> Scenario:
    """Standardise the inputs and hold out a quarter of every task."""
    return _held_out(name, _standardised(X), y, task, seed, hidden_layer_sizes)


def _standardised(X: np.ndarray) -> np.ndarray:
    return (X - X.mean(0)) / (X.std(0) + 1e-12)


def _held_out(
    name: str,
    X: np.ndarray,
    y: np.ndarray,
    task: np.ndarray,
    seed: int,
    hidden_layer_sizes: tuple[int, ...],
) -> Scenario:
    """Hold out a quarter of every task."""
    train, test = [], []
    for label in np.unique(task):
        rows = task == label
        X_train, X_test, y_train, y_test = train_test_split(X[rows], y[rows], random_state=seed)
        train.append((X_train, y_train))
        test.append((X_test, y_test))
    return Scenario(name, train, test, hidden_layer_sizes)
