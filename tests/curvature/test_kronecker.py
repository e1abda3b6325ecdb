"""A curvature in a basis for each layer, against the whole matrix."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from sklearn_ewc.curvature import Diagonal, curvature_of
from sklearn_ewc.tensors import flat, parts


def trained(module):
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def gauss_newton(module, X, weights=None):
    """Return mean_n Jᵀ H J of the mean squared error, from whole Jacobians."""
    params = trained(module)
    J = jacrev(lambda free: functional_call(module, free, (X,)))(params)
    flattened = torch.cat([J[name].flatten(2) for name in params], 2)
    weights = torch.ones(len(X), dtype=X.dtype) if weights is None else weights
    factors = 2 / flattened.shape[1] * weights / weights.sum()
    return torch.einsum("n,nci,ncj->ij", factors, flattened, flattened)


def turn(A, module):
    like = list(trained(module).values())
    units = torch.eye(sum(p.numel() for p in like), dtype=torch.float64)
    names = list(trained(module))
    turned = [A.turned(dict(zip(names, parts(unit, like), strict=True))) for unit in units]
    return torch.stack([flat(one[name] for name in names) for one in turned], 1)


def kronecker(module, X, n_outputs=2, **options):
    y = torch.zeros(len(X), n_outputs, dtype=X.dtype)
    return curvature_of(module, nn.MSELoss(), [(X, y)], kind="kronecker", **options)


class Steps(nn.Module):
    """A linear layer at every step of a sequence, then one on their mean."""

    def __init__(self):
        super().__init__()
        self.each, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, X):
        return self.last(torch.tanh(self.each(X)).mean(1))


MODULES = {
    "linear layers": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (3,), 2),
    "no bias": (lambda: nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2)), (3,), 2),
    "a linear layer at many positions": (Steps, (5, 3), 2),
    "few channels": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)),
        (2, 3, 3),
        2,
    ),
    "many channels, dilated": (
        lambda: nn.Sequential(
            nn.Conv1d(5, 3, 2, dilation=2, padding=1), nn.Flatten(), nn.Linear(12, 2)
        ),
        (5, 4),
        2,
    ),
    "a layer that has none": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)),
        (3,),
        2,
    ),
    "groups": (
        lambda: nn.Sequential(nn.Conv1d(4, 4, 2, groups=2), nn.Flatten(), nn.Linear(12, 2)),
        (4, 4),
        1,
    ),
}


@pytest.mark.parametrize("case", MODULES)
def test_its_diagonal_is_that_of_the_whole_matrix_in_its_coordinates(case):
    make, shape, n_bases = MODULES[case]
    torch.manual_seed(0)
    module, X = make().double(), torch.randn(30, *shape, dtype=torch.float64)
    A = kronecker(module, X)
    T, whole = turn(A, module), gauss_newton(module, X)
    torch.testing.assert_close(flat(A.values.values.values()), (T @ whole @ T.T).diagonal())
    assert len(A.bases) == n_bases
    assert list(A.diagonal()) == list(trained(module))


def test_it_is_closer_to_the_matrix_than_the_diagonal_is():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    X = torch.randn(200, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64)
    whole = gauss_newton(module, X)
    diagonal = curvature_of(module, nn.MSELoss(), [(X, torch.zeros(200, 2).double())])
    missing = [(A.dense() - whole).norm() for A in (kronecker(module, X), diagonal)]
    assert missing[0] < 0.8 * missing[1]


@pytest.mark.parametrize("fisher", ["exact", "empirical", "sampled"])
def test_weights_count_as_repeated_rows_do_in_the_basis_too(fisher):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    X, y = torch.randn(6, 3).double(), torch.randn(6, 1).double()
    weight = torch.tensor([1.0, 0.0, 2.0, 3.0, 0.0, 1.0]).double()
    options = {"fisher": fisher, "kind": "kronecker"}
    weighted = curvature_of(module, nn.MSELoss(), [(X, y, weight)], **options)
    rows = weight.long().repeat_interleave(weight.long()).new_tensor([0, 2, 2, 3, 3, 3, 5])
    repeated = curvature_of(module, nn.MSELoss(), [(X[rows], y[rows])], **options)
    torch.testing.assert_close(weighted.dense(), repeated.dense(), rtol=1e-8, atol=1e-10)


def test_batches_of_any_size_give_the_same():
    torch.manual_seed(0)
    module, X = MODULES["few channels"][0]().double(), torch.randn(30, 2, 3, 3).double()
    y = torch.zeros(30, 2).double()
    batches = [(X[:7], y[:7]), (X[7:20], y[7:20]), (X[20:], y[20:])]
    found = curvature_of(module, nn.MSELoss(), batches, kind="kronecker")
    torch.testing.assert_close(found.dense(), kronecker(module, X).dense())


def test_a_layer_used_twice_keeps_its_diagonal():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.again, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, X):
            return self.last(self.again(torch.tanh(self.again(X))))

    torch.manual_seed(0)
    module, X = Twice().double(), torch.randn(20, 3).double()
    A = kronecker(module, X)
    assert [basis.names for basis in A.bases] == [("last.weight", "last.bias")]
    diagonal = gauss_newton(module, X).diagonal()
    torch.testing.assert_close(flat(A.diagonal().values())[:12], diagonal[:12])


def test_a_bias_that_is_not_trained_is_no_column():
    torch.manual_seed(0)
    module, X = MODULES["linear layers"][0]().double(), torch.randn(20, 3).double()
    module[0].bias.requires_grad_(False)
    A = kronecker(module, X)
    assert [basis.names for basis in A.bases] == [("0.weight",), ("2.weight", "2.bias")]
    assert "0.bias" not in A.diagonal()


def test_a_module_without_such_a_layer_has_its_diagonal():
    torch.manual_seed(0)
    module = nn.LayerNorm(2).double()
    X = torch.randn(20, 2).double()
    A = kronecker(module, X)
    assert A.bases == ()
    torch.testing.assert_close(A.dense().diagonal(), gauss_newton(module, X).diagonal())


OTHERS = {
    "a bias that was frozen": lambda module: module[0].bias.requires_grad_(False),
    "a layer that was frozen": lambda module: module[0].requires_grad_(False),
    "a layer that lost its bias": lambda module: setattr(module[0], "bias", None),
}


@pytest.mark.parametrize("case", OTHERS)
def test_tasks_that_train_other_parameters_add_up_over_those_of_both(case):
    torch.manual_seed(0)
    module, X = MODULES["linear layers"][0]().double(), torch.randn(20, 3).double()
    A = kronecker(module, X)
    OTHERS[case](module)
    B = kronecker(module, 2 * X)
    for one, other in ((A, B), (B, A)):
        found = one + other
        assert found.diagonal().keys() == A.diagonal().keys()
        assert found.trace() == pytest.approx(A.trace() + B.trace())
        names = [name for basis in found.bases for name in basis.names]
        assert len(set(names)) == len(names)
        assert torch.linalg.eigvalsh(found.over(A.diagonal()).dense()).min() > -1e-12


def test_a_layer_without_a_basis_in_one_task_is_taken_up_in_that_of_the_other():
    torch.manual_seed(0)
    module, X = MODULES["linear layers"][0]().double(), torch.randn(20, 3).double()
    A = kronecker(module, X)
    without = type(A)(Diagonal(A.diagonal()), ())
    for found in (A + without, without + A):
        assert [basis.names for basis in found.bases] == [basis.names for basis in A.bases]
        T = turn(found, module)
        expected = A.dense() + without.dense()
        torch.testing.assert_close(
            flat(found.values.over(A.diagonal()).values.values()), (T @ expected @ T.T).diagonal()
        )


def test_what_can_be_gone_through_once_is_refused():
    module, X = MODULES["linear layers"][0]().double(), torch.randn(20, 3).double()
    batches = iter([(X, torch.zeros(20, 2).double())])
    with pytest.raises(TypeError, match="batches must be what can be gone through again"):
        curvature_of(module, nn.MSELoss(), batches, kind="kronecker")


def test_the_square_of_one_gradient_has_no_basis():
    module, X = MODULES["linear layers"][0]().double(), torch.randn(20, 3).double()
    with pytest.raises(ValueError, match="fisher='batch' is the square of one gradient"):
        kronecker(module, X, fisher="batch")


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("inputs", lambda one: 2 * one, "no orthonormal columns"),
        ("outputs", lambda one: one[:1], "differs in shape"),
        ("input_values", lambda one: -one - 1, "negative"),
        ("output_values", lambda one: one * float("inf"), "not finite"),
        ("share", lambda one: one[0], "differs in shape"),
    ],
)
def test_a_basis_that_is_none_is_refused(part, change, message):
    torch.manual_seed(0)
    module, X = MODULES["linear layers"][0]().double(), torch.randn(20, 3).double()
    A = kronecker(module, X)
    state = A.state_dict()
    state[f"0.weight@{part}"] = change(state[f"0.weight@{part}"])
    with pytest.raises(ValueError, match=f"{message} at '0.weight@{part}'"):
        type(A).from_state_dict(state).over(trained(module))
