"""KeyboardInterrupt: a callback's way to end a task, told from Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StoppedEarly(KeyboardInterrupt):
    """What a hook has raised: by itself, or because Ctrl-C reached it."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let a hook end the block, as in skorch; Ctrl-C, wherever it arrives, is raised."""
    with _recorded_interrupts() as arrived:
        try:
            yield
        except StoppedEarly as stop:
            if arrived:
                raise KeyboardInterrupt from stop


@contextmanager
def _recorded_interrupts() -> Iterator[list[int]]:
    """Yield a list that fills with the interrupts of this process; they are handled as before."""
    arrived: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main_thread else None  # others get none
    if not callable(handler):
        yield arrived
        return

    def record(number: int, frame: Any) -> None:
        arrived.append(number)
        handler(number, frame)

    try:
        signal.signal(signal.SIGINT, record)
        yield arrived
    finally:
        if signal.getsignal(signal.SIGINT) is record:  # a hook may have put its own there
            signal.signal(signal.SIGINT, handler)
