"""Four tasks in a row, learned without forgetting.

A network sees a noisy curve one quarter at a time, and never sees a quarter
again. λ, one for all tasks, is chosen by GridSearchCV over a task column; then
``partial_fit`` follows ``partial_fit``. Beside it: the same network without a
penalty, and with the rule that the project began from (one squared full-batch
gradient, a λ tuned by hand for each task).

Run: python examples/four_tasks.py [--quick] [--output four_tasks.png]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from benchmarks.scenarios import KNOTS, NOISE, curve, curve_tasks
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from skorch.callbacks import Callback

from sklearn_ewc import EWCRegressor

mpl.use("Agg")
import matplotlib.pyplot as plt

NOISE_FLOOR = NOISE**2
SEED_LAMBDAS = (0.0, 1.4e11, 3e7, 9e8)  # the page's own; its penalty lacks our factor ½
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")  # Okabe and Ito, colour-blind safe


class HeldOutErrors(Callback):
    """Record the mean squared error on held-out samples of every task, each epoch."""

    def __init__(self, tasks):
        self.tasks = tasks

    def on_epoch_end(self, net, **kwargs):
        """Add columns ``mse_1`` … to the history."""
        for number, (X, y) in enumerate(self.tasks, start=1):
            net.history.record(f"mse_{number}", float(np.mean((net.predict(X) - y) ** 2)))


def learn(net, train, grid, settings=None):
    """Learn the tasks one by one, a line for each; return the curve fitted after each."""
    fits = []
    for number, (X, y) in enumerate(train):
        if settings is not None:
            net.set_params(**settings[number])
        start = time.perf_counter()
        fits.append(net.partial_fit(X, y).predict(grid))
        print(
            f"  task {number + 1} of {len(train)}: {time.perf_counter() - start:.1f} s", flush=True
        )
    return fits


def final_errors(net, tasks):
    """Return the held-out error on each task after the last one."""
    return [float(np.mean((net.predict(X) - y) ** 2)) for X, y in tasks]


def draw(runs, train, grid):
    """Draw, for each run, the fit after every task and all losses on the way."""
    figure, axes = plt.subplots(
        2 * len(runs), 4, figsize=(13, 5.2 * len(runs)), layout="constrained", sharey="row"
    )
    for top, (name, (net, fits)) in zip(axes[::2], runs.items(), strict=True):
        bottom = axes[2 * list(runs).index(name) + 1]
        for k in range(4):
            for colour, (X, y) in zip(COLOURS[: k + 1], train, strict=False):
                top[k].scatter(X, y, s=5, color=colour, alpha=0.35, linewidths=0)
            top[k].plot(grid, curve(grid.ravel()), color="0.6", linewidth=1, label="truth")
            top[k].plot(grid, fits[k], color="black", linewidth=1.5, label="fit")
            top[k].set(title=f"after task {k + 1}", ylim=(-3.2, 3.2), xlabel="x")
            rows = [row for row in net.history if row["task"] == k + 1]
            for number, colour in enumerate(COLOURS, start=1):
                seen = "-" if number <= k + 1 else ":"
                errors = [row[f"mse_{number}"] for row in rows]
                bottom[k].plot(
                    range(1, len(rows) + 1), errors, seen, color=colour, label=f"on task {number}"
                )
            bottom[k].axhline(NOISE_FLOOR, color="0.6", linewidth=1, label="noise floor")
            bottom[k].set(yscale="log", xlabel="epoch", title=f"while task {k + 1} is trained")
        top[0].set_ylabel(f"{name}\n\ny")
        bottom[0].set_ylabel("held-out mean squared error")
    axes[0, 0].legend(fontsize="small", loc="lower right")
    axes[1, 0].legend(
        fontsize="x-small",
        loc=(0.6, 0.2),
        title="dotted: not learned yet",
        title_fontsize="x-small",
    )
    return figure


def main():
    """Choose λ, learn, compare, print the table and save the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few epochs, to see that it runs")
    parser.add_argument("--output", default="four_tasks.png")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    train, test = (
        [(X.astype(np.float32), y) for X, y in curve_tasks(n_samples, seed)]
        for n_samples, seed in ((250, 0), (1000, 1))
    )
    grid = np.linspace(KNOTS[0, 0], KNOTS[-1, 0], 400, dtype=np.float32).reshape(-1, 1)
    net = EWCRegressor(
        hidden_layer_sizes=(100, 100, 100, 100),
        optimizer=torch.optim.LBFGS,  # up to 20 iterations an epoch
        optimizer__line_search_fn="strong_wolfe",
        lr=1.0,
        batch_size=-1,
        max_epochs=3 if arguments.quick else 8,
        normalize_y=False,  # the first quarter does not tell where the others lie
        random_state=0,
    )

    print("Choosing λ by cross-validation over the task column", flush=True)
    X, y = (np.concatenate(part) for part in zip(*train, strict=True))
    search = GridSearchCV(
        net,
        {"ewc_lambda": [10.0, 100.0] if arguments.quick else [3.0, 10.0, 30.0, 100.0]},
        scoring="neg_mean_squared_error",
        cv=KFold(3, shuffle=True, random_state=0),
        refit=False,
        n_jobs=2,
        verbose=2,
    )
    search.fit(X, y, task=np.repeat([1, 2, 3, 4], 250))
    for ewc_lambda, score in zip(
        search.cv_results_["param_ewc_lambda"], search.cv_results_["mean_test_score"], strict=True
    ):
        print(f"  λ = {ewc_lambda:>6g}: mean squared error {-score:.3f} over all tasks")
    net.set_params(callbacks=[HeldOutErrors(test)], **search.best_params_)

    runs = {}
    by_hand = clone(net).set_params(
        callbacks=None,  # it is not drawn
        fisher="batch",
        damping=0.0,
        penalty_step="gradient",
        optimizer=torch.optim.Adam,
        optimizer__fused=False,  # its squared gradients hang on rounding
        lr=1e-3,
        max_epochs=60 if arguments.quick else 500,
    )
    del by_hand.optimizer__line_search_fn
    for name, one, settings in (
        (f"EWC, λ = {net.ewc_lambda:g}", net, None),
        ("no penalty", clone(net).set_params(ewc_lambda=0.0), None),
        (
            "fisher='batch', λ by hand",
            by_hand,
            [{"ewc_lambda": 2 * value} for value in SEED_LAMBDAS],
        ),
    ):
        print(f"{name}: learning four tasks", flush=True)
        runs[name] = one, learn(one, train, grid, settings)

    table = pd.DataFrame(
        {name: final_errors(one, test) for name, (one, _) in runs.items()},
        index=[f"task {number}" for number in range(1, 5)],
    ).T
    print("\nHeld-out mean squared error after all four tasks")
    print(table.to_string(float_format="{:.3f}".format))
    print(f"noise floor {NOISE_FLOOR:.4f}; 1.25 times that {1.25 * NOISE_FLOOR:.4f}")
    drawn = dict(list(runs.items())[:2])
    draw(drawn, train, grid).savefig(arguments.output, dpi=90)
    print(f"figure saved as {Path(arguments.output).resolve()}")


if __name__ == "__main__":
    main()
