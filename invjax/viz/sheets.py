"""What all figures share: a new figure, a sheet of cells for pictures, and the checks of what is drawn in them.

The figures are made without pyplot: no global state, no window, no leak when hundreds are drawn, any backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from invjax.core.errors import BadArgument, of_shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, AMBER, GREY = "#1c5cc8", "#d97706", "#6b7280"
SMOOTH = 64  # pixels: a picture with a longer side is interpolated


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure, (width, height) in inches. Raises ImportError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'invjax[demo]'") from error
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    return figure


def sheet(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    """A figure of empty cells without ticks, axes [rows, columns]."""
    figure = new_figure(size)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], facecolor="#f3f4f6")
        axis.spines[:].set_color("#d1d5db")
    return figure, axes


def draw(axis: Axes, pixels: np.ndarray, **how: Any) -> None:
    """One picture in its cell; how: further arguments of ``imshow``."""
    axis.imshow(pixels, interpolation="nearest" if max(pixels.shape[:2]) <= SMOOTH else None, **how)


def name_row(axis: Axes, name: str) -> None:
    """A name to the left of the first cell of a row."""
    axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)


def plain_axes(axis: Axes) -> None:
    """Without the frame's upper and right side."""
    axis.spines[["top", "right"]].set_visible(False)


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


def check_count(name: str, words: Sequence[str] | None, count: int) -> None:
    """``words``, if given, are ``count`` strings."""
    if words is not None and len(words) != count:
        raise BadArgument(name, f"be {count} strings", len(words))
