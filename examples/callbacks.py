"""
========================================
Callbacks and progress bars over tasks
========================================

An EWCRegressor is a skorch net: whatever skorch's callbacks do, they do task by
task. Here training of each task stops early, the rate falls while it lasts, a
bar shows how far it is, and a callback of one's own says what a task has cost.
"""

# %%
# Tasks: a curve, one quarter after another
# -----------------------------------------
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from skorch.callbacks import Callback, EarlyStopping, LRScheduler, ProgressBar
from skorch.dataset import ValidSplit

from sklearn_ewc import EWCRegressor
from sklearn_ewc.display import LossCurveDisplay

torch.set_num_threads(1)
rng = np.random.RandomState(0)
X = rng.uniform(-2, 2, (1200, 1)).astype("float32")
y = np.sin(3 * X.ravel()) + 0.1 * rng.randn(1200)
quarter = np.digitize(X.ravel(), [-1, 0, 1])


# %%
# A callback of one's own
# -----------------------
# ``on_train_end`` is called once for every task, when it is remembered already.
class Report(Callback):
    """Prints a line when a task has been learned."""

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Say how long it took and how well it went."""
        n_epochs = net.history[:, "task"].count(net.n_tasks_)
        loss, penalty = net.history[-1, ("valid_loss", "penalty")]
        print(
            f"task {net.n_tasks_}: {len(X)} samples, {n_epochs} epochs, "
            f"loss {loss:.4f}, penalty {penalty:.4f}"
        )


net = EWCRegressor(
    hidden_layer_sizes=(64, 64),
    ewc_lambda=100.0,
    max_epochs=150,
    train_split=ValidSplit(5),
    callbacks=[
        Report(),
        EarlyStopping("valid_loss", patience=20),
        LRScheduler("ExponentialLR", gamma=0.99),
        *([ProgressBar(detect_notebook=False)] if sys.stderr.isatty() else []),
    ],
    random_state=0,
)
for k in range(4):
    net.partial_fit(X[quarter == k], y[quarter == k])

# %%
# The history spans all tasks
# ---------------------------
figure, axes = plt.subplots(figsize=(7.5, 4), layout="constrained")
LossCurveDisplay.from_estimator(net, ax=axes)
figure.savefig(Path(__file__).with_suffix(".png"), dpi=90)
