"""Measure what learning without forgetting costs, against raw torch loops.

Every ratio is a median over interleaved runs of one process, in process CPU
time, on one thread. Nets: A 1-100-100-100-100-1, B 784-400-400-10, C
10-100-100-1, D a small convolution on 16×16 images, E a wider one on 28×28.

Run: python examples/benchmarks/cost.py [--output examples/benchmarks/cost]
writes cost.json and cost.png
"""

from __future__ import annotations

import argparse
import copy
import json
import pickle
import subprocess
import sys
import time
from functools import partial

import matplotlib as mpl
import numpy as np
import torch
from sklearn.model_selection import GridSearchCV, KFold
from skorch.callbacks import Callback
from torch import nn

from sklearn_ewc import MLP, EWCRegressor, Memory, Task, diagonal_fisher

mpl.use("Agg")
import matplotlib.pyplot as plt

SHAPES = {"A": (1, 1, (100,) * 4), "B": (784, 10, (400, 400)), "C": (10, 1, (100, 100))}
BATCH = 128
PLAIN = {"ewc_lambda": 0.0}
KINDS = {
    "diagonal": {"ewc_lambda": 3.0},
    "Kronecker (at most 2.0)": {"curvature": "kronecker", "ewc_lambda": 3.0},
    "replay (at most 2.1)": {"replay": "auto", **PLAIN},
    "replay, diagonal": {"replay": "auto", "ewc_lambda": 3.0},
}
PEAK = """
import resource, sys, torch
from sklearn_ewc import MLP, diagonal_fisher
torch.set_num_threads(1)
X, y = torch.zeros(1_000_000, 20), torch.zeros(1_000_000, 1)
X += 1
y += 1
module = MLP(20, 1, (100, 100))
batches = ((X[i : i + 128], y[i : i + 128]) for i in range(0, len(X), 128))
diagonal_fisher(module, torch.nn.MSELoss(), [(X[:128], y[:128])])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
diagonal_fisher(module, torch.nn.MSELoss(), batches)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def mlp(name):
    """Return one of the nets A, B, C and 2,000 random samples for it."""
    n_features, n_outputs, hidden = SHAPES[name]
    return MLP(n_features, n_outputs, hidden), torch.randn(2000, n_features), n_outputs


def convolution(name):
    """Return net D or E and 2,000 random images for it."""
    size, (first, second) = {"D": (16, (8, 16)), "E": (28, (16, 32))}[name]
    module = nn.Sequential(
        nn.Conv2d(1, first, 3, stride=1 if name == "D" else 2),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * 6 * 6, 10),
    )
    return module, torch.randn(2000, 1, size, size), 10


def ratios(candidates, baseline, repeats):
    """Return the median over repeats of each candidate's CPU time over the baseline's.

    A candidate prepares something, untimed, and returns the function to be timed.
    """
    taken = {name: [] for name in candidates}
    for repeat in range(repeats + 1):
        start = time.process_time()
        baseline()
        base = time.process_time() - start
        for name, candidate in candidates.items():
            run = candidate()
            start = time.process_time()
            run()
            if repeat:  # the first round warms up
                taken[name].append((time.process_time() - start) / base)
    return {name: float(np.median(values)) for name, values in taken.items()}


def random_tasks(module, n_tasks):
    """Return tasks with random Fisher values, anchored where the module is."""
    params = dict(module.named_parameters())
    return [
        Task(params, {name: torch.rand_like(p) for name, p in params.items()}, damping=0.01)
        for _ in range(n_tasks)
    ]


def step_costs(name, counts, naive_up_to):
    """Return {K: (ours, K-term sum)}: a step under the penalty of K tasks over one without."""
    module, X, n_outputs = mlp(name)
    X, y, criterion = X[:BATCH], torch.randn(BATCH, n_outputs), nn.MSELoss()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-6, fused=True)
    params = dict(module.named_parameters())

    def steps(penalty=None, pull=None, n_steps=20):
        for _ in range(n_steps):
            optimizer.zero_grad()
            loss = criterion(module(X), y)
            if penalty is not None:
                loss = loss + penalty()
            loss.backward()
            optimizer.step()
            if pull is not None:
                pull(optimizer)

    costs = {}
    for count in counts:
        tasks = random_tasks(module, min(count, naive_up_to))
        memory = Memory(store_tasks=False)
        for k in range(count):
            memory = memory.consolidate(tasks[k % len(tasks)])
        pull = memory.bound(params).pull
        ours = ratios({"ours": lambda pull=pull: partial(steps, pull=pull)}, steps, repeats=25)
        naive = None
        if count <= naive_up_to:
            summed = partial(steps, penalty=partial(sum_over_tasks, tasks, params), n_steps=1)
            naive = 20 * ratios({"naive": lambda summed=summed: summed}, steps, 5)["naive"]
        costs[count] = (ours["ours"], naive)
        shown = "not measured" if naive is None else f"{naive:.2f}"
        print(f"  {name}, K = {count:<5} ours {ours['ours']:.3f}, K-term sum {shown}", flush=True)
    return costs


def sum_over_tasks(tasks, params):
    """Return the penalty as the formula has it, term by term, in autograd."""
    total = 0.0
    for task in tasks:
        for name, p in params.items():
            total = total + (task.fisher[name] * (p - task.anchor[name]) ** 2).sum()
    return total


def fisher_costs():
    """Return the cost of the Fisher of 2,000 samples over one forward and backward of them."""
    costs = {}
    cases = [(name, kind, BATCH) for name in "AC" for kind in ("exact", "empirical")]
    cases += [("B", "exact", BATCH), ("D", "empirical", BATCH), ("E", "empirical", BATCH)]
    cases += [("A", "exact", 256), ("A", "empirical", 256), ("E", "empirical", 256)]
    for name, kind, size in cases:
        module, X, n_outputs = convolution(name) if name in "DE" else mlp(name)
        y, criterion = torch.randn(len(X), n_outputs), nn.MSELoss()
        batches = [(X[i : i + size], y[i : i + size]) for i in range(0, len(X), size)]

        def forward_and_backward(module=module, batches=batches, criterion=criterion):
            for inputs, targets in batches:
                module.zero_grad()
                criterion(module(inputs), targets).backward()

        def ours(module=module, batches=batches, criterion=criterion, kind=kind):
            diagonal_fisher(module, criterion, batches, kind)

        costs[f"{name}, {kind}, {size}"] = ratios(
            {"ours": lambda ours=ours: ours}, forward_and_backward, 15
        )["ours"]
    return costs


def task_costs():
    """Return the cost of one task through partial_fit over a raw loop without penalty."""
    costs = {}
    for name, n_samples, batch_size, epochs in (("C", 2000, BATCH, 20), ("A", 250, -1, 500)):
        n_features, n_outputs, hidden = SHAPES[name]
        X, y = torch.randn(n_samples, n_features), torch.randn(n_samples, n_outputs)
        module = MLP(n_features, n_outputs, hidden)

        def raw(module=module, X=X, y=y, batch_size=batch_size, epochs=epochs):
            optimizer, criterion = torch.optim.Adam(module.parameters()), nn.MSELoss()
            size = len(X) if batch_size == -1 else batch_size
            for _ in range(epochs):
                order = torch.randperm(len(X))
                for rows in order.split(size):
                    optimizer.zero_grad()
                    criterion(module(X[rows]), y[rows]).backward()
                    optimizer.step()

        fitted = EWCRegressor(
            hidden_layer_sizes=hidden, batch_size=batch_size, max_epochs=epochs
        ).fit(X.numpy(), y.numpy())

        def ours(fitted=fitted, X=X, y=y):
            return partial(copy.deepcopy(fitted).partial_fit, X.numpy(), y.numpy())

        costs[name] = ratios({"ours": ours}, raw, repeats=9)["ours"]
    return costs


class Clock(Callback):
    """Takes the CPU time of every epoch, so that of its steps alone."""

    def on_train_begin(self, net, **kwargs):
        """Forget the task before."""
        self.taken = []

    def on_epoch_begin(self, net, **kwargs):
        """Start."""
        self.start = time.process_time()

    def on_epoch_end(self, net, **kwargs):
        """Stop."""
        self.taken.append(time.process_time() - self.start)


def kinds_of_step():
    """Return the cost of a step of a second task, with what remembers the first, over without.

    Through partial_fit, in batches of 32; what is done before the first step and after
    the last is left out.
    """
    costs = {}
    for name in "CA":
        n_features, n_outputs, hidden = SHAPES[name]
        X, y = torch.randn(2000, n_features).numpy(), torch.randn(2000, n_outputs).numpy()
        fitted = {
            kind: EWCRegressor(
                hidden_layer_sizes=hidden,
                batch_size=32,
                max_epochs=10,
                callbacks=[("clock", Clock())],
                **settings,
            ).fit(X, y)
            for kind, settings in {"none": PLAIN, **KINDS}.items()
        }
        taken = {kind: [] for kind in fitted}
        for _ in range(9):
            for kind, net in fitted.items():
                learned = copy.deepcopy(net).partial_fit(X, y)
                taken[kind].append(np.median(dict(learned.callbacks_)["clock"].taken))
        for kind in KINDS:
            rounds = np.divide(taken[kind], taken["none"])
            costs[f"{name}, {kind}"] = float(np.median(rounds))
    return costs


def epoch_cost():
    """Return the cost of a full-batch epoch of net A under a penalty over one without."""
    X, y = torch.randn(250, 1).numpy(), torch.randn(250, 1).numpy()
    settings = {"hidden_layer_sizes": SHAPES["A"][2], "batch_size": -1, "max_epochs": 300}
    fitted = EWCRegressor(**settings).fit(X, y)

    def learn(ewc_lambda):
        return partial(copy.deepcopy(fitted).set_params(ewc_lambda=ewc_lambda).partial_fit, X, y)

    factor = torch.randn(500, 500)

    def unit():
        for _ in range(100):
            factor @ factor

    candidates = {"with": lambda: learn(3.0), "without": lambda: learn(0.0)}
    costs = ratios(candidates, unit, repeats=9)
    return costs["with"] / costs["without"]


def bytes_per_task(store_tasks):
    """Return how many bytes a pickled memory grows by per task and parameter."""
    module, _, _ = mlp("C")
    task = random_tasks(module, 1)[0]
    memory, sizes = Memory(store_tasks=store_tasks), {}
    for k in range(1, 22):
        memory = memory.consolidate(copy.deepcopy(task))
        sizes[k] = len(pickle.dumps(memory))
    return (sizes[21] - sizes[1]) / 20 / sum(p.numel() for p in module.parameters())


def search_speedup():
    """Return the wall time of a search over λ in two processes over that in one."""
    rng = np.random.RandomState(0)
    X, y, task = rng.randn(1200, 10), rng.randn(1200), np.repeat(np.arange(4), 300)
    taken = {}
    for n_jobs in (2, 1):
        search = GridSearchCV(
            EWCRegressor(hidden_layer_sizes=(100, 100), max_epochs=200, random_state=0),
            {"ewc_lambda": np.logspace(-2, 5, 8)},
            cv=KFold(3, shuffle=True, random_state=0),
            n_jobs=n_jobs,
            refit=False,
        )
        start = time.perf_counter()
        search.fit(X, y, task=task)
        taken[n_jobs] = time.perf_counter() - start
    return taken[2] / taken[1]


def draw(steps):
    """Draw the cost of a step against the number of tasks."""
    figure, axes = plt.subplots(figsize=(5.5, 3.8), layout="constrained")
    for (name, costs), colour in zip(steps.items(), ("#0072B2", "#E69F00"), strict=True):
        ours = {count: cost[0] for count, cost in costs.items()}
        naive = {count: cost[1] for count, cost in costs.items() if cost[1] is not None}
        axes.plot(ours.keys(), ours.values(), "o-", color=colour, label=f"sklearn_ewc, net {name}")
        axes.plot(
            naive.keys(), naive.values(), "s--", color=colour, label=f"K-term sum, net {name}"
        )
    axes.axhline(1, color="#999999", linewidth=0.8)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="tasks stored, K",
        ylabel="cost of a training step\n(without penalty = 1)",
    )
    axes.legend(frameon=False)
    return figure


def main():
    """Measure, print, and write the table as JSON and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="examples/benchmarks/cost")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("step under the penalty / step without", flush=True)
    steps = {
        "A": step_costs("A", (1, 10, 100, 1000), naive_up_to=1000),
        "B": step_costs("B", (1, 10, 100, 1000), naive_up_to=100),
    }
    figures = {
        "step, penalty of K tasks / none": steps,
        "Fisher of 2,000 samples / forward + backward": fisher_costs(),
        "one task through partial_fit / raw loop without penalty": task_costs(),
        "a step of a second task, remembering / without": kinds_of_step(),
        "a full-batch epoch with penalty / without": epoch_cost(),
        "bytes per task and parameter, tasks stored": bytes_per_task(True),
        "bytes per task and parameter, sums only": bytes_per_task(False),
        "peak MB of a Fisher pass over 1,000,000 x 20": float(
            subprocess.run(
                [sys.executable, "-c", PEAK], capture_output=True, text=True, check=True
            ).stdout
        ),
        "search over 8 λ, two processes / one, wall": search_speedup(),
    }
    for name, value in list(figures.items())[1:]:
        shown = value if isinstance(value, dict) else {"": value}
        print(name)
        for case, figure in shown.items():
            print(f"  {case or 'all':<26} {figure:.2f}")
    with open(f"{arguments.output}.json", "w") as file:
        json.dump(figures, file, indent=2)
    draw(steps).savefig(f"{arguments.output}.png", dpi=110)


if __name__ == "__main__":
    main()
