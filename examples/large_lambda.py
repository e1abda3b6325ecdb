"""
=====================================================
No λ is too large: errors on old tasks, λ from 0 to 10¹²
=====================================================

A gradient step on the penalty overshoots once learning rate × λ × F exceeds 2,
and where it does not diverge it jitters. The proximal step solves the penalty's
part of every step exactly, so that a larger λ only holds the old tasks more
firmly. What then still moves are units that were silent on the old tasks and
have F = 0, unless `damping` puts a floor under F.

The curves show the mean squared error on the first task, half of a sine, after
the second was learned, a falling line beside it. The noise alone is 0.0025.
"""

# %%
# Two tasks
# ---------
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from sklearn_ewc import EWCRegressor

torch.set_num_threads(1)
rng = np.random.RandomState(0)
X = rng.uniform(-2, 2, (400, 1)).astype("float32")
curve = np.where(X < 0, np.sin(2 * X), 9 - 4 * X).ravel()
y = curve + 0.05 * rng.randn(400)
old, new = (X[X[:, 0] < 0], y[X[:, 0] < 0]), (X[X[:, 0] > 0], y[X[:, 0] > 0])


def error_on_old_task(ewc_lambda, **settings):
    """Return the error on the old task after the new one; infinite if training diverged."""
    net = EWCRegressor(
        hidden_layer_sizes=(50,), ewc_lambda=ewc_lambda, max_epochs=60, random_state=0, **settings
    )
    net.partial_fit(*old)
    try:
        net.partial_fit(*new)
    except FloatingPointError:
        return np.inf
    return float(np.mean((net.predict(old[0]) - old[1]) ** 2))


# %%
# From 0 to 10¹²
# --------------
lambdas = np.array([0.0, *10.0 ** np.arange(-1, 13)])
adam = {"optimizer": torch.optim.Adam, "lr": 0.005}
sgd = {"optimizer": torch.optim.SGD, "lr": 0.05, "optimizer__momentum": 0.9}
smooth, relu = {"module__activation": nn.Tanh}, {"module__activation": nn.ReLU}
curves = {
    "tanh, Adam": {**smooth, **adam},
    "tanh, Adam, gradient step": {**smooth, **adam, "penalty_step": "gradient"},
    "tanh, SGD": {**smooth, **sgd},
    "tanh, SGD, gradient step": {**smooth, **sgd, "penalty_step": "gradient"},
    "ReLU, Adam": {**relu, **adam},
    "ReLU, Adam, damping = 0": {**relu, **adam, "damping": 0.0},
}
errors = {}
print(f"{'λ':<26}" + "".join(f"{value:>9.0e}" for value in lambdas[::3]))
for name, settings in curves.items():
    errors[name] = np.array([error_on_old_task(value, **settings) for value in lambdas])
    print(f"{name:<26}" + "".join(f"{value:>9.3f}" for value in errors[name][::3]), flush=True)

# %%
# The picture
# -----------
figure, panels = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
at = np.array([1e-2, *lambdas[1:]])  # 0 has no place on a logarithmic axis
for axes, names in zip(panels, np.array_split(list(curves), 3), strict=True):
    for name, colour, style in zip(names, ("#0072B2", "#D55E00"), ("o-", "s--"), strict=True):
        axes.plot(at, errors[name], style, color=colour, markersize=4, label=name)
    diverged = [value for value, error in zip(at, errors[names[1]], strict=True) if error == np.inf]
    if diverged:
        axes.axvspan(
            min(diverged), max(at), color="#D55E00", alpha=0.12, label="gradient step diverged"
        )
    axes.set(xscale="log", yscale="log", xlabel="λ")
    axes.set_xticks([1e-2, 1, 1e4, 1e8, 1e12], ["0", "1", "10⁴", "10⁸", "10¹²"])
    axes.legend(frameon=False, fontsize="small")
panels[0].set_ylabel("error on the old task")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=90)
