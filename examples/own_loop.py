"""The parts on their own: EWC in your own torch loop."""

import torch

from sklearn_ewc import MLP, Memory, Task, diagonal_fisher

torch.manual_seed(0)
module, criterion, memory = MLP(1, hidden_layer_sizes=(64, 64)), torch.nn.MSELoss(), Memory()
tasks = [(X, torch.sin(3 * X)) for X in (torch.linspace(-2, 0, 200), torch.linspace(0, 2, 200))]
tasks = [(X.unsqueeze(1), y.unsqueeze(1)) for X, y in tasks]

for X, y in tasks:
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    for _ in range(1000):
        optimizer.zero_grad()
        penalty = memory.penalty(module.named_parameters())
        loss = criterion(module(X), y) + 1000 * penalty
        loss.backward()
        optimizer.step()
    fisher = diagonal_fisher(module, criterion, [(X, y)])
    memory = memory.consolidate(Task(dict(module.named_parameters()), fisher))

for number, (X, y) in enumerate(tasks, start=1):
    print(f"task {number}: mean squared error {criterion(module(X), y).item():.4f}")
