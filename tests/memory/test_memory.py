"""Task and Memory."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sklearn_ewc import Memory, Task

from .. import reference

seeds = st.integers(0, 2**31 - 1)


def random_tasks(seed, n_tasks=5, spread=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"layer.weight": (3, 4), "layer.bias": (3,), "scale": ()}

    def values():
        return {
            name: torch.randn(shape, generator=generator, dtype=torch.float64)
            for name, shape in shapes.items()
        }

    centre = values()
    tasks = [
        Task(
            anchor={k: (centre[k] + spread * v).to(dtype) for k, v in values().items()},
            curvature={k: v.square().to(dtype) for k, v in values().items()},
            weight=float(torch.rand((), generator=generator)),
            damping=0.1,
        )
        for _ in range(n_tasks)
    ]
    params = {k: (centre[k] + spread * v).to(dtype) for k, v in values().items()}
    return tasks, params


def memory_of(tasks, **kwargs):
    memory = Memory(**kwargs)
    for task in tasks:
        memory = memory.consolidate(task)
    return memory


def value_and_gradient(penalty, params):
    params = {name: p.clone().requires_grad_() for name, p in params.items()}
    value = penalty(params)
    return value.detach(), torch.autograd.grad(value, list(params.values()))


@given(seed=seeds, store_tasks=st.booleans())
def test_collapsed_penalty_equals_the_sum_over_tasks(seed, store_tasks):
    tasks, params = random_tasks(seed)
    memory = memory_of(tasks, store_tasks=store_tasks)
    value, gradient = value_and_gradient(memory.penalty, params)
    expected, slope = value_and_gradient(lambda p: reference.penalty(tasks, p), params)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-10)


@given(seed=seeds, gamma=st.floats(0.0, 1.0))
def test_online_penalty_is_a_running_sum_around_the_last_anchor(seed, gamma):
    tasks, params = random_tasks(seed)
    memory = memory_of(tasks, mode="online", gamma=gamma, store_tasks=False)
    value, gradient = value_and_gradient(memory.penalty, params)
    expected, slope = value_and_gradient(
        lambda p: reference.online_penalty(tasks, gamma, p), params
    )
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_the_order_of_names_does_not_matter(mode):
    tasks, params = random_tasks(4)
    turned = [
        Task(task.anchor, dict(reversed(task.fisher.items())), task.weight, task.damping)
        for task in tasks
    ]
    memory, other = memory_of(tasks, mode=mode), memory_of(turned, mode=mode)
    assert other.penalty(dict(reversed(params.items()))) == memory.penalty(params)


def test_online_and_offline_agree_on_one_task():
    tasks, params = random_tasks(3, n_tasks=1)
    offline, online = (memory_of(tasks, mode=mode) for mode in ("offline", "online"))
    assert offline.penalty(params) == online.penalty(params)


def test_online_a_frozen_parameter_keeps_its_anchor():
    w, b = {"w": torch.tensor([1.0])}, {"b": torch.tensor([2.0])}
    memory = memory_of([Task({**w, **b}, {**w, **b}), Task(b, b)], mode="online", gamma=0.5)
    params = {"w": torch.tensor([5.0]), "b": torch.tensor([7.0])}
    expected = 0.5 * (0.5 * 1.0 * 4.0**2 + (0.5 * 2.0 + 2.0) * 5.0**2)
    assert memory.penalty(params) == pytest.approx(expected)


def test_a_memory_of_unknown_mode_or_growing_gamma_is_refused():
    with pytest.raises(ValueError, match="'offline', 'online', got 'Online'"):
        Memory(mode="Online")
    with pytest.raises(ValueError, match="gamma must be between 0 and 1, got 1.5"):
        Memory(gamma=1.5)


def test_collapse_keeps_its_digits_in_float32_after_100_close_tasks():
    tasks, params = random_tasks(0, n_tasks=100, spread=1e-4, dtype=torch.float32)
    _, gradient = value_and_gradient(memory_of(tasks).penalty, params)
    exact = {name: p.double() for name, p in params.items()}
    _, expected = value_and_gradient(lambda p: reference.penalty(tasks, p), exact)
    for found, true in zip(gradient, expected, strict=True):
        assert (found - true).abs().max() < 1e-5 * true.abs().max()


@pytest.mark.parametrize("n_tasks", [1, 5])
def test_the_bound_penalty_adds_lambda_times_the_gradient(n_tasks):
    tasks, params = random_tasks(7, n_tasks=n_tasks)
    memory = memory_of(tasks)
    value, gradient = value_and_gradient(memory.penalty, params)
    params = {name: p.requires_grad_() for name, p in params.items()}
    params["scale"].grad = torch.ones((), dtype=torch.float64)
    bound = memory.bound(params, 3.0)
    assert bound.value() == 3.0 * value
    bound.add_gradient()
    for (name, p), expected in zip(params.items(), gradient, strict=True):
        torch.testing.assert_close(p.grad, 3.0 * expected + (name == "scale"))


def test_the_bound_penalty_leaves_frozen_parameters_alone():
    tasks, params = random_tasks(8)
    params["scale"].requires_grad_()
    memory_of(tasks).bound(params).add_gradient()
    assert params["scale"].grad is not None
    assert params["layer.weight"].grad is None


def test_a_memory_on_another_device_is_the_same():
    tasks, params = random_tasks(9)
    memory = memory_of(tasks)
    moved = memory.to("cpu")
    assert moved.penalty(params) == memory.penalty(params)
    assert (moved.n_tasks, len(moved.tasks), moved.tasks[0].weight) == (5, 5, tasks[0].weight)


def test_penalty_passes_gradcheck():
    tasks, params = random_tasks(1)
    memory = memory_of(tasks)
    leaves = [p.requires_grad_() for p in params.values()]
    assert torch.autograd.gradcheck(
        lambda *p: memory.penalty(dict(zip(params, p, strict=True))), leaves
    )


@given(seed=seeds)
def test_penalty_of_one_task_is_zero_at_its_anchor_and_positive_elsewhere(seed):
    (task,), params = random_tasks(seed, n_tasks=1)
    memory = memory_of([task])
    value, gradient = value_and_gradient(memory.penalty, task.anchor)
    assert value == 0
    assert all(not g.any() for g in gradient)
    assert memory.penalty(params) > 0


def test_empty_memory_exerts_no_penalty():
    assert Memory().penalty({"w": torch.ones(3)}) == 0


@given(seed=seeds)
def test_a_task_of_weight_zero_is_forgotten(seed):
    tasks, params = random_tasks(seed, n_tasks=3)
    forgotten = Task(tasks[1].anchor, tasks[1].fisher, weight=0.0, damping=0.1)
    with_it = memory_of([tasks[0], forgotten, tasks[2]])
    without = memory_of([tasks[0], tasks[2]])
    torch.testing.assert_close(with_it.penalty(params), without.penalty(params))


def test_order_of_tasks_does_not_matter():
    tasks, params = random_tasks(2)
    forwards, backwards = memory_of(tasks), memory_of(tasks[::-1])
    torch.testing.assert_close(forwards.penalty(params), backwards.penalty(params))


def test_damping_adds_a_fraction_of_the_mean_over_all_parameters():
    fisher = {"a": torch.tensor([0.0, 0.0, 3.0]), "b": torch.tensor([5.0])}
    task = Task({k: torch.zeros_like(v) for k, v in fisher.items()}, fisher, damping=0.5)
    assert task.stiffness().diagonal()["a"].tolist() == [1.0, 1.0, 4.0]
    assert task.stiffness().diagonal()["b"].tolist() == [6.0]
    assert task.fisher["a"].tolist() == [0.0, 0.0, 3.0]  # stored raw


def test_a_task_shows_itself_in_one_line():
    (task,), _ = random_tasks(0, n_tasks=1)
    assert repr(task) == f"Task(weight={task.weight}, damping=0.1, n_samples=None, loss=None)"


def test_consolidate_leaves_the_memory_it_was_called_on_unchanged():
    (first, second), params = random_tasks(3, n_tasks=2)
    memory = Memory().consolidate(first)
    before = memory.penalty(params)
    memory.consolidate(second)
    assert memory.n_tasks == 1
    assert memory.tasks == (first,)
    assert memory.penalty(params) == before


def test_training_on_does_not_move_an_anchor():
    p = torch.nn.Parameter(torch.ones(2))
    task = Task({"p": p}, {"p": torch.ones(2)})
    with torch.no_grad():
        p.add_(1.0)
    assert task.anchor["p"].tolist() == [1.0, 1.0]
    assert not task.anchor["p"].requires_grad


def test_memory_without_stored_tasks_does_not_grow():
    tasks, _ = random_tasks(4, n_tasks=50)
    sizes = [len(pickle.dumps(memory_of(tasks[:k], store_tasks=False))) for k in (2, 50)]
    assert memory_of(tasks, store_tasks=False).tasks == ()
    assert sizes[1] == pytest.approx(sizes[0], abs=16)


def test_memory_with_stored_tasks_keeps_every_task():
    tasks, _ = random_tasks(5)
    assert memory_of(tasks).tasks == tuple(tasks)


def test_a_memory_survives_pickling():
    tasks, params = random_tasks(6)
    memory = memory_of(tasks)
    assert pickle.loads(pickle.dumps(memory)).penalty(params) == memory.penalty(params)


def test_parameters_frozen_or_thawed_between_tasks_keep_their_own_history():
    w, b = {"w": torch.tensor([1.0])}, {"b": torch.tensor([2.0])}
    both = {**w, **b}
    tasks = [Task(w, w), Task(both, both), Task(b, b)]
    params = {"w": torch.tensor([5.0]), "b": torch.tensor([7.0])}
    expected = sum(reference.penalty([task], params) for task in tasks)
    assert memory_of(tasks).penalty(params) == pytest.approx(float(expected))


ONE, NAN = torch.ones(1), torch.tensor([float("nan")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"anchor": {"a": ONE}, "curvature": {"b": ONE}}, "different parameters.*a.*b"),
        ({"anchor": {"a": ONE}, "curvature": {"a": torch.ones(2)}}, "shape at 'a'"),
        ({"anchor": {"a": ONE}, "curvature": {"a": -ONE}}, "negative at 'a'"),
        ({"anchor": {"a": NAN}, "curvature": {"a": ONE}}, "not finite at 'a'"),
        ({"anchor": {"a": ONE}, "curvature": {"a": NAN}}, "not finite at 'a'"),
        ({"anchor": {"a": ONE}, "curvature": {"a": ONE}, "weight": -1.0}, "weight"),
        ({"anchor": {"a": ONE}, "curvature": {"a": ONE}, "damping": float("inf")}, "damping"),
    ],
)
def test_a_task_that_means_nothing_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Task(**arguments)


def test_a_task_of_another_network_is_refused():
    memory = Memory().consolidate(Task({"w": torch.ones(2)}, {"w": torch.ones(2)}))
    with pytest.raises(ValueError, match=r"'w' has shape \(3,\)"):
        memory.consolidate(Task({"w": torch.ones(3)}, {"w": torch.ones(3)}))
    with pytest.raises(ValueError, match=r"lacks parameters.*w"):
        memory.penalty({"v": torch.ones(2)})


def test_the_bytes_of_a_memory_are_those_of_its_tensors():
    task = Task({"w": torch.zeros(3)}, {"w": torch.ones(3)})
    memory = Memory().consolidate(task).consolidate(task)
    assert memory.n_bytes == {
        "sums": (3 * (4 + 8 + 8),),
        "tasks": (24, 24),
        "inputs": (),
    }
