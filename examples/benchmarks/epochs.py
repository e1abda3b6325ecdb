"""Compare the default number of epochs, "auto", with 200 at one rate.

A function with noise, a smooth one without, and a linear one with noise, of
50,000 × 20 rows and of 60 rows; and diabetes, 60 rows of it. Targets have variance
1; the error is the mean squared one on rows held out, over seeds where rows are few.

Run: python examples/benchmarks/epochs.py [--seeds 5] [--rows 60 50000]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from sklearn.datasets import load_diabetes, make_friedman1

from sklearn_ewc import EWCRegressor


def friedman(n_rows, seed):
    """Friedman's function; a tenth of its variance again is noise."""
    X, y = make_friedman1(n_rows, n_features=20, random_state=seed)
    return X, y + 0.3 * y.std() * np.random.RandomState(seed).randn(n_rows)


def linear(n_rows, seed):
    """Twenty coefficients; a quarter of the variance again is noise."""
    rng = np.random.RandomState(seed)
    X = rng.randn(n_rows, 20)
    return X, X @ rng.randn(20) / np.sqrt(20) + 0.5 * rng.randn(n_rows)


def smooth(n_rows, seed):
    """Add a sine and a product, without noise."""
    X = np.random.RandomState(seed).randn(n_rows, 20 if n_rows > 10_000 else 3)
    return X, np.sin(X[:, :2].sum(1)) + X[:, 1] * X[:, 2] / 2


def diabetes(n_rows, seed):
    """Diabetes progression, as many rows as there are."""
    X, y = load_diabetes(return_X_y=True)
    rows = np.random.RandomState(seed).permutation(len(y))[:n_rows]
    return X[rows], y[rows]


FUNCTIONS = (linear, friedman, smooth)


def error(make, n_rows, seed, **settings):
    """Return the error on held-out rows, the number of epochs and the CPU time."""
    X, y = make(n_rows + max(n_rows // 10, 300), seed)
    X, y = (X - X[:n_rows].mean(0)) / X[:n_rows].std(0), (y - y[:n_rows].mean()) / y[:n_rows].std()
    X, y = X.astype(np.float32), y.astype(np.float32)
    net = EWCRegressor(random_state=seed, **settings)
    start = time.process_time()
    net.fit(X[:n_rows], y[:n_rows])
    spent = time.process_time() - start
    return np.mean((net.predict(X[n_rows:]) - y[n_rows:]) ** 2), len(net.history), spent


def main():
    """Run everything and print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="+", default=[60, 50_000])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for n_rows in arguments.rows:
        for make in (
            (diabetes, friedman, linear, smooth) if n_rows < 400 else (linear, friedman, smooth)
        ):
            for max_epochs in ("auto", 200):
                seeds = range(arguments.seeds if n_rows < 10_000 else 1)
                found = [error(make, n_rows, seed, max_epochs=max_epochs) for seed in seeds]
                errors, epochs, spent = np.transpose(found)
                print(
                    f"{n_rows:>6} rows, {make.__name__:<8} max_epochs={max_epochs!r:<6} "
                    f"{epochs[0]:.0f} epochs, {spent.mean():6.1f} s, error {errors.mean():.4f} "
                    f"± {errors.std():.4f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
