"""One line for a picture of whatever the library gives: ``viz.show(result)``.

The figures that it chooses take more options when they are called by their own names: :func:`invjax.viz.grid`,
:func:`invjax.viz.trace`, :func:`invjax.viz.score_curves`, :mod:`invjax.viz.tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from invjax.core.errors import BadArgument, Words, check_whole, of_shape
from invjax.core.meant import explained
from invjax.types import Result, Status
from invjax.viz import sheets
from invjax.viz.attacks import score_curves
from invjax.viz.figures import grid, trace
from invjax.viz.pixels import picture_pixels
from invjax.viz.tables import attempts_figure, changes_figure, costs, groups_figure, history_figure, rows_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from invjax.campaign import Run
    from invjax.data import GroupData
    from invjax.data.images.source import ImageData
    from invjax.engine import Trace
    from invjax.learn import Perturbed, Trained
    from invjax.metrics import Attempts, Curve, GroupAccuracies, Summary
    from invjax.recourse import Explanation

    Shown = (
        Result | Explanation | Perturbed | GroupData | ImageData[Any] | Trained | Attempts | Summary | Run | Trace
        | Curve | GroupAccuracies
    )  # fmt: skip


class _How(NamedTuple):
    """The options of :func:`show`."""

    most: int
    bounds: tuple[Any, Any]
    cell: float


@explained
def show(result: Shown, *, most: int = 8, bounds: tuple[Any, Any] = (0.0, 1.0), cell: float = 1.15) -> Figure:
    """A picture of a result in one line.

    ================================================  ==============================================================
    a result of images, the run of a campaign         the images, the answers and their changes; of a single one too
    a result of rows, or of sets of answers           which columns rise and fall, a line per answer
    the result of ``counterfactuals.frontier``        the length of the change by the number of changes
    an explanation of rows of a table                 each person's changes, and what each change more would bring
    a perturbed set, images, a set with groups        some of them, with their classes or groups
    ``metrics.measure``, ``metrics.summarize``        success and cost for the best, the average and the worst target
    a trace, a curve of scores, accuracies by group   lines, or bars with their intervals
    a training                                        its loss and measures by step
    ================================================  ==============================================================

    Args:
        result: what there is to see; ``result[result.found]`` shows what was found.
        most: examples at most.
        bounds: data range of images.
        cell: side of one picture in inches.

    Raises ValueError: something else, or rows where images are needed. ImportError: matplotlib is missing (extra
    ``demo``).
    """
    how = _How(check_whole("most", most, 1), bounds, cell)
    for kind in type(result).__mro__:
        if kind.__module__.startswith("invjax.") and kind.__name__ in _SHOWS:
            return _SHOWS[kind.__name__](result, how)
    traced: Any = result
    if isinstance(traced, tuple) and len(traced) == 2 and type(traced[1]).__name__ == "Trace":
        return show(traced[1], most=most)  # as invjax.trace gives it
    known = "Result, Explanation, Perturbed, GroupData, ImageData, Trained, Attempts, Summary, Run, Trace or Curve"
    hint = "viz.grid(x, result) draws images with their answers" if hasattr(result, "shape") else None
    raise BadArgument("result", f"be a {known}", Words(f"a {type(result).__name__}"), hint=hint)


def _answers(result: Result, how: _How) -> Figure:
    x, delta = np.asarray(result.x), np.asarray(result.delta)
    axes = np.ndim(result.status)
    shape = x.shape[axes:]
    if len(shape) == 3 and shape[-1] in (1, 3):
        flat = jax.tree.map(lambda field: np.asarray(field).reshape(-1, *np.shape(field)[axes:]), result)
        some = flat[: how.most]
        return grid((x - delta).reshape(-1, *shape)[: how.most], some, bounds=how.bounds, cell=how.cell)
    if len(shape) != 1:
        raise BadArgument("result", "have images [N, H, W, C] of 1 or 3 channels, or rows [N, D]", of_shape(x.shape))
    if axes == 2 and np.ndim(result.evaluations) == 2:  # a question for each number of changes, not a set of answers
        status = np.asarray(result.status)
        lengths = np.where(status == Status.FOUND, np.sqrt(np.square(delta).sum(-1)), np.nan)
        needed = (status != Status.ALREADY_TARGET).any(1)  # the others have nothing to change
        return costs(lengths[needed] if needed.any() else lengths, "‖x' − x‖₂")
    return rows_figure(delta.reshape(-1, *shape), np.asarray(result.found).reshape(-1), 4 * how.most)


def _run(run: Any, how: _How) -> Figure:
    return _answers(run.result, how)


def _trace(found: Any, how: _How) -> Figure:
    active = np.asarray(found.active)
    support, gap = (np.where(active, np.asarray(field, np.float64), np.nan).T for field in (found.support, found.gap))
    return trace(support[: how.most], gap[: how.most])


def _perturbed(made: Any, how: _How) -> Figure:
    titles = [f"{before} → {after}" for before, after in zip(made.label, made.y, strict=True)]
    return _pictures(made.x, titles, how)


def _images(data: Any, how: _How) -> Figure:
    names = data.names
    labels = [] if data.labels is None else [str(k if names is None else names[k]) for k in data.labels[: how.most]]
    return _pictures(data.images, labels, _How(how.most, data.bounds, how.cell))


def _groups(data: Any, how: _How) -> Figure:
    """A row of cells for each group, which starts at another row of the set."""
    each = min(how.most, 6)
    present = [g for g in range(len(data.groups)) if np.any(data.group == g)][:10]
    members = {data.groups[g]: np.flatnonzero(data.group == g)[:each] for g in present}
    if np.ndim(data.images([0])) != 4:
        raise BadArgument("result", "hold images", Words("a set of rows"))
    figure, axes = sheets.sheet(len(present), each, (how.cell * each + 1.6, how.cell * len(present) + 0.3))
    for row, (name, rows) in zip(axes, members.items(), strict=True):
        sheets.name_row(row[0], name)
        for axis, image in zip(row, data.images(rows), strict=False):
            sheets.draw(axis, picture_pixels(image))
        for axis in row[len(rows) :]:
            axis.set_axis_off()
    return figure


def _pictures(images: Any, titles: Sequence[str], how: _How) -> Figure:
    """The first images in lines of at most eight."""
    some = np.asarray(images[: how.most])
    if some.ndim != 4 or not len(some):
        raise BadArgument("result", "hold images [N, H, W, C] with N >= 1", of_shape(np.shape(images)))
    columns = min(8, len(some))
    lines = -(-len(some) // columns)
    figure, axes = sheets.sheet(lines, columns, (how.cell * columns + 0.3, (how.cell + 0.25) * lines + 0.2))
    for n, axis in enumerate(axes.flat):
        if n < len(some):
            sheets.draw(axis, picture_pixels(some[n], how.bounds))
            axis.set_title(titles[n] if n < len(titles) else "", fontsize=sheets.SMALL)
        else:
            axis.set_axis_off()
    return figure


def _curve(curve: Any, how: _How) -> Figure:
    return score_curves({"the attack": curve.mean}, curve.percentiles, curve.chance)


_SHOWS: dict[str, Callable[[Any, _How], Any]] = {
    "Result": _answers,
    "Run": _run,
    "Trace": _trace,
    "Explanation": lambda told, how: changes_figure(told, how.most),
    "Perturbed": _perturbed,
    "ImageData": _images,
    "GroupData": _groups,
    "Trained": lambda made, how: history_figure(made.history),
    "Attempts": lambda attempts, how: attempts_figure(attempts),
    "Summary": lambda summary, how: attempts_figure(summary),
    "GroupAccuracies": lambda accuracies, how: groups_figure(accuracies),
    "Curve": _curve,
}
