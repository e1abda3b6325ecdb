"""
===================================================
A pipeline over time: carbon dioxide by the decade
===================================================

Weekly measurements of the air's carbon dioxide at Mauna Loa, 1958 to 2001, come
a decade at a time, and the decades before are not kept. Preprocessing, the scale
of the target and the network live in one object that learns by ``partial_fit``:
scalers are fitted to the first decade and stay, because a scaler that moves
under a trained network is forgetting by itself.

The data ship with statsmodels (``pip install statsmodels``).
"""

# %%
# Four decades
# ------------
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from statsmodels.datasets import co2

from sklearn_ewc import ContinualTargetRegressor, EWCRegressor, make_continual_pipeline
from sklearn_ewc.evaluate import gap_closed_by, task_scores

torch.set_num_threads(1)
weeks = co2.load_pandas().data["co2"].dropna()
year = weeks.index.year + weeks.index.day_of_year / 365.25
table = pd.DataFrame({"year": year.to_numpy(), "co2": weeks.to_numpy()})
decade = pd.cut(table["year"], [1958, 1970, 1980, 1990, 2002], labels=["60s", "70s", "80s", "90s"])
is_test = np.arange(len(table)) % 4 == 0  # every fourth week is held out
tasks, test_tasks = (
    {
        name: (table.loc[rows & (decade == name), ["year"]], table["co2"][rows & (decade == name)])
        for name in decade.cat.categories
    }
    for rows in (~is_test, is_test)
)


# %%
# One object
# ----------
def seasons(X):
    """Return the year, and its phase as a point on a circle."""
    phase = 2 * np.pi * X["year"]
    return X.assign(cos=np.cos(phase), sin=np.sin(phase))


def regressor(ewc_lambda):
    """Return the pipeline, its target standardised on the first decade."""
    net = EWCRegressor(
        hidden_layer_sizes=(100, 100), ewc_lambda=ewc_lambda, lr=3e-3, random_state=0
    )
    return ContinualTargetRegressor(
        make_continual_pipeline(FunctionTransformer(seasons), StandardScaler(), net)
    )


scores = {
    ewc_lambda: task_scores(
        regressor(ewc_lambda), tasks, test_tasks=test_tasks, scoring="neg_mean_absolute_error"
    )
    for ewc_lambda in (0.0, 10.0)
}
for ewc_lambda, one in scores.items():
    print(f"\nMean absolute error in parts per million, λ = {ewc_lambda:g}")
    print((-one.to_frame()).round(1).to_string())
result = gap_closed_by(
    regressor(10.0), tasks, test_tasks=test_tasks, scoring="neg_mean_absolute_error"
)
print(f"\ngap between forgetting and learning all at once that is closed: {result.gap_closed:.2f}")

# %%
# What each remembers of 44 years
# -------------------------------
grid = pd.DataFrame({"year": np.linspace(1958.3, 2001.9, 1500)})
figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
axes.plot(table["year"], table["co2"], ".", color="#BBBBBB", markersize=2, label="measured")
for (ewc_lambda, one), colour in zip(scores.items(), ("#D55E00", "#0072B2"), strict=True):
    label = "no penalty" if ewc_lambda == 0 else f"EWC, λ = {ewc_lambda:g}"
    axes.plot(grid["year"], one.estimator.predict(grid), color=colour, linewidth=1, label=label)
for start in (1970, 1980, 1990):
    axes.axvline(start, color="#DDDDDD", linewidth=0.8, zorder=0)
axes.set(xlabel="year", ylabel="CO$_2$ (parts per million)", title="After the fourth decade")
axes.legend(frameon=False)
figure.savefig(Path(__file__).with_suffix(".png"), dpi=90)
