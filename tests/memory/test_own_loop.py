"""A memory in one's own torch loop."""

import pytest
import torch
from torch import nn

from sklearn_ewc import MLP, Memory, Task
from sklearn_ewc.curvature import curvature_of
from sklearn_ewc.training.densities import fitted_density


def task(start):
    X = torch.linspace(start, start + 2, 200).unsqueeze(1)
    return X, torch.sin(3 * X)


def learned(kind, ewc_lambda, replays):
    """Return a module that has learned two tasks, by nothing but torch and a memory."""
    torch.manual_seed(0)
    module, criterion, generator = MLP(1, 1, (32, 32)), nn.MSELoss(), torch.Generator()
    memory = Memory(mode="online")
    for X, y in (task(-2.0), task(0.0)):
        optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
        penalty = memory.bound(module.named_parameters(), ewc_lambda)
        old = [one.density.draw(200, generator).float() for one in memory.inputs]
        taught = [(inputs, module(inputs).detach()) for inputs in old]
        for _ in range(300):
            optimizer.zero_grad()
            loss = criterion(module(X), y)
            loss = loss + sum(criterion(module(inputs), outputs) for inputs, outputs in taught)
            loss.backward()
            penalty.turn(optimizer)
            optimizer.step()
            penalty.pull(optimizer)
            penalty.turn_back(optimizer)
        curvature = curvature_of(module, criterion, [(X, y)], kind=kind)
        inputs = fitted_density(X.double().numpy()) if replays else None
        one = Task(dict(module.named_parameters()), curvature, damping=0.1)
        memory = memory.consolidate(one, inputs)
    X, y = task(-2.0)
    return criterion(module(X), y).item()


@pytest.mark.parametrize(
    ("kind", "ewc_lambda", "replays"),
    [("diagonal", 30.0, False), ("kronecker", 30.0, False), ("diagonal", 0.0, True)],
)
def test_old_tasks_are_held_in_a_loop_of_ones_own(kind, ewc_lambda, replays):
    forgotten = learned("diagonal", 0.0, replays=False)
    assert learned(kind, ewc_lambda, replays) < 0.5 * forgotten
