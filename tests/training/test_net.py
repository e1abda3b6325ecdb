"""Modules, datasets, weights and randomness: what a net learns tasks from."""

import warnings

import numpy as np
import pytest
import torch
from skorch import NeuralNet
from skorch.callbacks import (
    EpochScoring,
)
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import SliceDataset, predefined_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sklearn_ewc import MLP, EWCRegressor, Memory

from ..helpers import learn, parameters, parameters_of, quick, unscaled

# modules


def test_the_users_instance_is_copied_and_never_trained(tasks):
    module = MLP(1, hidden_layer_sizes=(8,))
    before = parameters_of(module).clone()
    net = learn(quick(module=module), tasks[:2])
    assert torch.equal(parameters_of(module), before)
    assert module.layers[0].weight.dtype == torch.float32
    assert not torch.equal(parameters(net).float(), before)


def test_a_users_class_gets_the_sizes_it_leaves_open(tasks):
    class Own(nn.Module):
        def __init__(self, n_features, width=3, n_outputs=5):
            super().__init__()
            self.hidden = nn.Linear(n_features, width)
            self.out = nn.Linear(width, n_outputs)

        def forward(self, X):
            return self.out(torch.tanh(self.hidden(X)))

    net = learn(quick(module=Own, module__width=4), tasks[:2])
    assert net.module_.hidden.weight.shape == (4, 1)
    assert net.module_.out.weight.shape == (1, 4)
    X = np.zeros((4, 2))
    assert quick(module=nn.Linear).fit(X, X).module_.weight.shape == (2, 2)


def test_frozen_parameters_stay_and_are_not_stored(tasks):
    module = MLP(1, hidden_layer_sizes=(8,))
    module.layers[0].requires_grad_(False)
    net = learn(quick(module=module, ewc_lambda=10.0), tasks[:2])
    assert torch.equal(net.module_.layers[0].weight.float(), module.layers[0].weight)
    assert net.memory_.tasks[1].fisher.keys() == {"layers.2.weight", "layers.2.bias"}


@pytest.mark.parametrize("fisher", ["exact", "empirical", "batch"])
def test_convolution_batch_norm_and_dropout_learn_tasks(fisher):
    rng = np.random.RandomState(0)
    X = rng.randn(60, 2, 8).astype(np.float32)
    y = X.mean((1, 2))
    module = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten()
    ).append(nn.Linear(24, 1))
    net = quick(module=module, fisher=fisher, ewc_lambda=10.0, max_epochs=20)
    net.fit(X, y, task=np.arange(60) % 2)
    assert net.n_tasks_ == 2
    assert net.predict(X).shape == (60,)


def test_a_dict_of_arrays_reaches_the_module_by_keyword():
    class Sites(nn.Module):
        def __init__(self):
            super().__init__()
            self.site = nn.Embedding(3, 4)
            self.out = nn.Linear(5, 1)

        def forward(self, signal, site):
            return self.out(torch.cat([signal, self.site(site)], dim=1))

    rng = np.random.RandomState(0)
    X = {"signal": rng.randn(40, 1), "site": np.arange(40) % 3}
    y = X["signal"].ravel() + X["site"]
    net = quick(module=Sites, lr=0.1, max_epochs=50).fit(X, y, task=np.arange(40) % 2)
    assert net.n_tasks_ == 2
    assert np.corrcoef(net.predict(X), y)[0, 1] > 0.95


def test_a_torch_dataset_is_learned_like_the_arrays_it_holds(tasks):
    net, expected = quick(ewc_lambda=10.0), quick(ewc_lambda=10.0)
    for X, y in tasks[:2]:
        net.partial_fit(TensorDataset(torch.as_tensor(X), torch.as_tensor(y).unsqueeze(1)))
        expected.partial_fit(X, y)
    assert torch.equal(parameters(net), parameters(expected))
    assert net.predict(TensorDataset(torch.zeros(3, 1, dtype=torch.float64))[:][0]).shape == (3, 1)


def test_weights_reach_the_loss_through_a_users_own_loader(tasks):
    X, y = tasks[0]
    weight = np.arange(len(y)) % 3
    options = {"batch_size": -1, "lr": 0.1, "optimizer": torch.optim.SGD}
    loaded = quick(iterator_train=DataLoader, **options).fit(X, y, sample_weight=weight)
    sliced = quick(**options).fit(X, y, sample_weight=weight)
    unweighted = quick(**options).fit(X, y)
    torch.testing.assert_close(parameters(loaded), parameters(sliced))
    assert not torch.allclose(parameters(loaded), parameters(unweighted))


def test_weights_reach_the_validation_loss(tasks):
    X, y = tasks[0]
    split = ValidSplit(4)
    net = quick(train_split=split, max_epochs=1, lr=0.0)
    weight = np.zeros(len(y))
    valid = split(net.fit(X, y).get_dataset(X, y))[1].indices
    weight[valid[0]] = weight[-1] = 1.0
    net.fit(X, y, sample_weight=weight)
    one = (net.predict(X[valid[:1]]) - y[valid[0]]) ** 2
    assert net.history[-1, "valid_loss"] == pytest.approx(one.item())


@pytest.mark.parametrize("part", ["training", "validation"])
def test_weights_are_means_over_the_part_of_the_task_that_they_are_in(tasks, part):
    X, y = tasks[0]
    split = ValidSplit(4)
    net = unscaled(train_split=split, ewc_lambda=10.0, batch_size=-1)
    train, valid = (part.indices for part in split(net.get_dataset(X, y)))
    weight = np.ones(len(y))
    weight[train if part == "training" else valid] = 100.0
    expected = unscaled(train_split=split, ewc_lambda=10.0, batch_size=-1)
    for X, y in tasks[:2]:
        net.partial_fit(X, y, sample_weight=weight)
        expected.partial_fit(X, y, sample_weight=np.ones(len(y)))
    torch.testing.assert_close(parameters(net), parameters(expected))
    np.testing.assert_allclose(net.history[:, "valid_loss"], expected.history[:, "valid_loss"])


def test_a_dataset_may_carry_its_weights(tasks):
    weight = np.arange(40) % 3 + 1.0
    net, expected = quick(ewc_lambda=10.0), quick(ewc_lambda=10.0)
    for X, y in tasks[:2]:
        net.partial_fit(TensorDataset(*map(torch.as_tensor, (X, y, 7 * weight))))
        expected.partial_fit(X, y, sample_weight=weight)
    torch.testing.assert_close(parameters(net), parameters(expected))


# what skorch's users do


def test_scores_of_callbacks_see_targets_and_predictions_of_one_shape(tasks):
    def mse(net, X, y):
        return np.mean((net.predict(X) - y) ** 2)

    scorings = [
        EpochScoring(mse, name="cached"),
        EpochScoring(mse, name="fresh", use_caching=False),
    ]
    net = quick(train_split=ValidSplit(4), callbacks=scorings)
    net.fit(*tasks[0], sample_weight=np.ones(40))
    assert net.history[-1, "cached"] == pytest.approx(net.history[-1, "valid_loss"])
    assert net.history[-1, "fresh"] == pytest.approx(net.history[-1, "valid_loss"])


def test_a_predefined_split_has_the_shape_of_the_targets(tasks):
    X, y = tasks[0]
    net = quick(train_split=predefined_split(Dataset(X.astype(np.float32), y))).fit(X, y)
    expected = np.mean((net.predict(X) - y) ** 2)
    assert net.history[-1, "valid_loss"] == pytest.approx(expected, rel=1e-4)
    wrong = predefined_split(Dataset(X, np.c_[y, y]))
    with pytest.raises(ValueError, match=r"\(40, 1\) for targets of shape \(40, 2\)|\(32, 1\)"):
        quick(train_split=wrong).fit(X, y)


class OverridesTheLoss(EWCRegressor):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return 2 * super().get_loss(y_pred, y_true, X=X, training=training)


class OverridesTheStep(EWCRegressor):
    def train_step_single(self, batch, **fit_params):
        self._set_training(True)
        X, y = batch
        y_pred = self.infer(X, **fit_params)
        loss = self.get_loss(y_pred, y, X=X, training=True)
        loss.backward()
        return {"loss": loss, "y_pred": y_pred}


def test_methods_that_skorchs_users_override_keep_the_penalty(tasks):
    def distance(cls, **kwargs):
        net = cls(hidden_layer_sizes=(8,), max_epochs=5, random_state=0, **kwargs)
        learn(net, tasks[:1])
        before = parameters(net).clone()
        return (parameters(learn(net, tasks[1:2])) - before).norm()

    for cls in (OverridesTheLoss, OverridesTheStep):
        assert distance(cls, ewc_lambda=1e4) < 0.9 * distance(cls, ewc_lambda=0.0)
    assert distance(OverridesTheStep, ewc_lambda=10.0) == distance(EWCRegressor, ewc_lambda=10.0)


def test_a_net_initialized_by_hand_takes_saved_parameters(tasks, tmp_path):
    X, y = (part.astype(np.float32) for part in tasks[0])
    net = unscaled().fit(X, y)
    net.save_params(f_params=tmp_path / "params")
    by_hand = unscaled(module__n_features=1, module__n_outputs=1).initialize()
    by_hand.load_params(f_params=tmp_path / "params")
    np.testing.assert_array_equal(by_hand.predict(X), net.predict(X))
    before = parameters(by_hand).clone()
    assert by_hand.set_params(max_epochs=0).partial_fit(X, y).n_tasks_ == 1
    assert torch.equal(parameters(by_hand), before)


def test_online_a_task_is_learned_under_the_running_fisher_at_the_last_anchor(tasks):
    options = {"ewc_lambda": 30.0, "max_epochs": 30}
    net = learn(quick(mode="online", gamma=0.5, **options), tasks[:3])
    expected = Memory(mode="online", gamma=0.5)
    for task in net.memory_.tasks:
        expected = expected.consolidate(task)
    probe = {name: p.detach() + 0.1 for name, p in net.module_.named_parameters()}
    torch.testing.assert_close(net.memory_.penalty(probe), expected.penalty(probe))
    offline = learn(quick(**options), tasks[:3])
    two = [learn(quick(mode=mode, **options), tasks[:2]) for mode in ("online", "offline")]
    assert torch.equal(*map(parameters, two))  # the modes part after the second task
    assert not torch.equal(parameters(net), parameters(offline))


def test_predictions_equal_those_of_skorchs_batches(tasks):
    net = unscaled(batch_size=7).partial_fit(*tasks[0])
    X = tasks[1][0]
    batches = list(NeuralNet.forward_iter(net, X))
    assert len(batches) == -(-len(X) // 7)
    assert len(list(net.forward_iter(X))) == 1
    expected = torch.cat(batches).flatten().numpy()
    np.testing.assert_allclose(net.predict(X), expected, rtol=1e-12)


def test_a_last_batch_too_small_for_batch_norm_can_be_dropped(tasks):
    module = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    X, y = tasks[0]
    net = quick(module=module, batch_size=13)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        net.fit(X, y)
    net.set_params(iterator_train__drop_last=True).fit(X, y)
    assert net.history[-1, "train_batch_count"] == 3


def test_a_datasets_own_collation_is_used(tasks):
    def doubled(rows):
        return tuple(2 * torch.as_tensor(np.stack(column)) for column in zip(*rows, strict=True))

    X, y = tasks[0]
    own = {"iterator_train__collate_fn": doubled, "iterator_valid__collate_fn": doubled}
    options = {"iterator_train__shuffle": False, "batch_size": 16}
    net = unscaled(**own, **options).fit(X, y)
    torch.testing.assert_close(parameters(net), parameters(unscaled(**options).fit(2 * X, 2 * y)))


def test_a_lazy_module_is_seeded():
    def module():
        return nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(1))

    X = np.ones((10, 3))
    before = torch.get_rng_state()
    nets = [quick(module=module).fit(X, X[:, 0]).partial_fit(X, X[:, 0]) for _ in range(2)]
    assert torch.equal(*map(parameters, nets))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_users_own_loader_shuffles_by_the_seed(tasks):
    before = torch.get_rng_state()
    options = {"iterator_train": DataLoader, "iterator_valid": DataLoader, "batch_size": 16}
    nets = [quick(**options, iterator_train__shuffle=True).fit(*tasks[0]) for _ in range(2)]
    assert torch.equal(*map(parameters, nets))
    assert not torch.equal(parameters(nets[0]), parameters(quick(**options).fit(*tasks[0])))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("form", ["flat", "dict", "tuple"])
def test_a_dataset_may_yield_numbers_dicts_and_tuples(tasks, form):
    X, y = tasks[0]

    class Own(torch.utils.data.Dataset):
        def __len__(self):
            return len(X)

        def __getitem__(self, row):
            return {"flat": X[row], "dict": {"X": X[row]}, "tuple": (X[row],)}[form], y[row]

    class Takes(MLP):
        def forward(self, X):
            return super().forward(X[0] if form == "tuple" else X)

    net = quick(module=Takes, module__n_features=1).partial_fit(Own())
    assert net.predict(Own()).shape == (40,)
    assert net.dtype_ == np.float64


def test_a_dataset_is_cast_to_the_dtype_of_the_module(tasks):
    X, y = tasks[0]
    net = quick().fit(X, y)
    single = TensorDataset(torch.as_tensor(X).float(), torch.as_tensor(y).float())
    assert net.partial_fit(single).predict(single).dtype == np.float64
    np.testing.assert_array_equal(net.predict(SliceDataset(single)), net.predict(single))


def test_tasks_may_be_kept_or_dropped_in_mid_sequence(tasks):
    net = learn(quick(), tasks[:2])
    net.set_params(store_tasks=False).partial_fit(*tasks[2])
    assert net.n_tasks_ == 3
    assert net.memory_.tasks == ()
    assert torch.equal(parameters(net), parameters(learn(quick(), tasks[:3])))


@pytest.mark.parametrize("criterion", [nn.BCEWithLogitsLoss, nn.PoissonNLLLoss])
def test_other_losses_predict_one_value_per_output(tasks, criterion):
    X, y = tasks[0]
    net = quick(criterion=criterion).fit(X, (y > 0).astype(float))
    assert net.predict(X).shape == (40,)
    if criterion is nn.BCEWithLogitsLoss:
        assert ((net.predict(X) > 0) & (net.predict(X) < 1)).all()


def test_a_criterion_with_control_flow_has_a_fisher(tasks):
    class Pinball(nn.Module):
        def forward(self, output, target):
            losses = [
                error**2 if error > 0 else 3 * error**2 for error in (output - target).flatten()
            ]
            return torch.stack(losses).mean()

    net = learn(quick(criterion=Pinball, max_epochs=1), [(X[:5], y[:5]) for X, y in tasks[:2]])
    assert net.n_tasks_ == 2


# randomness


def test_dropout_is_seeded_and_the_global_state_left_alone(tasks):
    module = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1))
    nets = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        nets.append(learn(quick(module=module), tasks[:2]))
        nets[-1].predict(tasks[0][0])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*map(parameters, nets))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fisher", ["exact", "empirical", "batch"])
def test_a_cuda_device_learns_the_same_tasks(tasks, fisher):
    nets = [
        learn(quick(device=device, fisher=fisher, batch_size=-1), tasks)
        for device in ("cpu", "cuda")
    ]
    assert parameters(nets[1]).device.type == "cuda"
    torch.testing.assert_close(parameters(nets[0]), parameters(nets[1]).cpu(), rtol=1e-5, atol=1e-7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recurrent_nets_have_a_fisher_on_cuda():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRU(2, 4, batch_first=True)
            self.out = nn.Linear(4, 1)

        def forward(self, X):
            return self.out(self.cell(X)[0][:, -1])

    X = np.random.RandomState(0).randn(20, 5, 2).astype(np.float32)
    net = quick(module=Recurrent, device="cuda").partial_fit(X, X.mean((1, 2)))
    assert net.partial_fit(X, X.mean((1, 2))).n_tasks_ == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_no_batch_waits_for_the_cuda_device(tasks):
    waits = []
    for batch_size in (100, 5):
        net = quick(device="cuda", batch_size=batch_size, max_epochs=3).partial_fit(*tasks[0])
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                net.partial_fit(*tasks[1])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("synchroniz" in str(warning.message) for warning in caught))
    assert waits[0] == waits[1]
