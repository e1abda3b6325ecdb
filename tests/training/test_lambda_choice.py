"""λ that is chosen for each task before it is trained."""

import signal

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, EarlyStopping
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_ewc import (
    ContinualTargetRegressor,
    estimate_lambda,
    make_continual_pipeline,
)
from sklearn_ewc.training import lambda_choice

from ..helpers import learn, parameters, quick


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(lambda_choice, "LAMBDAS", (100.0, 1.0, 0.01))


def auto(**settings):
    return quick(ewc_lambda="auto", lr=0.01, **settings)


def test_the_task_is_then_trained_as_under_that_number(tasks):
    net = learn(auto(), tasks[:2])
    assert net.ewc_lambda_ in lambda_choice.LAMBDAS
    assert net.ewc_lambda == "auto"
    same = learn(quick(ewc_lambda=net.ewc_lambda_, lr=0.01), tasks[:2])
    assert torch.equal(parameters(net), parameters(same))
    assert net.history[:, "penalty"] == same.history[:, "penalty"]


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ([(2.0, 0.5), (0.5, 1.0), (np.inf, np.inf)], 1.0),
        ([(1.0, 0.0), (0.5, 0.8), (0.2, 0.8)], 100.0),
        ([(1.09, 0.0), (0.5, 0.55), (0.2, 0.8)], 100.0),
        ([(1.2, 0.0), (0.5, 0.55), (0.2, 0.8)], 1.0),
        ([(-1.0, 0.0), (-1.05, 0.0), (-2.0, 0.0)], 0.01),
        ([(np.nan, 0.0), (np.inf, np.inf), (0.2, 0.8)], 0.01),
    ],
)
def test_it_is_the_largest_whose_error_and_penalty_add_up_to_near_the_least(
    tasks, monkeypatch, costs, expected
):
    net = auto().partial_fit(*tasks[0])
    monkeypatch.setattr(lambda_choice, "path", lambda *args: costs)
    assert net.partial_fit(*tasks[1]).ewc_lambda_ == expected


def test_a_task_that_contradicts_the_old_one_gets_less_than_one_that_agrees(tasks):
    X, y = tasks[0]
    chosen = {}
    for name, targets in {"agrees": y, "contradicts": 5 - 3 * y}.items():
        net = quick(ewc_lambda="auto", lr=0.05, max_epochs=60)
        chosen[name] = net.partial_fit(X, y).partial_fit(X, targets).ewc_lambda_
    assert chosen["agrees"] > chosen["contradicts"]


def test_the_history_tells_the_lambda_of_every_epoch(tasks):
    net = learn(auto(), tasks[:2])
    assert net.history[:, "ewc_lambda"] == [0.0] * 5 + [net.ewc_lambda_] * 5
    net = learn(quick(ewc_lambda=7), tasks[:2])
    assert net.history[:, "ewc_lambda"] == [7.0] * 10
    assert net.ewc_lambda_ == 7.0


class Sets(Callback):
    """Sets λ after the third epoch of a task."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) % 5 == 3:
            net.ewc_lambda = 5.0


def test_a_number_that_a_callback_sets_in_mid_task_holds_at_once(tasks):
    net = auto().partial_fit(*tasks[0]).set_params(callbacks=[Sets()]).partial_fit(*tasks[1])
    *first, fourth, fifth = net.history[5:, "ewc_lambda"]
    assert set(first) <= set(lambda_choice.LAMBDAS)
    assert (fourth, fifth, net.ewc_lambda_) == (5.0, 5.0, 5.0)


def test_nothing_to_weigh_is_a_lambda_of_zero(tasks):
    net = auto().partial_fit(*tasks[0], task_weight=0.0)
    assert net.ewc_lambda_ == 0.0
    assert net.partial_fit(*tasks[1]).ewc_lambda_ == 0.0
    plain = learn(quick(ewc_lambda=0.0, lr=0.01), tasks[:2])
    assert torch.equal(parameters(net), parameters(plain))


def test_a_task_too_small_to_hold_anything_out_gets_the_lambda_that_is_best_for_all(tasks):
    X, y = tasks[1]
    net = auto().partial_fit(*tasks[0]).partial_fit(X[:7], y[:7])
    assert net.ewc_lambda_ == lambda_choice.UNKNOWN == 3.0
    weights = np.r_[np.ones(7), np.zeros(33)]
    net = auto().partial_fit(*tasks[0]).partial_fit(X, y, sample_weight=weights)
    assert net.ewc_lambda_ == lambda_choice.UNKNOWN == 3.0
    net.partial_fit(X[:8], y[:8])
    assert net.ewc_lambda_ in lambda_choice.LAMBDAS


def test_rows_without_weight_do_not_matter(tasks):
    X, y = tasks[1]
    weights = np.r_[np.ones(20), np.zeros(20)]
    split = []
    for rows, weight in ((slice(40), weights), (slice(20), weights[:20])):
        net = auto().partial_fit(*tasks[0])
        split.append(net.partial_fit(X[rows], y[rows], sample_weight=weight).ewc_lambda_)
    assert split[0] == split[1]


def test_training_that_diverges_at_every_lambda_is_an_error_and_changes_nothing(tasks):
    net = auto(optimizer=torch.optim.SGD, penalty_step="gradient").partial_fit(*tasks[0])
    before, memory = parameters(net), net.memory_
    net.set_params(lr=1e6)
    with pytest.raises(FloatingPointError, match="diverged at each of the λ"):
        net.partial_fit(*tasks[1])
    assert torch.equal(parameters(net), before)
    assert net.memory_ is memory
    assert net.ewc_lambda_ == 0.0


def test_lambdas_that_diverge_are_passed_over(tasks, monkeypatch):
    options = {"optimizer": torch.optim.SGD, "penalty_step": "gradient", "max_epochs": 20}
    monkeypatch.setattr(lambda_choice, "LAMBDAS", (1e4, 1.0))
    net = quick(ewc_lambda="auto", lr=0.05, **options)
    assert learn(net, tasks[:2]).ewc_lambda_ == 1.0


@pytest.mark.parametrize("kind", ["Dataset", "dict", "two outputs", "weights", "split"])
def test_lambda_is_chosen_for_all_that_partial_fit_takes(tasks, kind):
    class OfDict(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def forward(self, x):
            return self.layer(x)

    options = {"dict": {"module": OfDict}, "split": {"train_split": ValidSplit(4)}}
    net = auto(**options.get(kind, {}))
    for X, y in tasks[:2]:
        if kind == "Dataset":
            net.partial_fit(TensorDataset(torch.as_tensor(X), torch.as_tensor(y[:, None])))
        elif kind == "dict":
            net.partial_fit({"x": X}, y)
        elif kind == "two outputs":
            net.partial_fit(X, np.c_[y, -y])
        else:
            net.partial_fit(X, y, sample_weight=np.arange(40.0))
    assert net.ewc_lambda_ in lambda_choice.LAMBDAS


def test_lambda_is_chosen_inside_pipelines_and_target_regressors(tasks):
    inner = make_continual_pipeline(StandardScaler(), auto())
    model = ContinualTargetRegressor(inner, transformer=StandardScaler())
    for X, y in tasks[:2]:
        model.partial_fit(X, y)
    assert model.regressor_[-1].ewc_lambda_ in lambda_choice.LAMBDAS


def test_auto_may_be_a_candidate_of_a_search(table):
    X, y, task = table
    search = GridSearchCV(quick(lr=0.01), {"ewc_lambda": [0.0, "auto"]}, cv=2)
    search.fit(X, y, task=task)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_estimate_lambda_tries_numbers_on_a_net_that_chooses(tasks):
    nets = [quick(ewc_lambda=value, lr=0.01).partial_fit(*tasks[0]) for value in ("auto", 1.0)]
    first, second = (estimate_lambda(net, *tasks[1], lambdas=[0.1, 10.0]) for net in nets)
    assert np.array_equal(first.errors, second.errors)


class Counts(Callback):
    calls = 0

    def on_epoch_end(self, net, **kwargs):
        self.calls += 1


def test_the_choice_is_silent_and_reaches_no_callback_of_the_users(tasks, capsys):
    own = Counts()
    net = auto(callbacks=[own, EarlyStopping("train_loss", sink=lambda text: 1 / 0)])
    learn(net, tasks[:2])
    assert own.calls == len(net.history) == 10
    assert capsys.readouterr().out == ""


def test_verbose_tells_what_is_tried(tasks, capsys):
    learn(auto(verbose=1), tasks[:2])
    out = capsys.readouterr().out
    assert "λ of task 2: 3 short trainings" in out
    assert out.count("λ = ") == 3
    assert "ewc_lambda" not in out


def test_an_interrupt_during_the_choice_leaves_the_estimator_as_it_was(tasks, monkeypatch):
    net = auto().partial_fit(*tasks[0])
    before, attributes = parameters(net), set(vars(net))

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as context:
        context.setattr(lambda_choice, "path", interrupted)
        with pytest.raises(KeyboardInterrupt):
            net.partial_fit(*tasks[1])
    assert torch.equal(parameters(net), before)
    assert set(vars(net)) == attributes
    assert net.ewc_lambda_ == 0.0
    undisturbed = learn(auto(), tasks[:2])
    assert torch.equal(parameters(net.partial_fit(*tasks[1])), parameters(undisturbed))


def test_buffers_are_held_from_the_second_task_on(tasks):
    module = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    net = auto(module=module).partial_fit(*tasks[0])
    before = net.module_[1].running_mean.clone()
    net.partial_fit(*tasks[1])
    assert torch.equal(net.module_[1].running_mean, before)


def test_a_clone_chooses_anew(tasks):
    net = learn(auto(), tasks[:2])
    other = clone(net)
    assert other.ewc_lambda == "auto"
    assert not hasattr(other, "ewc_lambda_")


def test_another_word_is_refused(tasks):
    with pytest.raises(ValueError, match="ewc_lambda must be a finite number >= 0, or 'auto'"):
        quick(ewc_lambda="best").partial_fit(*tasks[0])


def test_a_task_of_few_epochs_gets_the_lambda_that_is_best_for_all(tasks):
    net = learn(auto(max_epochs=2), tasks[:2])
    assert net.ewc_lambda_ == lambda_choice.UNKNOWN
    assert learn(auto(max_epochs=3), tasks[:2]).ewc_lambda_ in lambda_choice.LAMBDAS
