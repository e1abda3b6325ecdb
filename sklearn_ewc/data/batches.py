"""Batches cut out of whole tensors, without touching single rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import skorch.dataset
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from ..tensors import cached_property, leaves, mapped


class WeightedDataset(skorch.dataset.Dataset):
    """A dataset of (X, y) whose rows also carry a weight: (X, y, sample_weight).

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Of pairs (X, y).
    sample_weight : array-like of shape (n_samples,)
        One weight per row.
    """

    def __init__(self, dataset: Dataset, sample_weight: Any) -> None:
        self.dataset = dataset
        # where skorch's scoring callbacks look for the data
        self.X, self.y = getattr(dataset, "X", None), getattr(dataset, "y", None)
        is_tensor = isinstance(sample_weight, Tensor)
        # a copy, since arrays of pandas and polars are read-only
        self.sample_weight = sample_weight if is_tensor else torch.tensor(sample_weight)

    def __len__(self) -> int:
        return len(self.sample_weight)

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return *self.dataset[index], self.sample_weight[index]


class TensorBatches:
    """An iterator over the batches of a dataset that slices whole tensors.

    What :class:`torch.utils.data.DataLoader` is to skorch, for data that lie in
    memory as arrays or tensors: no row is fetched, converted or collated alone.
    Any other dataset, and any other option, is handed to a DataLoader. The global random state is
    neither read nor changed.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        What :class:`skorch.NeuralNet` passes to its iterators.
    batch_size : int, default=1
        Rows per batch; the last batch may have fewer.
    shuffle : bool, default=False
        Whether to draw a new order for every pass.
    generator : torch.Generator, default=None
        Source of the order. None: a new one of unpredictable seed.
    drop_last : bool, default=False
        Whether to leave out a last batch that has fewer rows than the others.
    device : str or torch.device, default=None
        Where to put the whole tensors, once, if they fit into half of what is
        free there. None, or a DataLoader: they stay where they are.
    **loader_options
        Further options of a DataLoader, such as ``num_workers`` or
        ``collate_fn``. With any of them it takes over.

    Examples
    --------
    >>> import numpy as np
    >>> from skorch.dataset import Dataset
    >>> from sklearn_ewc.data.batches import TensorBatches
    >>> data = Dataset(np.arange(6.0).reshape(3, 2), np.arange(3.0))
    >>> [len(X) for X, y in TensorBatches(data, batch_size=2)]
    [2, 1]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
        device: str | torch.device | None = None,
        **loader_options: Any,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, or -1 for all, got {batch_size}")
        if generator is None:
            generator = torch.Generator()
            generator.seed()
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.generator = generator
        self.drop_last = drop_last
        self.device = device
        self.loader_options = loader_options

    def __len__(self) -> int:
        if self.loader_options:  # a sampler may have more rows than there are, or fewer
            return len(self._loader())
        n_samples = len(self.dataset)  # type: ignore[arg-type]
        return n_samples // self.batch_size if self.drop_last else -(-n_samples // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        found = self._tensors_and_rows
        if found is None:
            yield from self._loader()
            return
        tensors, rows = found
        n_samples = _length(tensors[0]) if rows is None else len(rows)
        if self.shuffle and n_samples > self.batch_size:  # a single batch needs no order
            order = torch.randperm(n_samples, generator=self.generator)
            rows = order if rows is None else rows[order]
        if rows is not None:
            rows = rows.to(leaves(tensors)[0].device)
        stop = n_samples - n_samples % self.batch_size if self.drop_last else n_samples
        for start in range(0, stop, self.batch_size):
            stop_here = start + self.batch_size
            take = _cut(start, stop_here) if rows is None else _gather(rows[start:stop_here])
            yield tuple(mapped(data, take) for data in tensors)

    def _loader(self) -> DataLoader:
        return DataLoader(
            self.dataset,
            self.batch_size,
            shuffle=self.shuffle and not isinstance(self.dataset, IterableDataset),
            generator=self.generator,
            drop_last=self.drop_last,
            **self.loader_options,
        )

    @cached_property
    def _tensors_and_rows(self) -> tuple[tuple[Any, ...], Tensor | None] | None:
        found = None if self.loader_options else whole_tensors(self.dataset)
        if found is None or self.device is None:
            return found
        tensors, rows = found
        if not _fits_on(torch.device(self.device), leaves(tensors)):
            return found
        return tuple(mapped(data, lambda part: part.to(self.device)) for data in tensors), rows


def _cut(start: int, stop: int) -> Callable[[Tensor], Tensor]:
    # a slice would be a view, and a module may overwrite its input in place
    return lambda part: part[start:stop].clone()


def _gather(rows: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda part: part.index_select(0, rows)


def _fits_on(device: torch.device, tensors: list[Tensor]) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return sum(tensor.nbytes for tensor in tensors) <= free // 2


def mean_weight(dataset: Any) -> float | None:
    """Return the mean of the weights that the rows carry, None if they carry none."""
    found = whole_tensors(dataset)
    if found is not None:
        tensors, rows = found
        if len(tensors) < 3:
            return None
        return float((tensors[2] if rows is None else tensors[2][rows]).double().mean())
    if isinstance(dataset, IterableDataset) or len(dataset) == 0 or len(dataset[0]) < 3:
        return None
    return sum(float(dataset[row][2]) for row in range(len(dataset))) / len(dataset)


def targets_and_weights(dataset: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return all targets of a dataset and, if the rows carry them, their weights."""
    found = whole_tensors(dataset)
    if found is None:
        rows = [dataset[row][1:] for row in range(len(dataset))]
        parts = [
            np.stack([np.asarray(part) for part in column]) for column in zip(*rows, strict=True)
        ]
    else:
        tensors, chosen = found
        parts = [
            np.asarray(part.cpu() if chosen is None else part.cpu()[chosen]) for part in tensors[1:]
        ]
    return parts[0], parts[1] if len(parts) > 1 else None


def whole_tensors(dataset: Any) -> tuple[tuple[Any, ...], Tensor | None] | None:
    """Return the tensors behind a dataset and which of their rows it has.

    Rows are None for all of them in order; the answer is None where a dataset
    may do more than index (a subclass with its own ``__getitem__``).
    """
    if type(dataset) is TensorDataset:
        return dataset.tensors, None
    if type(dataset) is skorch.dataset.Dataset:
        X, y = _as_tensors(dataset.X), _as_tensors(dataset.y)
        if dataset.y is None:
            y = torch.zeros(len(dataset), 1)  # as skorch's own placeholder
        return None if X is None or y is None else ((X, y), None)
    if type(dataset) is WeightedDataset:
        found = whole_tensors(dataset.dataset)
        if found is None or found[1] is not None:
            return None
        return (*found[0], dataset.sample_weight), None
    if type(dataset) is Subset:
        found = whole_tensors(dataset.dataset)
        if found is None:
            return None
        tensors, rows = found
        chosen = torch.as_tensor(np.asarray(dataset.indices))
        return tensors, chosen if rows is None else rows[chosen]
    return None


def _as_tensors(data: Any) -> Any:
    if isinstance(data, Mapping):
        converted = {key: _as_tensors(value) for key, value in data.items()}
        return None if any(value is None for value in converted.values()) else converted
    if isinstance(data, np.ndarray | Tensor):
        return torch.as_tensor(data)
    return None


def _length(data: Any) -> int:
    return len(next(iter(data.values()))) if isinstance(data, Mapping) else len(data)
