"""Small tasks, modules and callbacks that the reports share."""

import io

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn

DTYPE = np.float32


def rows(n=40, seed=0):
    """A small table in float32, and a target that is linear in it."""
    X = np.random.RandomState(seed).randn(n, 3).astype(DTYPE)
    return X, X @ np.array([1, -2, 0.5], DTYPE)


def halves(n=64):
    """Two tasks: the left and the right half of a curve."""
    X = np.linspace(-2, 2, n, dtype=DTYPE).reshape(-1, 1)
    y, left = np.sin(2 * X[:, 0]), X[:, 0] < 0
    return (X[left], y[left]), (X[~left], y[~left])


def fisher(net):
    """The Fisher of a net's first task."""
    return net.memory_.tasks[0].fisher


def files_of(net, *names):
    """A net's files, to be read from their beginning."""
    files = {name: io.BytesIO() for name in names}
    net.save_params(**files)
    for file in files.values():
        file.seek(0)
    return files


class Fails(Callback):
    """Lets the second task fail when its first epoch is over."""

    def on_epoch_end(self, net, **kwargs):
        if net.n_tasks_ == 1:
            raise RuntimeError("on purpose")


class Linear(nn.Module):
    """One layer; what is done around it is for a subclass to say."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, X):
        return self.layer(X)


class Steps(nn.Module):
    """A mean over the steps of a sequence, computed with the steps or the samples first."""

    def __init__(self, steps_first):
        super().__init__()
        self.steps_first = steps_first
        self.each, self.out = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, X):
        if self.steps_first:
            return self.out(torch.tanh(self.each(X.transpose(0, 1))).mean(0))
        return self.out(torch.tanh(self.each(X)).mean(1))


class TwoInputs(nn.Module):
    """Takes its inputs by name."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, a, b):
        return self.layer(a) + self.layer(b)
