"""matplotlib figures of training on counterfactuals: accuracies with their intervals, and the perturbed images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from invjax.viz.counterfactuals import ways
from invjax.viz.figures import AMBER, BLUE, GREY, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = (("accuracy", "all test images", BLUE), ("wga", "worst group", AMBER))


def worst_groups(records: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A line per method: its accuracy and that of its worst group, each with its interval.

    Args:
      records: method -> {"accuracy", "accuracy_ci", "wga", "wga_ci"}, shares in [0, 1], the intervals (low, high) or
        None; records without "accuracy" (of methods that failed) are left out. ``python -m invjax.bench learn`` writes
        such records. A dotted line marks the worst group of the first.

    Raises:
      ValueError: no record to draw. ImportError: matplotlib is missing (extra ``demo``).
    """
    rows = {name: record for name, record in records.items() if "accuracy" in record}
    if not rows:
        raise ValueError("records must hold at least one method with an accuracy, held none")
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
            raise ValueError(f"rows must be examples that every set has; {name!r} dropped {lacking}")
        x = made.x[[int(found[0]) for found in at]]
        moved[name] = _Moved(x, x - images, np.ones(len(rows), bool))
    return ways(images, moved, titles=titles, scale=scale, cell=cell)
