"""Compare rules that choose λ from the new task and the memory alone.

The old data are gone, so no score on the old tasks can be had. Each rule learns
the new task from three quarters of its samples at every λ of a grid, and reads
the error on the last quarter and the memory's penalty, which is an estimate, to
second order, of what the old tasks' errors have grown by (`estimate_lambda`):

- "estimated total": the λ of the least sum of both errors;
- "new task within 10 %" (or 50 %): the largest λ whose error on the new task is
  at most 1.1 (1.5) times the least.

Against them stand the fixed default, and the one λ that is best for a scenario,
which nobody knows beforehand. Every figure is the R² on held-out samples after
the last task, averaged over tasks and seeds.

Run: python examples/benchmarks/lambda_rules.py [--seeds 3]
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from scenarios import CHOSEN_ON

from sklearn_ewc import EWCRegressor, estimate_lambda

# of the table in README.md: y as it is, 200 epochs at one rate
SETTINGS = {"normalize_y": False, "max_epochs": 200}
LAMBDAS = [0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]


def within(tolerance):
    """Return the rule of the largest λ whose error on the new task is near the least."""

    def rule(estimate):
        allowed = estimate.errors <= tolerance * estimate.errors.min()
        return max(np.array(estimate.lambdas)[allowed])

    return rule


RULES = {
    "estimated total": lambda estimate: estimate.best,
    "new task within 10 %": within(1.1),
    "new task within 50 %": within(1.5),
}


def run(make_scenario, seed, rule):
    """Return the mean R² after the last task, λ chosen for every task by a rule or fixed."""
    torch.set_num_threads(1)
    scenario = make_scenario(seed)
    net = EWCRegressor(
        hidden_layer_sizes=scenario.hidden_layer_sizes, random_state=seed, **SETTINGS
    )
    chosen = []
    for number, (X, y) in enumerate(scenario.train):
        ewc_lambda = rule
        if rule in RULES:
            ewc_lambda = RULES[rule](estimate_lambda(net, X, y, lambdas=LAMBDAS)) if number else 0.0
        net.set_params(ewc_lambda=ewc_lambda).partial_fit(X, y)
        chosen.append(ewc_lambda)
    score = np.mean([net.score(X, y) for X, y in scenario.test])
    return {
        "scenario": scenario.name,
        "rule": rule,
        "R2": score,
        "chosen": np.median(chosen[1:]),
    }


def main():
    """Run every rule and every fixed λ, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    jobs = [
        delayed(run)(make, seed, rule)
        for rule in (*RULES, *LAMBDAS)
        for make in CHOSEN_ON
        for seed in range(arguments.seeds)
    ]
    rows = []
    for row in Parallel(arguments.jobs, return_as="generator")(jobs):
        rows.append(row)
        print(f"\r{len(rows)} of {len(jobs)}", end="", flush=True)
    print()
    results = pd.DataFrame(rows)
    table = results.pivot_table(index="rule", columns="scenario", values="R2", sort=False)
    default = EWCRegressor().ewc_lambda
    shown = table.loc[list(RULES)]
    shown.loc[f"fixed, the default {default:g}"] = table.loc[default]
    shown.loc["fixed, the best for the scenario"] = table.loc[LAMBDAS].max()
    shown["mean"] = shown.mean(axis=1)
    print(shown.round(3).to_string())
    chosen = results[results.rule.isin(list(RULES))]
    print("\nλ chosen (median over tasks, then seeds)")
    chosen = chosen.pivot_table(index="rule", columns="scenario", values="chosen", aggfunc="median")
    print(chosen.to_string())


if __name__ == "__main__":
    main()
