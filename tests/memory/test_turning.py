"""Steps taken in the coordinates of a curvature, against the same steps written out."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from sklearn_ewc import Memory, Task
from sklearn_ewc.curvature import curvature_of
from sklearn_ewc.tensors import flat

X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double()
Y = torch.randn(20, 2, generator=torch.Generator().manual_seed(1)).double()


def made():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 2)).double()


def memory_of(module):
    curvature = curvature_of(module, nn.MSELoss(), [(X, Y)], kind="kronecker")
    anchor = {name: p + 0.1 for name, p in module.named_parameters()}
    return Memory(mode="online").consolidate(Task(anchor, curvature, damping=0.1))


def step(module, optimizer, penalty, by_pull=True):
    optimizer.zero_grad()
    (module(X) - Y).square().mean().backward()
    if not by_pull:
        penalty.add_gradient()
    penalty.turn(optimizer)
    optimizer.step()
    if by_pull:
        penalty.pull(optimizer)
    penalty.turn_back(optimizer)


def numbers(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


OPTIMIZERS = {
    "SGD": lambda params: SGD(params, lr=0.1, momentum=0.5),
    "SGD with decay": lambda params: SGD(params, lr=0.1, weight_decay=0.1),
    "Adam": lambda params: Adam(params, lr=0.01),
    "Adam with decay": lambda params: Adam(params, lr=0.01, weight_decay=0.1),
    "AdamW": lambda params: AdamW(params, lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_steps_are_those_of_an_optimizer_of_the_coordinates(case):
    module = made()
    memory = memory_of(module)
    A, centre = memory.quadratic.curvature, memory.quadratic.centre
    optimizer = OPTIMIZERS[case](module.parameters())
    penalty = memory.bound(module.named_parameters(), 2.0)
    names = [name for name, _ in module.named_parameters()]

    # the same on leaves that are the coordinates, of parameters that are functions of them
    free = {name: p.detach().clone() for name, p in module.named_parameters()}
    if "decay" not in case and case != "AdamW":
        free = {name: p - centre[name] for name, p in free.items()}
    phi = {name: p.clone().requires_grad_() for name, p in A.turned(free).items()}
    own = OPTIMIZERS[case](phi.values())
    goal = {name: torch.zeros_like(p) for name, p in phi.items()}
    offset = centre
    if "decay" in case or case == "AdamW":
        goal, offset = A.turned(centre), goal
    bound = Memory(mode="online").consolidate(Task(goal, A.values)).bound(phi, 2.0)
    for _ in range(4):
        step(module, optimizer, penalty)
        own.zero_grad()
        params = {name: p + offset[name] for name, p in A.turned_back(phi).items()}
        output = torch.func.functional_call(module, params, (X,))
        (output - Y).square().mean().backward()
        own.step()
        bound.pull(own)
    expected = A.turned_back({name: p.detach() for name, p in phi.items()})
    found = flat(p.detach() for p in module.parameters())
    torch.testing.assert_close(found, flat(expected[name] + offset[name] for name in names))


@pytest.mark.parametrize("case", ["SGD", "Adam"])
def test_pull_and_gradient_end_in_the_minimum_of_loss_and_penalty(case):
    ends = []
    for by_pull in (True, False):
        module = made()
        memory = memory_of(module)
        optimizer = OPTIMIZERS[case](module.parameters())
        penalty = memory.bound(module.named_parameters(), 3.0)
        for number in range(3000):
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * (0.998 if number > 1000 else 1.0)
            step(module, optimizer, penalty, by_pull)
        ends.append(numbers(module))
        optimizer.zero_grad()
        (module(X) - Y).square().mean().backward()
        penalty.add_gradient()
        slope = flat(p.grad for p in module.parameters())
        assert slope.abs().max() < 1e-3
    torch.testing.assert_close(*ends, rtol=1e-2, atol=1e-2)


def test_the_largest_lambda_moves_no_parameter_from_the_anchor():
    module = made()
    memory = memory_of(module)
    penalty = memory.bound(module.named_parameters(), 1e300)
    step(module, Adam(module.parameters(), lr=0.1), penalty)
    held = dict(module.named_parameters())
    for name, anchor in memory.quadratic.centre.items():
        assert torch.equal(held[name].detach(), anchor)


def test_what_somebody_else_writes_into_parameters_between_steps_stays():
    module = made()
    memory = memory_of(module)
    other = copy.deepcopy(module)
    nets = []
    for one, is_new in ((module, False), (other, True)):
        optimizer = SGD(one.parameters(), lr=0.1)
        penalty = memory.bound(one.named_parameters(), 2.0)
        for _ in range(3):
            step(one, optimizer, penalty)
            one[0].weight.data.clamp_(-0.2, 0.2)
            if is_new:  # knows nothing of the step before
                penalty = memory.bound(one.named_parameters(), 2.0)
        nets.append(numbers(one))
    torch.testing.assert_close(*nets)


def test_a_step_that_used_no_parameter_pulls_all_the_same():
    module = made()
    memory = memory_of(module)
    penalty = memory.bound(module.named_parameters(), 1e300)
    optimizer = SGD(module.parameters(), lr=0.1)
    penalty.turn(optimizer)
    optimizer.step()
    penalty.pull(optimizer)
    penalty.turn_back(optimizer)
    for name, p in module.named_parameters():
        assert torch.equal(p.detach(), memory.quadratic.centre[name])


def freeze(module):
    module[3].bias.requires_grad_(False)
    return SGD(module.parameters(), lr=0.1)


def in_two_groups(module):
    biases = [p for name, p in module.named_parameters() if name.endswith("bias")]
    weights = [p for name, p in module.named_parameters() if name.endswith("weight")]
    return SGD([{"params": weights}, {"params": biases, "lr": 0.01}], lr=0.1)


@pytest.mark.parametrize("made_by", [freeze, in_two_groups])
def test_a_layer_in_parts_is_not_turned_and_has_the_gradient(made_by):
    module = made()
    memory = memory_of(module)
    optimizer = made_by(module)
    penalty = memory.bound(module.named_parameters(), 2.0)
    assert not penalty.can_pull(optimizer)
    before = numbers(module)
    penalty.turn(optimizer)
    assert torch.equal(numbers(module), before)


def test_a_layer_that_is_frozen_in_mid_task_is_no_longer_turned():
    module = made()
    penalty = memory_of(module).bound(module.named_parameters(), 2.0)
    optimizer = SGD(module.parameters(), lr=0.1)
    step(module, optimizer, penalty)
    assert penalty.can_pull(optimizer)
    module[0].weight.requires_grad_(False)
    assert not penalty.can_pull(optimizer)


def test_value_and_gradient_are_those_of_the_matrix():
    module = made()
    memory = memory_of(module)
    A = memory.quadratic.curvature.dense()
    way = numbers(module) - flat(memory.quadratic.centre.values())
    penalty = memory.bound(module.named_parameters(), 2.0)
    assert float(penalty.value()) == pytest.approx(float(way @ A @ way))
    penalty.add_gradient()
    torch.testing.assert_close(flat(p.grad for p in module.parameters()), 2.0 * A @ way)
    params = dict(module.named_parameters())
    (slope,) = torch.autograd.grad(memory.penalty(params), params["0.weight"])
    torch.testing.assert_close(slope, params["0.weight"].grad / 2)
