"""What several test files do."""

import torch

from sklearn_ewc import EWCRegressor


def quick(**kwargs):
    options = {"hidden_layer_sizes": (8,), "max_epochs": 5, "random_state": 0, **kwargs}
    return EWCRegressor(**options)


def unscaled(**kwargs):
    """A quick net that trains on y as it is."""
    return quick(**{"normalize_y": False, **kwargs})


def parameters(net):
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


def learn(net, tasks):
    for X, y in tasks:
        net.partial_fit(X, y)
    return net


def parameters_of(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])
