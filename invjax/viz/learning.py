"""Figures of training on counterfactuals: accuracies with their intervals, and the perturbed images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from invjax.core.errors import BadArgument, Words, check, of_shape
from invjax.core.meant import explained
from invjax.viz import sheets
from invjax.viz.counterfactuals import ways
from invjax.viz.pixels import in_range, picture_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = (("accuracy", "all test images", sheets.BLUE), ("wga", "worst group", sheets.AMBER))


@explained
def worst_groups(records: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A line per method: its accuracy and that of its worst group, each with its interval.

    Args:
      records: method -> {"accuracy", "accuracy_ci", "wga", "wga_ci"}, shares in [0, 1] and intervals (low, high) or
        None, as :func:`invjax.learn.study.ablation` returns them. Records without "accuracy" (of methods that failed)
        are left out. A dotted line marks the worst group of the first.

    Raises:
      ValueError: no record to draw. ImportError: matplotlib is missing (extra ``demo``).
    """
    rows = {name: record for name, record in records.items() if "accuracy" in record}
    if not rows:
        raise BadArgument("records", "hold at least one method with an accuracy")
    figure = sheets.new_figure((7.2, 0.28 * len(rows) + 0.9))
    axis = figure.subplots()
    places = np.arange(len(rows))[::-1]
    for k, (key, label, colour) in enumerate(LINES):
        values = 100 * np.array([record[key] for record in rows.values()])
        height = places + 0.12 * (1 - 2 * k)
        for y, record in zip(height, rows.values(), strict=True):
            if record[f"{key}_ci"] is not None:
                low, high = (100 * end for end in record[f"{key}_ci"])
                axis.plot([low, high], [y, y], color=colour, linewidth=1.2, alpha=0.5, solid_capstyle="round")
        axis.plot(values, height, "os"[k], color=colour, markersize=5, label=label)
    axis.axvline(100 * next(iter(rows.values()))["wga"], color=sheets.GREY, linestyle=":", linewidth=1)
    axis.set_yticks(places, list(rows), fontsize=sheets.SMALL)
    axis.set_xlabel("right answers, %", fontsize=sheets.SMALL)
    axis.set_xlim(-2, 102)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.tick_params(axis="x", labelsize=sheets.SMALL)
    sheets.plain_axes(axis, "x")
    axis.legend(fontsize=sheets.SMALL, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


class _Moved(NamedTuple):
    """The fields of an answer that :func:`ways` draws."""

    x: np.ndarray
    delta: np.ndarray
    found: np.ndarray


@explained
def perturbed(
    originals: Any,
    sets: Mapping[str, Any],
    rows: Sequence[int],
    *,
    titles: Sequence[str] | None = None,
    scale: float | None = 1.0,
    cell: float = 0.95,
) -> Figure:
    """Training images, their versions in each perturbed set, and the changes: a column per image.

    Args:
      originals: [N, H, W, C] the training images, in [0, 1].
      sets: name -> a :class:`invjax.learn.Perturbed` of them (its ``source`` links the images).
      rows: which of the N to draw; a set that dropped one of them is an error.
      titles, scale, cell: as in :func:`invjax.viz.ways`.

    Raises:
      ValueError: a row that a set does not have, shapes that do not fit. ImportError: matplotlib is missing.
    """
    images = np.asarray(originals)[np.asarray(rows)]
    moved = {}
    for name, made in sets.items():
        at = [np.flatnonzero(made.source == row) for row in rows]
        lacking = [row for row, found in zip(rows, at, strict=True) if not len(found)]
        if lacking:
            raise BadArgument("rows", "be examples that every set has", hint=f"{name!r} dropped {lacking}")
        x = made.x[[int(found[0]) for found in at]]
        moved[name] = _Moved(x, x - images, np.ones(len(rows), bool))
    return ways(images, moved, titles=titles, scale=scale, cell=cell)


@explained
def panels(
    images: Any,
    maps: Mapping[str, Any],
    titles: Sequence[str] | None = None,
    *,
    bounds: tuple[Any, Any] = (0.0, 1.0),
    notes: Mapping[str, Sequence[str] | np.ndarray] | None = None,
    cell: float = 1.15,
) -> Figure:
    """Where each network looks: a row per image with the original and one class activation map per network.

    Args:
        images: [N, H, W, C] in the data range.
        maps: network -> [N, H, W] in [0, 1], for instance Grad-CAM; blended over the image, bright where the map is
            high.
        titles: N names of the rows.
        notes: network -> N captions below its pictures, for instance "waterbird".
        bounds: data range.
        cell: side of one picture in inches.

    Raises:
        ValueError: shapes that do not fit, no map. ImportError: matplotlib is missing (extra ``demo``).
    """
    originals = _pictures(images, maps, "maps", np.shape(images)[:-1])
    sheets.check_count("titles", titles, len(originals))
    for name, words in (notes or {}).items():
        sheets.check_count(f"notes[{name!r}]", words, len(originals))
    figure, axes = _sheet(originals, list(maps), titles, cell)
    from matplotlib import colormaps  # a figure was made, so it is there

    colour_map = colormaps["inferno"]
    for n, image in enumerate(originals):
        pixels = picture_pixels(image, bounds)
        sheets.draw(axes[n, 0], pixels)
        for axis, (name, planes) in zip(axes[n, 1:], maps.items(), strict=True):
            # Blended here: an SVG of matplotlib applies the opacity of a picture twice.
            colours = 255 * colour_map(np.clip(np.asarray(planes, np.float64)[n], 0, 1))[..., :3]
            sheets.draw(axis, np.round(0.5 * pixels + 0.5 * colours).astype(np.uint8))
            if notes is not None and name in notes:
                axis.set_xlabel(notes[name][n], fontsize=sheets.SMALL, labelpad=2)
    return figure


@explained
def magnified(
    images: Any,
    perturbed: Mapping[str, Any],
    factor: float = 40.0,
    *,
    titles: Sequence[str] | None = None,
    bounds: tuple[Any, Any] = (0.0, 1.0),
    cell: float = 1.15,
) -> Figure:
    """Magnified perturbations: a row per image with the original and, per method, ``middle + factor (x̃ − x)``.

    The middle is that of the bounds, so that unchanged pixels are grey; values beyond the bounds are clipped. The
    factor is the same for all methods: a picture full of colour belongs to a perturbation that needs no magnifying.

    Args:
        images: [N, H, W, C] in the data range.
        perturbed: method -> [N, H, W, C] its perturbed images.
        factor: > 0.
        titles: N names of the rows.
        bounds: data range.
        cell: side of one picture in inches.

    Raises:
        ValueError: shapes that do not fit, no method, factor not above 0. ImportError: matplotlib is missing.
    """
    originals = _pictures(images, perturbed, "perturbed", np.shape(images))
    sheets.check_count("titles", titles, len(originals))
    check("factor", factor, lambda value: value > 0, "above 0")
    low, high = (np.asarray(bound, np.float64) for bound in bounds)
    figure, axes = _sheet(originals, list(perturbed), titles, cell)
    for n, image in enumerate(originals):
        sheets.draw(axes[n, 0], picture_pixels(image, bounds))
        for axis, moved in zip(axes[n, 1:], perturbed.values(), strict=True):
            after, before = (in_range(np.asarray(one), bounds).astype(np.float64) for one in (moved[n], image))
            change = (low + high) / 2 + factor * (after - before)
            sheets.draw(axis, picture_pixels(change, bounds))
    figure.supxlabel(f"changes × {factor:g}, grey: none", fontsize=sheets.SMALL, color=sheets.GREY)
    return figure


def _pictures(images: Any, named: Mapping[str, Any], argument: str, shape: tuple[int, ...]) -> np.ndarray:
    """The images, if ``named`` is not empty and all its arrays have the shape."""
    originals = sheets.check_pictures("images", images)
    if not named:
        raise BadArgument(argument, "name at least one", Words("none"))
    for name, arrays in named.items():
        if np.shape(arrays) != tuple(shape):
            raise BadArgument(f"{argument}[{name!r}]", f"be of shape {tuple(shape)}", of_shape(np.shape(arrays)))
    return originals


def _sheet(
    images: np.ndarray, names: Sequence[str], titles: Sequence[str] | None, cell: float
) -> tuple[Figure, np.ndarray]:
    """Cells [N, 1 + names]: the originals in the first column, names above, titles to the left."""
    height = cell * images.shape[1] / images.shape[2]
    figure, axes = sheets.sheet(
        len(images), len(names) + 1, (cell * (len(names) + 1) + 0.9, height * len(images) + 0.5)
    )
    for column, name in enumerate(["original", *names]):
        axes[0, column].set_title(name, fontsize=sheets.SMALL)
    for n, title in enumerate(titles or ()):
        sheets.name_row(axes[n, 0], title)
    return figure, axes
