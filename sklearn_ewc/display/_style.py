"""What the pictures share: axes, colours, and labels that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# Okabe & Ito, "Color universal design" (2008): told apart by colour-blind readers too
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
COLOUR_MAP = "viridis"

_CHARACTER_WIDTH, _LINE_HEIGHT = 0.62, 1.2  # in units of the font size
_KEPT_BY_LAYOUT = 0.85  # of the axes, once colour bars and labels have taken theirs
_LARGEST_NUMBER, _SMALLEST_NUMBER = 10.0, 6.0  # font sizes in the cells of a heat map


def check_matplotlib(caller: str) -> None:
    """Raise, before anything is computed, unless matplotlib is there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{caller} requires matplotlib: pip install 'sklearn-ewc[plot]'"
        ) from error


def axes_or_new(caller: str, ax: Any, figsize: tuple[float, float]) -> Any:
    """Return the user's axes, or those of a new figure of this size in inches."""
    check_matplotlib(caller)
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=figsize, layout="constrained")[1]


def colours(n_tasks: int) -> list[Any]:
    """Return a colour per task: distinct ones, or steps along a map where they are many."""
    if n_tasks <= len(PALETTE):
        return list(PALETTE[:n_tasks])
    return list(sequential_map()(np.linspace(0, 1, n_tasks)))


def sequential_map() -> Any:
    """Return the colour map of many tasks, without the yellow end that white swallows."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps[COLOUR_MAP](np.linspace(0, 0.9, 256)))


def label_ticks(axis: Any, positions: ArrayLike, names: Sequence[str]) -> None:
    """Put a tick at every position, and a name at as many of them as there is room for.

    Call it when the limits of the axis are final. Names that do not all fit side
    by side are turned where that makes room for all of them.
    """
    size = _font_size(axis)
    places = _in_points(axis, positions)
    heights = np.full(len(names), _LINE_HEIGHT * size)
    lengths = _CHARACTER_WIDTH * size * np.array([len(name) + 1 for name in names])
    is_turned = False
    if axis.axis_name == "y":
        shown = _apart(places, heights)
    elif len(shown := _apart(places, lengths)) < len(names):
        # at 45°, lines of text are √2 times their height apart
        shown = _apart(places, np.sqrt(2) * heights)
        is_turned = len(shown) == len(names)
        if not is_turned:
            shown = _apart(places, np.full(len(names), lengths.max()))
    axis.set_ticks(positions, [name if k in shown else "" for k, name in enumerate(names)])
    if is_turned:
        for label in axis.get_ticklabels():
            label.set(rotation=45, horizontalalignment="right", rotation_mode="anchor")


def number_cells(ax: Any, image: Any, values: np.ndarray) -> list[Any]:
    """Write its number into every cell of a heat map, if there is room to read it."""
    texts = {cell: f"{value:.2f}".replace("-", "−") for cell, value in np.ndenumerate(values)}
    n_rows, n_columns = values.shape
    width, height = _extent_in_points(ax)
    size = min(
        _LARGEST_NUMBER,
        width / n_columns / (_CHARACTER_WIDTH * (max(map(len, texts.values())) + 1)),
        height / n_rows / _LINE_HEIGHT,
    )
    if size < _SMALLEST_NUMBER:
        return []
    return [
        ax.text(
            column,
            row,
            text,
            size=size,
            color=_readable_on(image.cmap(image.norm(values[row, column]))),
            horizontalalignment="center",
            verticalalignment="center",
        )
        for (row, column), text in texts.items()
    ]


def score_label(scoring: str) -> str:
    """Return the name of a score as it reads on an axis."""
    words = scoring.removeprefix("neg_").replace("_", " ")
    return f"negative {words}" if scoring.startswith("neg_") else words


def _font_size(axis: Any) -> float:
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties

    settings: Any = rcParams
    return FontProperties(size=settings[f"{axis.axis_name}tick.labelsize"]).get_size_in_points()


def _extent_in_points(ax: Any) -> tuple[float, float]:
    box, scale = ax.get_window_extent(), _KEPT_BY_LAYOUT * 72 / ax.get_figure().dpi
    return box.width * scale, box.height * scale


def _in_points(axis: Any, positions: ArrayLike) -> np.ndarray:
    """Return where positions on an axis lie on the page, whatever its scale."""
    ax = axis.axes
    low, high = axis.get_transform().transform(np.array(axis.get_view_interval()))
    span = _extent_in_points(ax)[0 if axis.axis_name == "x" else 1]
    return (
        (axis.get_transform().transform(np.asarray(positions, float)) - low) / (high - low) * span
    )


def _apart(places: np.ndarray, sizes: np.ndarray) -> set[int]:
    """Return the indices of places whose labels do not overlap, first and last among them."""

    def touch(a: int, b: int) -> bool:
        return abs(places[a] - places[b]) < (sizes[a] + sizes[b]) / 2

    kept = [0]
    for index in range(1, len(places)):
        if not touch(index, kept[-1]):
            kept.append(index)
    last = len(places) - 1
    while kept and touch(last, kept[-1]):
        kept.pop()
    return {*kept, last}


def _readable_on(colour: Sequence[float]) -> str:
    red, green, blue, _ = colour
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
