"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def whole_file(file: Any, mode: str = "wb") -> Iterator[Any]:
    """Open a file to be written whole or not at all.

    A path is written beside and moved into place at the end of the block; if the
    block raises, the old file stays. What is no path or no regular file (a pipe)
    is written to directly.
    """
    if not isinstance(file, str | os.PathLike):
        yield file
        return
    path = os.path.realpath(file)
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, mode) as opened:
            yield opened
        return
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.saving")
    try:
        with open(beside, mode.replace("w", "x")) as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        with suppress(FileNotFoundError):
            shutil.copymode(path, beside)
        os.replace(beside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(beside)
        raise
