"""The density that is fitted to a task's inputs, whatever they are."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.neighbors import KernelDensity

from sklearn_ewc.data.batches import WeightedDataset
from sklearn_ewc.memory.sources import Mixture, Sampler
from sklearn_ewc.training.densities import density_of, fitted_density
from sklearn_ewc.training.inputs import Layout, layout_of, table_of

from ..helpers import quick


def drawn(density, n_rows=2000, seed=0):
    return density.draw(n_rows, torch.Generator().manual_seed(seed)).numpy()


def clusters(n_rows=300):
    rng = np.random.RandomState(0)
    which = rng.randint(2, size=n_rows)
    return 1e3 + 10.0 * which[:, None] + rng.randn(n_rows, 2) @ [[1.0, 0.9], [0.0, 0.3]]


def test_draws_are_like_the_rows():
    table = clusters()
    density = fitted_density(table)
    rows = drawn(density)
    assert len(density.source.weights) == 2
    np.testing.assert_allclose(rows.mean(0), table.mean(0), atol=0.5)
    np.testing.assert_allclose(np.cov(rows.T), np.cov(table.T), rtol=0.1)


def test_discrete_columns_are_drawn_as_what_they_are():
    rng = np.random.RandomState(0)
    kind = rng.choice(3, 200, p=[0.6, 0.3, 0.1])
    table = np.c_[np.eye(3)[kind], np.full(200, 0.1), rng.poisson(3, 200), kind + rng.randn(200)]
    density = fitted_density(table)
    rows = drawn(density)
    assert {tuple(row) for row in rows[:, :3]} == {tuple(row) for row in np.eye(3)}
    np.testing.assert_allclose(rows[:, :3].mean(0), [0.6, 0.3, 0.1], atol=0.05)
    assert set(rows[:, 3]) == {0.1}
    assert set(rows[:, 4]) <= set(table[:, 4])
    assert len(np.unique(rows[:, 5])) == len(rows)
    assert sorted(block.columns for block in density.levels) == [(0, 1, 2), (3,), (4,)]
    # the number of the category goes with the last column, as in the table
    correlation = np.corrcoef(rows[:, :3] @ np.arange(3), rows[:, 5])[0, 1]
    assert correlation == pytest.approx(np.corrcoef(kind, table[:, 5])[0, 1], abs=0.1)


def test_whole_numbers_stay_among_those_that_there_were():
    table = np.arange(0, 400, 2.0)[:, None]
    assert set(drawn(fitted_density(table, whole=[0]))[:, 0]) <= set(table[:, 0])
    assert not set(drawn(fitted_density(table))[:, 0]) <= set(table[:, 0])


@pytest.mark.parametrize("n_rows", [1, 2, 3, 9])
def test_a_few_rows_are_enough(n_rows):
    table = clusters(n_rows)
    assert drawn(fitted_density(table), 5).shape == (5, 2)
    assert (drawn(fitted_density(table[:1].repeat(n_rows, 0))) == table[0]).all()


def test_numbers_too_small_to_be_squared_are_drawn():
    table = 1e-200 * np.random.RandomState(0).randn(50, 1)
    assert np.isfinite(drawn(fitted_density(table))).all()


def test_fits_are_reproducible():
    one, same = (fitted_density(clusters(), seed=3) for _ in range(2))
    assert torch.equal(one.source.means, same.source.means)


@pytest.mark.parametrize("kind", [GaussianMixture, BayesianGaussianMixture])
@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_scikit_learns_mixtures_become_numbers(kind, covariance):
    table = clusters()
    estimator = kind(n_components=3, covariance_type=covariance, random_state=0, max_iter=500)
    density = fitted_density(table, estimator)
    assert isinstance(density.source, Mixture)
    assert not hasattr(estimator, "means_")
    theirs = estimator.fit(table).sample(5000)[0]
    np.testing.assert_allclose(drawn(density, 5000).mean(0), theirs.mean(0), atol=0.5)
    np.testing.assert_allclose(np.cov(drawn(density, 5000).T), np.cov(theirs.T), rtol=0.1)


def test_a_kernel_density_is_a_mixture_of_its_rows():
    table = clusters(50)
    density = fitted_density(table, KernelDensity(bandwidth=0.5))
    assert isinstance(density.source, Mixture)
    expected = np.cov(table.T, ddof=0) + 0.25 * np.eye(2)
    np.testing.assert_allclose(np.cov(drawn(density, 20000).T), expected, rtol=0.05)
    boxes = fitted_density(table, KernelDensity(kernel="tophat", bandwidth=0.5))
    assert isinstance(boxes.source, Sampler)
    assert np.abs(drawn(boxes, 50)[:, None] - table).max(2).min(1).max() <= 0.5


class Shifts:
    """An estimator of one's own, without get_params."""

    def __init__(self):
        self.fitted = None

    def fit(self, X):
        self.fitted = X

    def sample(self, n):
        return self.fitted[:1].repeat(n, 0)


def test_an_estimator_of_ones_own_is_copied():
    own = Shifts()
    assert (drawn(fitted_density(clusters(), own), 3) == clusters()[0]).all()
    assert own.fitted is None


def test_an_estimator_is_seeded_where_it_has_no_seed():
    table = clusters()
    one, same = (fitted_density(table, GaussianMixture(5), seed=1) for _ in range(2))
    assert torch.equal(one.source.means, same.source.means)


# tables of whatever X is


def net_of(X, y, **settings):
    return quick(replay="auto", max_epochs=0, **settings).partial_fit(X, y)


def test_inputs_of_several_parts_become_a_table_and_inputs_again():
    X = {
        "b": torch.arange(24.0).reshape(2, 3, 4),
        "a": torch.tensor([[5], [7]]),
        "c": [torch.ones(2), torch.tensor([True, False])],
    }
    layout = Layout.of(X)
    assert layout.widths == [1, 12, 1, 1]
    assert layout.whole == [0, 14]
    again = layout.inputs(layout.table(X).double())
    assert torch.equal(again["b"], X["b"])
    assert torch.equal(again["a"], X["a"])
    assert again["a"].dtype == torch.int64
    assert torch.equal(again["c"][1], X["c"][1])
    reordered = {name: X[name] for name in ("c", "a", "b")}
    assert torch.equal(layout.table(reordered), layout.table(X))


def test_samples_of_several_shapes_are_refused():
    layout = Layout.of(torch.ones(2, 3))
    with pytest.raises(ValueError, match="replay needs samples of one shape"):
        layout.table(torch.ones(2, 4))


def test_samples_of_weight_zero_do_not_count_and_others_by_their_weight():
    rng = np.random.RandomState(0)
    X, y = rng.randn(120, 1).astype("f"), rng.randn(120).astype("f")
    net = net_of(X, y)
    weight = np.where(X[:, 0] > 0, 0.0, np.where(X[:, 0] > -0.5, 3.0, 1.0))
    dataset = WeightedDataset(net.get_dataset(X, y), weight)
    table = table_of(
        net, dataset, layout_of(net, dataset), torch.Generator().manual_seed(0), 999
    ).numpy()
    assert set(table[:, 0]) <= set(X[weight > 0, 0].astype(float))
    share = 3 * (weight == 3).sum() / weight.sum()
    assert (table > -0.5).mean() == pytest.approx(share, abs=0.02)


def test_equal_weights_take_each_row_once():
    X = np.random.RandomState(0).randn(50, 2)
    net = net_of(X, X[:, 0])
    dataset = WeightedDataset(net.get_dataset(X, X[:, 0]), np.full(50, 0.1))
    table = table_of(net, dataset, layout_of(net, dataset), torch.Generator().manual_seed(0), 999)
    assert torch.equal(table, torch.as_tensor(X))


def test_many_rows_are_sampled():
    X = np.arange(600.0).reshape(-1, 1)
    net = net_of(X[:40], X[:40, 0], batch_size=64)
    dataset = net.get_dataset(X, X[:, 0])
    layout = layout_of(net, dataset)
    table = table_of(net, dataset, layout, torch.Generator().manual_seed(0), 500)
    assert len(table.unique()) == 500


def test_inputs_too_wide_for_a_mixture_are_refused_before_training():
    X, y = np.random.RandomState(0).randn(8, 300), np.zeros(8)
    net = quick(replay="auto")
    with pytest.raises(ValueError, match="replay='auto'.*curvature='kronecker'"):
        net.fit(X, y)
    assert not net.initialized_
    quick(replay=Shifts()).fit(X, y)


class Fails(Shifts):
    def __init__(self, where, error=ValueError):
        super().__init__()
        self.where, self.error = where, error

    def fit(self, X):
        super().fit(X)
        if self.where == "fit":
            raise self.error("no")

    def sample(self, n):
        raise self.error("no")


@pytest.mark.parametrize("where", ["fit", "sample"])
def test_where_an_estimator_fails_the_net_stays_as_it_was(tasks, where):
    net = quick().partial_fit(*tasks[0])
    before = net.predict(tasks[0][0])
    net.set_params(replay=Fails(where))
    with pytest.raises(ValueError, match="replay: no"):
        net.partial_fit(*tasks[1])
    assert net.n_tasks_ == 1
    assert (net.predict(tasks[0][0]) == before).all()


def test_mixtures_that_do_not_converge_are_taken_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted_density(np.random.RandomState(0).rand(60, 1) ** 5)


def test_without_replay_no_density_is_fitted(tasks):
    net = quick().partial_fit(*tasks[0])
    assert density_of(net, None) is None
    assert net.memory_.inputs == ()
