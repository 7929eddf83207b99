"""The demo's study: networks trained on counterfactuals of digits that carry a misleading strip of pixels.

Part of the page only if asked for (``invjax demo --learn``): it takes most of a minute, by far the longest part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from invjax.learn.study import DESCRIPTIONS, Study, Task, ablation, load_task, percent
from invjax.report import Picture, Section
from invjax.report.text import text_table
from invjax.viz.learning import perturbed, worst_groups

METHODS = ("erm", "random-labels", "pgd-l2", "cfe-l2", "p-cfe", "density-only", "permuted-density", "resample")
_SEEDS = (0, 1, 2)
_DRAWN = ("pgd-l2", "cfe-l2", "p-cfe", "density-only")
_IMAGES = 8

_TEXT = (
    "Digits 0–4 against 5–9. Under each digit is a strip of pixels that agrees with the class in 95 of 100 training "
    "images, and in half of the test images. A network that reads the strip is right on average and wrong on the "
    "groups in which strip and class disagree, which the accuracy of the worst group shows.\n\n"
    "Each method changes the training images towards classes drawn at random. A fresh network learns from the changed "
    "images, labelled with those classes, and is measured on untouched test images. So whatever it knows about the "
    "drawn classes, it has learnt from the changes. The controls show where an effect comes from: labels alone "
    "(`random-labels`), the density of the classes alone (`density-only`), the density of a wrong class "
    "(`permuted-density`)."
)
_ALT = "For each method the share of right answers on all test images and on the worst group, with intervals."
_NOTE = (
    "Test accuracies in per cent, mean over {seeds} draws of data, weights and targets; ± half a 95 % interval of "
    "Student's t. Targets are uniform over both classes; an example whose target is its own class stays as it is. "
    "Density: the pull towards the five nearest digits of the class. This is a small study of a toy data set: it shows "
    "how such a comparison is made, not what holds for photographs."
)


def learn_section(
    say: Callable[[str], None], task: Task | None = None, seeds: Sequence[int] = _SEEDS
) -> tuple[Section, str]:
    """The study as a section, and as text for the terminal. task, seeds: smaller ones for tests."""
    task = load_task("digits-spurious") if task is None else task
    say(f"Learning from counterfactuals: {len(METHODS)} methods x {len(seeds)} seeds on {task.name}")
    first: list[Study] = []

    def look(study: Study) -> None:
        if not first:
            first.append(study)

    records = ablation(task, METHODS, seeds=seeds, say=lambda line: None, look=look)
    rows = [_row(name, record) for name, record in records.items()]
    worst = {name: record["wga"] for name, record in records.items() if "wga" in record}
    best = max(worst, key=lambda name: worst[name])
    section = Section(
        "What a network learns from counterfactuals",
        f"{_TEXT}\n\n{learn_words(records)}".strip(),
        facts={
            "worst group, trained on the digits as they are": f"{100 * worst['erm']:.0f} %",
            "trained on plausible counterfactuals (p-CFE)": _share(worst, "p-cfe"),
            f"best of these: {best}": f"{100 * worst[best]:.0f} %",
        },
        table=rows,
        note=_NOTE.format(seeds=len(seeds)),
        figures=(Picture(worst_groups(records), width=720, alt=_ALT), *_pictures(first[0])),
        short="Learning",
    )
    return section, text_table(rows)


def learn_words(records: Mapping[str, Mapping[str, Any]]) -> str:
    """What the study says about plausible counterfactuals, by its intervals; nothing where a method failed."""
    told = []
    for other, doubt in (("erm", "these seeds do not settle it"), ("density-only", "the density alone may do it")):
        if not all("wga" in records.get(name, {}) for name in ("p-cfe", other)):
            continue
        mine, theirs = records["p-cfe"], records[other]
        overlap = _overlap(mine["wga_ci"], theirs["wga_ci"])
        told.append(
            f"The worst group is right on {100 * mine['wga']:.0f} % after `p-cfe` and on {100 * theirs['wga']:.0f} % "
            f"after `{other}`; {f'the intervals overlap, so {doubt}' if overlap else 'the intervals do not overlap'}."
        )
    return " ".join(told)


def _overlap(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    """Whether two intervals share a point; without an interval nothing is settled."""
    return one is None or other is None or (one[0] <= other[1] and other[0] <= one[1])


def _share(worst: dict[str, float], name: str) -> str:
    return f"{100 * worst[name]:.0f} %" if name in worst else "failed"


def _row(name: str, record: dict[str, Any]) -> dict[str, str]:
    if "error" in record:
        return {"trained on": name, "accuracy": "failed", "worst group": "", "what it is": record["error"]}
    seeds = sum("error" not in cell for cell in record["seeds"])
    return {
        "trained on": name,
        "accuracy": percent(record["accuracy"], record["accuracy_ci"], seeds),
        "worst group": percent(record["wga"], record["wga_ci"], seeds),
        "what it is": DESCRIPTIONS[name],
    }


def _pictures(study: Study) -> tuple[Picture, ...]:
    """Some training images whose target is another class, as the methods made them."""
    sets = {name: study.perturbed[name] for name in _DRAWN if name in study.perturbed}
    if not sets:
        return ()
    made = next(iter(sets.values()))
    rows = made.source[np.flatnonzero(made.y != made.label)][:_IMAGES].tolist()
    titles = [f"→ {study.data.classes[k]}" for k in made.y[np.isin(made.source, rows)]]
    caption = "Training images, their changed versions, and the change: orange is brighter, blue darker; one scale."
    return (Picture(perturbed(study.x, sets, rows, titles=titles), caption, width=900),)
