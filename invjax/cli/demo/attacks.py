"""The demo's attacks: real digits, each towards all other classes, by a sparse, a sparser and two dense attacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from invjax import campaign
from invjax.campaign import ChosenImages
from invjax.data import mnist_digits
from invjax.report import Section, attack_section
from invjax.report.text import text_table
from invjax.report.verdict import compared
from invjax.types import Bounds, LogitsFn

_BOUNDS = Bounds(0.0, 1.0)
_CLASSES = 10
_ATTACKS: dict[str, tuple[str, dict[str, str | float]]] = {
    "GSE": ("gse", {}),
    "σ-zero": ("sigma-zero", {"steps": 60}),
    "PGD": ("pgd", {"eps": 0.3, "step_size": 0.02, "steps": 60}),
    "FGSM": ("fgsm", {"eps": 0.3}),
}
_PICTURED = ("GSE", "σ-zero", "PGD")
_PICTURED_DIGITS = 20

_TEXT = (
    "The network reads each digit below correctly. For every other digit we look for a change of the picture that "
    "makes the network read that digit instead."
)


def attacks_section(
    logits: LogitsFn, digits: ChosenImages, say: Callable[[str], None], **options: Any
) -> tuple[Section, str]:
    """Every digit towards all nine other classes, by each of ``_ATTACKS``; the section and the table as text.

    options: of :func:`invjax.solve` (lanes, key, progress).
    """
    pairs = campaign.make_pairs(digits.labels, _CLASSES)
    runs = {}
    for title, (name, constants) in _ATTACKS.items():
        say(f"{title}: {len(digits.index)} digits x {pairs.shape[1]} targets")
        config = campaign.configure(name, constants)
        runs[title] = campaign.attack_pairs(title, logits, digits.images, pairs, config, _BOUNDS, **options)
    rows = campaign.table_rows(list(runs.values()))
    gse, sparse, pgd, _ = runs.values()
    section = attack_section(
        digits.images,
        digits.labels,
        pairs.target_table,
        {title: runs[title].result for title in _PICTURED},
        rows,
        title="Make the classifier read another digit",
        text=f"{_TEXT}\n\n{attack_words(runs)}",
        facts={
            "digits × targets": f"{pairs.shape[0]} × {pairs.shape[1]}",
            "targets GSE reaches": campaign.share_reached(gse),
            f"pixels GSE changes, of {digits.images[0].size} (median)": campaign.median_pixels(gse),
            "pixels σ-zero changes (median)": campaign.median_pixels(sparse),
            "pixels PGD changes (median)": campaign.median_pixels(pgd),
            "gradients GSE needs per pair": f"{gse.table['evaluations']['average']:.0f}",
        },
        note=f"{campaign.NOTE} {_constants_note()}",
        max_images=_PICTURED_DIGITS,
    )
    section = dataclasses.replace(section, short="Attacks on digits")
    return section, text_table(rows, group="case")


def attack_words(runs: Mapping[str, campaign.Run]) -> str:
    """What the four attacks do, by their numbers; means are over the targets reached."""
    gse, sparse, pgd, fgsm = runs.values()
    for run in (gse, sparse, pgd):
        if not run.attempts.success.any():
            return f"{run.name} reaches none of the targets."
    size = gse.result.delta[0, 0].size
    pixels, groups, length = (
        {run.name: _mean(run, field) for run in (gse, sparse, pgd)} for field in ("acp", "anc", "l2")
    )
    a, b, c = gse.name, sparse.name, pgd.name
    longer = compared(length[c], length[a], "longer", "shorter", "as long")
    return (
        f"{a} changes {pixels[a]:.0f} of {size} pixels on average, in {groups[a]:.1f} connected groups, and leaves all "
        f"others exactly as they are. {b} changes {compared(pixels[b], pixels[a])} ({pixels[b]:.0f}), in "
        f"{compared(groups[b], groups[a])} groups ({groups[b]:.1f}). {c} may change every pixel by up to 0.3 of a "
        f"range from 0 to 1, and changes {100 * pixels[c] / size:.0f} % of them; its whole change is {longer} (l2 "
        f"{length[c]:.1f}, {a} {length[a]:.1f}). {fgsm.name} is one step of {c} and reaches "
        f"{campaign.share_reached(fgsm)} of the targets, {c} {campaign.share_reached(pgd)}."
    )


def _mean(run: campaign.Run, field: str) -> float:
    return float(np.asarray(getattr(run.attempts, field))[run.attempts.success].mean())


def choose_digits(logits: LogitsFn, n: int, seed: int) -> tuple[ChosenImages, float, int]:
    """``n`` digits read correctly, the classes in turn, drawn by ``seed``; accuracy on, and number of, all digits."""
    data = mnist_digits()
    assert data.labels is not None
    right = campaign.classify(logits, data.images) == data.labels
    order = np.random.default_rng(seed).permutation(len(right))
    order = order[right[order]]
    # The first of each class, then the second of each class, and so on: 0 1 2 ... 9 0 1 2 ...
    rank = np.zeros(len(order), int)
    for digit in range(_CLASSES):
        of_class = data.labels[order] == digit
        rank[of_class] = np.arange(of_class.sum())
    index = order[np.lexsort((data.labels[order], rank))][:n]
    return ChosenImages(index, data.images[index], data.labels[index]), float(right.mean()), len(right)


def _constants_note() -> str:
    used = "; ".join(
        f"{title} {', '.join(f'{name} = {value:g}' for name, value in constants.items())}"
        for title, (_, constants) in _ATTACKS.items()
        if constants
    )
    return f"Constants: {used}; all others, and those of GSE, are the defaults."
