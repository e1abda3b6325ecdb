"""Picture of loss and penalty over the epochs of all tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..wrapped import fitted_net
from ._style import BLUE, ORANGE, VERMILLION, axes_or_new, check_matplotlib, label_ticks

_REACH_BELOW_THE_LOSS = 1000
_ROOM_FOR_THE_LEGEND = 0.15  # of the height that the curves take


class LossCurveDisplay:
    """Training loss, validation loss and penalty over the epochs of all tasks.

    Made by :meth:`from_estimator`.

    Parameters
    ----------
    tasks : array-like of shape (n_epochs,)
        The task of every epoch, counted from 1.
    train_loss : array-like of shape (n_epochs,)
        The criterion on the training data.
    penalty : array-like of shape (n_epochs,)
        λ times the memory's penalty; 0 in the first task.
    valid_loss : array-like of shape (n_epochs,), default=None
        The criterion on the validation data; NaN where there was none.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn in.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    train_line_, penalty_line_ : matplotlib Line2D
        On a logarithmic axis the penalty is NaN where it is 0.
    valid_line_ : matplotlib Line2D, or None
        None without a validation loss.
    task_axis_ : matplotlib SecondaryAxis
        The numbers of the tasks, at the top.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_ewc import EWCRegressor
    >>> from sklearn_ewc.display import LossCurveDisplay
    >>> X = np.linspace(-2, 2, 40).reshape(-1, 1)
    >>> net = EWCRegressor(max_epochs=5, random_state=0)
    >>> net = net.partial_fit(X, np.sin(X.ravel())).partial_fit(X, np.cos(X.ravel()))
    >>> display = LossCurveDisplay.from_estimator(net)
    >>> display.train_line_.get_xdata()
    array([ 1,  2,  3,  4,  5,  6,  7,  8,  9, 10])
    """

    def __init__(
        self,
        *,
        tasks: ArrayLike,
        train_loss: ArrayLike,
        penalty: ArrayLike,
        valid_loss: ArrayLike | None = None,
    ) -> None:
        self.tasks = np.asarray(tasks)
        self.train_loss = np.asarray(train_loss, dtype=float)
        self.penalty = np.asarray(penalty, dtype=float)
        self.valid_loss = None if valid_loss is None else np.asarray(valid_loss, dtype=float)

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> LossCurveDisplay:
        """Draw the history of a fitted net.

        Parameters
        ----------
        estimator : EWCRegressor, or a pipeline or search that contains one
            Fitted.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        LossCurveDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If there is no net with a ``history`` in it.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        rows = list(fitted_net(estimator, "history").history)
        valid_loss = [row.get("valid_loss", np.nan) for row in rows]
        display = cls(
            tasks=[row["task"] for row in rows],
            train_loss=[row["train_loss"] for row in rows],
            penalty=[row["penalty"] for row in rows],
            valid_loss=None if np.isnan(valid_loss).all() else valid_loss,
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None) -> LossCurveDisplay:
        """Draw.

        The vertical axis is logarithmic, and reaches down to no less than a
        thousandth of the least loss, unless a loss is not positive. Every second
        task is shaded.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        LossCurveDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        self.ax_ = ax = axes_or_new(f"{type(self).__name__}.plot", ax, (7.5, 4.5))
        self.figure_ = ax.figure
        losses = self.train_loss if self.valid_loss is None else (self.train_loss, self.valid_loss)
        least = float(np.nanmin(losses))
        epochs = np.arange(1, len(self.tasks) + 1)
        penalty = np.where(self.penalty > 0, self.penalty, np.nan) if least > 0 else self.penalty
        (self.train_line_,) = ax.plot(epochs, self.train_loss, color=BLUE, label="training loss")
        self.valid_line_ = None
        if self.valid_loss is not None:
            (self.valid_line_,) = ax.plot(
                epochs, self.valid_loss, color=ORANGE, linestyle="--", label="validation loss"
            )
        (self.penalty_line_,) = ax.plot(
            epochs, penalty, color=VERMILLION, linestyle="-.", label="penalty"
        )
        if least > 0:
            ax.set_yscale("log")
            ax.set_ylim(bottom=max(ax.get_ylim()[0], least / _REACH_BELOW_THE_LOSS))
        _make_room_for_the_legend(ax)
        ax.set(xlabel="epoch", ylabel="loss, penalty", xlim=(0.5, len(epochs) + 0.5))
        ax.legend(loc="upper center", ncols=3)
        self._mark_tasks()
        return self

    def _mark_tasks(self) -> None:
        starts = np.flatnonzero(np.diff(self.tasks, prepend=self.tasks[0] - 1))
        edges = np.append(starts, len(self.tasks)) + 0.5
        for left, right in zip(edges[1:-1:2], edges[2::2], strict=True):
            self.ax_.axvspan(left, right, color="0.93", linewidth=0, zorder=0)
        self.task_axis_ = self.ax_.secondary_xaxis("top")
        self.task_axis_.set_xlabel("task")
        self.task_axis_.tick_params(length=0)
        label_ticks(
            self.task_axis_.xaxis,
            (edges[:-1] + edges[1:]) / 2,
            [str(self.tasks[start]) for start in starts],
        )


def _make_room_for_the_legend(ax: Any) -> None:
    """Raise the top of the axis, so that the legend covers no curve."""
    scale = ax.yaxis.get_transform()
    low, high = scale.transform(np.array(ax.get_ylim()))
    ax.set_ylim(top=float(scale.inverted().transform(high + _ROOM_FOR_THE_LEGEND * (high - low))))
