"""
=============================================
Who forgets? EWC beside scikit-learn's own
=============================================

Three clinics send their patients' records one after another (the diabetes data
of scikit-learn, split by serum triglycerides, so that each clinic sees other
patients). What does each way of learning still know of the first clinic after
the third?

The scores are R² on held-out patients. Each panel follows one clinic's score
from the moment it was learned.
"""

# %%
# The tasks
# ---------
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import SGDRegressor
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from sklearn_ewc import EWCRegressor
from sklearn_ewc.display import TaskScoresDisplay
from sklearn_ewc.evaluate import average_score, backward_transfer, gap_closed, task_scores

torch.set_num_threads(1)
X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
clinic = pd.qcut(X["s5"], 3, labels=["low", "middle", "high"])
X_train, X_test, y_train, y_test, c_train, c_test = train_test_split(
    X, y, clinic, stratify=clinic, random_state=0
)
scaler = StandardScaler().fit(X_train)  # known beforehand; see carbon_dioxide.py for when it is not
mean, spread = y_train.mean(), y_train.std()
train, test = (
    {
        name: (scaler.transform(X[c == name]), (y[c == name].to_numpy() - mean) / spread)
        for name in clinic.cat.categories
    }
    for X, y, c in ((X_train, y_train, c_train), (X_test, y_test, c_test))
)


# %%
# The ways of learning
# --------------------
# scikit-learn's ``partial_fit`` is one pass over the data; 200 of them are what
# the nets do with a task. L2 towards the old weights is EWC with a floor under
# the Fisher so high that all parameters are equally important.
class ManyPasses(RegressorMixin, BaseEstimator):
    """Calls an estimator's partial_fit many times for every task."""

    def __init__(self, estimator, n_passes=200):
        self.estimator = estimator
        self.n_passes = n_passes

    def partial_fit(self, X, y):
        """Learn one task."""
        if not hasattr(self, "estimator_"):
            self.estimator_ = clone(self.estimator)
        for _ in range(self.n_passes):
            self.estimator_.partial_fit(X, y)
        return self

    def predict(self, X):
        """Predict the targets."""
        return self.estimator_.predict(X)


net = EWCRegressor(ewc_lambda=30.0, random_state=0)
floor = 1e6
methods = {
    "EWC": net,
    "EWC, online": clone(net).set_params(mode="online"),
    "L2 towards the old weights": clone(net).set_params(damping=floor, ewc_lambda=30.0 / floor),
    "the same net, no penalty": clone(net).set_params(ewc_lambda=0.0),
    "MLPRegressor.partial_fit": ManyPasses(MLPRegressor(random_state=0)),
    "SGDRegressor.partial_fit": ManyPasses(SGDRegressor(random_state=0)),
}
scores = {name: task_scores(method, train, test_tasks=test) for name, method in methods.items()}

# %%
# All clinics at once, if their records could be kept
# ---------------------------------------------------
joint = clone(net).fit(*(np.concatenate(part) for part in zip(*train.values(), strict=True)))
joint_score = np.mean([joint.score(*pair) for pair in test.values()])
sequential = average_score(scores["the same net, no penalty"])

print(f"{'':<28}{'average R²':>12}{'backward':>12}{'gap closed':>12}")
for name, one in scores.items():
    average = average_score(one)
    gap = gap_closed(average, sequential, joint_score)
    print(f"{name:<28}{average:>12.2f}{backward_transfer(one):>12.2f}{gap:>12.2f}")
print(f"{'all clinics at once':<28}{joint_score:>12.2f}")

# %%
# The picture
# -----------
figure, panels = plt.subplots(2, 3, figsize=(10, 6), sharex=True, sharey=True, layout="constrained")
for axes, (name, one) in zip(panels.flat, scores.items(), strict=True):
    TaskScoresDisplay.from_scores(one, ax=axes)
    axes.set(title=name, ylim=(-1.5, 0.7))
    axes.label_outer()
    if axes is not panels[0, 0]:
        axes.get_legend().remove()
figure.savefig(Path(__file__).with_suffix(".png"), dpi=90)
