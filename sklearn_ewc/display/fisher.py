"""Picture of where in the network the importance of each task lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from ..memory import Memory
from ..wrapped import fitted_net
from ._style import BLUE, COLOUR_MAP, axes_or_new, check_matplotlib, label_ticks, number_cells


class FisherDisplay:
    """Where in the network the importance of each task lies, and how much room is left.

    A heat map, a row for every parameter tensor of the network and a column for
    every task: the tensor's share of the task's Fisher, Σ_{i in tensor} F_k,i / Σ_i F_k,i.
    Every column sums to 1. The column "all" is the same of S, what all tasks
    together hold the parameters with (the penalty is ½ Σ_i S_i (θ_i − c_i)², see
    :class:`~sklearn_ewc.Memory`), floor and task weights included.

    Beside it, bars: the room left in every tensor. A parameter is free if all tasks
    together hold it no more firmly than one task, on average, holds one parameter:
    S_i ≤ mean(S) / K after K tasks (K counts with weights γ^(K−k) for
    ``mode="online"``, as S does). The bar is the fraction of the tensor's parameters
    that are free. It shrinks while tasks are learned that need different parameters.

    Made by :meth:`from_estimator`.

    Parameters
    ----------
    names : sequence of str
        Names of the parameter tensors, from the input to the output.
    sizes : array-like of shape (n_tensors,)
        Number of parameters in each.
    shares : array-like of shape (n_tensors, n_tasks)
        Share of each task's Fisher; ``n_tasks`` is 0 where the tasks are not stored.
    total_share : array-like of shape (n_tensors,)
        Share of S.
    room : array-like of shape (n_tensors,)
        Fraction of the parameters that are free.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The given axes, which hold the two below and show nothing of their own.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    share_ax_, room_ax_ : matplotlib Axes
        The axes of heat map and bars.
    image_ : matplotlib AxesImage
        The heat map.
    texts_ : list of matplotlib Text
        The numbers in its cells, row by row; empty where there is no room for them.
    colorbar_ : matplotlib Colorbar, or None
        None where the numbers stand in the cells.
    bars_ : matplotlib BarContainer
        The room left.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_ewc import EWCRegressor
    >>> from sklearn_ewc.display import FisherDisplay
    >>> X = np.linspace(-2, 2, 40).reshape(-1, 1)
    >>> net = EWCRegressor(max_epochs=5, random_state=0).fit(X, np.sin(X.ravel()))
    >>> FisherDisplay.from_estimator(net).names
    ('layers.0.weight', 'layers.0.bias', 'layers.2.weight', 'layers.2.bias')
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        sizes: ArrayLike,
        shares: ArrayLike,
        total_share: ArrayLike,
        room: ArrayLike,
    ) -> None:
        self.names = tuple(names)
        self.sizes = np.asarray(sizes)
        self.shares = np.asarray(shares, dtype=float)
        self.total_share = np.asarray(total_share, dtype=float)
        self.room = np.asarray(room, dtype=float)

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> FisherDisplay:
        """Draw what a fitted net remembers.

        Parameters
        ----------
        estimator : EWCRegressor, or a pipeline or search that contains one
            Fitted. With ``store_tasks=False`` there is the column "all" alone.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        FisherDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If there is no net with a ``memory_`` in it.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        memory: Memory = fitted_net(estimator, "memory_").memory_
        stiffness = memory.quadratic.curvature.diagonal()
        names = tuple(stiffness)
        shares = [_shares(task.fisher, names) for task in memory.tasks]
        display = cls(
            names=names,
            sizes=[stiffness[name].numel() for name in names],
            shares=np.reshape(shares, (len(shares), len(names))).T,
            total_share=_shares(stiffness, names),
            room=_room(memory),
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None) -> FisherDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw, heat map and bars side by side; None makes a figure.

        Returns
        -------
        FisherDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        columns = np.column_stack([self.shares, self.total_share])
        width = float(np.clip(5 + 0.4 * columns.shape[1], 6.4, 11))
        height = float(np.clip(2 + 0.35 * len(self.names), 3.6, 10))
        self.ax_ = axes_or_new(f"{type(self).__name__}.plot", ax, (width, height))
        self.ax_.set_axis_off()
        self.figure_ = self.ax_.figure
        self.share_ax_ = self.ax_.inset_axes([0, 0, 0.72, 1])
        self.room_ax_ = self.ax_.inset_axes([0.76, 0, 0.24, 1])
        self._plot_shares(columns)
        self._plot_room()
        return self

    def _plot_shares(self, columns: np.ndarray) -> None:
        ax, n_tasks = self.share_ax_, self.shares.shape[1]
        self.image_ = ax.imshow(columns, cmap=COLOUR_MAP, vmin=0, aspect="auto")
        if n_tasks:
            ax.axvline(n_tasks - 0.5, color="white", linewidth=3)
        self.texts_ = number_cells(ax, self.image_, columns)
        label_ticks(ax.yaxis, range(len(self.names)), self.names)
        label_ticks(ax.xaxis, range(n_tasks + 1), [*map(str, range(1, n_tasks + 1)), "all"])
        ax.set(xlabel="task", title="share of the importance")
        self.colorbar_ = None
        if not self.texts_:
            self.colorbar_ = self.figure_.colorbar(
                self.image_,
                ax=self.ax_,
                location="bottom",
                aspect=50,
                shrink=0.7,
                anchor=(0, 0),
                pad=0.02,
            )

    def _plot_room(self) -> None:
        ax = self.room_ax_
        everywhere = np.average(self.room, weights=self.sizes)
        rows = range(len(self.names))
        ax.barh(rows, np.ones(len(rows)), color="0.9")
        self.bars_ = ax.barh(rows, self.room, color=BLUE)
        ax.set(
            xlim=(0, 1),
            ylim=self.share_ax_.get_ylim(),
            xticks=[],
            title=f"room left: {everywhere:.0%}",
        )
        ax.yaxis.tick_right()
        ax.tick_params(right=False)
        label_ticks(ax.yaxis, rows, [f"{room:.0%}" for room in self.room])
        ax.spines[:].set_visible(False)


def _shares(importance: Mapping[str, Tensor], names: Sequence[str]) -> np.ndarray:
    """Return each tensor's share of the sum; 0 for those that are not there."""
    sums = [float(importance[name].double().sum()) if name in importance else 0.0 for name in names]
    return np.array(sums) / (sum(sums) or 1.0)


def _room(memory: Memory) -> list[float]:
    stiffness = memory.quadratic.curvature.diagonal().values()
    fading = memory.gamma if memory.mode == "online" else 1.0
    n_tasks = sum(fading**age for age in range(memory.n_tasks))
    mean = sum(float(value.sum()) for value in stiffness) / sum(v.numel() for v in stiffness)
    return [float((value <= mean / n_tasks).double().mean()) for value in stiffness]
