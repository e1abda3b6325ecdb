"""Picture of the score on each task while the later ones are learned."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..evaluate import Tasks, TaskScores, task_scores
from ._style import (
    COLOUR_MAP,
    PALETTE,
    axes_or_new,
    check_matplotlib,
    colours,
    label_ticks,
    number_cells,
    score_label,
    sequential_map,
)

KINDS = ("lines", "matrix")


class TaskScoresDisplay:
    """How well each task is remembered while the later ones are learned.

    Made by :meth:`from_estimator` or :meth:`from_scores`.

    Parameters
    ----------
    scores : TaskScores
        As returned by :func:`~sklearn_ewc.evaluate.task_scores`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn in.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    lines_ : list of matplotlib Line2D, or None
        A line per task; None for ``kind="matrix"``.
    mean_line_ : matplotlib Line2D, or None
        The mean score of the tasks learned so far; None for ``kind="matrix"``.
    image_ : matplotlib AxesImage, or None
        The heat map; None for ``kind="lines"``.
    texts_ : list of matplotlib Text, or None
        The numbers in its cells, row by row; empty where there is no room for them,
        None for ``kind="lines"``.
    colorbar_ : matplotlib Colorbar, or None
        None where each line has its entry in a legend.

    See Also
    --------
    sklearn_ewc.evaluate.task_scores : Computes the scores.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import SGDRegressor
    >>> from sklearn_ewc.display import TaskScoresDisplay
    >>> X = np.linspace(-1, 1, 40).reshape(-1, 1)
    >>> tasks = {"up": (X, X.ravel()), "down": (X, -X.ravel())}
    >>> display = TaskScoresDisplay.from_estimator(SGDRegressor(eta0=1.0, random_state=0), tasks)
    >>> len(display.lines_)
    2
    """

    def __init__(self, scores: TaskScores) -> None:
        self.scores = scores

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        tasks: Tasks,
        *,
        test_tasks: Tasks | None = None,
        scoring: Any = None,
        kind: str = "lines",
        ax: Any = None,
    ) -> TaskScoresDisplay:
        """Learn the tasks one after another with a clone, and draw the scores.

        Parameters
        ----------
        estimator, tasks, test_tasks, scoring
            As in :func:`~sklearn_ewc.evaluate.task_scores`.
        kind, ax
            As in :meth:`plot`.

        Returns
        -------
        TaskScoresDisplay
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        _check_kind(kind)
        scores = task_scores(estimator, tasks, test_tasks=test_tasks, scoring=scoring)
        return cls.from_scores(scores, kind=kind, ax=ax)

    @classmethod
    def from_scores(
        cls, task_scores: TaskScores, *, kind: str = "lines", ax: Any = None
    ) -> TaskScoresDisplay:
        """Draw scores that are there already.

        Parameters
        ----------
        task_scores : TaskScores
            As returned by :func:`~sklearn_ewc.evaluate.task_scores`.
        kind, ax
            As in :meth:`plot`.

        Returns
        -------
        TaskScoresDisplay
        """
        return cls(task_scores).plot(kind=kind, ax=ax)

    def plot(self, *, kind: str = "lines", ax: Any = None) -> TaskScoresDisplay:
        """Draw.

        Parameters
        ----------
        kind : {"lines", "matrix"}, default="lines"
            "lines": each task's score from when it was learned on, and the mean of
            those learned so far. "matrix": all scores as a heat map, those on tasks
            not yet learned too; its colours span the scores but for outliers, more
            than 1.5 times the interquartile range beyond the quartiles.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        TaskScoresDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `kind` is neither.
        """
        _check_kind(kind)
        side = float(np.clip(3 + 0.4 * len(self.scores.names), 4.8, 9))
        figsize = (6.4, 4.8) if kind == "lines" else (1.2 * side, side)
        self.ax_ = axes_or_new(f"{type(self).__name__}.plot", ax, figsize)
        self.figure_ = self.ax_.figure
        self.lines_: list[Any] | None = None
        self.texts_: list[Any] | None = None
        self.mean_line_ = self.image_ = self.colorbar_ = None
        if kind == "lines":
            self._plot_lines()
        else:
            self._plot_matrix()
        return self

    def _plot_lines(self) -> None:
        ax, names, matrix = self.ax_, self.scores.names, self.scores.scores
        n_tasks = len(names)
        learned = np.arange(1, n_tasks + 1)
        self.lines_ = [
            ax.plot(
                learned[j:], matrix[j:, j], color=colour, marker="o", markevery=[0], label=name
            )[0]
            for j, (name, colour) in enumerate(zip(names, colours(n_tasks), strict=True))
        ]
        means = [matrix[i, : i + 1].mean() for i in range(n_tasks)]
        (self.mean_line_,) = ax.plot(
            learned, means, color="black", linestyle="--", linewidth=2, label="mean so far"
        )
        ax.set(
            xlabel="after learning",
            ylabel=score_label(self.scores.scoring),
            xlim=(0.7, n_tasks + 0.3),
        )
        label_ticks(ax.xaxis, learned, names)
        if n_tasks <= len(PALETTE):
            ax.legend(title="score on")
        else:
            ax.legend(handles=[self.mean_line_])
            self.colorbar_ = self._colour_bar_of_tasks()

    def _colour_bar_of_tasks(self) -> Any:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        n_tasks = len(self.scores.names)
        mappable = ScalarMappable(Normalize(1, n_tasks), sequential_map())
        bar = self.figure_.colorbar(mappable, ax=self.ax_, label="score on")
        shown = [1, (n_tasks + 1) // 2, n_tasks]
        bar.set_ticks(shown, labels=[self.scores.names[k - 1] for k in shown])
        return bar

    def _plot_matrix(self) -> None:
        ax, names, matrix = self.ax_, self.scores.names, self.scores.scores
        low, high = _whiskers(matrix)
        self.image_ = ax.imshow(matrix, cmap=COLOUR_MAP, vmin=low, vmax=high, aspect="auto")
        ax.set(xlabel="score on", ylabel="after learning")
        self.texts_ = number_cells(ax, self.image_, matrix)
        for axis in (ax.xaxis, ax.yaxis):
            label_ticks(axis, range(len(names)), names)
        beyond = {(True, True): "both", (True, False): "min", (False, True): "max"}
        self.colorbar_ = self.figure_.colorbar(
            self.image_,
            ax=ax,
            label=score_label(self.scores.scoring),
            extend=beyond.get((np.nanmin(matrix) < low, np.nanmax(matrix) > high), "neither"),
        )


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind must be 'lines' or 'matrix', got {kind!r}")


def _whiskers(values: np.ndarray) -> tuple[float, float]:
    """Return the range of the values, no more than 1.5 interquartile ranges off the quartiles."""
    first, third = np.nanquantile(values, [0.25, 0.75])
    reach = 1.5 * (third - first)
    return max(np.nanmin(values), first - reach), min(np.nanmax(values), third + reach)
