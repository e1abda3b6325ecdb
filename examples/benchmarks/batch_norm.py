"""Measure what a task forgets through the running statistics of BatchNorm alone.

The two halves of the demonstration's curve, learned one after the other by a network
with BatchNorm: the R² on new samples of the first half before and after the second is
learned, and that of the second, with the statistics held (`remember_buffers=True`) and
let go. At λ = 10¹² no parameter moves; what is forgotten there, statistics forget.

Run: python examples/benchmarks/batch_norm.py [--seeds 3]
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch
from scenarios import curve_tasks
from torch import nn

from sklearn_ewc import EWCRegressor


class NormalisedMLP(nn.Sequential):
    """Two hidden layers of 50 units, each with BatchNorm before the nonlinearity."""

    def __init__(self, n_features):
        super().__init__(
            nn.Linear(n_features, 50),
            nn.BatchNorm1d(50),
            nn.Tanh(),
            nn.Linear(50, 50),
            nn.BatchNorm1d(50),
            nn.Tanh(),
            nn.Linear(50, 1),
        )


def halves(seed):
    """Return two tasks, the left and the right half of the curve."""
    quarters = curve_tasks(125, seed)
    return [
        tuple(np.concatenate(parts) for parts in zip(*quarters[start : start + 2], strict=True))
        for start in (0, 2)
    ]


def scores(ewc_lambda, remember_buffers, seed, max_epochs=100):
    """Return the R² of the old task before and after the new one, and that of the new one."""
    net = EWCRegressor(
        NormalisedMLP,
        ewc_lambda=ewc_lambda,
        remember_buffers=remember_buffers,
        max_epochs=max_epochs,
        random_state=seed,
    )
    old, new = halves(seed)
    old_test, new_test = halves(seed + 1000)
    before = net.partial_fit(*old).score(*old_test)
    net.partial_fit(*new)
    return {"old, before": before, "old, after": net.score(*old_test), "new": net.score(*new_test)}


def compare(seeds=3, max_epochs=100):
    """Return the table: λ and whether the statistics are held, by mean scores."""
    torch.set_num_threads(1)
    rows = [
        {
            "ewc_lambda": ewc_lambda,
            "statistics": "held" if held else "free",
            **scores(ewc_lambda, held, seed, max_epochs),
        }
        for ewc_lambda in (3.0, 30.0, 1e12)
        for held in (True, False)
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows).groupby(["ewc_lambda", "statistics"], sort=False).mean()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    print(compare(parser.parse_args().seeds).round(3).to_string())
