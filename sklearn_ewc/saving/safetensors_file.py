"""Files of the safetensors format: judged by their header before the numbers are read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, BinaryIO

import torch

from ..tensors import Tensors

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
_LARGEST_HEADER = 2**26


def safetensors_load(
    file: BinaryIO, check: Callable[[dict[str, str], Tensors], None]
) -> tuple[dict[str, str], Tensors]:
    """Return the metadata and the tensors of a file.

    Both are first given to `check`, the tensors on the meta device. That the
    tensors do not overlap is for safetensors to find.
    """
    from safetensors.torch import load

    metadata, outline, n_bytes = _header(file)
    check(metadata, outline)
    needed = sum(value.nbytes for value in outline.values())
    if needed != n_bytes:
        raise ValueError(f"it has {n_bytes} bytes of numbers, its tensors need {needed}")
    file.seek(0)
    return metadata, load(file.read())


def _header(file: BinaryIO) -> tuple[dict[str, str], Tensors, int]:
    """Return metadata, tensors on the meta device, and how many bytes follow."""
    n_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not length <= min(n_bytes - 8, _LARGEST_HEADER):
        raise ValueError(f"its header has {length} bytes, the file {n_bytes}")
    header: dict[str, Any] = json.loads(file.read(length))
    metadata = header.pop("__metadata__", {})
    outline = {name: _outline(**entry) for name, entry in header.items()}
    return metadata, outline, n_bytes - 8 - length


def _outline(dtype: str, shape: list[int], data_offsets: list[int]) -> torch.Tensor:
    if dtype not in _DTYPES:
        raise ValueError(f"it has a tensor of dtype {dtype}")
    return torch.empty(shape, dtype=_DTYPES[dtype], device="meta")
