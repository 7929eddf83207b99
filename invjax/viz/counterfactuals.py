"""Figures of counterfactuals: images changed in several ways, the plane of two features, the price of sparsity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from invjax.core.errors import BadArgument, Words, of_shape
from invjax.core.meant import explained
from invjax.types import Result
from invjax.viz import palette, sheets
from invjax.viz.pixels import perturbation_pixels, picture_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FINE = 160  # grid points per axis of the plane


@explained
def ways(
    originals: Any,
    results: Mapping[str, Result],
    *,
    bounds: tuple[Any, Any] = (0.0, 1.0),
    titles: Sequence[str] | None = None,
    scale: float | None = 1.0,
    cell: float = 0.95,
) -> Figure:
    """Images changed in several ways: a column per image with the original, then per way the answer and its change.

    Args:
        originals: [N, H, W, C] images in the data range.
        results: name of the way -> its answers, with fields [N, ...]. If nothing was found, the picture is the original
            and says so.
        bounds: data range.
        titles: N column titles.
        scale: the change drawn at full strength, the same everywhere, so that ways compare; None scales each by itself.
        cell: side of one picture in inches.

    Raises:
        ValueError: shapes that do not fit, or no result. ImportError: matplotlib is missing (extra ``demo``).
    """
    images = sheets.check_pictures("originals", originals)
    if not results:
        raise BadArgument("results", "name at least one way", Words("none"))
    for name, result in results.items():
        if np.shape(result.x) != images.shape or np.shape(result.delta) != images.shape:
            wanted = f"have x and delta of shape {images.shape}"
            raise BadArgument(f"results[{name!r}]", wanted, of_shape(np.shape(result.x)))
    sheets.check_count("titles", titles, len(images))
    rows = 1 + 2 * len(results)
    figure, axes = sheets.sheet(rows, len(images), (cell * len(images) + 1.4, cell * rows + 0.3))
    for n, image in enumerate(images):
        sheets.draw(axes[0, n], picture_pixels(image, bounds))
        if titles is not None:
            axes[0, n].set_title(titles[n], fontsize=sheets.SMALL)
    sheets.name_row(axes[0, 0], "original")
    for k, (name, result) in enumerate(results.items()):
        found = np.asarray(result.found)
        upper, lower = axes[1 + 2 * k], axes[2 + 2 * k]
        for n in range(len(images)):
            sheets.draw(upper[n], picture_pixels(np.asarray(result.x)[n], bounds))
            sheets.draw(lower[n], perturbation_pixels(np.asarray(result.delta)[n], scale))
            if not found[n]:
                sheets.say_in(lower[n], "not found")
        sheets.name_row(upper[0], name)
        sheets.name_row(lower[0], "its change")
    return figure


@explained
def plane(
    points: Any,
    classes: Any,
    x: Any,
    answers: Mapping[str, Any],
    *,
    margin: Callable[[np.ndarray], Any],
    log_prob: Callable[[np.ndarray], Any] | None = None,
    level: float | None = None,
    names: tuple[str, str] = ("", ""),
    class_names: Sequence[str] = ("class 0", "class 1"),
) -> Figure:
    """Two features: data, the classifier's boundary (dashed), and where each row is sent, one panel per way.

    Args:
        points: [M, 2] data, in the units of the axes; all arguments are.
        classes: [M] 0 or 1; 1 is the wanted one.
        x: [N, 2] factual rows.
        answers: name of the way -> their counterfactuals [N, 2]; NaN where there is none.
        margin: [n, 2] -> [n], 0 on the boundary.
        log_prob: [n, 2] -> [n], log density of the wanted class, drawn as shades.
        level: of ``log_prob``, drawn as a line around the dense region.
        names: of the two features.
        class_names: of the two classes.

    Raises:
        ValueError: shapes that do not fit, or no way. ImportError: matplotlib is missing (extra ``demo``).
    """
    data, rows = np.asarray(points, np.float64), np.asarray(x, np.float64)
    label = np.asarray(classes)
    ends = {name: np.asarray(end, np.float64) for name, end in answers.items()}
    if not ends:
        raise BadArgument("answers", "name at least one way", Words("none"))
    if data.ndim != 2 or data.shape[1] != 2 or label.shape != data.shape[:1]:
        raise BadArgument("points", "be [M, 2], with classes [M]", Words(f"{data.shape} with classes {label.shape}"))
    for name, array in {"x": rows, **{f"answers[{name!r}]": end for name, end in ends.items()}}.items():
        if array.ndim != 2 or array.shape[1] != 2 or len(array) != len(rows):
            raise BadArgument(name, f"be of shape ({len(rows)}, 2)", of_shape(array.shape))
    every = np.concatenate([data, rows, *ends.values()])
    low, high = np.nanmin(every, axis=0), np.nanmax(every, axis=0)
    room = 0.06 * np.where(high > low, high - low, 1.0)
    first, second = (np.linspace(low[i] - room[i], high[i] + room[i], FINE) for i in range(2))
    mesh = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    gap = np.asarray(margin(mesh), np.float64).reshape(FINE, FINE)
    height = None if log_prob is None else np.asarray(log_prob(mesh), np.float64).reshape(FINE, FINE)
    figure = sheets.new_figure((4.3 * len(ends) + 0.3, 4.4))
    axes = figure.subplots(1, len(ends), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (name, end) in zip(axes, ends.items(), strict=True):
        if height is not None:
            # Four shades, each e^1.5 times as dense as the one around it.
            steps = height.max() - 1.5 * np.arange(4, -1, -1)
            axis.contourf(first, second, height, levels=steps, colors=[tone.light for tone in palette.SHADES])
            if level is not None and height.min() < level < height.max():
                rim = {"colors": [palette.LEVEL.light], "linewidths": 1.3, "linestyles": "solid"}
                axis.contour(first, second, height, levels=[level], **rim)
        if gap.min() < 0 < gap.max():
            axis.contour(first, second, gap, levels=[0.0], colors=[sheets.GREY], linestyles="dashed", linewidths=1.3)
        for value, colour, mark in ((0, sheets.BLUE, "o"), (1, sheets.AMBER, "D")):
            axis.scatter(*data[label == value].T, s=9, color=colour, marker=mark, lw=0, label=class_names[value])
        _arrows(axis, rows, end)
        axis.scatter(*end.T, s=26, color=sheets.INK, marker="o", zorder=4, label="counterfactual")
        axis.set_title(name, fontsize=10)
        axis.set_xlabel(names[0])
        sheets.plain_axes(axis)
    axes[0].set_ylabel(names[1])
    axes[0].legend(frameon=False, fontsize=sheets.SMALL, loc="best")
    return figure


@explained
def sparsity(counts: Any, values: Any, *, ylabel: str = "distance", title: str = "") -> Figure:
    """The gain from one more change: a value per number of changes; a thin line per row, the median as a thick line.

    Args:
        counts: [M] numbers of features that may change, as passed to :func:`invjax.counterfactuals.frontier`.
        values: [N, M], for instance distances; NaN where nothing was found.

    Raises:
        ValueError: shapes that do not fit. ImportError: matplotlib is missing (extra ``demo``).
    """
    where, lines = np.asarray(counts), np.asarray(values, np.float64)
    if where.ndim != 1 or lines.ndim != 2 or lines.size == 0 or lines.shape[1:] != where.shape:
        raise BadArgument("values", "be [N, M], with counts [M]", Words(f"{lines.shape} with counts {where.shape}"))
    figure = sheets.new_figure((5.6, 3.4))
    axis = figure.subplots()
    axis.plot(where, lines.T, color=sheets.BLUE, lw=0.8, alpha=0.35)
    axis.plot(where, sheets.median(lines), color=sheets.AMBER, lw=2.2, marker="o", label="median of those found")
    for m, share in zip(where, np.mean(~np.isnan(lines), axis=0), strict=True):
        axis.annotate(
            f"{100 * share:.0f} %", (m, 1.0), xycoords=("data", "axes fraction"), ha="center", fontsize=sheets.SMALL
        )
    axis.set(xlabel="features that may change (above: rows with an answer)", ylabel=ylabel, xticks=where)
    axis.set_ylim(bottom=0)
    sheets.plain_axes(axis)
    axis.legend(frameon=False, fontsize=sheets.SMALL)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _arrows(axis: Axes, start: np.ndarray, end: np.ndarray) -> None:
    there = np.isfinite(end).all(1)
    for a, b in zip(start[there], end[there], strict=True):
        axis.annotate("", b, a, arrowprops={"arrowstyle": "-", "color": sheets.INK, "lw": 0.7, "alpha": 0.55})
