"""matplotlib figures: a grid of attacked images, and a trace of an attack over its iterations.

The figures are made without pyplot: no global state, no window, no leak when hundreds are drawn, any backend. In a
notebook the last expression of a cell shows the figure (after ``%matplotlib inline``); in a script use ``savefig``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from invjax.core.errors import BadArgument, Words, of_shape
from invjax.types import Result
from invjax.viz.pixels import perturbation_pixels, picture_pixels, support_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, AMBER, GREY = "#1c5cc8", "#d97706", "#6b7280"


def grid(
    originals: Any,
    result: Result,
    *,
    bounds: tuple[Any, Any] = (0.0, 1.0),
    titles: Sequence[str] | None = None,
    scale: float | None = None,
    cell: float = 1.15,
) -> Figure:
    """One column per example; rows: original, adversarial, perturbation, mask of the changed pixels.

    Args:
        originals: [N, H, W, C] clean images in the data range.
        result: the answers for them, one each (``result.rows(...)`` selects some). Where nothing was found the
            adversarial image is the clean one, the lower rows are empty and the title says so.
        bounds: data range.
        titles: N column titles, "7 → 3" say.
        scale: change drawn at full strength, the same for all columns; by default each column's own largest.
        cell: side of one picture in inches.

    Raises:
        ValueError: shapes that do not fit. ImportError: matplotlib is missing (extra ``demo``).
    """
    images, answers, deltas = (np.asarray(a) for a in (originals, result.x, result.delta))
    found = np.asarray(result.found)
    if images.ndim != 4 or len(images) == 0:
        raise BadArgument("originals", "be [N, H, W, C] with N >= 1", of_shape(images.shape))
    if answers.shape != images.shape or deltas.shape != images.shape:
        raise BadArgument(
            "result", f"have x and delta of shape {images.shape}", Words(f"{answers.shape}, {deltas.shape}")
        )
    if titles is not None and len(titles) != len(images):
        raise BadArgument("titles", f"be {len(images)} strings", len(titles))
    names = ("original", "adversarial", "perturbation", "mask")
    figure = new_figure((cell * len(images) + 0.9, cell * len(names) + 0.5))
    axes = figure.subplots(len(names), len(images), squeeze=False)
    for n in range(len(images)):
        rows = (
            picture_pixels(images[n], bounds),
            picture_pixels(answers[n], bounds),
            perturbation_pixels(deltas[n], scale),
            support_pixels(deltas[n]),
        )
        for row, pixels in enumerate(rows):
            axis = axes[row, n]
            axis.imshow(pixels, interpolation="nearest" if max(pixels.shape[:2]) <= 64 else None)
            axis.set(xticks=[], yticks=[], facecolor="#f3f4f6")
            axis.spines[:].set_color("#d1d5db")
        title = titles[n] if titles is not None else ""
        axes[0, n].set_title(title if found[n] else f"{title}\nnot found".strip(), fontsize=9)
    for row, name in enumerate(names):
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    return figure


def trace(
    support: Any,
    margin: Any,
    *,
    steps: Any = None,
    total: int | None = None,
    title: str = "",
    xlabel: str = "iteration",
) -> Figure:
    """Support size and classification margin over the iterations, in two panels over one axis.

    Args:
        support: [T] or [L, T] number of changed pixels (or coordinates) per iteration, of L examples.
        margin: likewise: how far the wanted class lies behind the strongest other one, ``max_j≠t Z_j − Z_t``; the
            example has reached its target where it is below 0. Pad runs that ended earlier with NaN.
        steps: [T] positions on the horizontal axis; 0 … T−1 by default.
        total: number of pixels of the image; adds the share to the support panel.
        title: of the figure.
        xlabel: of the horizontal axis.

    With several examples the thin lines are the examples and the thick line is their median.

    Raises:
        ValueError: shapes that do not fit. ImportError: matplotlib is missing (extra ``demo``).
    """
    lines = [np.atleast_2d(np.asarray(a, np.float64)) for a in (support, margin)]
    if lines[0].ndim != 2 or lines[0].shape != lines[1].shape or lines[0].size == 0:
        raise ValueError(f"support and margin must both be [T] or [L, T], were {np.shape(support)}, {np.shape(margin)}")
    where = np.arange(lines[0].shape[1]) if steps is None else np.asarray(steps)
    if where.shape != lines[0].shape[1:]:
        raise BadArgument("steps", f"be of shape {lines[0].shape[1:]}", of_shape(where.shape))
    figure = new_figure((6.4, 4.4))
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axis, values, colour in ((upper, lines[0], AMBER), (lower, lines[1], BLUE)):
        many = len(values) > 1
        axis.plot(where, values.T, color=colour, lw=0.8 if many else 1.8, alpha=0.35 if many else 1.0)
        if many:
            axis.plot(where, _median(values), color=colour, lw=2.2, label="median of the runs still going")
            axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e5e7eb", lw=0.6)
        axis.set_axisbelow(True)
    upper.set_ylabel("changed pixels")
    upper.set_ylim(bottom=0)
    if total is not None:
        share = upper.secondary_yaxis("right", functions=(lambda v: 100 * v / total, lambda v: v * total / 100))
        share.set_ylabel("% of the image")
    lower.axhline(0, color=GREY, lw=1, ls="--")
    lower.set(ylabel="margin", xlabel=xlabel)
    beside = {"transform": lower.get_yaxis_transform(), "ha": "right", "va": "bottom", "color": GREY, "fontsize": 8}
    lower.text(0.995, 0, "target reached below this line", **beside)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _median(values: np.ndarray) -> np.ndarray:
    """Median of the runs that are still going: NaN only where none is."""
    alive = ~np.isnan(values).all(axis=0)
    out = np.full(values.shape[1], np.nan)
    out[alive] = np.nanmedian(values[:, alive], axis=0)
    return out


def new_figure(size: tuple[float, float]) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'invjax[demo]'") from error
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    return figure
