"""Compare λ chosen for each task, from the task and the memory alone, with every fixed λ.

The old data are gone, so no score on the old tasks can be had:

- "auto" is ``ewc_lambda="auto"``: within `partial_fit`, down a path of λ;
- "estimate_lambda" learns most of the new task anew at every λ of a grid, and takes
  that of the least sum of the error on the rest and the memory's penalty.

Against them stand fixed λ, the same for all tasks; 0 is plain training. Figures are R²
on held-out samples after the last task, the mean over tasks and seeds; where it stands
between plain training (0) and all tasks at once (1); and the CPU time of all tasks but
the first, over that with λ = 3. All other parameters are at their defaults.

Run: python examples/benchmarks/lambda_rules.py [--seeds 3]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from scenarios import CHOSEN_ON

from sklearn_ewc import EWCRegressor, estimate_lambda

ALL_AT_ONCE = "all tasks at once"
CHOSEN = ("auto", "estimate_lambda")
LAMBDAS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
ACTIVATIONS = ("ReLU", "Tanh")
GRID = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


def run(make_scenario, seed, activation, method):
    """Return the R² after the last task, the CPU time and the λ of all tasks but the first."""
    torch.set_num_threads(1)
    scenario = make_scenario(seed)
    net = EWCRegressor(
        hidden_layer_sizes=scenario.hidden_layer_sizes,
        module__activation=getattr(torch.nn, activation),
        random_state=seed,
    )
    times, lambdas = [], []
    if method == ALL_AT_ONCE:
        net.fit(*map(np.concatenate, zip(*scenario.train, strict=True)))
    else:
        for number, (X, y) in enumerate(scenario.train):
            start = time.process_time()
            net.set_params(ewc_lambda=value_for(method, net, number, X, y)).partial_fit(X, y)
            times.append(time.process_time() - start)
            lambdas.append(net.ewc_lambda_)
    return {
        "scenario": scenario.name,
        "activation": activation,
        "seed": seed,
        "method": str(method),
        "R2": np.mean([net.score(X, y) for X, y in scenario.test]),
        "seconds": sum(times[1:]),
        "lambda": np.median(lambdas[1:]) if lambdas else np.nan,
    }


def value_for(method, net, number, X, y):
    """Return the `ewc_lambda` by which a method learns a task."""
    if method != "estimate_lambda":
        return method
    return estimate_lambda(net, X, y, lambdas=GRID).best if number else 0.0


def report(results):
    """Print the tables."""

    def table(values, aggfunc="mean"):
        columns = ["scenario", "activation"]
        return results.pivot_table(values, "method", columns, aggfunc=aggfunc, sort=False)

    scores = table("R2")
    plain, ceiling = scores.loc["0.0"], scores.loc[ALL_AT_ONCE]
    gaps = (scores - plain) / (ceiling - plain)
    seconds = table("seconds").drop(index=ALL_AT_ONCE)
    for title, shown in {
        "R²": scores,
        "gap closed": gaps,
        "CPU time, over λ = 3": seconds / seconds.loc["3.0"],
    }.items():
        means = {("mean", ""): shown.mean(axis=1), ("worst", ""): shown.min(axis=1)}
        print(f"\n{title}\n{shown.join(pd.DataFrame(means)).round(2).to_string()}")
    print(f"\nλ (median)\n{table('lambda', 'median').to_string()}")


def main():
    """Run every method, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--methods", nargs="*", default=CHOSEN, choices=CHOSEN)
    arguments = parser.parse_args()
    jobs = [
        delayed(run)(make, seed, activation, method)
        for seed in range(arguments.seeds)
        for method in (*LAMBDAS, ALL_AT_ONCE, *arguments.methods)
        for make in CHOSEN_ON
        for activation in ACTIVATIONS
    ]
    rows = []
    for row in Parallel(arguments.jobs, return_as="generator")(jobs):
        rows.append(row)
        print(f"\r{len(rows)} of {len(jobs)}", end="", flush=True)
    report(pd.DataFrame(rows))


if __name__ == "__main__":
    main()
