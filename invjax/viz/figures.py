"""A grid of attacked images, and a trace of an attack over its iterations.

In a notebook the last expression of a cell shows the figure (after ``%matplotlib inline``); in a script use
``savefig``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from invjax.core.errors import BadArgument, Words, of_shape
from invjax.core.meant import explained
from invjax.types import Result
from invjax.viz import sheets
from invjax.viz.pixels import perturbation_pixels, picture_pixels, support_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@explained
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
        result: one answer for each (``result[...]`` selects some). If nothing was found, the adversarial image is
            the clean one, the lower rows are empty and the title says so.
        bounds: data range.
        titles: N column titles, for instance "7 → 3".
        scale: the change drawn at full strength, the same for all columns; by default the largest of each column.
        cell: side of one picture in inches.

    Raises:
        ValueError: shapes that do not fit. ImportError: matplotlib is missing (extra ``demo``).
    """
    images = sheets.check_pictures("originals", originals)
    answers, deltas, found = (np.asarray(a) for a in (result.x, result.delta, result.found))
    if answers.shape != images.shape or deltas.shape != images.shape:
        was = Words(f"{answers.shape} and {deltas.shape}")
        raise BadArgument("result", f"have x and delta of shape {images.shape}", was)
    sheets.check_count("titles", titles, len(images))
    names = ("original", "adversarial", "perturbation", "mask")
    figure, axes = sheets.sheet(len(names), len(images), (cell * len(images) + 0.9, cell * len(names) + 0.5))
    for n in range(len(images)):
        rows = (
            picture_pixels(images[n], bounds),
            picture_pixels(answers[n], bounds),
            perturbation_pixels(deltas[n], scale),
            support_pixels(deltas[n]),
        )
        for row, pixels in enumerate(rows):
            sheets.draw(axes[row, n], pixels)
        title = titles[n] if titles is not None else ""
        axes[0, n].set_title(title if found[n] else f"{title}\nnot found".strip(), fontsize=sheets.SMALL)
    for row, name in enumerate(names):
        sheets.name_row(axes[row, 0], name)
    return figure


@explained
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
        margin: of the same shape, how far the wanted class lies behind the strongest other one, ``max_j≠t Z_j − Z_t``;
            below 0 the example has reached its target. Pad runs that ended earlier with NaN.
        steps: [T] positions on the horizontal axis; 0 … T−1 by default.
        total: number of pixels of the image; adds the share to the support panel.
        title: of the figure.
        xlabel: of the horizontal axis.

    Of several examples each is a thin line; the thick line is their median.

    Raises:
        ValueError: shapes that do not fit. ImportError: matplotlib is missing (extra ``demo``).
    """
    lines = [np.atleast_2d(np.asarray(a, np.float64)) for a in (support, margin)]
    if lines[0].ndim != 2 or lines[0].shape != lines[1].shape or lines[0].size == 0:
        was = Words(f"{np.shape(margin)} with support {np.shape(support)}")
        raise BadArgument("margin", "have the shape of support, [T] or [L, T]", was)
    where = np.arange(lines[0].shape[1]) if steps is None else np.asarray(steps)
    if where.shape != lines[0].shape[1:]:
        raise BadArgument("steps", f"be of shape {lines[0].shape[1:]}", of_shape(where.shape))
    figure = sheets.new_figure((6.4, 4.4))
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axis, values, colour in ((upper, lines[0], sheets.AMBER), (lower, lines[1], sheets.BLUE)):
        many = len(values) > 1
        axis.plot(where, values.T, color=colour, lw=0.8 if many else 1.8, alpha=0.35 if many else 1.0)
        if many:
            axis.plot(where, sheets.median(values), color=colour, lw=2.2, label="median of the runs still going")
            axis.legend(frameon=False, fontsize=sheets.SMALL)
        sheets.plain_axes(axis, "y")
    upper.set_ylabel("changed pixels")
    upper.set_ylim(bottom=0)
    if total is not None:
        share = upper.secondary_yaxis("right", functions=(lambda v: 100 * v / total, lambda v: v * total / 100))
        share.set_ylabel("% of the image")
    lower.axhline(0, color=sheets.GREY, lw=1, ls="--")
    lower.set(ylabel="margin", xlabel=xlabel)
    beside = {
        "transform": lower.get_yaxis_transform(),
        "ha": "right",
        "va": "bottom",
        "color": sheets.GREY,
        "fontsize": sheets.SMALL,
    }
    lower.text(0.995, 0, "target reached below this line", **beside)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure
