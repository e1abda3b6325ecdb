"""The Fisher estimators, against one autograd call per sample."""

import copy
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sklearn_ewc import diagonal_fisher
from sklearn_ewc.curvature import curvature_of

from .. import reference

N_SAMPLES = 7


class Recurrent(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell = cell(3, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, X):
        return self.head(self.cell(X)[0][:, -1])


class UsesALayerTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, X):
        return self.head(torch.tanh(self.body(torch.tanh(self.body(X)))))


class UsesAWeightOutsideItsLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 2)
        self.decoder = nn.Linear(2, 4)

    def forward(self, X):
        code = torch.tanh(self.encoder(X))
        return code + self.decoder(code) @ self.encoder.weight.T


class TakesADict(nn.Module):
    def __init__(self):
        super().__init__()
        self.site = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, signal, site):
        return self.head(torch.tanh(signal + self.site(site)))


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def module_and_inputs(name):
    torch.manual_seed(0)
    flat, signal, sequence = normal(N_SAMPLES, 4), normal(N_SAMPLES, 2, 6), normal(N_SAMPLES, 5, 3)
    module, X = {
        "mlp": lambda: (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), flat),
        "in-place": lambda: (nn.Sequential(nn.Linear(4, 6), nn.ReLU(True), nn.Linear(6, 2)), flat),
        "no bias": lambda: (nn.Linear(4, 2, bias=False), flat),
        "reused layer": lambda: (UsesALayerTwice(), flat),
        "reused weight": lambda: (UsesAWeightOutsideItsLayer(), flat),
        "convolution": lambda: (
            nn.Sequential(
                nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)
            ),
            signal,
        ),
        "dropout": lambda: (
            nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 2)),
            flat,
        ),
        "layer norm": lambda: (
            nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 2)),
            flat,
        ),
        "three axes": lambda: (
            nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Flatten(), nn.Linear(20, 2)),
            sequence,
        ),
        "lstm": lambda: (Recurrent(nn.LSTM), sequence),
        "gru": lambda: (Recurrent(nn.GRU), sequence),
        "dict": lambda: (TakesADict(), {"signal": flat, "site": torch.arange(N_SAMPLES) % 5}),
    }[name]()
    return module.double(), X


MODULES = [
    "mlp",
    "in-place",
    "no bias",
    "reused layer",
    "reused weight",
    "convolution",
    "dropout",
    "layer norm",
    "three axes",
    "lstm",
    "gru",
    "dict",
]


class CoupledLoss(nn.Module):
    """A criterion that mixes the outputs and knows no ``reduction``."""

    def forward(self, output, target):
        return (torch.logsumexp(output - target, 1) + (output - target).square().sum(1)).mean()


def take(X, rows):
    return {key: value[rows] for key, value in X.items()} if isinstance(X, dict) else X[rows]


def in_batches(size, X, *rest):
    slices = [slice(start, start + size) for start in range(0, len(rest[0]), size)]
    return [(take(X, rows), *(value[rows] for value in rest)) for rows in slices]


KINDS = ("exact", "empirical", "batch")  # those that draw nothing
TARGET = normal(N_SAMPLES, 2) + 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODULES)
def test_fisher_equals_one_autograd_call_per_sample(name, kind):
    module, X = module_and_inputs(name)
    found = diagonal_fisher(module, nn.MSELoss(), in_batches(4, X, TARGET), kind)
    expected = reference.fisher(module, nn.MSELoss(), X, TARGET, kind)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "criterion",
    [nn.HuberLoss(), nn.SmoothL1Loss(), nn.MSELoss(reduction="sum"), CoupledLoss()],
    ids=["huber", "smooth L1", "sum", "coupled"],
)
def test_any_criterion_gives_its_own_fisher(criterion, kind):
    module, X = module_and_inputs("mlp")
    found = diagonal_fisher(module, criterion, in_batches(4, X, TARGET), kind)
    expected = reference.fisher(module, criterion, X, TARGET, kind)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_weighted_fisher_is_a_weighted_mean(kind):
    module, X = module_and_inputs("mlp")
    weight = torch.tensor([0.0, 1.0, 2.0, 0.5, 3.0, 0.0, 1.0], dtype=torch.float64)
    found = diagonal_fisher(module, nn.MSELoss(), in_batches(3, X, TARGET, weight), kind)
    expected = reference.fisher(module, nn.MSELoss(), X, TARGET, kind, weight)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
@given(size=st.integers(1, 2 * N_SAMPLES), order=st.permutations(range(N_SAMPLES)))
def test_fisher_depends_neither_on_batch_size_nor_on_order(kind, size, order):
    module, X = module_and_inputs("mlp")
    whole = diagonal_fisher(module, nn.MSELoss(), [(X, TARGET)], kind)
    batches = in_batches(size, X[order], TARGET[order])
    torch.testing.assert_close(diagonal_fisher(module, nn.MSELoss(), batches, kind), whole)


@given(seed=st.integers(0, 2**31 - 1), kind=st.sampled_from(KINDS))
def test_fisher_is_never_negative_even_where_the_criterion_is_not_convex(seed, kind):
    torch.manual_seed(seed)
    module = nn.Linear(4, 2)

    def wavy(output, target):
        return torch.cos(3 * (output - target).sum(1)).mean()

    fisher = diagonal_fisher(module, wavy, [(torch.randn(5, 4), torch.randn(5, 2))], kind)
    assert all((value >= 0).all() for value in fisher.values())


def test_exact_fisher_of_a_linear_model_is_the_hessian_diagonal_of_its_loss():
    X, y = normal(N_SAMPLES, 4), TARGET
    module = nn.Linear(4, 2).double()
    criterion = nn.MSELoss()

    def loss(weight):
        return criterion(nn.functional.linear(X, weight, module.bias), y)

    hessian = torch.autograd.functional.hessian(loss, module.weight.detach()).reshape(8, 8)
    fisher = diagonal_fisher(module, criterion, [(X, y)])
    torch.testing.assert_close(fisher["weight"].flatten(), hessian.diagonal())


def test_exact_fisher_stays_where_the_fit_is_perfect_and_the_others_vanish():
    module, X = module_and_inputs("mlp")
    perfect = module(X).detach()
    for kind in KINDS:
        fisher = diagonal_fisher(module, nn.MSELoss(), [(X, perfect)], kind)
        assert any(value.any() for value in fisher.values()) == (kind == "exact")


def test_the_sampled_fisher_is_the_exact_one_where_there_is_one_output():
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    data = [(normal(N_SAMPLES, 4), TARGET[:, :1])]
    exact, sampled = (
        diagonal_fisher(module, nn.MSELoss(), data, kind) for kind in ("exact", "sampled")
    )
    torch.testing.assert_close(sampled, exact)


@pytest.mark.parametrize("criterion", [nn.MSELoss(), CoupledLoss()])
def test_the_sampled_fisher_averages_to_the_exact_one_over_all_signs(criterion):
    """With two outputs a draw is one of two signs: their mean over both is the exact Fisher."""
    module, X = module_and_inputs("mlp")
    exact = diagonal_fisher(module, criterion, [(X, TARGET)])
    draws = [
        curvature_of(
            module,
            criterion,
            [(X[n : n + 1], TARGET[n : n + 1])],
            fisher="sampled",
            generator=torch.Generator().manual_seed(seed),
        ).diagonal()
        for n in range(N_SAMPLES)
        for seed in _seeds_of_both_signs()
    ]
    for name, value in exact.items():
        torch.testing.assert_close(torch.stack([draw[name] for draw in draws]).mean(0), value)


def _seeds_of_both_signs():
    """Return a seed whose first two signs agree, and one where they differ."""
    agree = {
        bool(signs[0] == signs[1]): seed
        for seed in range(20)
        for signs in [torch.randint(2, (2, 1), generator=torch.Generator().manual_seed(seed))]
    }
    return agree[True], agree[False]


def test_the_sampled_fisher_draws_from_its_generator_alone():
    module, X = module_and_inputs("mlp")
    state = torch.get_rng_state()
    one, same, other = (
        curvature_of(
            module,
            nn.MSELoss(),
            [(X, TARGET)],
            fisher="sampled",
            generator=torch.Generator().manual_seed(seed),
        ).diagonal()
        for seed in (1, 1, 2)
    )
    torch.testing.assert_close(one, same, rtol=0, atol=0)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_parameters_are_left_out(kind):
    module, X = module_and_inputs("mlp")
    module[0].weight.requires_grad_(False)
    module[2].bias.requires_grad_(False)
    fisher = diagonal_fisher(module, nn.MSELoss(), [(X, TARGET)], kind)
    assert fisher.keys() == {"0.bias", "2.weight"}
    expected = reference.fisher(module, nn.MSELoss(), X, TARGET, kind)
    torch.testing.assert_close(fisher, expected)


def test_the_module_comes_back_as_it_was():
    module, X = module_and_inputs("convolution")
    module.train()
    module[1].eval()
    state = copy.deepcopy(module.state_dict())
    diagonal_fisher(module, nn.MSELoss(), [(X, TARGET)])
    assert [part.training for part in module] == [True, False, True, True, True]
    torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0)
    assert all(p.grad is None for p in module.parameters())
    assert not any(part._forward_hooks for part in module.modules())


def test_the_mode_comes_back_after_an_error_too():
    module, X = module_and_inputs("mlp")
    module.train()
    with pytest.raises(RuntimeError):
        diagonal_fisher(module, nn.MSELoss(), [(X[:, :2], TARGET)])
    assert module.training


def test_batches_are_seen_once_and_one_at_a_time():
    module, X = module_and_inputs("mlp")
    X, target = X.repeat(80, 1), TARGET.repeat(80, 1)
    seen = []

    def stream():
        for _ in range(5):
            assert sum(batch() is not None for batch in seen) <= 1
            batch = X.clone()
            seen.append(weakref.ref(batch))
            yield batch, target

    streamed = diagonal_fisher(module, nn.MSELoss(), stream())
    torch.testing.assert_close(streamed, diagonal_fisher(module, nn.MSELoss(), [(X, target)]))


CONVOLUTIONS = [
    (nn.Conv1d, (2, 7), {"stride": 2, "padding": 1}),
    (nn.Conv1d, (2, 9), {"dilation": 2, "groups": 2}),
    (nn.Conv1d, (2, 7), {"padding": "same"}),
    (nn.Conv2d, (2, 5, 6), {"stride": (1, 2), "padding": (0, 2), "bias": False}),
    (nn.Conv2d, (4, 5, 5), {"groups": 2, "dilation": 2, "padding": 2}),
    (nn.Conv2d, (2, 5, 5), {"padding": 1, "padding_mode": "circular"}),
    (nn.Conv3d, (2, 4, 4, 5), {"padding": 1, "stride": 2}),
    (nn.Conv1d, (4, 7), {"stride": 2, "padding": 1}),
    (nn.Conv2d, (8, 5, 6), {"groups": 2, "stride": (1, 2), "padding": (0, 2)}),
    (nn.Conv3d, (4, 4, 4, 5), {"padding": 1, "dilation": (1, 2, 1)}),
    (nn.ConvTranspose1d, (2, 4), {"stride": 2}),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("layer", "shape", "options"), CONVOLUTIONS)
def test_convolutions_of_every_geometry_equal_one_autograd_call_per_sample(
    layer, shape, options, kind
):
    torch.manual_seed(0)
    X = normal(N_SAMPLES, *shape)
    convolution = layer(shape[0], 4, 3, **options).double()
    n_features = convolution(X)[0].numel()
    module = nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.Linear(n_features, 2).double())
    found = diagonal_fisher(module, nn.MSELoss(), in_batches(3, X, TARGET), kind)
    expected = reference.fisher(module, nn.MSELoss(), X, TARGET, kind)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_can_be_added_up_over_processes_before_they_are_divided(kind):
    module, X = module_and_inputs("mlp")
    halves = [(X[:3], TARGET[:3]), (X[3:], TARGET[3:])]
    shares = []

    def noted(tensors):
        shares.append({name: tensor.clone() for name, tensor in tensors.items()})
        return tensors

    diagonal_fisher(module, nn.MSELoss(), halves[1:], kind, reduce=noted)
    others = iter(shares)

    def added(tensors):
        other = next(others)
        return {name: tensor + other[name] for name, tensor in tensors.items()}

    found = diagonal_fisher(module, nn.MSELoss(), halves[:1], kind, reduce=added)
    torch.testing.assert_close(found, diagonal_fisher(module, nn.MSELoss(), halves, kind))


def test_fisher_has_the_dtype_of_the_parameters():
    module = nn.Linear(4, 2)
    fisher = diagonal_fisher(module, nn.MSELoss(), [(torch.ones(3, 4), torch.zeros(3, 2))])
    assert {value.dtype for value in fisher.values()} == {torch.float32}


def test_what_cannot_be_computed_is_refused():
    module, X = module_and_inputs("mlp")
    with pytest.raises(ValueError, match="'exact', 'empirical', 'batch'.*'Exact'"):
        diagonal_fisher(module, nn.MSELoss(), [(X, TARGET)], "Exact")
    with pytest.raises(ValueError, match="at least one sample"):
        diagonal_fisher(module, nn.MSELoss(), [])
    with pytest.raises(ValueError, match="positive weight"):
        diagonal_fisher(module, nn.MSELoss(), [(X, TARGET, torch.zeros(N_SAMPLES))])
    with pytest.raises(TypeError, match="one tensor, got tuple"):
        diagonal_fisher(nn.LSTM(4, 2).double(), nn.MSELoss(), [(X, TARGET)])
