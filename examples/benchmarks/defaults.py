"""Find the `ewc_lambda` and `damping` that do best, the same for all scenarios.

Every cell is the R² on held-out samples after the last task, averaged over the
tasks and over the seeds; the last column averages the scenarios. λ = 0 is plain
training of one task after another; "joint" sees all tasks at once.

Run: python examples/benchmarks/defaults.py [--seeds 3] [--lambdas …] [--dampings …]
[--curvature kronecker]
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from scenarios import CHOSEN_ON

from sklearn_ewc import EWCRegressor
from sklearn_ewc.curvature import KINDS

JOINT = "joint"
# of the table in README.md: y as it is, 200 epochs at one rate
SETTINGS = {"normalize_y": False, "max_epochs": 200}


def final_score(make_scenario, seed, curvature, ewc_lambda, damping):
    """Return scenario, seed, setting and the mean R² over tasks at the end."""
    torch.set_num_threads(1)
    scenario = make_scenario(seed)
    net = EWCRegressor(
        hidden_layer_sizes=scenario.hidden_layer_sizes, random_state=seed, **SETTINGS
    )
    if ewc_lambda == JOINT:
        net.fit(*(np.concatenate(parts) for parts in zip(*scenario.train, strict=True)))
    else:
        net.set_params(curvature=curvature, ewc_lambda=ewc_lambda, damping=damping)
        for X, y in scenario.train:
            net.partial_fit(X, y)
    score = np.mean([net.score(X, y) for X, y in scenario.test])
    return {
        "scenario": scenario.name,
        "ewc_lambda": ewc_lambda,
        "damping": damping,
        "seed": seed,
        "R2": score,
    }


def main():
    """Run every setting and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--lambdas", type=float, nargs="+", default=[1.0, 3.0, 10.0, 30.0, 100.0])
    parser.add_argument("--dampings", type=float, nargs="+", default=[0.0, 0.01, 0.1])
    parser.add_argument("--curvature", default="diagonal", choices=list(KINDS))
    arguments = parser.parse_args()
    settings = [(0.0, 0.0), (JOINT, 0.0), *itertools.product(arguments.lambdas, arguments.dampings)]
    jobs = [
        delayed(final_score)(make, seed, arguments.curvature, *setting)
        for setting in settings
        for make in CHOSEN_ON
        for seed in range(arguments.seeds)
    ]
    rows = []
    for row in Parallel(arguments.jobs, return_as="generator")(jobs):
        rows.append(row)
        print(f"\r{len(rows)} of {len(jobs)}", end="", flush=True)
    print()
    table = pd.DataFrame(rows).pivot_table(
        index=["ewc_lambda", "damping"], columns="scenario", values="R2", sort=False
    )
    table["mean"] = table.mean(axis=1)
    print(table.round(3).to_string())
    searched = table.drop(index=[0.0, JOINT], level="ewc_lambda")
    best_lambda, best_damping = searched["mean"].idxmax()
    print(f"best for all: ewc_lambda={best_lambda:g}, damping={best_damping:g}")


if __name__ == "__main__":
    main()
