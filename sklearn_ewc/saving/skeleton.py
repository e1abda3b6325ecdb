"""What a pickle of torch's holds, but for the numbers: to be judged before they are read."""

from __future__ import annotations

import io
import math
import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor


class Skeleton(pickle._Unpickler):
    """Reads a pickle of torch's format, with tensors of no memory in place of the file's.

    No code of the file is run, and nothing that it names is allocated. What is
    not known to be harmless becomes a placeholder. It is pickle's reader in Python:
    the one in C allocates what a file calls the number of a memo.
    """

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.storages: dict[str, _Storage] = {}
        self.unknown: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        """Return what is harmless, or what makes a placeholder."""
        full_name = f"{module}.{name}"
        if full_name in _KNOWN:
            return _KNOWN[full_name]
        if full_name not in _trusted():
            self.unknown.add(full_name)
        return Placeholder

    def persistent_load(self, pid: Any) -> Any:
        """Return the outline of a storage, the same for the same record."""
        kind, dtype, key, _, size = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise ValueError("it has a record that is no storage")
        if type(size) is not int or size < 0 or type(key) is not str:
            raise ValueError(f"it has a storage {key!r} of the size {size!r}")
        storage = self.storages.setdefault(key, _Storage(dtype, size * dtype.itemsize))
        if (storage.dtype, storage.n_bytes) != (dtype, size * dtype.itemsize):
            raise ValueError(f"it has the storage {key} in two sizes")
        return storage

    def load_build(self) -> None:
        """Set the attributes of an OrderedDict, as of a module's state; of nothing else."""
        state = self.stack.pop()  # type: ignore[attr-defined]
        built = self.stack[-1]  # type: ignore[attr-defined]
        if type(built) is OrderedDict:
            built.__dict__.update(state)
        elif not isinstance(built, Placeholder):
            raise ValueError(f"it changes a {type(built).__name__}")

    dispatch[pickle.BUILD[0]] = load_build

    def check_records(self, sizes: Mapping[str, int], ties: bool) -> None:
        """Raise ValueError unless records of these sizes are what the tensors need, no more.

        Tensors may share a storage: views of its parts, as of the weights of a
        recurrent layer, or, with `ties`, tensors that are the same.
        """
        if self.unknown:
            raise ValueError(f"it holds objects of unknown kinds: {sorted(self.unknown)}")
        if foreign := sorted(sizes.keys() - self.storages.keys()):
            raise ValueError(f"it has records that belong to no tensor: {foreign}")
        for key, storage in self.storages.items():
            if sizes.get(key) != storage.n_bytes:
                message = f"record {key} has {sizes.get(key)} bytes, {storage.n_bytes} are named"
                raise ValueError(message)
            storage.check(key, ties)


class Placeholder:
    """Stands for an object of a kind that is not read: made of anything, and nothing itself."""

    def __new__(cls, *_: Any, **__: Any) -> Placeholder:
        """Forget the arguments."""
        return super().__new__(cls)


@dataclass
class _Storage:
    dtype: torch.dtype
    n_bytes: int
    views: list[tuple[int, Any]] = field(default_factory=list)  # bytes, and what is viewed

    def view(self, offset: int, size: Any, stride: Any, dtype: torch.dtype) -> Tensor:
        dims = _dims(offset, size, stride)
        n_numbers = math.prod(size)
        end = offset + 1 + sum((n - 1) * step for n, step in dims) if n_numbers else 0
        if end * dtype.itemsize > self.n_bytes:
            raise ValueError(f"a tensor of shape {tuple(size)} reaches beyond its storage")
        extent = 1
        for n, step in dims if n_numbers else ():
            if step < extent:
                raise ValueError(f"a tensor of shape {tuple(size)} overlaps itself")
            extent += (n - 1) * step
        self.views.append((n_numbers * dtype.itemsize, (offset, dims)))
        return torch.empty(size, dtype=dtype, device="meta")

    def check(self, key: str, ties: bool) -> None:
        distinct = {viewed: n_bytes for n_bytes, viewed in self.views}
        sizes = distinct.values() if ties else [n_bytes for n_bytes, _ in self.views]
        if sum(sizes) != self.n_bytes:
            message = f"record {key} has {self.n_bytes} bytes, its tensors need {sum(sizes)}"
            raise ValueError(f"{message}: save contiguous clones")


def _dims(offset: int, size: Sequence[int], stride: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return (number, step) of the axes that are longer than 1, from the shortest step."""
    if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
        raise ValueError(f"a tensor has offset {offset!r}, size {size!r}, stride {stride!r}")
    steps = [(step, n) for n, step in zip(size, stride, strict=True) if n != 1]
    return tuple((n, step) for step, n in sorted(steps))


def _tensor(storage: _Storage, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return storage.view(offset, size, stride, storage.dtype)


def _tensor_v3(
    storage: _Storage,
    offset: int,
    size: Any,
    stride: Any,
    grad: bool,
    hooks: Any,
    dtype: Any,
    *_: Any,
) -> Tensor:
    return storage.view(offset, size, stride, dtype)


def _bytearray(data: bytes = b"") -> bytearray:
    if type(data) is not bytes:  # a number is a size to allocate
        raise ValueError("it has a bytearray of no bytes")
    return bytearray(data)


def _trusted() -> set[str]:
    """Return the names of what the user has told torch to load."""
    known = torch.serialization.get_safe_globals()
    return {
        one[1] if isinstance(one, tuple) else f"{one.__module__}.{one.__qualname__}"
        for one in known
    }


def _named_dtypes() -> dict[str, torch.dtype]:
    dtypes = {str(value): value for value in vars(torch).values() if type(value) is torch.dtype}
    storages = {
        f"{kind.__module__}.{kind.__name__}": torch.serialization.StorageType(kind.__name__).dtype
        for kind in torch._storage_classes
        if issubclass(kind, torch.storage._LegacyStorage)
    }
    return {**dtypes, **storages, "torch.storage.UntypedStorage": torch.uint8}


_KNOWN: dict[str, Any] = {
    **_named_dtypes(),
    "collections.OrderedDict": OrderedDict,
    "collections.Counter": Counter,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "_codecs.encode": str.encode,
    "__builtin__.bytearray": _bytearray,
    "__builtin__.complex": complex,
    "__builtin__.set": set,
}
