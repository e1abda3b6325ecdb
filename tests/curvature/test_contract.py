"""What every kind of curvature promises, held against the matrix itself in float64."""

import pytest
import torch
from torch import nn

from sklearn_ewc.curvature import KINDS, Curvature, curvature_of
from sklearn_ewc.tensors import flat, parts

every_kind = pytest.mark.parametrize("kind", KINDS)
MODULE = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
PARAMS = {name: p.detach() for name, p in MODULE.named_parameters()}


def curvature(kind, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X, y = (torch.randn(9, n, generator=generator, dtype=torch.float64) for n in (3, 2))
    return curvature_of(MODULE, nn.MSELoss(), [(X, y)], kind=kind)


def vector(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for name, p in PARAMS.items()
    }


def numbers(tensors):
    return flat(tensors.values())


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@every_kind
def test_it_is_a_symmetric_matrix_without_negative_eigenvalues(kind):
    A = curvature(kind)
    assert isinstance(A, Curvature)
    assert A.kind == kind
    dense = A.dense()
    assert dense.dtype == torch.float64
    close(dense, dense.T)
    assert torch.linalg.eigvalsh(dense).min() > -1e-12
    assert A.over(PARAMS) is A


def turn(A):
    """Return the matrix that turns parameters into coordinates of A."""
    like = list(PARAMS.values())
    units = torch.eye(len(numbers(PARAMS)), dtype=torch.float64)
    columns = [A.turned(dict(zip(PARAMS, parts(unit, like), strict=True))) for unit in units]
    return torch.stack([numbers(column) for column in columns], 1)


@every_kind
def test_it_is_diagonal_in_coordinates_that_are_orthonormal(kind):
    A, v = curvature(kind), vector()
    T = turn(A)
    close(T @ T.T, torch.eye(len(T), dtype=torch.float64))
    turned = T @ A.dense() @ T.T
    close(turned, torch.diag(turned.diagonal()))
    back = A.turned_back(A.turned(v))
    assert back.keys() == v.keys()
    close(numbers(back), numbers(v))
    held = {name for basis in A.bases for name in basis.names}
    assert all(A.turned(v)[name] is v[name] for name in v.keys() - held)


@every_kind
def test_a_sum_has_the_diagonal_of_the_sum_in_its_coordinates(kind):
    A, B = curvature(kind, 0), curvature(kind, 1)
    for found, expected in (
        (A + B, A.dense() + B.dense()),
        (A * 2.0 + B * 0.5, 2.0 * A.dense() + 0.5 * B.dense()),
    ):
        T = turn(found)
        close((T @ found.dense() @ T.T).diagonal(), (T @ expected @ T.T).diagonal())
        assert found.trace() == pytest.approx(float(expected.trace()))


@every_kind
def test_a_sum_of_what_has_the_same_coordinates_is_that_of_the_matrices(kind):
    A = curvature(kind)
    close((A + A * 2.0).dense(), 3.0 * A.dense())
    close(
        (A + A.plus_identity(0.3)).dense(),
        2.0 * A.dense() + 0.3 * torch.eye(len(A.dense()), dtype=torch.float64),
    )


@every_kind
def test_multiples_and_floors_are_those_of_the_matrix(kind):
    A = curvature(kind)
    close((A * 3.5).dense(), 3.5 * A.dense())
    close(A.plus_identity(0.25).dense(), A.dense() + 0.25 * torch.eye(len(A.dense())))


@every_kind
def test_trace_and_diagonal_are_those_of_the_matrix(kind):
    A = curvature(kind)
    assert A.trace() == pytest.approx(float(A.dense().trace()))
    assert A.diagonal().keys() == PARAMS.keys()
    close(numbers(A.diagonal()), A.dense().diagonal())


@every_kind
def test_times_is_the_product_with_the_matrix(kind):
    A, v = curvature(kind), numbers(vector())
    close(A.times(v), A.dense() @ v)
    out = torch.empty_like(v)
    assert A.times(v, out=out) is out
    close(out, A.dense() @ v)


@every_kind
def test_add_times_adds_the_product_for_the_parameters_asked_for(kind):
    A, v, into = curvature(kind), vector(0), vector(1)
    before = {name: value.clone() for name, value in into.items()}
    some = {name: into[name] for name in list(PARAMS)[1:3]}
    A.add_times(some, v, 2.0)
    product = dict(zip(PARAMS, parts(A.dense() @ numbers(v), list(v.values())), strict=True))
    for name, value in into.items():
        close(value, before[name] + 2.0 * product[name] * (name in some))


@every_kind
def test_two_quadratics_meet_where_their_sum_is_least(kind):
    A, B, d = curvature(kind, 0).plus_identity(0.1), curvature(kind, 1), vector()
    same = {name: torch.zeros_like(way) for name, way in d.items()}
    place, values = A.meeting(B, same)
    assert not numbers(place).any()
    assert sum(values) == 0
    found = A.meeting(B, d)
    if found is None:
        pytest.skip(f"sums of {kind} quadratics around different places are none of their kind")
    place, values = found
    a, b, way = A.dense(), B.dense(), numbers(d)
    expected = torch.linalg.solve(a + b, b @ way)
    close(numbers(place), expected)
    least = expected @ a @ expected + (expected - way) @ b @ (expected - way)
    assert sum(values) == pytest.approx(float(least))


@every_kind
@pytest.mark.parametrize("reach", [0.0, 1e-3, 1.0, 1e6])
def test_the_resolvent_ends_where_the_proximal_problem_has_its_minimum(kind, reach):
    A, start, centre = curvature(kind), vector(0), vector(1)
    resolvent = A.resolvent(list(PARAMS), reach)
    if resolvent is None:
        pytest.skip(f"the proximal step on a {kind} curvature has no closed form")
    slowness = numbers(vector(2)).abs() + 0.1
    resolvent.slowness.copy_(slowness)
    resolvent.renew()
    rates = torch.diag(reach / slowness)
    T = turn(A)
    way = numbers(start) - numbers(centre)
    of_coordinates = torch.eye(len(way)) + rates @ T @ A.dense() @ T.T
    expected = numbers(centre) + torch.linalg.solve(of_coordinates, way)
    resolvent.pull(list(start.values()), list(centre.values()))
    torch.testing.assert_close(numbers(start), expected, rtol=1e-8, atol=1e-10)


@every_kind
def test_another_dtype_changes_the_digits_alone(kind):
    A = curvature(kind)
    single = A.to(dtype=torch.float32)
    assert all(value.dtype == torch.float32 for value in single.state_dict().values())
    torch.testing.assert_close(single.dense(), A.dense(), rtol=1e-6, atol=1e-7)
    close(single.to("cpu").dense(), single.dense())


@every_kind
def test_its_state_holds_all_of_it(kind):
    A = curvature(kind)
    state = A.state_dict()
    assert all(type(value) is torch.Tensor for value in state.values())
    again = KINDS[kind].from_state_dict(state)
    assert torch.equal(again.dense(), A.dense())
    assert again.state_dict().keys() == state.keys()


@every_kind
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e9])
def test_what_is_not_finite_or_negative_is_refused(kind, value):
    state = {name: tensor.clone() for name, tensor in curvature(kind).state_dict().items()}
    next(iter(state.values())).view(-1)[0] = value
    with pytest.raises(ValueError, match="curvature is (not finite|negative) at '0.weight'"):
        KINDS[kind].from_state_dict(state).over(PARAMS)


@every_kind
def test_a_curvature_of_other_parameters_is_refused(kind):
    with pytest.raises(ValueError, match=r"different parameters: \['2.bias'\]"):
        curvature(kind).over({name: p for name, p in PARAMS.items() if name != "2.bias"})
    with pytest.raises(ValueError, match="differ in shape at '2.bias'"):
        curvature(kind).over({**PARAMS, "2.bias": torch.zeros(3)})


@every_kind
def test_parameters_can_be_put_into_another_order(kind):
    backwards = dict(reversed(PARAMS.items()))
    A, v = curvature(kind), vector()
    turned = A.over(backwards)
    assert list(turned.diagonal()) == list(backwards)
    product = dict(zip(PARAMS, parts(A.times(numbers(v)), list(v.values())), strict=True))
    found = turned.times(flat(v[name] for name in backwards))
    close(found, flat(product[name] for name in backwards))


@every_kind
def test_no_method_changes_it(kind):
    A, before = curvature(kind), curvature(kind).dense()
    A.times(numbers(vector()))
    A.add_times(vector(1), vector(), 2.0)
    A.meeting(curvature(kind, 1), vector())
    _ = (A + curvature(kind, 1), A * 2.0, A.plus_identity(1.0), A.to(dtype=torch.float32))
    resolvent = A.resolvent(list(PARAMS), 1.0)
    if resolvent is not None:
        resolvent.slowness.fill_(1.0)
        resolvent.renew()
        resolvent.pull(list(vector().values()), list(vector(1).values()))
    assert torch.equal(A.dense(), before)
