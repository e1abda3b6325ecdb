"""TensorBatches."""

import numpy as np
import pytest
import skorch.dataset
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from sklearn_ewc.data.batches import TensorBatches, WeightedDataset, whole_tensors
from sklearn_ewc.tensors import leaves

X, Y = np.arange(20.0).reshape(10, 2), np.arange(10.0).reshape(10, 1)


class Doubling(skorch.dataset.Dataset):
    """A user's dataset that does more than index."""

    def transform(self, X, y):
        return 2 * X, y


DATASETS = {
    "arrays": skorch.dataset.Dataset(X, Y),
    "dict": skorch.dataset.Dataset({"a": X, "b": Y}, Y),
    "no target": skorch.dataset.Dataset(X),
    "tensors": TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)),
    "subset": Subset(skorch.dataset.Dataset(X, Y), np.array([7, 2, 5])),
    "nested subset": Subset(Subset(skorch.dataset.Dataset(X, Y), range(9, 2, -1)), [1, 3]),
    "weights": WeightedDataset(skorch.dataset.Dataset(X, Y), np.arange(10.0)),
    "weights of a subset": Subset(
        WeightedDataset(skorch.dataset.Dataset(X, Y), np.arange(10.0)), [3, 1, 2]
    ),
    "transforming": Doubling(X, Y),
    "weights of a transforming": WeightedDataset(Doubling(X, Y), np.arange(10.0)),
}


@pytest.mark.parametrize("name", DATASETS)
def test_batches_equal_those_of_a_data_loader(name):
    dataset = DATASETS[name]
    for found, expected in zip(
        TensorBatches(dataset, batch_size=4), DataLoader(dataset, batch_size=4), strict=True
    ):
        torch.testing.assert_close(list(found), list(expected), rtol=0, atol=0)
    assert len(TensorBatches(dataset, batch_size=4)) == len(DataLoader(dataset, batch_size=4))


def test_only_datasets_that_merely_index_are_sliced():
    sliced = {name for name, dataset in DATASETS.items() if whole_tensors(dataset) is not None}
    assert sliced == DATASETS.keys() - {"transforming", "weights of a transforming"}


@pytest.mark.parametrize("name", DATASETS)
def test_shuffled_batches_hold_every_row_once_in_a_seeded_order(name):
    def rows(seed):
        batches = TensorBatches(
            DATASETS[name], 1, shuffle=True, generator=torch.Generator().manual_seed(seed)
        )
        passes = [[batch[-1].flatten() for batch in batches] for _ in range(2)]
        return [torch.cat(one) for one in passes]

    first, second = rows(0)
    assert torch.equal(first.sort().values, second.sort().values)
    assert all(map(torch.equal, rows(0), (first, second)))
    if name != "no target":
        plain = torch.cat([batch[-1].flatten() for batch in TensorBatches(DATASETS[name], 2)])
        assert torch.equal(first.sort().values, plain.sort().values)
        others = [rows(seed)[0] for seed in range(1, 6)]
        assert not all(torch.equal(first, other) for other in others)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    for dataset in DATASETS.values():
        list(TensorBatches(dataset, 2, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_is_a_copy():
    (batch, _), *_ = TensorBatches(DATASETS["arrays"], 4)
    batch.zero_()
    assert X[0].tolist() == [0.0, 1.0]
    assert X[1].tolist() == [2.0, 3.0]


def test_an_iterable_dataset_keeps_its_order():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter((x, y) for x, y in zip(X, Y, strict=True))

    rows = torch.cat([y for _, y in TensorBatches(Stream(), 3, shuffle=True)])
    assert rows.flatten().tolist() == list(range(10))


def test_a_weighted_dataset_has_the_rows_of_the_first():
    dataset: Dataset = WeightedDataset(skorch.dataset.Dataset(X, Y), np.arange(10.0))
    assert len(dataset) == 10
    x, y, weight = dataset[3]
    assert (x.tolist(), y.tolist(), weight.item()) == ([6.0, 7.0], [3.0], 3.0)


@pytest.mark.parametrize(
    "name", sorted(DATASETS.keys() - {"transforming", "weights of a transforming"})
)
def test_whole_tensors_are_put_on_the_device_once(name, monkeypatch):
    moved = []
    to = torch.Tensor.to

    def recorded(tensor, *args, **kwargs):
        if args == ("meta",):
            moved.append(tensor)
        return to(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", recorded)
    batches = TensorBatches(DATASETS[name], 4, shuffle=True, device="meta")
    for _ in range(3):
        parts = [part for batch in batches for part in leaves(batch)]
        assert {part.device.type for part in parts} == {"meta"}
    assert len(moved) == len(leaves(next(iter(batches))))
