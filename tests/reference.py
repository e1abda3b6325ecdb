"""Slow, obvious implementations that the fast ones must equal."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn


def fisher(module, criterion, X, y, kind, sample_weight=None):
    """Return the Fisher diagonal from one autograd call per sample (and output)."""
    module = copy.deepcopy(module).eval()
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    params = [p for p in module.parameters() if p.requires_grad]
    n_samples = len(y)
    weights = torch.ones(n_samples) if sample_weight is None else sample_weight
    total = [torch.zeros_like(p) for p in params]
    for n in range(n_samples):
        output = module(**_row(X, n)) if isinstance(X, dict) else module(_row(X, n))
        loss = criterion(output, y[n : n + 1])
        if kind == "exact":
            curvature = torch.autograd.functional.hessian(
                lambda f, target=y[n : n + 1]: criterion(f, target), output.detach()
            ).reshape(output.numel(), output.numel())
            rows = [_gradient(f, params) for f in output.flatten()]
            for i in range(len(params)):
                jacobian = torch.stack([row[i].flatten() for row in rows])
                diagonal = ((curvature @ jacobian) * jacobian).sum(0)
                total[i] += weights[n] * diagonal.reshape(params[i].shape)
        elif kind == "empirical":
            for i, gradient in enumerate(_gradient(loss, params)):
                total[i] += weights[n] * gradient**2
        else:
            for i, gradient in enumerate(_gradient(loss, params)):
                total[i] += weights[n] * gradient
    mean = [value / weights.sum() for value in total]
    if kind == "batch":
        mean = [value**2 for value in mean]
    return dict(zip(names, mean, strict=True))


def penalty(tasks, params):
    """Return ½ Σ_k w_k Σ_i (F_k,i + δ_k mean(F_k)) (θ_i − θ*_k,i)², term by term."""
    total = torch.zeros((), dtype=torch.float64)
    for task in tasks:
        every = torch.cat([value.flatten() for value in task.fisher.values()]).double()
        floor = task.damping * every.mean()
        for name, importance in task.fisher.items():
            distance = params[name].double() - task.anchor[name].double()
            total = total + 0.5 * task.weight * ((importance.double() + floor) * distance**2).sum()
    return total


def online_penalty(tasks, gamma, params):
    """Return ½ Σ_k γ^(K−k) w_k Σ_i (F_k,i + δ_k mean(F_k)) (θ_i − θ*_K,i)², term by term."""
    total = torch.zeros((), dtype=torch.float64)
    for age, task in enumerate(reversed(tasks)):
        faded = replace(task, anchor=tasks[-1].anchor, weight=gamma**age * task.weight)
        total = total + penalty([faded], params)
    return total


def seed_algorithm(module, tasks, lambdas, lr, epochs):
    """Learn tasks as in the text the project began from: full batch, one squared gradient.

    Its penalty has no factor ½, and a λ of its own for every task being trained.
    """
    criterion = nn.MSELoss()
    anchors, importances = [], []
    for (X, y), ewc_lambda in zip(tasks, lambdas, strict=True):
        optimizer = torch.optim.Adam(module.parameters(), lr=lr)
        for _ in range(epochs):
            regulariser = 0.0
            for anchor, importance in zip(anchors, importances, strict=True):
                for name, p in module.named_parameters():
                    regulariser = regulariser + (importance[name] * (p - anchor[name]) ** 2).sum()
            optimizer.zero_grad()
            (criterion(module(X), y) + ewc_lambda * regulariser).backward()
            optimizer.step()
        optimizer.zero_grad()
        criterion(module(X), y).backward()
        anchors.append({name: p.detach().clone() for name, p in module.named_parameters()})
        importances.append({name: p.grad**2 for name, p in module.named_parameters()})
    return module


def _row(X, n):
    if isinstance(X, dict):
        return {key: value[n : n + 1] for key, value in X.items()}
    return X[n : n + 1]


def _gradient(value, params):
    return torch.autograd.grad(
        value, params, retain_graph=True, allow_unused=True, materialize_grads=True
    )
