"""What a first batch tells: faults that training would fail on later, unexplained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD

from ..arguments import shown
from ..curvature.criterion import ELEMENTWISE
from ..data.batches import whole_tensors
from ..data.targets import SCALE_Y
from ..tensors import leaves
from .steps import targets

# what torch says where tensors of two dtypes meet
_OF_DTYPES = re.compile(r"same dtype|scalar type|dtypes? .*match|[tT]ype \(.*should be the same")
_FOLLOW = (
    "module makes float32 out of float64 inputs: let the tensors that it makes have the dtype of "
    "its input, as by torch.zeros(3, dtype=X.dtype), or give X.astype(numpy.float32)"
)


def first_batch(iterator: Any) -> Any:
    """Return the first batch, None if there is none.

    Raises
    ------
    ValueError, TypeError
        If a user's Dataset makes no batch of finite numbers.
    """
    try:
        batch = next(iter(iterator), None)
    except (RuntimeError, TypeError) as error:
        raise TypeError(f"X is a Dataset of which no batch can be made: {error}") from error
    for part in leaves(() if batch is None else tuple(batch)):
        if not isinstance(part, Tensor | np.ndarray):
            raise TypeError(f"X is a Dataset whose first batch holds {shown(part)}, no tensor")
        values = torch.as_tensor(part)
        if values.is_complex() or not bool(values.isfinite().all()):
            raise ValueError("X is a Dataset whose first batch holds what is no finite number")
    if batch is not None and len(batch) > 2 and bool((torch.as_tensor(batch[2]) < 0).any()):
        raise ValueError("X is a Dataset whose first batch holds negative weights")
    return batch


@contextmanager
def explained_dtypes(net: Any) -> Iterator[None]:
    """Let torch's error about two dtypes say whose they are, where the data are float64."""
    try:
        yield
    except RuntimeError as error:
        if net.dtype_ == np.float64 and _OF_DTYPES.search(str(error)):
            raise TypeError(f"{_FOLLOW} ({error})") from error
        raise


def check_dtype(net: Any, output: Tensor, y: Tensor) -> None:
    """Raise TypeError where the backward pass of a criterion would meet two dtypes."""
    if isinstance(net.criterion_, ELEMENTWISE) and (output.dtype, y.dtype) == (
        torch.float32,
        torch.float64,
    ):
        raise TypeError(_FOLLOW)


def check_size(net: Any, dataset: Any, output: Tensor, y: Tensor) -> None:
    """Raise ValueError where targets are finite and the criterion of them is not."""
    _check_criterion_of(net, output, y)
    found = whole_tensors(dataset)
    if found is None or not (isinstance(found[0][1], Tensor) and len(found[0][1])):
        return
    every, rows = found[0][1], found[1]
    sizes = every.detach().abs().reshape(len(every), -1).amax(1)
    largest = int(sizes.argmax()) if rows is None else int(rows[sizes[rows].argmax()])
    _check_criterion_of(net, output[:1], targets(net, every[largest : largest + 1]))


def check_sparse_layers(net: Any) -> None:
    """Raise ValueError where gradients are sparse, and the optimizer or the penalty cannot be.

    The penalty moves every row of a table in every step.
    """
    sparse = [
        name
        for name, part in net.bare_module_.named_modules()
        if isinstance(part, nn.Embedding | nn.EmbeddingBag)
        and part.sparse
        and part.weight.requires_grad
    ]
    optimizer = net.optimizer_
    takes_them = isinstance(optimizer, SGD) and not any(
        group["weight_decay"] for group in optimizer.param_groups
    )
    if sparse and not takes_them:
        raise ValueError(
            f"module has sparse=True in its layers {sparse}, which goes with "
            "optimizer=torch.optim.SGD without weight_decay alone, not with "
            f"{type(optimizer).__name__} as it is set: make it sparse=False, or take that one"
        )


def _check_criterion_of(net: Any, output: Tensor, y: Tensor) -> None:
    numbers = [part for part in (output, y) if part.is_floating_point()]
    with torch.no_grad():
        loss = net.criterion_(output, y)
    if not isinstance(loss, Tensor):
        raise TypeError(f"criterion must return a tensor, got {shown(loss)}")
    if all(bool(part.isfinite().all()) for part in numbers) and not bool(loss.isfinite().all()):
        largest = float(y.abs().max())
        raise ValueError(
            f"y has values up to {largest:.3g}, of which {net.criterion_name_} is infinite in "
            f"{y.dtype}: {SCALE_Y}"
        )
