"""The penalty on a module that is being trained, and the proximal step on it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sklearn_ewc import Memory, Task
from sklearn_ewc.memory.rates import has_known_rates

CENTRE = {"w": torch.tensor([1.0, -2.0, 0.5]), "b": torch.tensor([3.0])}
STIFFNESS = {"w": torch.tensor([0.0, 1.0, 5.0]), "b": torch.tensor([2.0])}


def bound_to_parameters(ewc_lambda=1.0):
    params = {name: torch.nn.Parameter(value + 0.3) for name, value in CENTRE.items()}
    return Memory().consolidate(Task(CENTRE, STIFFNESS)).bound(params, ewc_lambda), params


def step(optimizer, gradient=0.7):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.full_like(p, gradient)
    optimizer.step()


def expected(params, rates, ewc_lambda):
    """Return (θ' + ηλS c) / (1 + ηλS), the minimum of the proximal problem."""
    ends = {}
    for name, p in params.items():
        strength = rates[name] * ewc_lambda * STIFFNESS[name]
        ends[name] = (p.detach() + strength * CENTRE[name]) / (1 + strength)
    return ends


@given(ewc_lambda=st.floats(1e-6, 1e6), lr=st.floats(1e-6, 10.0))
def test_the_proximal_step_solves_its_problem_for_sgd(ewc_lambda, lr):
    bound, params = bound_to_parameters(ewc_lambda)
    optimizer = torch.optim.SGD(params.values(), lr=lr)
    for _ in range(3):
        step(optimizer)
        ends = expected(params, dict.fromkeys(params, lr), ewc_lambda)
        bound.pull(optimizer)
        for name, p in params.items():
            torch.testing.assert_close(p.detach(), ends[name])


@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"eps": 0.1}, {"fused": True}])
def test_the_proximal_step_goes_at_adams_own_rates(options):
    bound, params = bound_to_parameters(3.0)
    optimizer = torch.optim.Adam(params.values(), lr=0.1, **options)
    for n in range(1, 5):
        step(optimizer, gradient=0.7 / n)
        square = "max_exp_avg_sq" if "amsgrad" in options else "exp_avg_sq"
        scale = {name: (optimizer.state[p][square] / (1 - 0.999**n)) for name, p in params.items()}
        rates = {k: 0.1 / (v.sqrt() + options.get("eps", 1e-8)) for k, v in scale.items()}
        ends = expected(params, rates, 3.0)
        bound.pull(optimizer)
        for name, p in params.items():
            torch.testing.assert_close(p.detach(), ends[name])


@pytest.mark.parametrize("lr", [0.0, 1e-30, 1e30])
@pytest.mark.parametrize("ewc_lambda", [1e-30, 1.0, 1e38])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_the_proximal_step_stays_between_where_it_starts_and_the_centre(optimizer, ewc_lambda, lr):
    bound, params = bound_to_parameters(ewc_lambda)
    optimizer = optimizer(params.values(), lr=lr)
    step(optimizer, gradient=0.0)
    bound.pull(optimizer)
    for name, p in params.items():
        low, high = CENTRE[name], CENTRE[name] + 0.3
        assert ((p >= low) & (p <= high)).all()
    assert params["w"][0] == CENTRE["w"][0] + 0.3  # F = 0: nothing pulls


def test_a_rate_or_lambda_that_changes_takes_effect_in_the_next_step():
    bound, params = bound_to_parameters()
    optimizer = torch.optim.SGD(params.values(), lr=0.1)
    for lr, ewc_lambda in ((0.1, 1.0), (0.5, 1.0), (0.5, 7.0)):
        optimizer.param_groups[0]["lr"] = lr
        step(optimizer)
        ends = expected(params, dict.fromkeys(params, lr), ewc_lambda)
        bound.ewc_lambda = ewc_lambda
        bound.pull(optimizer)
        torch.testing.assert_close(params["w"].detach(), ends["w"])


def test_the_range_of_a_lambda_that_changes_is_kept():
    bound, _ = bound_to_parameters(2.0)
    assert bound.lambda_range == (2.0, 2.0)
    for ewc_lambda in (5.0, 0.0, 3.0):
        bound.ewc_lambda = ewc_lambda
    assert bound.lambda_range == (0.0, 5.0)


def test_every_group_of_parameters_goes_at_its_own_rate():
    bound, params = bound_to_parameters(2.0)
    groups = [{"params": [params["w"]], "lr": 0.1}, {"params": [params["b"]], "lr": 0.4}]
    optimizer = torch.optim.SGD(groups)
    step(optimizer)
    ends = expected(params, {"w": 0.1, "b": 0.4}, 2.0)
    bound.pull(optimizer)
    for name, p in params.items():
        torch.testing.assert_close(p.detach(), ends[name])


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_parameter_that_no_step_has_used_goes_to_its_centre(optimizer):
    bound, params = bound_to_parameters()
    optimizer = optimizer(params.values(), lr=1.0)
    params["w"].grad = torch.ones(3)
    optimizer.step()
    for _ in range(100):
        bound.pull(optimizer)
    torch.testing.assert_close(params["b"].detach(), CENTRE["b"])


def test_a_frozen_parameter_stays():
    bound, params = bound_to_parameters(1e6)
    params["b"].requires_grad_(False)
    before = params["b"].clone()
    bound.pull(torch.optim.SGD(params.values(), lr=1.0))
    assert torch.equal(params["b"], before)


def test_a_parameter_frozen_or_thawed_between_steps_stays_or_follows():
    bound, params = bound_to_parameters(1e6)
    optimizer = torch.optim.SGD(params.values(), lr=1.0)
    before = params["b"].clone()
    params["b"].requires_grad_(False)
    bound.pull(optimizer)
    assert torch.equal(params["b"], before)
    params["b"].requires_grad_()
    bound.pull(optimizer)
    torch.testing.assert_close(params["b"].detach(), CENTRE["b"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), True),
        (torch.optim.Adam, True),
        (torch.optim.AdamW, True),
        (lambda p: torch.optim.SGD(p, lr=0.1, maximize=True), False),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=1.0), False),
        (torch.optim.RMSprop, False),
        (torch.optim.LBFGS, False),
        (type("MyAdam", (torch.optim.Adam,), {}), False),
    ],
)
def test_rates_are_known_of_three_optimizers(make, known):
    assert has_known_rates(make([torch.nn.Parameter(torch.ones(1))])) is known
