"""Steps under a penalty, epochs, history and callbacks."""

import copy

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    GradientNormClipping,
    LRScheduler,
    ProgressBar,
)
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import DataLoader

from sklearn_ewc import MLP, EWCRegressor

from .. import reference
from ..helpers import learn, parameters, parameters_of, quick, unscaled

# the penalty in training


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD, torch.optim.LBFGS])
def test_without_lambda_it_is_the_plain_skorch_net_bit_for_bit(tasks, optimizer):
    module = MLP(1, hidden_layer_sizes=(8,)).double()
    options = {"max_epochs": 5, "lr": 0.01, "batch_size": 16, "iterator_train": DataLoader}
    if optimizer is torch.optim.Adam:
        options["optimizer__fused"] = True
    if optimizer is torch.optim.LBFGS:
        options["optimizer__line_search_fn"] = "strong_wolfe"
    ours = unscaled(module=module, ewc_lambda=0.0, optimizer=optimizer, **options)
    plain = NeuralNetRegressor(
        copy.deepcopy(module), optimizer=optimizer, train_split=None, verbose=0, **options
    ).initialize()
    for X, y in tasks[:2]:
        ours.partial_fit(X, y)
        plain.initialize_optimizer()
        plain.partial_fit(X, y[:, None])
    assert torch.equal(parameters(ours), parameters(plain))
    assert not torch.equal(parameters(ours), parameters_of(module))
    assert ours.history[:, "train_loss"] == plain.history[:, "train_loss"]


def test_slicing_batches_trains_to_the_same_parameters_as_skorchs_loader(tasks):
    options = {"batch_size": 16, "ewc_lambda": 10.0}
    sliced = learn(quick(iterator_train__shuffle=False, **options), tasks[:2])
    collated = learn(quick(iterator_train=DataLoader, **options), tasks[:2])
    assert torch.equal(parameters(sliced), parameters(collated))


def test_two_tasks_equal_the_seeds_algorithm(tasks):
    lambdas, lr, epochs = [0.0, 3e3], 0.01, 50
    module = MLP(1, hidden_layer_sizes=(10,)).double()
    net = EWCRegressor(
        module,
        fisher="batch",
        damping=0.0,
        normalize_y=False,
        penalty_step="gradient",
        batch_size=-1,
        lr=lr,
        max_epochs=epochs,
    )
    data = [(torch.as_tensor(X), torch.as_tensor(y).unsqueeze(1)) for X, y in tasks[:2]]
    for (X, y), ewc_lambda in zip(tasks[:2], lambdas, strict=True):
        net.set_params(ewc_lambda=2 * ewc_lambda)  # the seed's penalty has no factor ½
        net.partial_fit(X, y)
    free = reference.seed_algorithm(
        MLP(1, hidden_layer_sizes=(10,)).double().requires_grad_(), data, [0, 0], lr, epochs
    )
    module = reference.seed_algorithm(module, data, lambdas, lr, epochs)
    expected = torch.cat([p.detach().flatten() for p in module.parameters()])
    torch.testing.assert_close(parameters(net), expected, rtol=1e-6, atol=1e-8)
    assert not torch.allclose(parameters(net), parameters_of(free), rtol=1e-2)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": torch.optim.Adam, "lr": 0.01, "max_epochs": 400},
        {"optimizer": torch.optim.Adam, "optimizer__amsgrad": True, "lr": 0.01, "max_epochs": 400},
        {
            "optimizer": torch.optim.AdamW,
            "optimizer__weight_decay": 0.0,
            "lr": 0.01,
            "max_epochs": 400,
        },
        {"optimizer": torch.optim.SGD, "lr": 0.02, "max_epochs": 2000},
        {
            "optimizer": torch.optim.SGD,
            "optimizer__momentum": 0.9,
            "optimizer__dampening": 0.5,
            "lr": 0.02,
            "max_epochs": 1000,
        },
        {
            "optimizer": torch.optim.SGD,
            "optimizer__momentum": 0.9,
            "optimizer__nesterov": True,
            "lr": 0.005,
            "max_epochs": 1000,
        },
        {"optimizer": torch.optim.NAdam, "lr": 0.01, "max_epochs": 400},
        {
            "optimizer": torch.optim.LBFGS,
            "optimizer__line_search_fn": "strong_wolfe",
            "lr": 1.0,
            "max_epochs": 20,
        },
    ],
    ids=["Adam", "AMSGrad", "AdamW", "SGD", "momentum", "Nesterov", "NAdam", "LBFGS"],
)
def test_every_optimizer_finds_the_minimum_of_loss_and_penalty(options):
    rng = np.random.RandomState(0)
    tasks = [(rng.randn(30, 3), rng.randn(30)) for _ in range(2)]
    net = unscaled(module=nn.Linear, ewc_lambda=2.0, damping=0.1, batch_size=-1, **options)
    learn(net, tasks)
    X, y = (torch.as_tensor(part) for part in tasks[1])
    residual = net.module_(X).squeeze(1) - y
    first = net.memory_.tasks[0]
    for name, design in (("weight", X), ("bias", torch.ones(30, 1, dtype=torch.float64))):
        slope_of_loss = 2 * (residual.unsqueeze(1) * design).mean(0)
        distance = dict(net.module_.named_parameters())[name] - first.anchor[name]
        slope_of_penalty = 2.0 * first.stiffness().diagonal()[name] * distance
        total = slope_of_loss + slope_of_penalty.flatten()
        assert total.abs().max() < 1e-3
        assert slope_of_penalty.abs().max() > 1e-2


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_no_lambda_is_too_large_for_a_proximal_step(tasks, optimizer):
    moved = {}
    for ewc_lambda in (1e2, 1e6, 1e12):
        net = quick(optimizer=optimizer, ewc_lambda=ewc_lambda, lr=0.01).partial_fit(*tasks[0])
        before = parameters(net)
        net.partial_fit(*tasks[1])
        moved[ewc_lambda] = float((parameters(net) - before).abs().max())
    assert moved[1e2] > moved[1e6] > moved[1e12]
    assert moved[1e12] < 1e-8


def test_whoever_listens_to_gradients_gets_those_of_the_whole_objective(tasks):
    class Listens(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            pass

    listening = learn(quick(ewc_lambda=30.0, callbacks=[Listens()]), tasks[:2])
    asked_for = learn(quick(ewc_lambda=30.0, penalty_step="gradient"), tasks[:2])
    proximal = learn(quick(ewc_lambda=30.0), tasks[:2])
    assert torch.equal(parameters(listening), parameters(asked_for))
    assert not torch.equal(parameters(proximal), parameters(asked_for))


def test_a_schedule_of_rates_leaves_the_minimum_where_it_is():
    rng = np.random.RandomState(0)
    tasks = [(rng.randn(30, 3), rng.randn(30)) for _ in range(2)]
    options = {"optimizer": torch.optim.SGD, "lr": 0.1, "batch_size": -1, "max_epochs": 2000}
    schedule = LRScheduler("ExponentialLR", gamma=0.999)
    ends = [
        parameters(learn(quick(module=nn.Linear, callbacks=callbacks, **options), tasks))
        for callbacks in ([], [schedule])
    ]
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-6)


def test_gradient_clipping_sees_the_penalty(tasks):
    norms = []

    class Records(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            norms.append(float(torch.cat([p.grad.flatten() for _, p in named_parameters]).norm()))

    clipping = GradientNormClipping(gradient_clip_value=1e-3)
    net = quick(ewc_lambda=1e6, callbacks=[clipping, Records()], batch_size=-1)
    learn(net, tasks[:2])
    assert max(norms) <= 1e-3 * (1 + 1e-6)


def test_every_task_gets_a_fresh_optimizer(tasks):
    steps = []

    class Records(Callback):
        def on_train_end(self, net, **kwargs):
            steps.append({int(state["step"]) for state in net.optimizer_.state.values()})

    learn(quick(batch_size=-1, callbacks=[Records()]), tasks[:3])
    assert steps == [{5}, {5}, {5}]


def test_gradients_are_cleared_as_the_optimizer_does_it(tasks):
    cleared = []

    class Counts(torch.optim.SGD):
        def zero_grad(self, set_to_none=True):
            cleared.append(set_to_none)
            super().zero_grad(set_to_none)

    own = quick(optimizer=Counts, batch_size=-1).partial_fit(*tasks[0])
    stock = quick(optimizer=torch.optim.SGD, batch_size=-1).partial_fit(*tasks[0])
    assert cleared == [True] * 5
    assert torch.equal(parameters(own), parameters(stock))


# history and callbacks


def test_history_spans_all_tasks_and_every_epoch_knows_its_own(tasks):
    net = learn(quick(ewc_lambda=10.0), tasks[:3])
    assert net.history[:, "task"] == [1] * 5 + [2] * 5 + [3] * 5
    assert net.history[:, "epoch"] == list(range(1, 16))
    assert net.history[:5, "penalty"] == [0.0] * 5
    assert all(penalty > 0 for penalty in net.history[5:, "penalty"])


def test_train_loss_is_the_criterion_and_penalty_is_lambda_times_the_memorys(tasks):
    net = learn(unscaled(ewc_lambda=10.0, batch_size=-1), tasks[:1])
    X, y = tasks[1]
    before, memory = np.mean((net.predict(X) - y) ** 2), net.memory_
    net.set_params(max_epochs=1).partial_fit(X, y)
    assert net.history[-1, "train_loss"] == pytest.approx(before)
    expected = 10.0 * memory.penalty(net.module_.named_parameters()).item()
    assert net.history[-1, "penalty"] == pytest.approx(expected)
    assert expected > 0


def test_it_is_silent_unless_asked(tasks, capsys):
    learn(quick(), tasks[:2])
    assert capsys.readouterr().out == ""


def test_early_stopping_ends_one_task_and_not_the_next(tasks):
    stopping = EarlyStopping(monitor="valid_loss", patience=2, threshold=1e9)
    net = quick(max_epochs=50, train_split=ValidSplit(4), callbacks=[stopping])
    learn(net, tasks[:3])
    assert net.n_tasks_ == 3
    assert [net.history[:, "task"].count(task) for task in (1, 2, 3)] == [3, 3, 3] or [
        net.history[:, "task"].count(task) for task in (1, 2, 3)
    ] == [2, 2, 2]
    assert net.memory_.tasks[0].n_samples == 30


def test_best_losses_are_those_of_the_task(tasks):
    net = learn(quick(max_epochs=3, train_split=ValidSplit(4)), tasks[:2])
    assert net.history[0, "valid_loss_best"] is True
    assert net.history[3, "valid_loss_best"] is True


def test_checkpoint_brings_back_the_best_epoch_before_the_fisher_is_taken(tasks, tmp_path):
    class SpoilsTheLastEpoch(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == net.max_epochs:
                torch.nn.init.constant_(net.module_.layers[-1].bias, 100.0)

    checkpoint = Checkpoint(monitor="valid_loss_best", dirname=str(tmp_path), load_best=True)
    net = quick(train_split=ValidSplit(4), callbacks=[SpoilsTheLastEpoch(), checkpoint])
    X, y = tasks[0]
    net.fit(X, y)
    assert len(net.history) < 5  # skorch brings back the history of the best epoch too
    best = net.history[-1, "valid_loss"]
    valid = ValidSplit(4)(net.get_dataset(X, y))[1].indices
    assert np.mean((net.predict(X[valid]) - y[valid]) ** 2) == pytest.approx(best)
    anchor = torch.cat([p.flatten() for p in net.memory_.tasks[0].anchor.values()])
    assert torch.equal(anchor, parameters(net))


def test_scores_schedules_and_progress_bars_run_over_tasks(tasks, capsys):
    net = quick(
        train_split=ValidSplit(4),
        callbacks=[
            ("r2", EpochScoring("r2", name="valid_r2")),
            ("train_r2", EpochScoring("r2", name="train_r2", on_train=True)),
            ("schedule", LRScheduler("StepLR", step_size=2, gamma=0.5)),
            ("bar", ProgressBar()),
        ],
    )
    learn(net, tasks[:2])
    assert len(net.history[:, "valid_r2"]) == len(net.history[:, "train_r2"]) == 10
    assert net.history[:, "event_lr"][:5] == net.history[:, "event_lr"][5:]
    assert net.history[0, "event_lr"] > net.history[4, "event_lr"]


def test_the_loss_of_a_batch_is_there_when_a_callback_hears_of_its_end(tasks):
    seen = []

    class Reads(Callback):
        def on_batch_end(self, net, training, **kwargs):
            seen.append(net.history[-1, "batches", -1, "train_loss"])

    heard = quick(callbacks=[Reads()]).partial_fit(*tasks[0])
    unheard = quick().partial_fit(*tasks[0])
    rows = [row["train_loss"] for epoch in unheard.history for row in epoch["batches"]]
    assert seen == rows
    assert torch.equal(parameters(heard), parameters(unheard))


def test_callbacks_are_told_of_every_task(tasks):
    calls = []

    class Records(Callback):
        def on_train_begin(self, net, X, y, **kwargs):
            calls.append(("begin", net.n_tasks_, len(X)))

        def on_train_end(self, net, X, y, **kwargs):
            calls.append(("end", net.n_tasks_, len(X)))

    learn(quick(callbacks=[Records()]), tasks[:2])
    assert calls == [("begin", 0, 40), ("end", 1, 40), ("begin", 1, 40), ("end", 2, 40)]


def test_callbacks_can_be_replaced_between_tasks(tasks):
    class Never(Callback):
        def on_train_begin(self, net, **kwargs):
            raise AssertionError

    net = quick().partial_fit(*tasks[0])
    net.set_params(callbacks=[Never()])
    with pytest.raises(AssertionError):
        net.partial_fit(*tasks[1])
    net.set_params(callbacks=None).partial_fit(*tasks[1])
    assert net.n_tasks_ == 2


def test_callbacks_can_be_disabled(tasks):
    net = learn(quick(callbacks="disable"), tasks[:2])
    assert net.n_tasks_ == 2


def test_divergence_names_epoch_rate_and_lambda(tasks):
    net = quick(optimizer=torch.optim.SGD, ewc_lambda=3.0, penalty_step="gradient")
    net.partial_fit(*tasks[0])
    before = parameters(net)
    X, y = tasks[1]
    with pytest.raises(FloatingPointError, match=r"epoch \d, task 2, with lr=1e.30.*ewc_lambda=3"):
        net.set_params(lr=1e30).partial_fit(X, y)
    assert torch.equal(parameters(net), before)


# trainings that go out of bounds


@pytest.mark.parametrize("lr", [1e3, 1e12])
def test_a_loss_that_ends_finite_and_absurd_is_a_divergence(tasks, lr):
    net, calm = (quick(ewc_lambda=0).partial_fit(*tasks[0]) for _ in range(2))
    net.set_params(lr=lr, max_epochs=50)
    before, memory = parameters(net), net.memory_
    with pytest.raises(FloatingPointError, match=r"training diverged: loss [\d.]+(e\+\d+)? in"):
        net.partial_fit(*tasks[1])
    assert torch.equal(parameters(net), before)
    assert net.memory_ is memory
    net.set_params(lr=1e-3, max_epochs=5).partial_fit(*tasks[1])
    assert torch.equal(parameters(net), parameters(calm.partial_fit(*tasks[1])))


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e9])
def test_targets_of_any_unit_are_no_divergence(tasks, scale):
    X, y = tasks[0]
    net = quick(max_epochs=2).partial_fit(X, scale * y).partial_fit(X, -scale * y)
    assert net.partial_fit(X, y).n_tasks_ == 3


def test_one_row_beyond_all_others_is_no_divergence(tasks):
    X, y = tasks[0]
    X, y = np.concatenate([X, [[1e6]]]), np.concatenate([y, [0.0]])
    net = quick(batch_size=16).partial_fit(X, y)
    assert net.n_tasks_ == 1
    assert net.memory_.loss > 1e6


def test_a_task_keeps_its_size_and_the_criterion_at_its_end(tasks):
    net, sums = unscaled(), unscaled(store_tasks=False)
    for X, y in tasks[:3]:
        net.partial_fit(X, y)
        sums.partial_fit(X, y)
        loss = float(np.mean((net.predict(X) - y) ** 2))
        assert net.memory_.tasks[-1].loss == pytest.approx(loss)
        assert net.memory_.tasks[-1].n_samples == len(X)
    losses = [task.loss for task in net.memory_.tasks]
    for one in (net, sums):
        assert one.memory_.n_samples == sum(len(X) for X, _ in tasks[:3])
        assert one.memory_.loss == pytest.approx(np.mean(losses))


# a train_step of one's own


class AccumulatesGradients(EWCRegressor):
    """As skorch's documentation shows it: a step of the optimizer every second batch."""

    def get_loss(self, *args, **kwargs):
        return super().get_loss(*args, **kwargs) / 2

    def train_step(self, batch, **fit_params):
        n_batches = len(self.history[-1, "batches"])
        step = self.train_step_single(batch, **fit_params)
        if n_batches % 2 == 0:
            self.optimizer_.step()
            self.optimizer_.zero_grad()
        return step


class Wraps(EWCRegressor):
    def train_step(self, batch, **fit_params):
        return super().train_step(batch, **fit_params)


@pytest.mark.parametrize("penalty_step", ["proximal", "gradient"])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_a_train_step_of_ones_own_goes_down_the_penalty_too(tasks, optimizer, penalty_step):
    options = {
        "hidden_layer_sizes": (8,),
        "max_epochs": 20,
        "random_state": 0,
        "batch_size": 10,
        "optimizer": optimizer,
        "penalty_step": penalty_step,
        "lr": 1e-2,
        "normalize_y": False,
    }
    moved, large = {}, 1e5 if penalty_step == "proximal" else 50.0
    for ewc_lambda in (0.0, large):
        net = AccumulatesGradients(ewc_lambda=ewc_lambda, **options).partial_fit(*tasks[0])
        before = parameters(net)
        net.partial_fit(*tasks[1])
        moved[ewc_lambda] = float((parameters(net) - before).abs().sum())
    assert moved[large] < 0.8 * moved[0.0]


@pytest.mark.parametrize(
    "options",
    [{}, {"penalty_step": "gradient"}, {"optimizer": torch.optim.LBFGS, "batch_size": -1}],
    ids=str,
)
def test_a_train_step_that_calls_ours_changes_nothing(tasks, options):
    settings = {"hidden_layer_sizes": (8,), "max_epochs": 3, "random_state": 0, **options}
    ours, wrapped = (learn(kind(**settings), tasks[:2]) for kind in (EWCRegressor, Wraps))
    assert torch.equal(parameters(ours), parameters(wrapped))
    assert not wrapped.optimizer_._optimizer_step_post_hooks
