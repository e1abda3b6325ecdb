"""Progress of work that takes long: a line when a part is done, with the time that is left."""

from __future__ import annotations

from time import monotonic
from typing import Any

from .arguments import check_verbose


class Progress:
    """Tells on stdout how far work has come.

    Parameters
    ----------
    title : str
        What is done; told at once.
    total : int
        How much work it is, in units that take about the same time.
    verbose : int
        0 is silent.

    Raises
    ------
    ValueError
        If `verbose` is no integer >= 0.

    Examples
    --------
    >>> from sklearn_ewc.progress import Progress
    >>> progress = Progress("learning 2 tasks", total=2, verbose=1)
    learning 2 tasks
    >>> progress.done("north")
    [1/2] north (... s, about ... s left)
    >>> progress.done("south")
    [2/2] south (... s)
    """

    def __init__(self, title: str, total: int, verbose: Any) -> None:
        check_verbose("verbose", verbose)
        self.total = total
        self.is_told = bool(verbose)
        self.finished = 0
        self.start = monotonic()
        if self.is_told:
            print(title, flush=True)

    def done(self, text: str, work: int = 1) -> None:
        """Tell that a part is done, which was so many units of the work."""
        self.finished += work
        if not self.is_told:
            return
        elapsed = monotonic() - self.start
        times = _duration(elapsed)
        if self.finished < self.total:
            left = elapsed / self.finished * (self.total - self.finished)
            times += f", about {_duration(left)} left"
        print(f"[{self.finished}/{self.total}] {text} ({times})", flush=True)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
