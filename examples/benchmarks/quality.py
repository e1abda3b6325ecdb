"""Compare what is remembered: methods × scenarios × activations, with nothing tuned.

Methods: no penalty; EWC with a diagonal, offline and online, at the λ that it finds
itself and at three fixed ones; EWC with a Kronecker curvature; replay; a buffer, 50
rows of every old task that are learned again with each new one, which needs to keep
them; and all tasks at once, which needs all old data. Everything else is at its
default. The best of the three fixed λ in hindsight, alike for all seeds, is told too.

A score is the R² on held-out samples after the last task, the mean over tasks. "Gap" is
where the mean over seeds stands between no penalty (0) and all tasks at once (1), for
each scenario and activation, where these two differ by more than the spread of no
penalty over the seeds. Of these cells the median, the worst and the standard deviation
are printed; "seeds" is the standard deviation of a cell's gap over the seeds (the median
over cells), and "time" the CPU time by that of EWC with λ = 3 (the same).

Run: python examples/benchmarks/quality.py [--output examples/benchmarks/quality]
writes quality.csv and quality.png; with --methods, --scenarios, --activations or fewer
--seeds only those are learned, and what they are compared with, where quality.csv lacks
it; its other rows stay as they are
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import product, starmap

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from scenarios import SCENARIOS

from sklearn_ewc import EWCRegressor

mpl.use("Agg")
import matplotlib.pyplot as plt

LEFT = -0.5  # of the picture's axis
N_KEPT = 50
PLAIN, JOINT, EWC = "no penalty", "all at once", "EWC"
FIXED_EWC = "EWC, λ = 3"
BUFFER = f"{N_KEPT} rows a task kept"
METHODS = {
    PLAIN: {"ewc_lambda": 0.0},
    FIXED_EWC: {"ewc_lambda": 3.0},
    "EWC, λ = 0.3": {"ewc_lambda": 0.3},
    "EWC, λ = 30": {"ewc_lambda": 30.0},
    EWC: {},
    "EWC, online": {"mode": "online"},
    "Kronecker": {"curvature": "kronecker"},
    "replay": {"replay": "auto"},
    BUFFER: {"ewc_lambda": 0.0},
    JOINT: {},
}
BEST = "EWC, best of three λ"
COMPARED_WITH = (PLAIN, FIXED_EWC, JOINT)
FIXED = (FIXED_EWC, "EWC, λ = 0.3", "EWC, λ = 30")
ACTIVATIONS = {"ReLU": torch.nn.ReLU, "Tanh": torch.nn.Tanh}
RUN = ["scenario", "activation", "method", "seed"]  # what tells one run from another
CELL = ["scenario", "activation"]


def run(make_scenario, activation, method, seed):
    """Return the mean R² over the tasks after the last one, and the CPU time."""
    torch.set_num_threads(1)
    scenario = make_scenario(seed)
    net = EWCRegressor(
        hidden_layer_sizes=scenario.hidden_layer_sizes,
        module__activation=ACTIVATIONS[activation],
        random_state=seed,
        **METHODS[method],
    )
    start = time.process_time()
    if method == JOINT:
        net.fit(*together(scenario.train))
    else:
        tasks = with_kept_rows(scenario.train, seed) if method == BUFFER else scenario.train
        for X, y in tasks:
            net.partial_fit(X, y)
    seconds = time.process_time() - start
    score = np.mean([net.score(X, y) for X, y in scenario.test])
    values = (scenario.name, activation, method, seed, score, seconds)
    return dict(zip((*RUN, "R2", "seconds"), values, strict=True))


def together(tasks):
    """Return the rows of several tasks as one X and one y."""
    return tuple(np.concatenate(parts) for parts in zip(*tasks, strict=True))


def with_kept_rows(tasks, seed):
    """Return the tasks, each with some rows of all before it."""
    rng, kept = np.random.RandomState(seed), []
    for X, y in tasks:
        yield together([(X, y), *kept])
        rows = rng.permutation(len(y))[:N_KEPT]
        kept.append((X[rows], y[rows]))


def cells(results):
    """Return score and gap, with their spread, of each method, scenario and activation."""
    table = results.groupby(["method", *CELL], sort=False)["R2"].agg(["mean", "std"]).reset_index()
    tried = table[table.method.isin(FIXED)]
    tried = tried[tried.groupby(CELL)["method"].transform("size") == len(FIXED)]
    best = tried.loc[tried.groupby(CELL, sort=False)["mean"].idxmax()].assign(method=BEST)
    table = pd.concat([table, best], ignore_index=True)
    plain, joint = (table[table.method == end].set_index(CELL) for end in (PLAIN, JOINT))
    width = joint["mean"] - plain["mean"]
    width = width.where(~(width <= plain["std"].fillna(0)))  # of one seed no spread is known
    table = table.join(plain["mean"].rename("lowest"), on=CELL).join(width.rename("width"), on=CELL)
    gaps = (table["mean"] - table["lowest"]) / table["width"]
    return table.assign(gap=gaps, gap_std=table["std"] / table["width"])


def in_order(methods):
    """Return methods in the order of METHODS, the best of three after those it is taken from."""
    order = [*METHODS]
    order.insert(order.index(FIXED[-1]) + 1, BEST)
    return [method for method in order if method in set(methods)]


def summary(table, results):
    """Return for each method median, worst and spread of its gaps, and its CPU time."""
    known = table.dropna(subset="gap")
    by_method = known.groupby("method", sort=False)
    worst = known.loc[by_method["gap"].idxmin()].set_index("method")
    seconds = results.pivot_table(values="seconds", index=[*CELL, "seed"], columns="method")
    figures = pd.DataFrame(
        {
            "median": by_method["gap"].median(),
            "worst": worst["gap"],
            "spread": by_method["gap"].std(),
            "seeds": by_method["gap_std"].median(),
            "time": seconds.div(seconds[FIXED_EWC], axis=0).median(),
            "worst in": worst["scenario"] + ", " + worst["activation"],
        }
    )
    return figures.loc[in_order(figures.index)].round(2)


def shown(table, value, spread):
    """Return a figure of every cell ± its spread as text: scenarios and activations × methods."""
    pairs = zip(table[value], table[spread], strict=True)
    table = table.assign(text=["–" if np.isnan(m) else f"{m:.2f} ± {s:.2f}" for m, s in pairs])
    wide = table.set_index([*CELL, "method"])["text"].unstack("method", fill_value="")
    return wide[in_order(wide.columns)].to_string()


def draw(table):
    """Draw a row per method: a dot for each scenario and activation, and the median."""
    methods = [name for name in in_order(table.method) if name not in (PLAIN, JOINT)]
    rows = np.arange(len(methods))
    figure, axes = plt.subplots(figsize=(7.5, 0.5 * len(methods) + 1.2), layout="constrained")
    for activation, colour, shift in (("ReLU", "#E69F00", -0.15), ("Tanh", "#0072B2", 0.15)):
        gaps = table[(table.activation == activation) & table.method.isin(methods)]
        heights = gaps.method.map(methods.index) + shift
        inside = gaps["gap"] >= LEFT
        dots = {"color": colour, "alpha": 0.7, "linestyle": "none", "markersize": 5}
        axes.plot(gaps["gap"][inside], heights[inside], marker="o", label=activation, **dots)
        outside = heights[gaps["gap"] < LEFT]
        axes.plot(np.full(len(outside), LEFT + 0.03), outside, marker="<", **dots)
        for height, count in outside.value_counts().items():
            axes.text(LEFT + 0.06, height, f"{count}", va="center", fontsize="small", color=colour)
    medians = table.groupby("method")["gap"].median()[methods]
    axes.vlines(medians, rows - 0.35, rows + 0.35, color="black", linewidth=2, label="median")
    for end in (0, 1):
        axes.axvline(end, color="#999999", linewidth=0.8, zorder=0)
    axes.set_yticks(rows, methods)
    axes.set_xlim(LEFT, max(1.1, table["gap"].max() + 0.05))
    axes.set_xlabel("gap closed, from no penalty (0) to all tasks at once (1)")
    axes.invert_yaxis()
    figure.legend(frameon=False, loc="outside upper right", ncols=3)
    return figure


def known_runs(path):
    """Return the runs of a file; none, if there is no file."""
    columns = [*RUN, "R2", "seconds"]
    return pd.read_csv(path) if os.path.exists(path) else pd.DataFrame(columns=columns)


def runs_to_learn(arguments, scenarios, known):
    """Yield what is asked for and what it needs to be compared with, the longest first."""
    there = set(known[RUN].itertuples(index=False, name=None))
    made = {name: scenarios[name](0) for name in arguments.scenarios}
    for name in sorted(made, key=lambda name: -sum(len(y) for _, y in made[name].train)):
        settings = product(arguments.activations, METHODS, range(arguments.seeds))
        for activation, method, seed in settings:
            lacking = (made[name].name, activation, method, seed) not in there
            if method in arguments.methods or (method in COMPARED_WITH and lacking):
                yield scenarios[name], activation, method, seed


def main():
    """Run everything, print the tables, write the runs as CSV and draw them."""
    scenarios = {make.__name__: make for make in SCENARIOS}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, choices in (
        ("methods", METHODS),
        ("scenarios", scenarios),
        ("activations", ACTIVATIONS),
    ):
        parser.add_argument(f"--{name}", nargs="+", default=list(choices), choices=list(choices))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", default="examples/benchmarks/quality")
    arguments = parser.parse_args()
    known = known_runs(f"{arguments.output}.csv")
    wanted = list(runs_to_learn(arguments, scenarios, known))
    rows = []
    for row in Parallel(arguments.jobs, return_as="generator")(starmap(delayed(run), wanted)):
        rows.append(row)
        print(f"\r{len(rows)} of {len(wanted)}", end="", flush=True)
    print()
    results = pd.concat([known, pd.DataFrame(rows)]) if len(known) else pd.DataFrame(rows)
    results = results.drop_duplicates(RUN, keep="last").sort_values(RUN)
    results.to_csv(f"{arguments.output}.csv", index=False)
    table = cells(results)
    for title, figures in (("gap closed", ("gap", "gap_std")), ("R²", ("mean", "std"))):
        print(f"{title}\n{shown(table, *figures)}\n")
    print(summary(table, results).to_string())
    draw(table).savefig(f"{arguments.output}.png", dpi=110)


if __name__ == "__main__":
    main()
