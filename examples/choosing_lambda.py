"""
==========================================
Choosing λ: stability against plasticity
==========================================

λ says how much the old tasks count. Small, and they are forgotten; large, and
the new one is not learned. Here ten outputs (one for each digit) are learned
from images whose pixels are shuffled in another way in every task, so that the
tasks have nothing in common and the network's room is scarce.

While the data of all tasks are at hand, :func:`sklearn_ewc.search_lambda`
chooses λ by cross-validation in one call. The picture shows what it weighs.
"""

# %%
# Four tasks, each with its own order of pixels
# ---------------------------------------------
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_ewc import EWCRegressor, search_lambda
from sklearn_ewc.display import LambdaDisplay

torch.set_num_threads(1)
images, digits = load_digits(return_X_y=True)
images, _, digits, _ = train_test_split(images / 16, digits, train_size=800, random_state=0)
orders = [np.random.RandomState(seed).permutation(64) for seed in range(4)]
X = np.concatenate([images[:, order] for order in orders]).astype("float32")
y = np.tile(np.eye(10)[digits], (4, 1))
task = np.repeat([1, 2, 3, 4], len(digits))

# %%
# One call
# --------
# Every fold holds its share of every task; every candidate learns all four in
# their order and is scored on what it then knows of all of them.
net = EWCRegressor(hidden_layer_sizes=(100,), max_epochs=40, random_state=0)
lambdas = [0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0]
search = search_lambda(net, X, y, task, lambdas=lambdas, n_jobs=2)
for ewc_lambda, score in zip(lambdas, search.cv_results_["mean_test_score"], strict=True):
    print(f"λ = {ewc_lambda:>5g}: R² {score:.3f} over all tasks")
best = search.best_params_["ewc_lambda"]
print(f"chosen: {best:g}")

# %%
# What it weighs
# --------------
X_train, X_test, y_train, y_test, task_train, task_test = train_test_split(
    X, y, task, stratify=task, random_state=0
)
tasks, test_tasks = (
    [(X[rows == label], y[rows == label]) for label in np.unique(task)]
    for X, y, rows in ((X_train, y_train, task_train), (X_test, y_test, task_test))
)
figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
LambdaDisplay.from_estimator(net, tasks, lambdas=lambdas, test_tasks=test_tasks, ax=axes)
axes.axvline(best, color="#999999", linestyle=":")
axes.set(title="Ten digits, pixels shuffled anew in each of four tasks", ylim=(-0.5, 1.0))
figure.savefig(Path(__file__).with_suffix(".png"), dpi=90)
