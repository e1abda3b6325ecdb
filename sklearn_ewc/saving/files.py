"""The files of a call: which of a net's parts they are for, and what may be given for them."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from ..arguments import shown
from ..tensors import uncompiled
from .whole_file import is_path

LARGEST_HISTORY = 2**28  # bytes of JSON, of which some ten times as many are made

NOT_INITIALISED = (
    "Cannot {verb} an estimator that is not initialised: fit it, call initialize(), or load "
    "f_memory too"
)
_NO_SUCH_PART = "There is nothing to {verb} for f_{{name}}: the net has no module net.{{name}}_"


def part_of(net: Any, argument: str, verb: str) -> Any:
    """Return the module or optimizer that the file of an argument holds, without any wrapper.

    The names in a file are the same whether or not the module is compiled.
    """
    name = "module_" if argument == "f_params" else f"{argument[2:]}_"
    part = net._get_module(name, msg=_NO_SUCH_PART.format(verb=verb))
    return net.bare_module_ if part is net.module_ else uncompiled(part)


def check_files(files: Mapping[str, Any], method: str) -> None:
    """Raise TypeError or ValueError unless each is a path or has a method of open files."""
    for name, file in files.items():
        if not (is_path(file) or (hasattr(file, method) and not isinstance(file, type))):
            raise TypeError(f"{name} must be a path or an open file, got {shown(file)}")
        if is_path(file) and not os.fspath(file):
            raise ValueError(f"{name} is an empty path")


def refuse_one_file_for_two(files: Mapping[str, Any]) -> None:
    """Raise ValueError where two arguments are one file: the same object, or the same path."""
    known: dict[Any, str] = {}
    for name, file in files.items():
        path: Any = file if is_path(file) else getattr(file, "name", None)
        key = os.path.realpath(path) if is_path(path) else id(file)
        if key in known:
            raise ValueError(f"{known[key]} and {name} are the same file")
        known[key] = name


@contextmanager
def opened_to_read(argument: str, file: Any) -> Iterator[BinaryIO]:
    """Open a file to be read at any position, from where an open one stands."""
    if is_path(file):
        with open(file, "rb") as opened:
            if stat.S_ISCHR(os.fstat(opened.fileno()).st_mode):  # which may have no end
                raise ValueError(f"{argument} does not fit: it is a device")
            yield opened if opened.seekable() else io.BytesIO(opened.read())
    elif hasattr(file, "seekable") and file.seekable() and file.tell() == 0:
        yield file
    else:
        yield io.BytesIO(file.read())


def read_history(file: Any) -> str | bytes:
    """Return the JSON of a history."""
    if is_path(file):
        with open(file, "rb") as opened:
            return read_history(opened)
    data = file.read(LARGEST_HISTORY + 1)
    if len(data) > LARGEST_HISTORY:
        raise ValueError(f"f_history does not fit: it has more than {LARGEST_HISTORY} bytes")
    return data
