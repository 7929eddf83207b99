"""Figures that compare attacks: curves of the interpretability score, and a grid of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from invjax.core.errors import BadArgument, of_shape
from invjax.core.meant import explained
from invjax.viz import palette, sheets
from invjax.viz.pixels import in_range, perturbation_pixels, picture_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = tuple(tone.light for tone in palette.SERIES)
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")


@explained
def score_curves(
    curves: Mapping[str, Any], percentiles: Any, chance: Any, published: Mapping[str, Any] | None = None
) -> Figure:
    """Interpretability score against the percentile of the saliency map, with the chance level in grey.

    Args:
        curves: attack -> [P] mean scores.
        percentiles: [P] percent.
        chance: [P], the score on an unrelated map.
        published: attack -> [P], drawn thin and dashed in the colour of the attack of that name.

    Raises ValueError: a curve without P values. ImportError: matplotlib is missing (extra ``demo``).
    """
    at = np.asarray(percentiles, np.float64)
    for name, curve in {**curves, **(published or {}), "chance": chance}.items():
        if np.shape(curve) != at.shape:
            raise BadArgument(
                f"curves[{name!r}]", f"be of shape {at.shape}, one per percentile", of_shape(np.shape(curve))
            )
    figure = sheets.new_figure((6.4, 4.4))
    axis = figure.subplots()
    axis.plot(at, chance, color=sheets.GREY, lw=1.2, ls=":", label="chance, √(1 − P/100)")
    names: list[str] = [*curves, *(name for name in published or {} if name not in curves)]
    for place, name in enumerate(names):
        colour, mark = COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]
        if name in curves:
            axis.plot(at, curves[name], color=colour, marker=mark, ms=5, lw=1.6, label=name)
        if published is not None and name in published:
            axis.plot(at, published[name], color=colour, lw=1, ls="--", alpha=0.7, label=f"{name} (published)")
    axis.set(xlabel="percentile P of the adversarial saliency map", ylabel="interpretability score", xticks=at)
    sheets.plain_axes(axis, "y")
    axis.legend(frameon=False, fontsize=sheets.SMALL, loc="lower left")
    return figure


@explained
def comparison(
    originals: Any,
    changes: Mapping[str, Any],
    *,
    bounds: tuple[Any, Any] = (0.0, 1.0),
    titles: Sequence[str] | None = None,
    maps: Any = None,
    cell: float = 1.15,
) -> Figure:
    """Two rows per image, one column per attack: the adversarial image and below it the perturbation.

    Args:
        originals: [N, H, W, C] clean images in the data range.
        changes: attack -> [N, H, W, C] perturbations; for one that is all zero the cell says "not found".
        bounds: data range.
        titles: N names of the rows, for instance "cat → dog".
        maps: [N, H, W] in [0, 1], shown below each original: where the network looks.
        cell: side of one picture in inches.

    Each perturbation is drawn at its own full strength.

    Raises ValueError: shapes that do not fit. ImportError: matplotlib is missing (extra ``demo``).
    """
    images = in_range(sheets.check_pictures("originals", originals), bounds, "originals")
    for name, change in changes.items():
        if np.shape(change) != images.shape:
            raise BadArgument(f"changes[{name!r}]", f"be of shape {images.shape}", of_shape(np.shape(change)))
    size = (cell * (len(changes) + 1) + 0.9, 2 * cell * len(images) + 0.4)
    figure, axes = sheets.sheet(2 * len(images), len(changes) + 1, size)
    for n, image in enumerate(images):
        upper, lower = axes[2 * n], axes[2 * n + 1]
        sheets.draw(upper[0], picture_pixels(image, bounds))
        if maps is None:
            lower[0].set_axis_off()
        else:
            lower[0].imshow(np.asarray(maps)[n], cmap="magma", vmin=0, vmax=1)
        if titles is not None:
            sheets.name_row(upper[0], titles[n])
        for column, change in enumerate(changes.values(), 1):
            r = np.asarray(change)[n]
            sheets.draw(upper[column], picture_pixels(image + r, bounds))
            sheets.draw(lower[column], perturbation_pixels(r))
            if not r.any():
                sheets.say_in(lower[column], "not found")
    for column, name in enumerate(["original", *changes]):
        axes[0, column].set_title(name, fontsize=sheets.SMALL)
    return figure
