"""The Fisher of modules that do unusual things, and what is left in them."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import prune, spectral_norm, weight_norm

from sklearn_ewc import diagonal_fisher

from .. import reference
from .test_fisher import in_batches, normal

SIZE = 4


class Module(nn.Module):
    """Two layers between which ``body`` is free to do what it likes with its inputs."""

    def __init__(self, body):
        super().__init__()
        self.first, self.second, self.body = nn.Linear(3, 4), nn.Linear(4, 2), body
        self.double()

    def forward(self, X):
        return self.body(self, X)


def swaps_axes(module, X):
    return module.second(torch.tanh(module.first(X.transpose(0, 1))).mean(0))


def swaps_axes_to_the_end(module, X):
    return module.second(torch.tanh(module.first(X.transpose(0, 1)))).mean(0)


def folds_steps_into_samples(module, X):
    flat = torch.tanh(module.first(X.reshape(-1, X.shape[-1])))
    return module.second(flat.reshape(*X.shape[:2], -1).mean(1))


def folds_samples_into_steps(module, X):
    flat = torch.tanh(module.first(X.transpose(0, 1).reshape(-1, X.shape[-1])))
    return module.second(flat.reshape(X.shape[1], X.shape[0], -1).mean(0))


def rolls_rows(module, X):
    return module.second(torch.tanh(module.first(X.roll(1, 0)).roll(-1, 0))).mean(1)


def rolls_rows_for_good(module, X):
    return module.second(torch.tanh(module.first(X))).mean(1).roll(1, 0)


def turns_rows_round(module, X):
    return module.second(torch.tanh(module.first(X.flip(0)))).mean(1)


def subtracts_the_mean_of_the_batch(module, X):
    return module.second(torch.tanh(module.first(X - 0.5 * X.mean(0)))).mean(1)


def normalises_outputs_over_the_batch(module, X):
    output = module.second(torch.tanh(module.first(X))).mean(1)
    return output - 0.5 * output.mean(0)


def normalises_what_vmap_cannot_take(module, X):
    return normalises_outputs_over_the_batch(module, X) * (1 if X.sum() > 0 else -1)


def attends_to_other_rows(module, X):
    hidden = torch.tanh(module.first(X)).mean(1)
    return module.second(torch.softmax(hidden @ hidden.T, 1) @ hidden)


def tells_the_last_batch_from_others(module, X):
    return swaps_axes(module, X) if len(X) < SIZE else folds_steps_into_samples(module, X)


def calls_by_keyword(module, X):
    return module.second(input=torch.tanh(module.first(input=X))).mean(1)


def writes_over_its_input(module, X):
    X.mul_(2.0)
    return module.second(torch.tanh(module.first(X))).mean(1)


def writes_over_a_view_of_its_input(module, X):
    X[:, 0].add_(1.0)
    return module.second(torch.relu_(module.first(X))).mean(1)


def writes_over_what_layers_give(module, X):
    hidden = module.first(X)
    hidden[..., 0] = 1.0
    return module.second(hidden.mul_(2.0).tanh_()).mul_(0.5).mean(1)


def computes_a_layer_without_gradient(module, X):
    with torch.no_grad():
        hidden = torch.tanh(module.first(X))
    return module.second(hidden).mean(1)


@pytest.mark.parametrize("kind", ["exact", "empirical"])
@pytest.mark.parametrize("n_steps", [1, 2, SIZE])
@pytest.mark.parametrize(
    "body",
    [
        swaps_axes,
        swaps_axes_to_the_end,
        folds_steps_into_samples,
        folds_samples_into_steps,
        rolls_rows,
        rolls_rows_for_good,
        turns_rows_round,
        subtracts_the_mean_of_the_batch,
        normalises_outputs_over_the_batch,
        normalises_what_vmap_cannot_take,
        attends_to_other_rows,
        tells_the_last_batch_from_others,
        calls_by_keyword,
        writes_over_its_input,
        writes_over_a_view_of_its_input,
        writes_over_what_layers_give,
        computes_a_layer_without_gradient,
    ],
)
def test_every_sample_counts_as_if_it_were_alone(body, n_steps, kind):
    module = Module(body)
    X, y = normal(2 * SIZE + 2, n_steps, 3), normal(2 * SIZE + 2, 2) + 0.5
    X[:2] = X[2]  # some rows are equal, and the last batch is smaller
    kept = X.clone()
    found = diagonal_fisher(module, nn.MSELoss(), in_batches(SIZE, X, y), kind)
    assert torch.equal(X, kept)
    expected = reference.fisher(module, nn.MSELoss(), kept.clone(), y, kind)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["exact", "empirical"])
def test_a_batch_of_equal_rows_does_not_hide_that_axes_are_swapped(kind):
    module, y = Module(swaps_axes), normal(2 * SIZE, 2)
    X = torch.cat([torch.ones(SIZE, SIZE, 3), normal(SIZE, SIZE, 3)])
    found = diagonal_fisher(module, nn.MSELoss(), in_batches(SIZE, X, y), kind)
    torch.testing.assert_close(found, reference.fisher(module, nn.MSELoss(), X, y, kind))


def test_an_activation_that_changes_nothing_at_first_may_write_over_a_layer_later():
    module = nn.Sequential(nn.Linear(1, 2), nn.ReLU(inplace=True), nn.Linear(2, 1)).double()
    nn.init.ones_(module[0].weight)
    X, y = torch.linspace(5, -5, 80).double().unsqueeze(1), normal(80, 1)
    found = diagonal_fisher(module, nn.MSELoss(), [(X, y)], "empirical")
    expected = reference.fisher(module, nn.MSELoss(), X, y, "empirical")
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["exact", "empirical", "batch"])
def test_the_tensors_of_the_caller_stay_as_they_are(kind):
    class TakesADict(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, a, b):
            return self.layer(a.mul_(2.0) + b.add_(1.0))

    X = {"a": normal(5, 3).float(), "b": normal(5, 6).float()[:, ::2]}
    kept, y = copy.deepcopy(X), normal(5, 2).float()
    diagonal_fisher(TakesADict(), nn.MSELoss(), [(X, y)], kind)
    torch.testing.assert_close(X, kept, rtol=0, atol=0)


class Keeps(nn.Module):
    """A module that keeps what it computes in every way an attribute can."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.attention, self.hidden, self.calls = None, (torch.zeros(2),) * 2, 0
        self.outputs, self.by_name = [], {"nested": []}
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("last", torch.zeros(2))

    def forward(self, X):
        output = self.layer(X)
        self.calls += 1
        self.count += 1
        self.last = output[0]
        self.attention, self.hidden = output.softmax(1), (output, output)
        self.outputs.append(output)
        self.by_name["nested"].append(output)
        self.by_name[self.calls] = output
        return output


def pruned():
    layer = nn.Linear(3, 2)
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def weight_normed():
    with pytest.warns(FutureWarning):
        return weight_norm(nn.Linear(3, 2))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("kind", ["exact", "empirical", "batch"])
@pytest.mark.parametrize(
    "make", [Keeps, pruned, weight_normed, lambda: spectral_norm(nn.Linear(3, 2))]
)
def test_nothing_of_the_pass_stays_in_the_module(make, kind):
    module, X, y = make(), normal(5, 3).float(), normal(5, 2).float()
    module(X).sum().backward()  # as training leaves it: with graphs
    attributes = {key: copy.copy(value) for key, value in vars(module).items() if key[0] != "_"}
    state = copy.deepcopy(module.state_dict())
    gradients = [p.grad.clone() for p in module.parameters()]
    diagonal_fisher(module, nn.MSELoss(), [(X, y)] * 2, kind)
    copy.deepcopy(module)
    pickle.dumps(module)
    torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0)
    torch.testing.assert_close([p.grad for p in module.parameters()], gradients, rtol=0, atol=0)
    found = {key: value for key, value in vars(module).items() if key[0] != "_"}
    torch.testing.assert_close(found, attributes, rtol=0, atol=0)


def test_an_interrupt_between_two_hooks_leaves_none(monkeypatch):
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    register, n_calls = nn.Module.register_forward_hook, []

    def interrupted(self, *args, **kwargs):
        handle = register(self, *args, **kwargs)
        n_calls.append(1)
        if len(n_calls) == 2:
            raise KeyboardInterrupt
        return handle

    monkeypatch.setattr(nn.Module, "register_forward_hook", interrupted)
    with pytest.raises(KeyboardInterrupt):
        diagonal_fisher(module, nn.MSELoss(), [(normal(5, 3).float(), torch.ones(5, 2))])
    assert not any(part._forward_hooks or part._forward_hooks_with_kwargs for part in module)
    assert all(part.training for part in module)


@pytest.mark.parametrize("enabled", [True, False])
def test_an_interrupt_as_gradients_are_switched_leaves_them_as_they_were(monkeypatch, enabled):
    class Interrupts(nn.Linear):
        def forward(self, X):
            torch.set_grad_enabled(not enabled)
            raise KeyboardInterrupt

    with torch.set_grad_enabled(enabled):
        with pytest.raises(KeyboardInterrupt):
            diagonal_fisher(Interrupts(3, 2), nn.MSELoss(), [(torch.ones(5, 3), torch.ones(5, 2))])
        assert torch.is_grad_enabled() == enabled
