"""Compare the defaults of EWCRegressor on one task with those of MLPRegressor.

Every cell is the mean R² over five folds, inputs standardised, nothing else set but,
in the last column, the batch size of EWCRegressor.

Run: python examples/benchmarks/against_mlp.py
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import torch
from scenarios import curve_tasks
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_ewc import EWCRegressor


def datasets():
    """Return X, y of diabetes, Friedman's function and the demonstration's curve."""
    curve = tuple(np.concatenate(part) for part in zip(*curve_tasks(250, seed=0), strict=True))
    return {
        "diabetes": load_diabetes(return_X_y=True),
        "friedman1": make_friedman1(1000, noise=1.0, random_state=0),
        "demonstration": curve,
    }


def compare(n_splits=5):
    """Return the table: datasets by estimators."""
    torch.set_num_threads(1)
    folds = KFold(n_splits, shuffle=True, random_state=0)
    rows = {}
    for name, (X, y) in datasets().items():
        rows[name] = {
            str(estimator): cross_val_score(
                make_pipeline(StandardScaler(), estimator), X, y, cv=folds
            ).mean()
            for estimator in (
                EWCRegressor(random_state=0),
                MLPRegressor(random_state=0),
                MLPRegressor(batch_size=32, random_state=0),
            )
        }
    return pd.DataFrame(rows).T


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)  # MLPRegressor's 200 iterations
    print(compare().round(3).to_string())
