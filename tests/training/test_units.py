"""Targets of any scale: trained on centred and scaled, seen in their own units."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EpochScoring
from skorch.dataset import Dataset, ValidSplit
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_ewc import ContinualTargetRegressor, EWCRegressor

from ..helpers import learn, parameters, quick, unscaled

UNITS = [(1e6, 4e4), (-3.0, 1e-6), (0.0, 1e150), (0.0, 1e-150), (1e-3, 1.0)]  # (centre, scale)


def in_units(tasks, centre, scale):
    return [(X, centre + scale * y) for X, y in tasks]


def two_outputs(tasks):
    return [(X, np.c_[1e4 * y, 5.0 - 1e-3 * y**2]) for X, y in tasks]


def mean_over(criterion, net, X, y):
    """The criterion in units of y: thresholds in units of the scale."""
    scale = np.array(net.targets_.scale)
    residual = (net.predict(X).reshape(len(y), -1) - y.reshape(len(y), -1)) / scale
    losses = criterion(reduction="none")(torch.as_tensor(residual), torch.zeros(residual.shape))
    power = 2 if criterion in (nn.MSELoss, nn.HuberLoss) else 1
    return losses.numpy() * scale**power


# what is learned


@pytest.mark.parametrize(("centre", "scale"), UNITS)
def test_the_units_of_y_change_nothing_of_what_is_learned(tasks, centre, scale):
    plain = learn(quick(ewc_lambda=10.0, lr=0.01), tasks[:2])
    net = learn(quick(ewc_lambda=10.0, lr=0.01), in_units(tasks[:2], centre, scale))
    np.testing.assert_allclose(parameters(net), parameters(plain), rtol=1e-4, atol=1e-6)
    X = tasks[0][0]
    expected = centre + scale * plain.predict(X)
    np.testing.assert_allclose(net.predict(X), expected, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("make", [lambda tasks: in_units(tasks, 50.0, 3e5), two_outputs])
def test_it_learns_what_a_scaler_around_it_would_make_it_learn(tasks, make):
    tasks = make(tasks)[:3]
    inside = learn(quick(ewc_lambda=10.0), tasks)
    around = learn(
        ContinualTargetRegressor(unscaled(ewc_lambda=10.0), transformer=StandardScaler()), tasks
    )
    np.testing.assert_allclose(inside.predict(tasks[0][0]), around.predict(tasks[0][0]), rtol=1e-6)


def test_a_y_of_large_scale_is_learned_with_the_defaults(tasks):
    X, y = in_units(tasks, 2e5, 8e4)[0]
    options = {"hidden_layer_sizes": (50,), "max_epochs": 200, "lr": 0.01}
    assert quick(**options).partial_fit(X, y).score(X, y) > 0.8
    assert unscaled(**options).partial_fit(X, y).score(X, y) < 0


def test_the_scale_is_that_of_the_first_task(tasks):
    tasks = [(tasks[0][0], 100.0 * tasks[0][1]), tasks[1]]
    one_by_one = learn(quick(), tasks)
    X, y = (np.concatenate(parts) for parts in zip(*tasks, strict=True))
    at_once = quick().fit(X, y, task=np.repeat([0, 1], len(tasks[0][1])))
    assert one_by_one.targets_ == at_once.targets_
    assert one_by_one.targets_.scale == pytest.approx([tasks[0][1].std()])
    assert torch.equal(parameters(one_by_one), parameters(at_once))


def test_the_scale_is_weighted_so_that_weight_0_is_absence(tasks):
    X, y = tasks[0]
    weight = np.repeat([0.0, 2.0, 1.0], [10, 10, 20])
    weighted = quick().partial_fit(X, np.where(weight, y, 1e9), sample_weight=weight)
    repeated = np.concatenate([y[10:20], y[10:]])
    assert weighted.targets_.centre == pytest.approx([repeated.mean()])
    assert weighted.targets_.scale == pytest.approx([repeated.std()])


def test_a_y_whose_squares_are_no_numbers_is_to_be_scaled(tasks):
    X, y = tasks[0]
    with pytest.raises(ValueError, match="^y has a standard deviation of .*: scale y"):
        quick().partial_fit(X, 1e200 * y)


@pytest.mark.parametrize("y", [np.full(40, 7.0), np.zeros(40), np.full(40, 1e-200)])
def test_a_constant_y_is_centred_alone(tasks, y):
    net = quick(max_epochs=1).partial_fit(tasks[0][0], y)
    assert net.targets_.scale == (1.0,)
    assert net.targets_.centre == (y[0],)


def test_a_warm_start_keeps_the_scale_that_the_parameters_were_learned_in(tasks):
    X, y = tasks[0]
    net = quick(warm_start=True).fit(X, y)
    targets = net.targets_
    assert net.fit(X, 100.0 * y).targets_ == targets
    assert net.set_params(warm_start=False).fit(X, 100.0 * y).targets_ != targets


@pytest.mark.parametrize("kind", [TensorDataset, Dataset, "own", "weighted"])
def test_the_targets_of_a_dataset_are_scaled_too(tasks, kind):
    X, y = (torch.as_tensor(part) for part in in_units(tasks, 50.0, 3e5)[0])

    class Own(torch.utils.data.Dataset):
        def __len__(self):
            return len(X)

        def __getitem__(self, row):
            return (X[row], y[row], torch.ones(())) if kind == "weighted" else (X[row], y[row])

    dataset = Own() if isinstance(kind, str) else kind(X, y[:, None])
    options = {"lr": 0.01, "iterator_train__shuffle": False}
    net = quick(**options).partial_fit(dataset)
    expected = quick(**options).partial_fit(X.numpy(), y.numpy())
    assert net.targets_.scale == pytest.approx(expected.targets_.scale)
    np.testing.assert_allclose(net.predict(X.numpy()).ravel(), expected.predict(X.numpy()))


# what is seen


CRITERIA = [nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("make", [lambda tasks: in_units(tasks, 50.0, 3e5), two_outputs])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_losses_in_the_history_are_in_the_units_of_y(tasks, criterion, make, reduction):
    (X, y), *_ = make(tasks)
    weight = np.linspace(0.5, 1.5, len(y))
    for sample_weight in (None, weight):
        # lr=0: every epoch's loss is that of the net as it is; the held-out part is its own
        net = quick(
            criterion=criterion,
            criterion__reduction=reduction,
            fisher="batch",
            lr=0.0,
            batch_size=-1,
            train_split=ValidSplit(4),
        )
        net.partial_fit(X, y, sample_weight=sample_weight)
        losses = mean_over(criterion, net, X, y)
        losses = losses.mean(1) if reduction == "mean" else losses.sum(1)
        held_out = next(iter(ValidSplit(4).check_cv(y).split(X, y)))[::-1]
        for name, rows in zip(("valid_loss", "train_loss"), held_out, strict=True):
            weights = np.ones(len(y)) if sample_weight is None else sample_weight
            expected = losses[rows] * weights[rows] / weights[rows].mean()
            expected = expected.sum() if reduction == "sum" else expected.mean()
            assert net.history[-1, name] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_loss_and_penalty_in_the_history_stay_comparable(tasks, criterion):
    scale, options = 3e5, {"criterion": criterion, "fisher": "empirical", "ewc_lambda": 10.0}
    plain = learn(quick(**options), tasks[:2]).history
    scaled = learn(quick(**options), in_units(tasks[:2], 0.0, scale)).history
    unit = scale ** (2 if criterion in (nn.MSELoss, nn.HuberLoss) else 1)
    for name in ("train_loss", "penalty"):
        np.testing.assert_allclose(scaled[:, name], np.multiply(unit, plain[:, name]), rtol=1e-4)
    assert plain[-1, "penalty"] > 0


@pytest.mark.parametrize("use_caching", [True, False])
def test_scores_of_callbacks_are_in_the_units_of_y(tasks, use_caching):
    X, y = in_units(tasks, 50.0, 3e5)[0]
    score = EpochScoring("r2", name="score", on_train=True, use_caching=use_caching)
    net = quick(lr=0.0, batch_size=-1, callbacks=[score]).partial_fit(X, y)
    assert net.history[-1, "score"] == pytest.approx(r2_score(y, net.predict(X)))


def test_a_loss_of_ones_own_sees_the_targets_that_are_trained_on(tasks):
    class Own(EWCRegressor):
        def get_loss(self, y_pred, y_true, **kwargs):
            return ((y_pred - y_true.reshape(y_pred.shape)) ** 2).mean()

    options = {"hidden_layer_sizes": (8,), "max_epochs": 5, "random_state": 0}
    own, ours = (
        learn(kind(**options), in_units(tasks, 50.0, 3e5)[:2]) for kind in (Own, EWCRegressor)
    )
    np.testing.assert_allclose(parameters(own), parameters(ours), rtol=1e-6)


def test_a_nonlinearity_of_predictions_is_one_of_y(tasks):
    X, y = in_units(tasks, 3.0, 1.0)[0]
    plain = quick().partial_fit(X, y)
    net = quick(predict_nonlinearity=torch.exp).partial_fit(X, y)
    np.testing.assert_allclose(net.predict(X), np.exp(plain.predict(X)))


# when


class OwnMSE(nn.MSELoss):
    pass


@pytest.mark.parametrize(
    ("options", "is_scaled"),
    [
        *(({"criterion": criterion, "fisher": "empirical"}, True) for criterion in CRITERIA),
        ({"criterion": nn.MSELoss(reduction="sum")}, True),
        ({"criterion": nn.HuberLoss, "criterion__delta": 3.0}, False),
        ({"criterion": nn.SmoothL1Loss(beta=0.5), "fisher": "empirical"}, False),
        ({"criterion": OwnMSE}, False),
        ({"criterion": nn.functional.mse_loss}, False),
        ({"criterion": nn.PoissonNLLLoss}, False),
        ({"criterion": OwnMSE, "normalize_y": True}, True),
        ({"normalize_y": False}, False),
    ],
    ids=str,
)
def test_targets_are_scaled_where_it_changes_the_units_alone(tasks, options, is_scaled):
    X, y = tasks[0]
    net = quick(**options).partial_fit(X, abs(y) + 1.0)
    assert (net.targets_.scale is not None) == is_scaled


@pytest.mark.parametrize("value", ["yes", None, 1.0, [True]])
def test_to_scale_or_not_is_a_bool_or_auto(tasks, value):
    with pytest.raises(ValueError, match="normalize_y"):
        quick(normalize_y=value).partial_fit(*tasks[0])


def test_the_first_task_decides(tasks):
    net = quick().partial_fit(*tasks[0])
    targets = net.targets_
    assert net.set_params(normalize_y=False).partial_fit(*tasks[1]).targets_ == targets


# files


@pytest.mark.parametrize("use_safetensors", [False, True])
@pytest.mark.parametrize("make", [lambda tasks: in_units(tasks, 1 / 3, np.pi), two_outputs])
def test_the_scale_is_in_the_memorys_file(tasks, tmp_path, make, use_safetensors):
    tasks = make(tasks)
    net = quick().partial_fit(*tasks[0])
    files = {"f_params": tmp_path / "params", "f_memory": tmp_path / "memory"}
    net.save_params(**files, use_safetensors=use_safetensors)
    again = quick()
    again.load_params(**files, use_safetensors=use_safetensors)
    assert again.targets_ == net.targets_
    np.testing.assert_array_equal(again.predict(tasks[0][0]), net.predict(tasks[0][0]))
    assert torch.equal(
        parameters(again.partial_fit(*tasks[1])), parameters(net.partial_fit(*tasks[1]))
    )


def test_parameters_from_elsewhere_do_not_predict_in_an_unknown_scale(tasks, tmp_path):
    X, y = tasks[0]
    torch.save(quick().partial_fit(X, y).module_.state_dict(), tmp_path / "params.pt")
    again = quick(module__n_features=1).initialize()
    again.load_params(f_params=tmp_path / "params.pt")
    with pytest.raises(NotFittedError, match="f_memory.*normalize_y=False"):
        again.predict(X)
    again.set_params(normalize_y=False)
    assert len(again.predict(X)) == len(X)
