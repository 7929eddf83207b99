"""matplotlib figures of training on counterfactuals: accuracies with their intervals, and the perturbed images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from invjax.core.errors import BadArgument, Words, of_shape
from invjax.viz.counterfactuals import ways
from invjax.viz.figures import AMBER, BLUE, GREY, new_figure
from invjax.viz.pixels import picture_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = (("accuracy", "all test images", BLUE), ("wga", "worst group", AMBER))


def worst_groups(records: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A line per method: its accuracy and that of its worst group, each with its interval.

    Args:
      records: method -> {"accuracy", "accuracy_ci", "wga", "wga_ci"}, shares in [0, 1], the intervals (low, high) or
        None; records without "accuracy" (of methods that failed) are left out. ``python -m benchmarks learn`` writes
        such records. A dotted line marks the worst group of the first.

    Raises:
      ValueError: no record to draw. ImportError: matplotlib is missing (extra ``demo``).
    """
    rows = {name: record for name, record in records.items() if "accuracy" in record}
    if not rows:
        raise BadArgument("records", "hold at least one method with an accuracy, held none")
    figure = new_figure((7.2, 0.28 * len(rows) + 0.9))
    axis = figure.subplots()
    places = np.arange(len(rows))[::-1]
    for k, (key, label, colour) in enumerate(LINES):
        values = 100 * np.array([record[key] for record in rows.values()])
        height = places + 0.12 * (1 - 2 * k)
        for y, record in zip(height, rows.values(), strict=True):
            if record[f"{key}_ci"] is not None:
                low, high = (100 * end for end in record[f"{key}_ci"])
                axis.plot([low, high], [y, y], color=colour, linewidth=1.2, alpha=0.5, solid_capstyle="round")
        axis.plot(values, height, "o", color=colour, markersize=5, label=label)
    axis.axvline(100 * next(iter(rows.values()))["wga"], color=GREY, linestyle=":", linewidth=1)
    axis.set_yticks(places, list(rows), fontsize=8)
    axis.set_xlabel("right answers, %", fontsize=9)
    axis.set_xlim(-2, 102)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


class _Moved(NamedTuple):
    """What :func:`ways` draws of an answer."""

    x: np.ndarray
    delta: np.ndarray
    found: np.ndarray


def perturbed(
    originals: Any,
    sets: Mapping[str, Any],
    rows: Sequence[int],
    *,
    titles: Sequence[str] | None = None,
    scale: float | None = 1.0,
    cell: float = 0.95,
) -> Figure:
    """Training images as they were and as each perturbed set has them: a column per image, and the changes.

    Args:
      originals: [N, H, W, C] the training images, in [0, 1].
      sets: name -> a :class:`invjax.learn.Perturbed` of them (``source`` says whose image is whose).
      rows: which of the N; a set that dropped one of them is an error.
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


def panels(
    images: Any,
    maps: Mapping[str, Any],
    titles: Sequence[str] | None = None,
    *,
    bounds: tuple[Any, Any] = (0.0, 1.0),
    notes: Mapping[str, Sequence[str]] | None = None,
    cell: float = 1.15,
) -> Figure:
    """Where each network looks: a row per image; the original, then its class activation map per network.

    Args:
        images: [N, H, W, C] in the data range.
        maps: network -> [N, H, W] in [0, 1], Grad-CAM say; blended over the image, red where the map is high.
        titles: N names of the rows. notes: network -> N words below its pictures, "waterbird" say.
        bounds: data range. cell: side of one picture in inches.

    Raises:
        ValueError: shapes that do not fit, no map. ImportError: matplotlib is missing (extra ``demo``).
    """
    originals = _pictures(images, maps, "maps", np.shape(images)[:-1])
    _one_each(titles, len(originals), "titles")
    for name, words in (notes or {}).items():
        _one_each(words, len(originals), f"notes[{name!r}]")
    figure, axes = _sheet(originals, list(maps), titles, cell)
    for n, image in enumerate(originals):
        pixels = picture_pixels(image, bounds)
        axes[n, 0].imshow(pixels, interpolation=_smooth(originals))
        for axis, (name, planes) in zip(axes[n, 1:], maps.items(), strict=True):
            axis.imshow(pixels, interpolation=_smooth(originals))
            axis.imshow(np.clip(np.asarray(planes)[n], 0, 1), cmap="jet", vmin=0, vmax=1, alpha=0.5)
            if notes is not None and name in notes:
                axis.set_xlabel(notes[name][n], fontsize=7, labelpad=2)
    return figure


def magnified(
    images: Any,
    perturbed: Mapping[str, Any],
    factor: float = 40.0,
    *,
    titles: Sequence[str] | None = None,
    bounds: tuple[Any, Any] = (0.0, 1.0),
    cell: float = 1.15,
) -> Figure:
    """Perturbations, magnified: a row per image; the original, then per method ``middle + factor (x̃ − x)``.

    The middle is that of the bounds, so that what did not change is grey; what leaves the bounds is clipped. The factor
    is the same for all methods: a picture that is all colour belongs to a perturbation that needs no magnifying.

    Args:
        images: [N, H, W, C] in the data range. perturbed: method -> [N, H, W, C] the images it made of them.
        factor: > 0. titles: N names of the rows. bounds: data range. cell: side of one picture in inches.

    Raises:
        ValueError: shapes that do not fit, no method, factor not above 0. ImportError: matplotlib is missing.
    """
    originals = _pictures(images, perturbed, "perturbed", np.shape(images))
    _one_each(titles, len(originals), "titles")
    if not factor > 0:
        raise BadArgument("factor", "be above 0", factor)
    low, high = (np.asarray(bound, np.float64) for bound in bounds)
    figure, axes = _sheet(originals, list(perturbed), titles, cell)
    for n, image in enumerate(originals):
        axes[n, 0].imshow(picture_pixels(image, bounds), interpolation=_smooth(originals))
        for axis, moved in zip(axes[n, 1:], perturbed.values(), strict=True):
            change = (low + high) / 2 + factor * (np.asarray(moved, np.float64)[n] - image)
            axis.imshow(picture_pixels(change, bounds), interpolation=_smooth(originals))
    figure.supxlabel(f"changes × {factor:g}, grey: none", fontsize=8, color=GREY)
    return figure


def _pictures(images: Any, named: Mapping[str, Any], argument: str, shape: tuple[int, ...]) -> np.ndarray:
    """The images, where they and what is named fit."""
    originals = np.asarray(images)
    if originals.ndim != 4 or len(originals) == 0:
        raise BadArgument("images", "be [N, H, W, C] with N >= 1", of_shape(originals.shape))
    if not named:
        raise BadArgument(argument, "name at least one", Words("none"))
    for name, arrays in named.items():
        if np.shape(arrays) != tuple(shape):
            raise BadArgument(f"{argument}[{name!r}]", f"be of shape {tuple(shape)}", of_shape(np.shape(arrays)))
    return originals


def _one_each(words: Sequence[str] | None, count: int, argument: str) -> None:
    if words is not None and len(words) != count:
        raise BadArgument(argument, f"be {count} strings", len(words))


def _sheet(
    images: np.ndarray, names: Sequence[str], titles: Sequence[str] | None, cell: float
) -> tuple[Figure, np.ndarray]:
    """Empty cells, [N, 1 + names]: the column of originals first, names above, titles to the left."""
    height = cell * images.shape[1] / images.shape[2]
    figure = new_figure((cell * (len(names) + 1) + 0.9, height * len(images) + 0.5))
    axes = figure.subplots(len(images), len(names) + 1, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], facecolor="#f3f4f6")
        axis.spines[:].set_color("#d1d5db")
    for column, name in enumerate(["original", *names]):
        axes[0, column].set_title(name, fontsize=9)
    for n, title in enumerate(titles or ()):
        axes[n, 0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=9)
    return figure, axes


def _smooth(images: np.ndarray) -> str | None:
    return None if max(images.shape[1:3]) > 64 else "nearest"
