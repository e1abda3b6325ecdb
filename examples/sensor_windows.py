"""
=======================================
Your own network: windows of a sensor
=======================================

A vibration sensor is moved from machine to machine. From windows of its two
channels the speed of the machine is to be estimated; each machine has its own
resonance, and its recordings are deleted when the sensor moves on. The network
is a small convolution of one's own, written as for plain PyTorch.
"""

# %%
# Three machines
# --------------
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from sklearn_ewc import EWCRegressor
from sklearn_ewc.display import FisherDisplay
from sklearn_ewc.evaluate import task_scores

torch.set_num_threads(1)


def recordings(resonance, n_samples, seed):
    """Return windows (n_samples, 2 channels, 64 steps) and the speeds to be estimated."""
    rng = np.random.RandomState(seed)
    speed = rng.uniform(1, 3, n_samples)
    time = np.arange(64) / 8
    phase = rng.uniform(0, 2 * np.pi, (n_samples, 1))
    turning = np.sin(speed[:, None] * time + phase)
    ringing = speed[:, None] * np.sin(resonance * time + 2 * phase)
    windows = np.stack([turning + 0.3 * ringing, ringing], axis=1)
    windows += 0.1 * rng.randn(*windows.shape)
    return windows.astype("float32"), speed


machines = {"press": 2.0, "lathe": 5.0, "mill": 9.0}
train = {name: recordings(value, 400, 0) for name, value in machines.items()}
test = {name: recordings(value, 200, 1) for name, value in machines.items()}


# %%
# The network
# -----------
# An instance is copied, never trained in place. Convolutions have a fast Fisher
# of their own, so that nothing is paid for leaving the default network.
module = nn.Sequential(
    nn.Conv1d(2, 16, 9, stride=2),
    nn.Tanh(),
    nn.Conv1d(16, 16, 9, stride=2),
    nn.Tanh(),
    nn.AdaptiveAvgPool1d(4),
    nn.Flatten(),
    nn.Linear(64, 1),
)
# speeds are of the order of 1, and the first machine's tell little of the others'
net = EWCRegressor(module, max_epochs=60, normalize_y=False, random_state=0)

scores = {
    ewc_lambda: task_scores(net.set_params(ewc_lambda=ewc_lambda), train, test_tasks=test)
    for ewc_lambda in (0.0, 100.0)
}
for ewc_lambda, one in scores.items():
    print(f"\nR² on held-out windows, λ = {ewc_lambda:g}")
    print(one.to_frame().round(2).to_string())

# %%
# Where each machine is remembered
# --------------------------------
display = FisherDisplay.from_estimator(scores[100.0].estimator)
display.figure_.savefig(Path(__file__).with_suffix(".png"), dpi=90)
plt.close(display.figure_)
