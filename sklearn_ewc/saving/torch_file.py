"""Files of torch's format: whole records of the right sizes, or nothing of them is read."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import torch

from .skeleton import Skeleton

_LARGEST_PICKLE = 2**26  # of names and numbers; those of a tensor take some 200 bytes
_OF_TORCH = {
    "data.pkl",
    "version",
    "byteorder",
    ".format_version",
    ".storage_alignment",
    ".data/serialization_id",
}


def torch_load(
    file: BinaryIO,
    check: Callable[[Any], None] = lambda content: None,
    ties: bool = True,
    **options: Any,
) -> Any:
    """Return the content of a torch file, judged before its records are read.

    Parameters
    ----------
    file : binary file, seekable
        What is read.
    check : callable
        Raises ValueError for a content that does not fit. It gets it with tensors
        of the meta device, and only where no code of the file may be run.
    ties : bool, default=True
        Whether tensors may be the same numbers of the file.
    **options
        As in :func:`torch.load`.
    """
    options = {"map_location": "cpu", "weights_only": True, **options}
    checked = io.BytesIO()
    with zipfile.ZipFile(file) as archive:
        records = _records(archive, file.seek(0, os.SEEK_END))
        if options["weights_only"] is not False:
            skeleton = Skeleton(archive.read(records["data.pkl"]))
            check(skeleton.load())
            sizes = {name: info.file_size for name, info in records.items()}
            stored = {name[5:]: n for name, n in sizes.items() if name.startswith("data/")}
            skeleton.check_records(stored, ties)
        # torch skips the checksums of the archive, and takes a record marked as a folder for
        # one of any content: it gets to see records that zipfile has checked, written anew
        with zipfile.ZipFile(checked, "w") as anew:
            for info in records.values():
                anew.writestr(info.filename, archive.read(info))
    checked.seek(0)
    return torch.load(checked, **options)


def _records(archive: zipfile.ZipFile, n_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Return the records by their names within the archive's one folder."""
    infos = archive.infolist()
    records = {info.filename.partition("/")[2]: info for info in infos}
    if len(records) < len(infos):
        raise ValueError("it is damaged, a record is there twice")
    if len({info.filename.partition("/")[0] for info in infos}) > 1:
        raise ValueError("it has records in several folders")
    for name, info in records.items():
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its record {name} is compressed")
        if not (name in _OF_TORCH or name.startswith("data/")):
            raise ValueError(f"it has the foreign record {name}")
    if sum(info.file_size for info in infos) > n_bytes:
        raise ValueError("its records are larger than the file")
    if records["data.pkl"].file_size > _LARGEST_PICKLE:
        raise ValueError(f"its names and numbers take more than {_LARGEST_PICKLE} bytes")
    return records
