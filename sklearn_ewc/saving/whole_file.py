"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def whole_file(file: Any, mode: str = "wb") -> Iterator[Any]:
    """Open a file to be written whole or not at all.

    A path is written beside and moved into place at the end of the block; if the
    block raises, the old file stays. What is no path or no regular file (a pipe)
    is written to directly.
    """
    if not _is_replaced(file):
        with _opened_directly(file, mode) as opened:
            yield opened
        return
    beside = _Beside(file)
    try:
        with beside.opened(mode) as opened:
            yield opened
        beside.move()
    except BaseException:
        beside.remove()
        raise


def write_whole(contents: Iterable[tuple[Any, str | bytes]]) -> None:
    """Write several files, and move them into place, from last to first, once all are written.

    An interrupt leaves all of the old files or comes when all are new. What is
    not moved into place, a pipe or a file that is open, is written to when the
    others are all written beside.
    """
    contents = list(contents)
    written: list[_Beside] = []
    try:
        for file, content in contents:
            if _is_replaced(file):
                written.append(_Beside(file))
                with written[-1].opened("wb") as opened:
                    opened.write(content.encode() if isinstance(content, str) else content)
        for file, content in contents:
            if not _is_replaced(file):
                with _opened_directly(file, "w" if isinstance(content, str) else "wb") as opened:
                    opened.write(content)
        with _interrupts_held_back():
            for beside in reversed(written):
                beside.move()
    except BaseException:
        for beside in written:
            beside.remove()
        raise


class _Beside:
    """A new file beside the one that it is to replace."""

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.path = os.path.realpath(file)
        folder, name = os.path.split(self.path)
        self.beside = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.saving")

    @contextmanager
    def opened(self, mode: str) -> Iterator[Any]:
        """Open it, to be complete on the disk at the end of the block."""
        with open(self.beside, mode.replace("w", "x")) as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())

    def move(self) -> None:
        with suppress(FileNotFoundError):
            shutil.copymode(self.path, self.beside)
        os.replace(self.beside, self.path)

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            os.remove(self.beside)


def is_path(file: Any) -> bool:
    """Tell whether a file is given by its path."""
    return isinstance(file, str | os.PathLike)


def _is_replaced(file: Any) -> bool:
    return is_path(file) and (os.path.isfile(file) or not os.path.exists(file))


@contextmanager
def _opened_directly(file: Any, mode: str) -> Iterator[Any]:
    if not is_path(file):
        yield file
        return
    with open(file, mode) as opened:
        yield opened


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let an interrupt wait for the end of the block."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main_thread else None
    if handler is None:
        yield
        return
    received: list[Any] = []
    signal.signal(signal.SIGINT, lambda *args: received.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)
