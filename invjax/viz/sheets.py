"""What all figures share: a new figure, a sheet of cells for pictures, and the checks of what is drawn in them.

The figures are made without pyplot: no global state, no window, no leak when hundreds are drawn, any backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from invjax.core.errors import BadArgument, of_shape
from invjax.viz import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, AMBER, GREY, INK, LINE = (
    tone.light for tone in (palette.BLUE, palette.AMBER, palette.SOFT, palette.INK, palette.LINE)
)
SMALL = 10  # points: no text of a figure is smaller
SMOOTH = 64  # pixels: a picture with a longer side is interpolated
OURS = "invjax"  # the gid of a figure that has the colours of the palette


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure, (width, height) in inches. Raises ImportError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'invjax[demo]'") from error
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    figure.set_gid(OURS)
    FigureCanvasAgg(figure)
    return figure


def sheet(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    """A figure of empty cells without ticks, axes [rows, columns]."""
    figure = new_figure(size)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], facecolor=palette.CELL.light)
        axis.spines[:].set_color(LINE)
    return figure, axes


def draw(axis: Axes, pixels: np.ndarray, **how: Any) -> None:
    """One picture in its cell; how: further arguments of ``imshow``."""
    axis.imshow(pixels, interpolation="nearest" if max(pixels.shape[:2]) <= SMOOTH else None, **how)


def name_row(axis: Axes, name: str) -> None:
    """A name to the left of the first cell of a row."""
    axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=SMALL)


def say_in(axis: Axes, words: str) -> None:
    """Words in the middle of a cell."""
    axis.text(0.5, 0.5, words, transform=axis.transAxes, ha="center", va="center", fontsize=SMALL, color=GREY)


def plain_axes(axis: Axes, grid: Literal["x", "y"] | None = None) -> None:
    """Without the frame's upper and right side; grid: the axis whose ticks are continued by faint lines."""
    axis.spines[["top", "right"]].set_visible(False)
    if grid is not None:
        axis.grid(axis=grid, color=LINE, lw=0.7)
        axis.set_axisbelow(True)


def median(values: np.ndarray) -> np.ndarray:
    """Median over the first axis of [L, T], ignoring NaN; NaN where all are."""
    alive = ~np.isnan(values).all(axis=0)
    out = np.full(values.shape[1], np.nan)
    out[alive] = np.nanmedian(values[:, alive], axis=0)
    return out


def check_pictures(name: str, images: Any) -> np.ndarray:
    """``images`` as an array [N, H, W, C] with N >= 1."""
    array = np.asarray(images)
    if array.ndim != 4 or len(array) == 0:
        raise BadArgument(name, "be [N, H, W, C] with N >= 1", of_shape(array.shape))
    return array


def check_count(name: str, words: Sequence[str] | np.ndarray | None, count: int) -> None:
    """``words``, if given, are ``count`` strings."""
    if words is not None and len(words) != count:
        raise BadArgument(name, f"be {count} strings", len(words))
