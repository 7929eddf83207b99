"""Figures of what stands in tables: the changes of rows, the measures of attacks, accuracies by group, a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.metrics import summarize
from invjax.types import Status
from invjax.viz import palette, sheets
from invjax.viz.counterfactuals import sparsity
from invjax.viz.pixels import perturbation_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UP, DOWN = palette.LEVEL.light, palette.BLUE.light  # words about a value that rises or falls
_TITLES = {"asr": "success, %", "acp": "changed pixels", "anc": "clusters", "l2": "l2", "d20": "d2,0"}


def rows_figure(delta: Any, found: Any, most: int = 32) -> Figure:
    """Which columns of rows change: a line per answer, orange where a value rises, blue where it falls.

    delta: [N, D] in model units. found: [N] bool; the others are empty and say so.
    """
    some, kept = np.asarray(delta)[:most], np.asarray(found)[:most]
    if not some.size:
        raise BadArgument("result", "hold at least one answer", Words("empty"))
    figure = sheets.new_figure((min(9.0, 1.8 + 0.22 * some.shape[1]), 0.9 + 0.22 * len(some)))
    axis = figure.subplots()
    axis.set_facecolor(palette.CELL.light)
    axis.imshow(perturbation_pixels(some[..., None]), aspect="auto", interpolation="nearest")
    axis.locator_params(axis="x", integer=True)
    names = [str(n) if one else f"{n}, not found" for n, one in enumerate(kept)]
    step = -(-len(some) // 16)
    axis.set_yticks(range(0, len(some), step), names[::step], fontsize=sheets.SMALL)
    axis.set(xlabel="column: orange rises, blue falls", ylabel="answer")
    axis.spines[:].set_color(sheets.LINE)
    return figure


def costs(values: np.ndarray, ylabel: str) -> Figure:
    """A value per number of changes, 1 … M; values [N, M], NaN where nothing was found."""
    return sparsity(np.arange(1, values.shape[1] + 1), values, ylabel=ylabel)


def changes_figure(told: Any, most: int = 8) -> Figure:
    """The changes of an :class:`invjax.recourse.Explanation`: a line per person, a column per feature that changes.

    People who have an answer come first. Where the explanation has a frontier, a second panel says how many of those
    who need an answer have one with so many changes.
    """
    people = sorted(told.people, key=lambda person: not person.changes)[:most]  # those with an answer first
    names = list(dict.fromkeys(change.feature for person in people for change in person.changes))
    steps = told.frontier
    width = 2.2 + 1.35 * max(1, len(names)) + (2.6 if steps else 0)
    figure = sheets.new_figure((width, 0.8 + 0.36 * max(1, len(people))))
    panels = figure.subplots(1, 2, width_ratios=(1.35 * max(1, len(names)), 2.2)) if steps else [figure.subplots()]
    axis = panels[0]
    axis.set(xlim=(-0.5, max(1, len(names)) - 0.5), ylim=(len(people) - 0.5, -0.5))
    for n, person in enumerate(people):
        if person.status != Status.FOUND:
            axis.text(-0.4, n, _cut(person.text), va="center", fontsize=sheets.SMALL, color=sheets.GREY)
        for change in person.changes:
            colour = _colour(change.old, change.new)
            words = change.text.removeprefix(f"{change.feature} ")
            axis.text(
                names.index(change.feature), n, _cut(words, 24), ha="center", va="center", fontsize=sheets.SMALL,
                color=colour,
            )  # fmt: skip
    axis.set_xticks(range(len(names)), [_cut(name, 20) for name in names], fontsize=sheets.SMALL)
    axis.xaxis.tick_top()
    targets = sorted({person.target for person in people})
    same = len(targets) == 1
    axis.set_yticks(range(len(people)), [_cut(p.id, 20) if same else f"{_cut(p.id, 16)} → {p.target}" for p in people])
    axis.set_xlabel(f"wanted: {targets[0]}" if same else "", fontsize=sheets.SMALL, color=sheets.GREY)
    axis.tick_params(length=0, labelsize=sheets.SMALL)
    axis.spines[:].set_visible(False)
    axis.set_yticks(np.arange(len(people) + 1) - 0.5, minor=True)
    axis.grid(axis="y", which="minor", color=sheets.LINE, lw=0.7)
    axis.tick_params(which="minor", length=0)
    if steps:
        _reached(panels[1], steps)
    return figure


def _reached(axis: Axes, steps: Sequence[Any]) -> None:
    counts = [step.most for step in steps]
    needed = [[p.status == Status.FOUND for p in step.people if p.status != Status.ALREADY_TARGET] for step in steps]
    shares = np.array([100 * np.mean(found) if found else np.nan for found in needed])
    axis.plot(counts, shares, color=sheets.BLUE, marker="o", lw=1.6)
    axis.set(xlabel="features that may change", ylabel="people with an answer, %", xticks=counts, ylim=(-3, 103))
    sheets.plain_axes(axis, "y")


def attempts_figure(attempts: Any) -> Figure:
    """Success and cost of attacks for the best, the average and the worst target of each image.

    attempts: of :func:`invjax.metrics.measure`, or the summary of :func:`invjax.metrics.summarize`.
    """
    summary: Mapping[str, Any] = attempts if isinstance(attempts, Mapping) else summarize(attempts)
    table = summary["all_attempts"]
    figure = sheets.new_figure((1.75 * len(table) + 0.4, 2.5))
    for axis, (name, cases) in zip(figure.subplots(1, len(table)), table.items(), strict=True):
        values = np.array([cases[case] for case in cases], np.float64) * (100 if name == "asr" else 1)
        bars = axis.bar(list(cases), np.nan_to_num(values), color=sheets.BLUE, width=0.6)
        axis.bar_label(bars, ["–" if np.isnan(v) else f"{v:.3g}" for v in values], fontsize=sheets.SMALL, padding=2)
        axis.set_title(_TITLES.get(name, name), fontsize=10)
        axis.set(yticks=[], ylim=(0, 1.18 * max(1e-9, np.nan_to_num(values).max())))
        axis.tick_params(length=0, labelsize=sheets.SMALL)
        axis.spines[["left", "right", "top"]].set_visible(False)
    return figure


def groups_figure(accuracies: Any) -> Figure:
    """The accuracy of each group of a :class:`invjax.metrics.GroupAccuracies` with its interval."""
    share = 100 * np.asarray(accuracies.accuracy, np.float64)
    there = np.flatnonzero(~np.isnan(share))
    figure = sheets.new_figure((5.6, 0.8 + 0.28 * len(there)))
    axis = figure.subplots()
    for place, g in enumerate(there):
        colour = sheets.AMBER if g == accuracies.worst_group else sheets.BLUE
        axis.plot([100 * accuracies.low[g], 100 * accuracies.high[g]], [place, place], color=colour, alpha=0.6)
        axis.plot(share[g], place, "s" if g == accuracies.worst_group else "o", color=colour, markersize=5)
    axis.axvline(100 * accuracies.average, color=sheets.GREY, ls=":", lw=1)
    axis.set_yticks(range(len(there)), [f"group {g} ({accuracies.count[g]})" for g in there], fontsize=sheets.SMALL)
    axis.set(xlabel="right answers, % (dotted: all examples)", xlim=(-2, 102))
    axis.invert_yaxis()
    sheets.plain_axes(axis, "x")
    return figure


def history_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """A training, step by step: a panel for each number that its reports have."""
    if not history:
        raise BadArgument("result", "have a history of at least one report", Words("none"))
    skipped = ["step", "epoch", "seconds", "rate", "gradient"]
    if all(record.get("objective") == record.get("loss") for record in history):
        skipped.append("objective")
    names = [name for name, value in history[-1].items() if name not in skipped and isinstance(value, int | float)]
    names.sort(key=lambda name: name != "loss")
    figure = sheets.new_figure((min(11.0, 3.0 * max(1, len(names)) + 0.4), 2.6))
    panels = figure.subplots(1, max(1, len(names)), squeeze=False)[0]
    for axis, name in zip(panels, names, strict=False):
        kept = [record for record in history if name in record]
        axis.plot([r["step"] for r in kept], [r[name] for r in kept], color=sheets.BLUE, marker="o", ms=3, lw=1.6)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step", fontsize=sheets.SMALL)
        axis.locator_params(axis="x", integer=True)
        axis.tick_params(labelsize=sheets.SMALL)
        sheets.plain_axes(axis, "y")
    return figure


def _colour(old: Any, new: Any) -> str:
    """Of a change: up, down, or of a name."""
    try:
        return UP if float(new) > float(old) else DOWN
    except (TypeError, ValueError):
        return sheets.INK


def _cut(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
