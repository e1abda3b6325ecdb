"""Replay of inputs: what it adds to a step, and that it is what it says wherever nets are used."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.utils.data import Dataset

from sklearn_ewc import EWCRegressor, estimate_lambda
from sklearn_ewc.training.rehearsal import rehearse
from sklearn_ewc.training.teaching import Teaching, teaching_of

from ..helpers import learn, parameters, quick, unscaled


class OneRow:
    """Draws the first row again and again, whatever the seed."""

    def fit(self, X):
        self.row = X[:1]

    def sample(self, n):
        return self.row.repeat(n, 0)


class OwnStep(EWCRegressor):
    """Trains in a step of its own, which knows of no replay."""

    def train_step(self, batch, **fit_params):
        self._zero_grad_optimizer()
        step = self.train_step_single(batch, **fit_params)
        self.optimizer_.step()
        return step


GIVEN = {"replay": OneRow(), "batch_size": -1, "max_epochs": 3, "penalty_step": "gradient"}
SGD = {"optimizer": torch.optim.SGD, "lr": 0.05, **GIVEN}


def slowly(net, X, y, make_optimizer, n_steps=3):
    """Return what a learned net's parameters become on the sum of the three parts, term by term.

    Every old task replays one row; `make_optimizer` gets the parameters.
    """
    module, teacher = (copy.deepcopy(net.module_) for _ in range(2))
    params = dict(module.named_parameters())
    X, y = torch.as_tensor(X), torch.as_tensor(y).reshape(len(y), -1)
    rows = [torch.as_tensor(one.density.source.estimator.row) for one in net.memory_.inputs]
    optimizer = make_optimizer(module.parameters())

    def objective():
        optimizer.zero_grad()
        factor = net.ewc_lambda * n_summed
        loss = net.criterion_(module(X), y) + factor * net.memory_.penalty(params)
        for one, row in zip(net.memory_.inputs, rows, strict=True):
            alike = row.expand(len(y), -1)
            taught = teacher(alike).detach()
            loss = loss + one.weight * net.criterion_(module(alike), taught)
        loss.backward()
        return loss

    n_summed = len(y) if getattr(net.criterion_, "reduction", "") == "sum" else 1
    for _ in range(n_steps):
        optimizer.step(objective)
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("kind", [EWCRegressor, OwnStep])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ewc_lambda": 0.0},
        {"criterion": nn.L1Loss, "fisher": "empirical"},
        {"criterion__reduction": "sum", "lr": 0.001},
    ],
    ids=str,
)
def test_a_step_goes_down_the_sum_of_three_parts(tasks, kind, settings):
    options = {"hidden_layer_sizes": (8,), "random_state": 0, "normalize_y": False}
    options["ewc_lambda"] = 3.0
    net = kind(**{**options, **SGD, **settings}).partial_fit(*tasks[0])
    expected = slowly(net, *tasks[1], lambda params: torch.optim.SGD(params, net.lr))
    net.partial_fit(*tasks[1])
    torch.testing.assert_close(parameters(net), expected, rtol=1e-6, atol=1e-6)


def test_several_old_tasks_count_by_their_weights(tasks):
    net = unscaled(**{**SGD, "replay": OneRow()})
    net.partial_fit(*tasks[0], task_weight=0.5).partial_fit(*tasks[0], task_weight=2.0)
    net.partial_fit(*tasks[0], task_weight=0.0)
    assert [one.weight for one in net.memory_.inputs] == [0.5, 2.0]
    expected = slowly(net, *tasks[1], lambda params: torch.optim.SGD(params, net.lr))
    net.partial_fit(*tasks[1])
    torch.testing.assert_close(parameters(net), expected, rtol=1e-6, atol=1e-6)


def test_a_line_search_sees_one_objective(tasks):
    search = {"line_search_fn": "strong_wolfe", "max_iter": 5}
    options = {f"optimizer__{name}": value for name, value in search.items()}
    net = unscaled(**{**GIVEN, "optimizer": torch.optim.LBFGS, "lr": 0.5, **options})
    net.partial_fit(*tasks[0])
    expected = slowly(net, *tasks[1], lambda params: torch.optim.LBFGS(params, lr=0.5, **search))
    net.partial_fit(*tasks[1])
    assert net.history[3]["replay_loss"] == 0  # of a step it is that at its beginning
    torch.testing.assert_close(parameters(net), expected, rtol=1e-6, atol=1e-6)


def test_the_history_has_the_replayed_loss_in_the_units_of_y(tasks):
    settings = {**SGD, "ewc_lambda": 0.0, "max_epochs": 2}
    one, larger = quick(**settings), quick(**settings)
    for X, y in tasks[:2]:
        one.partial_fit(X, y)
        larger.partial_fit(X, 10 * y)
    assert "replay_loss" not in one.history[1]
    assert one.history[2]["replay_loss"] == 0  # the net begins as the teacher
    assert one.history[3]["replay_loss"] > 0
    losses = [net.history[-1]["replay_loss"] for net in (one, larger)]
    assert losses[1] == pytest.approx(100 * losses[0])


def test_the_replayed_loss_of_several_outputs_is_in_their_units(tasks):
    (X, y), (X_new, y_new) = tasks[:2]
    net = quick(**SGD).partial_fit(X, np.c_[y, 10 * y])
    row = X[:1]
    taught = net.predict(row)
    one, two = (copy.deepcopy(net).set_params(max_epochs=n) for n in (1, 2))
    for later in (one, two):
        later.partial_fit(X_new, np.c_[y_new, 10 * y_new])
    expected = np.mean((one.predict(row) - taught) ** 2)
    assert two.history[-1]["replay_loss"] == pytest.approx(expected)


# what it remembers


def test_replay_alone_remembers(tasks):
    def forgotten(replay):
        net = quick(hidden_layer_sizes=(50,), max_epochs=150, lr=0.01, ewc_lambda=0, replay=replay)
        before = net.partial_fit(*tasks[0]).score(*tasks[0])
        return before - net.partial_fit(*tasks[1]).score(*tasks[0])

    assert forgotten("auto") < 0.25 < 1.0 < forgotten(None)


# streams


def test_the_first_task_does_not_depend_on_it(tasks):
    nets = [quick(replay=replay).partial_fit(*tasks[0]) for replay in (None, "auto")]
    assert torch.equal(*map(parameters, nets))


def test_a_task_learned_without_it_is_not_replayed(tasks):
    plain = learn(quick(), tasks[:2])
    late = quick().partial_fit(*tasks[0])
    late.set_params(replay="auto").partial_fit(*tasks[1])
    assert torch.equal(parameters(late), parameters(plain))
    assert len(late.memory_.inputs) == 1


def test_what_is_known_stays_where_nothing_is_replayed(tasks):
    plain = learn(quick(), tasks[:2])
    paused = quick(replay="auto").partial_fit(*tasks[0])
    paused.set_params(replay=None).partial_fit(*tasks[1])
    assert torch.equal(parameters(paused), parameters(plain))
    assert len(paused.memory_.inputs) == 1


class Noisy(nn.Module):
    def __init__(self, n_features):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, X):
        return self.layers(X)


def test_it_moves_neither_the_order_of_batches_nor_dropout(tasks):
    settings = {"module": Noisy, "batch_size": 16}
    plain = quick(**settings).partial_fit(*tasks[0])
    with_it = quick(replay="auto", **settings).partial_fit(*tasks[0], task_weight=1e-300)
    for net in (plain, with_it):
        net.set_params(ewc_lambda=0).partial_fit(*tasks[1])
    assert torch.equal(parameters(with_it), parameters(plain))


def test_it_is_reproducible_and_leaves_the_global_generator_alone(tasks):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    settings = {"module": Noisy, "batch_size": 16, "replay": GaussianMixture(2)}
    one, same = (learn(quick(**settings), tasks[:3]) for _ in range(2))
    assert torch.equal(parameters(one), parameters(same))
    assert torch.equal(torch.get_rng_state(), before)


def test_blocks_of_any_size_are_used_up(tasks):
    net = quick(replay="auto").partial_fit(*tasks[0])
    train = net.get_dataset(*tasks[1])
    teaching = teaching_of(net, train, rehearse(net, train, None))
    net.module_.train()
    net.module_.layers.eval()
    seen = []
    for n_rows in [30_000, 7, *[100] * 250]:
        teaching.begin_step(n_rows)
        X, target = teaching._step
        assert len(X) == len(target) == n_rows
        seen.append(X)
    assert len(torch.cat(seen).unique()) > 0.99 * sum(map(len, seen))
    torch.testing.assert_close(net.module_(X), target)
    assert net.module_.training
    assert not net.module_.layers.training


# inputs and criteria of all kinds


class Embeds(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.line = nn.Embedding(5, 3), nn.Linear(3 + 4, 1)

    def forward(self, kind, image):
        assert kind.dtype == torch.int64
        return self.line(torch.cat([self.table(kind[:, 0]), image.flatten(1)], dim=1))


def test_parts_of_all_kinds_are_replayed():
    rng = np.random.RandomState(0)
    nets = [quick(module=Embeds, replay="auto", ewc_lambda=0) for _ in range(2)]
    for first in (0, 2):
        kind, image = rng.randint(first, first + 3, (60, 1)), rng.randn(60, 2, 2)
        y = kind[:, 0] + image[:, 0, 0]
        nets[0].partial_fit({"kind": kind, "image": image}, y)
        nets[1].partial_fit({"image": image, "kind": kind}, y)
    assert torch.equal(*map(parameters, nets))
    assert nets[0].history[-1]["replay_loss"] > 0


class Pairs(Dataset):
    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, row):
        return self.X[row], self.y[row]


def test_datasets_are_replayed_as_tables_are(tasks):
    tables = [(X.astype("f"), y.astype("f")) for X, y in tasks[:2]]
    settings = {"replay": "auto", "iterator_train__shuffle": False}
    by_table = learn(quick(**settings), tables)
    by_dataset = quick(**settings)
    for X, y in tables:
        by_dataset.partial_fit(Pairs(X, y))
    torch.testing.assert_close(parameters(by_dataset), parameters(by_table))


def test_inputs_of_another_size_are_refused_before_training(tasks):
    net = quick(replay="auto").partial_fit(*tasks[0])
    wider = Pairs(np.ones((9, 2), dtype="f"), np.ones(9, dtype="f"))
    with pytest.raises((ValueError, RuntimeError)):
        net.partial_fit(wider)
    assert net.n_tasks_ == 1


CRITERIA = {
    "logits": (nn.BCEWithLogitsLoss, {}),
    "counts": (nn.PoissonNLLLoss, {}),
    "Huber": (nn.HuberLoss, {}),
    "function": (torch.nn.functional.mse_loss, {}),
    "classes": (nn.CrossEntropyLoss, {}),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_a_net_that_says_what_its_teacher_says_has_nothing_to_learn(name, tasks):
    """The replayed loss is least at the teacher: its gradient there is zero."""
    criterion, options = CRITERIA[name]
    X = tasks[0][0]
    y = np.eye(3)[np.arange(len(X)) % 3]
    net = quick(replay="auto", criterion=criterion, **options).partial_fit(X, y)
    train = net.get_dataset(X, y)
    teaching = teaching_of(net, train, rehearse(net, train, None))
    net._zero_grad_optimizer()
    teaching.begin_step(20)
    teaching.add_gradient()
    for p in net.module_.parameters():
        torch.testing.assert_close(p.grad, torch.zeros_like(p), atol=1e-7, rtol=0)
    with torch.no_grad():
        for p in net.module_.parameters():
            p.add_(0.1)
    assert teaching.amounts()[0] > teaching.amounts()[1]


def test_criteria_of_which_no_target_can_be_made_are_refused_before_training(tasks):
    def labels(output, target):
        return nn.functional.cross_entropy(output, target[:, 0].long().clamp(0, 1))

    net = quick(replay="auto", criterion=labels, module__n_outputs=2)
    with pytest.raises(ValueError, match="replay teaches by the net's earlier output"):
        net.partial_fit(*tasks[0])
    assert not net.initialized_


class Normed(nn.Module):
    def __init__(self, n_features):
        super().__init__()
        self.norm, self.line = nn.BatchNorm1d(n_features), nn.Linear(n_features, 1)

    def forward(self, X):
        return self.line(self.norm(X))


def test_running_statistics_stay_without_a_penalty_too(tasks):
    net = quick(module=Normed, replay="auto", ewc_lambda=0).partial_fit(*tasks[0])
    before = net.module_.norm.running_mean.clone()
    net.partial_fit(*tasks[1])
    assert torch.equal(net.module_.norm.running_mean, before)


def test_both_passes_are_in_training_mode(tasks):
    modes = []

    class Watches(EWCRegressor):
        def infer(self, x, **fit_params):
            modes.append(self.module_.training)
            return super().infer(x, **fit_params)

    options = {"hidden_layer_sizes": (4,), "max_epochs": 2, "replay": "auto"}
    learn(Watches(random_state=0, **options), tasks[:2])
    assert all(modes)


def test_a_replay_that_diverges_is_told(tasks, monkeypatch):
    net = quick(replay="auto", ewc_lambda=0).partial_fit(*tasks[0])
    before = parameters(net)
    monkeypatch.setattr(Teaching, "amounts", lambda self: (1e3, 0.0, 1.0))
    with pytest.raises(FloatingPointError, match="training diverged"):
        net.partial_fit(*tasks[1])
    assert torch.equal(parameters(net), before)


# as a parameter


def test_a_pickle_in_mid_sequence_goes_on_to_the_bit(tasks):
    for replay in ("auto", OneRow()):
        net = learn(quick(replay=replay), tasks[:2])
        copies = [pickle.loads(pickle.dumps(net)), copy.deepcopy(net)]
        for one in (net, *copies):
            one.partial_fit(*tasks[2])
        assert all(torch.equal(parameters(one), parameters(net)) for one in copies)
        assert len(net.memory_.inputs) == 3


def test_an_estimator_is_nested_as_any_other(tasks):
    mixture = GaussianMixture(3)
    net = quick(replay=mixture)
    assert net.get_params()["replay__n_components"] == 3
    assert clone(net).replay is not mixture
    net.set_params(replay__n_components=2)
    assert (net.replay.n_components, mixture.n_components) == (2, 3)
    learn(net, tasks[:1]).set_params(replay__n_components=1, lr=0.01)
    learn(net, tasks[1:2])
    assert [len(one.density.source.weights) for one in net.memory_.inputs] == [2, 1]
    assert not hasattr(net.replay, "means_")
    net.set_params(replay=mixture, replay__n_components=4)
    assert (net.replay.n_components, mixture.n_components) == (4, 3)


@pytest.mark.parametrize("replay", [None, "auto", GaussianMixture()])
def test_what_a_replay_has_not_is_refused(replay, tasks):
    net = quick(replay=replay).partial_fit(*tasks[0])
    with pytest.raises(ValueError, match="replay|Invalid parameter 'unknown'"):
        net.set_params(replay__unknown=2)
    assert net.replay is replay


@pytest.mark.parametrize("wrong", [GaussianMixture, "other", object(), 1, np.zeros(2)])
def test_what_is_no_replay_is_refused(wrong, tasks):
    with pytest.raises(TypeError, match="replay must be None, 'auto' or an estimator"):
        quick(replay=wrong).partial_fit(*tasks[0])


def test_lambda_is_tried_beside_it(tasks):
    net = quick(replay="auto").partial_fit(*tasks[0])
    found = estimate_lambda(net, *tasks[1], lambdas=[0.0, 1.0])
    assert found.best in (0.0, 1.0)
    assert len(net.memory_.inputs) == 1


def test_a_search_chooses_it(tasks):
    X, y = (np.concatenate(parts) for parts in zip(*tasks[:2], strict=True))
    labels = np.repeat([0, 1], [len(tasks[0][1]), len(tasks[1][1])])
    grid = {"replay": [None, "auto", GaussianMixture(2)]}
    search = GridSearchCV(quick(ewc_lambda=0), grid, cv=2, error_score="raise")
    search.fit(X, y, task=labels)
    assert len(search.best_estimator_.predict(X)) == len(X)
