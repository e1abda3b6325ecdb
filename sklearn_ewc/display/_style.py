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

_CHARACTER_WIDTH, _LINE_HEIGHT = 0.62, 1.3  # in units of the font size
_SHORT_NAME = 5
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

    Call it when the limits of the axis are final. Names that are too long to
    stand side by side are turned.
    """
    size = _font_size(axis)
    places = _in_points(axis, positions)
    n_characters = max(map(len, names))
    length = n_characters * _CHARACTER_WIDTH * size + size
    gap = min(np.abs(np.diff(places)), default=np.inf)
    is_turned = axis.axis_name == "x" and n_characters > _SHORT_NAME and gap < length
    needed = length if axis.axis_name == "x" and not is_turned else _LINE_HEIGHT * size
    kept = _apart(places, 1.4 * needed if is_turned else needed)
    axis.set_ticks(positions, [name if k in kept else "" for k, name in enumerate(names)])
    if is_turned:
        for label in axis.get_ticklabels():
            label.set(rotation=45, horizontalalignment="right", rotation_mode="anchor")


def number_cells(ax: Any, image: Any, values: np.ndarray) -> list[Any]:
    """Write its number into every cell of a heat map, if there is room to read it."""
    texts = {cell: f"{value:.2f}" for cell, value in np.ndenumerate(values)}
    n_rows, n_columns = values.shape
    width, height = _extent_in_points(ax)
    size = min(
        _LARGEST_NUMBER,
        width / n_columns / (_CHARACTER_WIDTH * (max(map(len, texts.values())) + 2)),
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
    box, scale = ax.get_window_extent(), 72 / ax.get_figure().dpi
    return box.width * scale, box.height * scale


def _in_points(axis: Any, positions: ArrayLike) -> np.ndarray:
    """Return where positions on an axis lie on the page, whatever its scale."""
    ax = axis.axes
    low, high = axis.get_transform().transform(np.array(axis.get_view_interval()))
    span = _extent_in_points(ax)[0 if axis.axis_name == "x" else 1]
    return (
        (axis.get_transform().transform(np.asarray(positions, float)) - low) / (high - low) * span
    )


def _apart(places: np.ndarray, needed: float) -> set[int]:
    """Return the indices of places, from the first on, that keep a distance."""
    kept = [0]
    for index in range(1, len(places)):
        if abs(places[index] - places[kept[-1]]) >= needed:
            kept.append(index)
    return set(kept)


def _readable_on(colour: Sequence[float]) -> str:
    red, green, blue, _ = colour
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
