"""Densities of inputs draw what is like them, and are what they say."""

import numpy as np
import pytest
import torch

from sklearn_ewc import Memory, Task
from sklearn_ewc.memory.density import Density, Levels, OldInputs
from sklearn_ewc.memory.sources import Mixture, Sampler


def tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def mixture(**changes):
    known = {
        "weights": tensor(0.25, 0.75),
        "means": tensor([0.0, 0.0], [4.0, -4.0]),
        "cholesky": tensor([[1.0, 0.0], [0.5, 2.0]], [[0.1, 0.0], [0.0, 0.1]]),
    }
    return Mixture(**{**known, **changes})


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def density():
    return Density(2, mixture(), (0, 1))


def test_draws_have_the_moments_of_the_mixture():
    rows = mixture().draw(20000, generator())
    first = rows[rows[:, 0] < 3.5]
    assert len(first) / len(rows) == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(first.mean(0), tensor(0.0, 0.0), atol=0.1, rtol=0)
    torch.testing.assert_close(first.T.cov(), tensor([1, 0.5], [0.5, 4.25]), atol=0.2, rtol=0)


def test_one_cholesky_serves_all_components():
    tied = mixture(cholesky=tensor([[0.0 + 1, 0.0], [0.5, 2.0]]))
    each = mixture(cholesky=tied.cholesky.expand(2, 2, 2).contiguous())
    torch.testing.assert_close(tied.draw(50, generator()), each.draw(50, generator()))


def test_draws_follow_their_generator_and_leave_the_global_one_alone():
    before = torch.get_rng_state()
    one, same, other = (density().draw(5, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_columns_of_levels_are_drawn_as_levels():
    block = Levels((1, 2), tensor([0.0, 1.0], [1.0, 0.0]))
    constant = Levels((3,), tensor([7.3]))
    normal = Mixture(tensor(1.0), tensor([0.0] * 3), torch.eye(3).double()[None])
    rows = Density(4, normal, (0, 1, 2), (block, constant)).draw(200, generator())
    assert {tuple(row) for row in rows[:, 1:].tolist()} == {(0.0, 1.0, 7.3), (1.0, 0.0, 7.3)}
    assert len(rows[:, 0].unique()) == 200


def test_the_nearest_level_is_measured_in_the_range_of_each_column():
    single = Levels((0,), tensor([1.0], [2.0], [10.0]))
    found = single.nearest(tensor([-5.0], [1.6], [5.9], [6.1], [99.0]))
    assert found[:, 0].tolist() == [1.0, 2.0, 2.0, 10.0, 10.0]
    double = Levels((0, 1), tensor([0.0, 0.0], [1.0, 1000.0]))
    assert double.nearest(tensor([0.9, 300.0])).tolist() == [[1.0, 1000.0]]


class Draws:
    """An estimator of one's own, which numbers what it draws."""

    def __init__(self, drawn=None, random_state=None):
        self.drawn, self.random_state = drawn, random_state

    def fit(self, X):
        return self

    def sample(self, n):
        rows = np.random.RandomState(self.random_state).randn(n, 2)
        return rows if self.drawn is None else self.drawn(rows)


def test_an_estimator_draws_by_a_seed_and_stays_as_it_is():
    estimator = Draws()
    sampler = Sampler(estimator, 2)
    one, same, other = (sampler.draw(5, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert estimator.random_state is None


def test_an_estimator_may_return_labels_and_take_a_random_state():
    class Labelled(Draws):
        def sample(self, n, random_state=None):
            return np.random.RandomState(random_state).randn(n, 2), np.zeros(n)

    one, same = (Sampler(Labelled(), 2).draw(3, generator()) for _ in range(2))
    assert torch.equal(one, same)
    assert one.shape == (3, 2)


@pytest.mark.parametrize("drawn", [lambda rows: rows[:, :1], lambda rows: rows * np.nan])
def test_an_estimator_that_draws_something_else_is_refused(drawn):
    with pytest.raises(ValueError, match="sample drew"):
        Sampler(Draws(drawn), 2).draw(3, generator())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": tensor(0.5, 0.6)}, "weights"),
        ({"weights": tensor(-0.5, 1.5)}, "weights"),
        ({"weights": tensor([0.5, 0.5])}, "weights"),
        ({"weights": torch.tensor([0.5, 0.5])}, "weights"),
        ({"weights": [0.5, 0.5]}, "weights"),
        ({"means": tensor([0.0, 1.0])}, "means"),
        ({"means": torch.full((2, 2), torch.nan, dtype=torch.float64)}, "means"),
        ({"cholesky": torch.ones(2, 2, 2, dtype=torch.float64)}, "cholesky"),
        ({"cholesky": torch.zeros(2, 2, 2, dtype=torch.float64)}, "cholesky"),
        ({"cholesky": torch.eye(2, dtype=torch.float64)}, "cholesky"),
        ({"cholesky": torch.eye(2, dtype=torch.float64).expand(3, 2, 2)}, "cholesky"),
    ],
)
def test_what_is_no_mixture_is_refused(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        mixture(**changes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (tensor([1.0], [1.0]), "ascend"),
        (tensor([1.0, 2.0]), "shape"),
        (torch.zeros(0, 1, dtype=torch.float64), "no row"),
        (tensor([torch.inf]), "finite"),
    ],
)
def test_what_are_no_levels_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Levels((0,), values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, mixture(), (0,)), "draws 2 columns"),
        ((2, mixture(), (0, 0)), "drawn"),
        ((2, mixture(), (0, 2)), "drawn"),
        ((3, mixture(), (0, 1)), "drawn lacks"),
        ((2, mixture(), (0, 1), (Levels((1,), tensor([0.0])),) * 2), "levels"),
        ((2, None, (0, 1)), "source"),
        ((-2, mixture(), (0, 1)), "n_columns"),
    ],
)
def test_what_is_no_density_is_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Density(*arguments)


# in a memory


def task(weight=1.0):
    return Task({"w": torch.zeros(1)}, {"w": torch.ones(1)}, weight)


def test_a_memory_keeps_the_inputs_of_those_tasks_that_have_a_density():
    known = density()
    memory = Memory(store_tasks=False).consolidate(task(2.0), known).consolidate(task())
    assert [(one.density, one.weight) for one in memory.inputs] == [(known, 2.0)]
    assert memory.to("cpu").inputs[0].weight == 2.0


def test_a_task_of_weight_zero_leaves_no_inputs():
    assert Memory().consolidate(task(0.0), density()).inputs == ()


@pytest.mark.parametrize(("mode", "weights"), [("online", [0.25, 0.5, 1]), ("offline", [1, 1, 1])])
def test_inputs_fade_with_their_tasks(mode, weights):
    memory = Memory(mode=mode, gamma=0.5)
    for _ in range(3):
        memory = memory.consolidate(task(), density())
    assert [one.weight for one in memory.inputs] == weights


@pytest.mark.parametrize("inputs", [[], (density(),), None])
def test_inputs_are_a_tuple_of_old_inputs(inputs):
    with pytest.raises(TypeError, match="inputs"):
        Memory(inputs=inputs)


@pytest.mark.parametrize("wrong", [(None, 1.0), (density(), -1.0), (density(), float("nan"))])
def test_old_inputs_have_a_density_and_a_weight(wrong):
    with pytest.raises((TypeError, ValueError), match="density|weight"):
        OldInputs(*wrong)
