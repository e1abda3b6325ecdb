"""λ from 0 to 10¹², and data of every size: nothing overflows, and the old tasks stay."""

import numpy as np
import pytest
import torch
from torch import nn

from ..helpers import learn, parameters, quick, unscaled

LAMBDAS = [0.0, 1.0, 1e3, 1e6, 1e9, 1e12]


def old_predictions(tasks, optimizer=torch.optim.Adam, **options):
    """Return the predictions on the first task, as learned and after the second, for each λ."""
    X = tasks[0][0]
    found = {}
    options = {"lr": 0.01, "max_epochs": 40, **options}
    for ewc_lambda in LAMBDAS:
        net = quick(optimizer=optimizer, ewc_lambda=ewc_lambda, **options)
        before = net.partial_fit(*tasks[0]).predict(X)
        found[ewc_lambda] = before, net.partial_fit(*tasks[1]).predict(X)
    return found


def changes(found):
    return [float(np.abs(after - before).max()) for before, after in found.values()]


def in_float32(tasks):
    return [(X.astype("float32"), y.astype("float32")) for X, y in tasks]


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_with_smooth_activations_old_predictions_converge_to_unchanged(tasks, optimizer):
    options = {"module__activation": nn.Tanh, "optimizer": optimizer, "fisher": "exact"}
    if optimizer is torch.optim.AdamW:
        options["optimizer__weight_decay"] = 0.0
    for damping in (0.0, 0.01):
        moved = changes(old_predictions(in_float32(tasks), damping=damping, **options))
        assert moved[0] > 0.1
        assert moved[0] > moved[2] > moved[3]
        assert max(moved[4:]) < 1e-4


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_every_parameter_with_importance_converges_to_its_old_value(tasks, optimizer, activation):
    net = unscaled(
        module__activation=activation, optimizer=optimizer, ewc_lambda=1e12, damping=0.0, lr=0.01
    )
    learn(net, tasks[:2])
    first, second = net.memory_.tasks
    n_important = 0
    for name, fisher in first.fisher.items():
        important = fisher > 1e-6 * fisher.max()
        n_important += int(important.sum())
        drift = (second.anchor[name] - first.anchor[name])[important]
        assert not len(drift) or drift.abs().max() < 1e-6
    assert n_important >= 7


def test_a_floor_under_the_fisher_keeps_silent_units_silent():
    rng = np.random.RandomState(0)
    left, right = rng.uniform(-2, -1, (100, 1)), rng.uniform(1, 2, (100, 1))
    module = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[-1.0]] * 4 + [[1.0]] * 4))
        module[0].bias.zero_()  # four units are silent on the left
    tasks = [(left, np.sin(left.ravel())), (right, 9 - 4 * right.ravel())]
    options = {"module": module, "lr": 0.05}
    bare, floored = (
        changes(old_predictions(tasks, damping=damping, **options)) for damping in (0.0, 0.01)
    )
    assert bare[-1] > 0.1  # the units have F = 0: the new task wakes them, whatever λ
    assert floored[-1] < 1e-6


SIZES = {
    "tiny targets": lambda X, y: (X, 1e-6 * y),
    "huge targets": lambda X, y: (X, 1e6 * y),
    "constant targets": lambda X, y: (X, 0 * y + 3),
    "tiny inputs": lambda X, y: (1e-6 * X, y),
    "one sample": lambda X, y: (X[:1], y[:1]),
}


@pytest.mark.parametrize("fisher", ["exact", "empirical", "batch"])
@pytest.mark.parametrize("ewc_lambda", [1e-6, 1.0, 1e6, 1e12])
@pytest.mark.parametrize("size", SIZES)
def test_tasks_of_every_size_leave_finite_numbers(tasks, size, ewc_lambda, fisher):
    scaled = [SIZES[size](X, y) for X, y in in_float32(tasks)]
    net = learn(quick(ewc_lambda=ewc_lambda, fisher=fisher), scaled[:3])
    assert parameters(net).isfinite().all()
    assert np.isfinite(net.predict(scaled[0][0])).all()
    assert np.isfinite(net.history[:, "penalty"]).all()
    quadratic = net.memory_.quadratic
    assert np.isfinite(quadratic.constant)
    assert all(value.isfinite().all() for value in quadratic.curvature.diagonal().values())


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_linear_net_learns_targets_of_every_unit_by_sgd(tasks, scale):
    scaled = [(X, scale * y) for X, y in in_float32(tasks)]
    options = {"module": nn.Linear, "optimizer": torch.optim.SGD, "lr": 0.05, "max_epochs": 60}
    moved = []
    for ewc_lambda in (0.0, 1e12):
        net = unscaled(ewc_lambda=ewc_lambda, **options).partial_fit(*scaled[0])
        before = parameters(net)
        assert parameters(net.partial_fit(*scaled[1])).isfinite().all()
        moved.append(float((parameters(net) - before).abs().max()) / scale)
    assert moved[0] > 0.1
    assert moved[1] < 1e-5


def test_a_task_learned_twice_changes_nothing_at_large_lambda(tasks):
    net = quick(ewc_lambda=1e9).partial_fit(*tasks[0])
    before = parameters(net)
    learn(net, [tasks[0]] * 3)
    torch.testing.assert_close(parameters(net), before, rtol=0, atol=1e-6)
    stiffness = net.memory_.quadratic.curvature.diagonal()
    first = net.memory_.tasks[0].stiffness().diagonal()
    for name, value in stiffness.items():
        torch.testing.assert_close(value, 4 * first[name], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("penalty_step", ["proximal", "gradient"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weight", [1e-50, 1e-30, 1e30, 1e50])
def test_a_task_weight_beyond_the_dtype_is_made_up_for_by_lambda(
    tasks, weight, dtype, penalty_step
):
    ends = []
    for scale in (1.0, weight):
        net = quick(ewc_lambda=3.0 / scale, penalty_step=penalty_step)
        for X, y in tasks[:3]:
            net.partial_fit(X.astype(dtype), y.astype(dtype), task_weight=scale)
        ends.append(parameters(net))
        assert np.isfinite(net.history[:, "penalty"]).all()
        assert net.history[-1, "penalty"] > 0
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)
