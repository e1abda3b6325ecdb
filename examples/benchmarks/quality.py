"""Compare what is remembered: scenarios × methods, at the default λ and at the best.

Methods: no penalty; L2 towards the old weights (the same importance for every
parameter); EWC with the batch, the empirical and the exact Fisher; online EWC;
a buffer, 50 rows of every old task that are learned again with each new one, which
needs to keep them; and all tasks at once, which needs all old data. Every figure is the R² on
held-out samples after the last task, averaged over tasks, over at least three
seeds; "gap" is where the mean stands between no penalty (0) and all tasks at
once (1), over the scenarios where these two differ by more than the spread.

All but the row of the defaults learn y as it is, for 200 epochs at one rate.

Run: python examples/benchmarks/quality.py [--output examples/benchmarks/quality]
writes quality.csv and quality.png; with --methods only those learn, and the others
are taken from quality.csv
"""

from __future__ import annotations

import argparse

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from scenarios import SCENARIOS

from sklearn_ewc import EWCRegressor

mpl.use("Agg")
import matplotlib.pyplot as plt

DEFAULT = EWCRegressor().ewc_lambda
LAMBDAS = (DEFAULT, 0.3, 30.0, 100.0)  # the exact Fisher is in the units of the criterion
LEFT = -0.5  # of the pictures' axes
ISOTROPIC = 1e6  # a floor so high that all parameters are equally important
AS_THEY_ARE = {"normalize_y": False, "max_epochs": 200}
AS_IT_COMES = {"normalize_y": "auto", "max_epochs": "auto"}
N_KEPT = 50
BUFFER = f"{N_KEPT} rows a task kept"
METHODS = {
    "no penalty": ({}, (0.0,)),
    "L2": ({"damping": ISOTROPIC}, (DEFAULT, 0.03, 0.3, 30.0)),
    "EWC, batch": ({"fisher": "batch"}, (DEFAULT, 1e-3, 1e3, 1e6)),
    "EWC, empirical": ({"fisher": "empirical"}, (DEFAULT, 1e-3, 0.1, 100.0)),
    "EWC, exact": ({}, LAMBDAS),
    "online EWC": ({"mode": "online"}, LAMBDAS),
    "EWC, all defaults": (AS_IT_COMES, (DEFAULT,)),
    BUFFER: ({}, (0.0,)),
    "all at once": (None, (0.0,)),
}


def run(make_scenario, seed, method, ewc_lambda):
    """Return the mean R² over the tasks after the last one."""
    torch.set_num_threads(1)
    scenario, (settings, _) = make_scenario(seed), METHODS[method]
    net = EWCRegressor(
        hidden_layer_sizes=scenario.hidden_layer_sizes, random_state=seed, **AS_THEY_ARE
    )
    if settings is None:
        net.fit(*(np.concatenate(parts) for parts in zip(*scenario.train, strict=True)))
    else:
        net.set_params(**settings)
        net.set_params(ewc_lambda=ewc_lambda / (ISOTROPIC if method == "L2" else 1))
        tasks = with_kept_rows(scenario.train, seed) if method == BUFFER else scenario.train
        for X, y in tasks:
            net.partial_fit(X, y)
    score = np.mean([net.score(X, y) for X, y in scenario.test])
    return {
        "scenario": scenario.name,
        "method": method,
        "ewc_lambda": ewc_lambda,
        "seed": seed,
        "R2": score,
    }


def with_kept_rows(tasks, seed):
    """Return the tasks, each with some rows of all before it."""
    rng, kept = np.random.RandomState(seed), []
    for X, y in tasks:
        yield tuple(np.concatenate(parts) for parts in zip((X, y), *kept, strict=True))
        rows = rng.permutation(len(y))[:N_KEPT]
        kept.append((X[rows], y[rows]))


def summary(results):
    """Return, by method and choice of λ, mean and spread over seeds, and the gap closed."""
    by_lambda = results.groupby(["method", "scenario", "ewc_lambda"], sort=False)["R2"]
    cells = by_lambda.agg(["mean", "std"]).reset_index()
    ends = cells.set_index(["method", "scenario"])[["mean", "std"]]
    rows = []
    for (_, scenario), group in cells.groupby(["method", "scenario"], sort=False):
        default = group[group.ewc_lambda.isin([DEFAULT, 0.0])].iloc[0]
        best = group.loc[group["mean"].idxmax()]
        (lowest, spread), (highest, _) = (
            ends.loc[(end, scenario)] for end in ("no penalty", "all at once")
        )
        width = highest - lowest if highest - lowest > spread else np.nan
        for choice, cell in (("default", default), ("best", best)):
            rows.append({**cell, "choice": choice, "gap": (cell["mean"] - lowest) / width})
    return pd.DataFrame(rows)


def printed(table):
    """Return the summary as text: methods × scenarios, R² ± spread and the mean gap."""
    table = table.assign(
        R2=[f"{m:.2f} ± {s:.2f}" for m, s in zip(table["mean"], table["std"], strict=True)]
    )
    order = {"index": ["method", "choice"], "columns": "scenario", "sort": False}
    shown = table.pivot_table(values="R2", aggfunc="first", **order)
    shown["mean R²"] = table.groupby(["method", "choice"], sort=False)["mean"].mean().round(3)
    shown["mean gap"] = table.groupby(["method", "choice"], sort=False)["gap"].mean().round(2)
    return shown.to_string()


def draw(table):
    """Draw a panel per scenario: each method's R² at both choices of λ."""
    scenarios, methods = table["scenario"].unique(), list(METHODS)
    figure, panels = plt.subplots(
        1, len(scenarios), figsize=(3 * len(scenarios), 3.4), sharey=True, layout="constrained"
    )
    marks = (("default", "o", "#E69F00", -0.12), ("best", "s", "#0072B2", 0.12))
    for axes, scenario in zip(panels, scenarios, strict=True):
        for choice, marker, colour, shift in marks:
            cells = table[(table.scenario == scenario) & (table.choice == choice)]
            axes.errorbar(
                cells["mean"],
                [methods.index(method) + shift for method in cells.method],
                xerr=cells["std"],
                fmt=marker,
                color=colour,
                capsize=2,
                label=f"{choice} λ",
            )
            for method in cells.method[cells["mean"] < LEFT]:  # arrows at what lies further left
                axes.plot(LEFT + 0.05, methods.index(method) + shift, "<", color=colour)
        joint = table[(table.scenario == scenario) & (table.method == "all at once")]["mean"].iloc[
            0
        ]
        axes.axvline(joint, color="#999999", linewidth=0.8)
        axes.set(title=scenario, xlabel="R² after the last task", xlim=(LEFT, 1))
        axes.set_yticks(range(len(methods)), methods)
    panels[0].invert_yaxis()
    panels[0].legend(frameon=False, loc="lower left", fontsize="small")
    return figure


def main():
    """Run everything, print the table, write it as CSV and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", default="examples/benchmarks/quality")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    arguments = parser.parse_args()
    jobs = [
        delayed(run)(make, seed, method, ewc_lambda)
        for make in reversed(SCENARIOS)  # the longest first
        for method in arguments.methods
        for ewc_lambda in METHODS[method][1]
        for seed in range(arguments.seeds)
    ]
    rows = []
    for row in Parallel(arguments.jobs, return_as="generator")(jobs):
        rows.append(row)
        print(f"\r{len(rows)} of {len(jobs)}", end="", flush=True)
    print()
    results = pd.DataFrame(rows)
    if len(arguments.methods) < len(METHODS):
        known = pd.read_csv(f"{arguments.output}.csv")
        results = pd.concat([known[~known.method.isin(arguments.methods)], results])
        results = results.sort_values("method", key=lambda names: names.map(list(METHODS).index))
    results.to_csv(f"{arguments.output}.csv", index=False)
    table = summary(results)
    print(printed(table))
    draw(table).savefig(f"{arguments.output}.png", dpi=110)


if __name__ == "__main__":
    main()
