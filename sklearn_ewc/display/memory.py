"""Picture of what a memory takes: bytes, by what they are kept for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..wrapped import fitted_net
from ._style import BLUE, GREEN, ORANGE, axes_or_new, check_matplotlib

_PARTS = {
    "sums": ("sums over all tasks", BLUE),
    "tasks": ("single tasks", ORANGE),
    "inputs": ("densities of their inputs", GREEN),
}


class MemoryDisplay:
    """What is stored of the tasks learned, and how many bytes each of them takes.

    A bar for each part of the memory: the sums that training needs, which are as large
    after 1,000 tasks as after one; the parameters and the curvature of every single
    task (none with ``store_tasks=False``); the densities of inputs that are replayed
    (none with ``replay=None``). Beside a bar stands what a task adds to it.

    Made by :meth:`from_estimator`.

    Parameters
    ----------
    n_bytes : dict of str to sequence of int
        As :attr:`Memory.n_bytes <sklearn_ewc.Memory.n_bytes>`.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    bars_ : matplotlib BarContainer
    texts_ : list of matplotlib Text
        What stands beside the bars.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_ewc import EWCRegressor
    >>> from sklearn_ewc.display import MemoryDisplay
    >>> X = np.linspace(-2, 2, 40).reshape(-1, 1)
    >>> net = EWCRegressor(hidden_layer_sizes=(8,), max_epochs=5, random_state=0)
    >>> net = net.fit(X, np.sin(X.ravel()))
    >>> MemoryDisplay.from_estimator(net).n_bytes
    {'sums': (600,), 'tasks': (400,), 'inputs': ()}
    """

    def __init__(self, *, n_bytes: Mapping[str, Sequence[int]]) -> None:
        self.n_bytes = {name: tuple(sizes) for name, sizes in n_bytes.items()}

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> MemoryDisplay:
        """Draw what a fitted net stores.

        Parameters
        ----------
        estimator : EWCRegressor, or a pipeline or search that contains one
            Fitted.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        MemoryDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If there is no net with a ``memory_`` in it.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        return cls(n_bytes=fitted_net(estimator, "memory_").memory_.n_bytes).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> MemoryDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        MemoryDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        self.ax_ = axes_or_new(f"{type(self).__name__}.plot", ax, (6.4, 2.4))
        self.figure_ = self.ax_.figure
        names, colours = zip(*(_PARTS[part] for part in self.n_bytes), strict=True)
        totals = [sum(sizes) for sizes in self.n_bytes.values()]
        self.bars_ = self.ax_.barh(range(len(names)), totals, color=colours)
        self.ax_.set_yticks(range(len(names)), names)
        self.ax_.invert_yaxis()
        self.ax_.set(xlim=(0, 1.6 * max(*totals, 1)), xticks=[])
        self.ax_.spines[["top", "right", "bottom"]].set_visible(False)
        self.texts_ = self.ax_.bar_label(
            self.bars_, [_told(part, sizes) for part, sizes in self.n_bytes.items()], padding=4
        )
        return self


def _told(part: str, sizes: Sequence[int]) -> str:
    if not sizes:
        return "none stored"
    total = _shown(sum(sizes))
    if part == "sums":
        return f"{total}, however many tasks"
    return f"{total}, {len(sizes)} × {_shown(round(sum(sizes) / len(sizes)))}"


def _shown(n_bytes: int) -> str:
    """Return a number of bytes as one reads it."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes} B"
