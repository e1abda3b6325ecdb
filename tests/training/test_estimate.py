"""What a trained task leaves behind."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_ewc.training import estimate

from ..helpers import quick


def wide(n_outputs, n_samples=20):
    rng = np.random.RandomState(0)
    X = rng.randn(n_samples, 3).astype("float32")
    return X, np.tile(X[:, :1], (1, n_outputs))


def fishers(net):
    return dict(net.memory_.tasks[0].fisher)


def learned(n_outputs, **options):
    return quick(max_epochs=1, **options).partial_fit(*wide(n_outputs))


def close(found, expected):
    return all(torch.allclose(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("n_outputs", "kind"), [(1, "exact"), (10, "exact"), (11, "sampled")])
def test_the_fisher_is_sampled_where_there_are_many_outputs(n_outputs, kind):
    found = fishers(learned(n_outputs))
    others = {name: fishers(learned(n_outputs, fisher=name)) for name in ("exact", "sampled")}
    assert close(found, others[kind])
    if n_outputs > 1:
        assert not close(*others.values())


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 12))

    def forward(self, X):
        return self.net(X).reshape(-1, 4, 3)


def test_what_counts_is_all_the_numbers_of_a_sample():
    X, y = wide(12)
    found, expected = (
        fishers(quick(module=Images, fisher=fisher).partial_fit(Pairs(X, y.reshape(-1, 4, 3))))
        for fisher in ("auto", "sampled")
    )
    assert close(found, expected)


class Pairs(torch.utils.data.Dataset):
    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, row):
        return self.X[row], self.y[row]


def test_a_criterion_without_curvature_is_refused_before_training():
    net = quick(criterion=nn.L1Loss)
    with pytest.raises(ValueError, match="no curvature, so fisher='auto'.*use fisher='empirical'"):
        net.partial_fit(*wide(20))
    assert not hasattr(net, "module_")


def test_a_row_has_the_same_signs_in_batches_of_any_size():
    X, y = wide(12)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 12))
    first, *others = (
        fishers(quick(module=module, max_epochs=0, batch_size=size).partial_fit(X[..., None], y))
        for size in (1, 7, 20)
    )
    assert all(close(other, first) for other in others)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(estimate, "_SILENT_SECONDS", -1.0)


def test_a_long_fisher_tells_how_far_it_is(impatient, capsys):
    quick(max_epochs=0, batch_size=5, verbose=1).partial_fit(*wide(12))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Fisher")]
    assert [line.rpartition(",")[0] for line in lines] == [
        f"Fisher of task 1: {n} of 4 batches" for n in (1, 2, 3)
    ]
    assert all(line.endswith(" s left") for line in lines)


def test_a_fisher_of_unknown_length_tells_what_it_has_done(impatient, capsys):
    class Stream:
        def __init__(self, dataset, batch_size):
            self.loader = torch.utils.data.DataLoader(dataset, batch_size)

        def __iter__(self):
            return iter(self.loader)

    net = quick(max_epochs=0, batch_size=10, verbose=1, iterator_valid=Stream)
    net.partial_fit(*wide(2))
    assert capsys.readouterr().out.splitlines()[-1] == "Fisher of task 1: 1 batches"


def test_a_short_fisher_or_a_silent_net_tells_nothing(capsys, monkeypatch):
    quick(max_epochs=0, batch_size=5, verbose=1).partial_fit(*wide(12))
    monkeypatch.setattr(estimate, "_SILENT_SECONDS", -1.0)
    quick(max_epochs=0, batch_size=5).partial_fit(*wide(12))
    assert "Fisher" not in capsys.readouterr().out
