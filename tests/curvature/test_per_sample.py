"""The rules for sums of squared per-sample gradients; their values are tested with the Fisher."""

import weakref

import pytest
import torch
from torch import nn

from sklearn_ewc import MLP
from sklearn_ewc.curvature.layers import is_chain
from sklearn_ewc.curvature.per_sample import (
    fastest_rule,
    layerwise,
    one_by_one,
    summed_gradient,
    vectorised,
)
from sklearn_ewc.tensors import call

from .test_fisher import CONVOLUTIONS, module_and_inputs, normal


def summed(rule, module, params, X, cotangents):
    sums = {name: torch.zeros_like(p, requires_grad=False) for name, p in params.items()}
    rule(module, params, sums)(X, cotangents)
    return sums


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("mlp", layerwise),
        ("in-place", layerwise),
        ("reused layer", vectorised),
        ("reused weight", vectorised),
        ("three axes", layerwise),
        ("layer norm", vectorised),
        ("lstm", vectorised),
        ("gru", vectorised),
    ],
)
def test_the_fast_identity_is_used_only_where_it_holds(name, rule):
    module, X = module_and_inputs(name)
    params = dict(module.named_parameters())
    assert fastest_rule(module, params, X) is rule


@pytest.mark.parametrize("rule", [layerwise, vectorised, one_by_one])
def test_all_rules_agree_with_the_squares_of_single_gradients(rule):
    module, X = module_and_inputs("mlp")
    params = dict(module.named_parameters())

    def cotangents(output):
        return [torch.ones_like(output), torch.sin(output)]

    found = summed(rule, module, params, X, cotangents)
    for name in params:
        expected = sum(
            summed(
                summed_gradient, module, params, X[n : n + 1], lambda f, r=r: [cotangents(f)[r]]
            )[name]
            ** 2
            for n in range(len(X))
            for r in range(2)
        )
        torch.testing.assert_close(found[name], expected)


@pytest.mark.parametrize("rule", [layerwise, vectorised, one_by_one])
def test_one_vector_is_alive_at_a_time(rule):
    module, X = module_and_inputs("mlp")
    alive = []

    def cotangents(output):
        for _ in range(5):
            assert sum(vector() is not None for vector in alive) <= 1
            vector = torch.ones_like(output)
            alive.append(weakref.ref(vector))
            yield vector
            del vector

    summed(rule, module, dict(module.named_parameters()), X, cotangents)
    assert len(alive) == 5


class Recurrent(nn.Module):
    def __init__(self, cell, **options):
        super().__init__()
        self.cell = cell(3, 5, batch_first=True, **options)
        self.head = nn.LazyLinear(2)

    def forward(self, X):
        return self.head(self.cell(X)[0].mean(1))


@pytest.mark.parametrize("frozen", ["nothing", "weight_hh", "bias_hh", "_l0"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("cell", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recurrent_layers_go_by_the_fastest_rule_that_is_right(dtype, cell, options, frozen):
    module, X = Recurrent(cell, **options).to(dtype), normal(5, 4, 3).to(dtype)
    module(X)
    for name, p in module.named_parameters():
        p.requires_grad_(frozen not in name)
    params = {name: p for name, p in module.named_parameters() if p.requires_grad}
    rule = fastest_rule(module, params, X)
    if frozen == "nothing":  # oneDNN's LSTM is one operation
        is_one = cell is nn.LSTM and dtype == torch.float32
        assert rule is (one_by_one if is_one else vectorised)
    found, expected = (
        summed(one, module, params, X, lambda output: [torch.ones_like(output), torch.sin(output)])
        for one in (rule, one_by_one)
    )
    torch.testing.assert_close(found, expected)


def test_the_gradients_of_single_samples_fill_a_bounded_number_at_a_time(monkeypatch):
    module, X = module_and_inputs("layer norm")
    params = dict(module.named_parameters())
    whole = summed(vectorised, module, params, X, lambda output: [torch.sin(output)])
    n_numbers, widest = sum(p.numel() for p in params.values()), []
    monkeypatch.setattr("sklearn_ewc.curvature.per_sample._CHUNK", 2 * n_numbers)
    squared = torch.Tensor.square
    monkeypatch.setattr(
        torch.Tensor, "square", lambda value: widest.append(len(value)) or squared(value)
    )
    found = summed(vectorised, module, params, X, lambda output: [torch.sin(output)])
    assert max(widest) == 2
    torch.testing.assert_close(found, whole)


@pytest.mark.parametrize(("layer", "shape", "options"), CONVOLUTIONS)
def test_the_fast_identity_holds_for_convolutions_that_pad_with_zeros(layer, shape, options):
    module = layer(shape[0], 4, 3, **options).double()
    is_known = layer is not nn.ConvTranspose1d and not {"same", "circular"} & {*options.values()}
    rule = fastest_rule(module, dict(module.named_parameters()), normal(5, *shape))
    assert (rule is layerwise) == is_known


class Squeezes(nn.Module):
    def __init__(self, n_outputs):
        super().__init__()
        self.layer = nn.Linear(4, n_outputs)

    def forward(self, X):
        return self.layer(X).squeeze()


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_a_module_may_squeeze_the_axis_of_a_single_sample(n_outputs):
    module, X = Squeezes(n_outputs).double(), normal(5, 4)
    params = dict(module.named_parameters())
    assert fastest_rule(module, params, X) is layerwise
    fast, vmapped, slow = (
        summed(rule, module, params, X, lambda output: [torch.sin(output)])
        for rule in (layerwise, vectorised, one_by_one)
    )
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(vmapped, slow)


def test_a_layer_is_seen_before_hooks_that_replace_its_output():
    module, X = module_and_inputs("mlp")
    module[0].register_forward_hook(lambda layer, inputs, output: 2 * output)
    assert fastest_rule(module, dict(module.named_parameters()), X) is layerwise


def test_a_module_whose_output_has_another_shape_for_one_sample_is_left_to_slower_rules():
    module, X = SeesLengths(0).double(), normal(6, 6, 3)
    module.forward = lambda X: module.layer(X).transpose(0, 1).tanh()
    assert fastest_rule(module, dict(module.named_parameters()), X) is not layerwise


class OverwritesLargeOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, X):
        output = self.layer(X)
        return output.mul_(2.0) if X.abs().max() > 10 else output


@pytest.mark.parametrize("shape", [(5, 3), (5, 4, 3)])
def test_what_one_batch_writes_over_need_not_be_what_the_first_one_did(shape):
    module, X = OverwritesLargeOutputs().double(), normal(*shape)
    params = dict(module.named_parameters())
    assert fastest_rule(module, params, X) is layerwise
    found, expected = ({n: torch.zeros_like(p.data) for n, p in params.items()} for _ in range(2))
    for rule, sums in ((layerwise, found), (one_by_one, expected)):
        add = rule(module, params, sums)
        for batch in (X, 100 + X):
            add(batch, lambda output: [torch.ones_like(output)])
    torch.testing.assert_close(found, expected)


class SeesLengths(nn.Module):
    """Swaps steps and samples from a number of samples on."""

    def __init__(self, length):
        super().__init__()
        self.length, self.layer = length, nn.Linear(3, 2)

    def forward(self, X):
        if len(X) >= self.length:
            return self.layer(X.transpose(0, 1)).tanh().sum(0)
        return self.layer(X).tanh().sum(1)


@pytest.mark.parametrize("size", [2, 4, 40])
def test_rows_are_taken_for_samples_after_a_comparison_of_values_only(size):
    module, X = SeesLengths(0).double(), normal(size, size, 3)
    assert fastest_rule(module, dict(module.named_parameters()), X) is not layerwise


@pytest.mark.parametrize("X", [torch.ones(6, 6, 3), torch.ones(40, 4, 3)])
def test_rows_that_are_all_equal_prove_nothing(X):
    module, X = SeesLengths(0).double(), X.double()
    assert fastest_rule(module, dict(module.named_parameters()), X) is not layerwise


def test_gradients_of_zero_prove_nothing():
    module, X = module_and_inputs("mlp")
    nn.init.zeros_(module[2].weight)
    module = nn.Sequential(module, Doubled())  # no chain: it is tried
    assert fastest_rule(module, dict(module.named_parameters()), X) is not layerwise


@pytest.mark.parametrize("equal_rows", [False, True])
@pytest.mark.parametrize("size", [2, 6, 50])
def test_every_size_of_batch_is_tried_anew(size, equal_rows):
    module, first = SeesLengths(size).double(), normal(size - 1, size, 3)
    X = normal(size, size, 3)
    if equal_rows:
        X = X[:1, :1].expand_as(X)
    params = dict(module.named_parameters())
    assert fastest_rule(module, params, first) is layerwise
    signs = torch.linspace(-1, 2, size, dtype=X.dtype).unsqueeze(1)

    def cotangents(output):
        return [torch.ones_like(output) * signs[: len(output)]]

    found, expected = ({n: torch.zeros_like(p.data) for n, p in params.items()} for _ in range(2))
    for rule, sums in ((layerwise, found), (one_by_one, expected)):
        add = rule(module, params, sums)
        add(first, cotangents)
        add(X, cotangents)
    torch.testing.assert_close(found, expected)


def test_a_module_gets_a_dict_by_keyword():
    module, X = module_and_inputs("dict")
    assert torch.equal(call(module, X), module(**X))


def chain(*between):
    return nn.Sequential(nn.Linear(4, 3), *between, nn.Linear(3, 2)).double()


def test_a_chain_of_layers_needs_no_trial():
    assert is_chain(chain(nn.ReLU(inplace=True), nn.Dropout(0.5)), normal(5, 4))
    assert is_chain(nn.Sequential(chain(nn.Tanh()), nn.Linear(2, 1)), normal(5, 4))
    assert is_chain(MLP(4, 2), normal(5, 4))


LAYER, TIED = nn.Linear(3, 3), nn.Linear(3, 3)
TIED.weight = LAYER.weight


class Doubled(nn.Sequential):
    def forward(self, X):
        return 2 * super().forward(X)


@pytest.mark.parametrize(
    "module",
    [
        chain(LAYER, nn.Tanh(), LAYER),
        chain(LAYER, nn.Tanh(), TIED),
        chain(nn.Softmax(0)),
        chain(nn.BatchNorm1d(3)),
        chain(Doubled(nn.Linear(3, 3))),
        chain(Doubled()),
        chain(type("Own", (nn.Linear,), {})(3, 3)),
        chain(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))),
    ],
    ids=str,
)
def test_what_is_more_than_a_chain_is_tried(module):
    assert not is_chain(module, normal(5, 4))


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_chain_with_hooks_is_tried(register):
    module = chain(nn.Tanh())
    getattr(module[1], register)(lambda *_: None)
    assert not is_chain(module, normal(5, 4))
    assert not is_chain(chain(nn.Tanh()), normal(5, 6, 4))
