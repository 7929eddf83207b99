"""The demo's digits: a 9 made a 4 by sparsity alone, by plausibility alone, and by both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax.counterfactuals import SCFE, Wachter
from invjax.data import mnist_digits
from invjax.densities import fit_gmm, fit_kde
from invjax.engine import solve
from invjax.metrics import changed_pixels, density_rank
from invjax.report import Section
from invjax.report.sheets import Shown, Step, sheet, story
from invjax.report.text import text_table
from invjax.types import Density, LogitsFn, Result, Status
from invjax.viz import perturbation_pixels, picture_pixels

_FROM, _TO = 9, 4
WAYS = ("sparsity only", "plausibility only", "both")
_DRAWN = 8
PIXELS = 32  # that may change
_ALL = 28 * 28
_KERNEL = 2.0  # bandwidth: Euclidean distance of pictures in [0, 1]
_TAU = 14.0
CONFIDENT = 0.9  # probability of the target
_GREY = 1 / 255  # a change up to here is invisible

_TEXT = (
    "The network reads these nines correctly. Every answer is a picture that it reads as a four with a probability of "
    f"{CONFIDENT:g} or more. It was found by S-CFE in three ways: with at most {PIXELS} changed pixels; with a density "
    "of digits as a guide, and any number of pixels; and with both."
)
_NOTE = (
    f"S-CFE with a kernel density of 2,500 digits, bandwidth {_KERNEL:g}, τ = {_TAU:g}. Both were chosen by eye: with "
    "a narrow kernel plausibility alone redraws the picture as one particular four, with a larger τ as a blurred four. "
    "Log density and last column come from a Gaussian mixture of other fours, which no method was given; the last "
    "column is the share of further real fours that it finds less likely than the answer. Wachter's method minimises "
    "the l1 norm by gradient steps, which leaves tiny changes in many pixels. The page begins with the nine "
    "whose answer by both stands best in the last column."
)
_COLOURS = "Changes: orange is brighter, blue darker, all on one scale."


class NinesMadeFours(NamedTuple):
    """Nines made fours, N of them, per way."""

    x: np.ndarray  # [N, 28, 28, 1]
    results: dict[str, Result]  # for each of WAYS and "Wachter"
    rows: list[dict[str, str]]  # the table
    rank: dict[str, np.ndarray]  # [N] by a density that no way was given; 0 where nothing was found


def nine_to_four(logits: LogitsFn, count: int = _DRAWN, **constants: Any) -> NinesMadeFours:
    """Nines made fours by sparsity alone, plausibility alone, both; and by Wachter's method for comparison.

    The density given to the ways is fitted to the digits with an even number; the nines and the judging density come
    from the others. constants: of S-CFE, for all ways.
    """
    data = mnist_digits()
    assert data.labels is not None
    known = np.arange(len(data.labels)) % 2 == 0
    density = fit_kde(data.images[known], data.labels[known], bandwidth=_KERNEL)
    nines = np.flatnonzero(~known & (data.labels == _FROM))
    nines = nines[np.asarray(logits(data.images[nines])).argmax(1) == _FROM]
    x = data.images[nines[np.linspace(0, len(nines) - 1, count).round().astype(int)]]
    label, target = np.full(count, _FROM), np.full(count, _TO)
    common = {"probability": CONFIDENT, "steps": 50, "polish": 30} | constants
    methods = {
        WAYS[0]: SCFE(max_changes=PIXELS, **common),
        WAYS[1]: SCFE(max_changes=_ALL, tau=_TAU, **common),
        WAYS[2]: SCFE(max_changes=PIXELS, tau=_TAU, **common),
        "Wachter": Wachter(probability=CONFIDENT, trials=6),
    }
    results, rows, ranks = {}, [], {}
    judge, fours = _judging_density(data.images[~known & (data.labels == _TO)])
    for name, method in methods.items():
        # One compiled program for all ways of S-CFE: sparsity alone has the density at the weight 0.
        seen = None if name == "Wachter" else density
        found = solve(logits, x, label, target=target, method=method, density=seen)
        results[name] = jax.tree.map(np.asarray, found)
        at = results[name].status == Status.FOUND
        zeros = np.zeros(count, np.int32)  # the judge knows one class
        values, rank = density_rank(judge, results[name].x, zeros, fours, np.zeros(len(fours), np.int32))
        ranks[name] = np.where(at, rank, 0.0)
        rows.append(_digit_row(name, results[name], at, values, ranks[name]))
    return NinesMadeFours(x, results, rows, ranks)


def _judging_density(fours: np.ndarray) -> tuple[Density, np.ndarray]:
    """A mixture fitted to two thirds of the fours, and the last third, among which answers are ranked."""
    third = np.arange(len(fours)) % 3 == 2
    ones = np.zeros(int((~third).sum()), np.int32)
    return fit_gmm(fours[~third], ones, components=8, covariance="diag", floor=0.1, restarts=1), fours[third]


def _digit_row(name: str, result: Result, found: np.ndarray, values: np.ndarray, rank: np.ndarray) -> dict[str, str]:
    exact, seen = (changed_pixels(result.delta[found], atol) for atol in (0.0, _GREY))
    return {
        f"{_FROM} → {_TO}": name,
        "valid": f"{int(found.sum())} of {len(found)}",
        "pixels changed (median)": _median(exact),
        "by more than 1/255": _median(seen),
        "log density (median)": _median(values[found]),
        "real fours that look less likely": f"{100 * rank.mean():.0f} %",
    }


def _median(values: np.ndarray) -> str:
    return f"{np.median(values):.0f}" if len(values) else "–"


def digits_section(logits: LogitsFn, say: Callable[[str], None]) -> tuple[Section, str, str]:
    """Nines made fours in three ways: the section, its table as text, and the first picture of the page."""
    say(f"Digits: {_DRAWN} nines made fours in three ways")
    made = nine_to_four(logits)
    section = Section(
        f"A {_FROM} made a {_TO}, in three ways",
        f"{_TEXT}\n\n{ways_words(made)}",
        table=made.rows,
        note=_NOTE,
        markup=_pictures(made),
        short=f"{_FROM} → {_TO}",
    )
    return section, text_table(made.rows), first_picture(made)


def ways_words(made: NinesMadeFours) -> str:
    """What the ways do, by their numbers."""
    rank = {name: 100 * made.rank[name].mean() for name in WAYS}
    best = max(rank, key=lambda name: rank[name])
    told = ", ".join(f"{share:.0f} % with {name}" for name, share in rank.items())
    return (
        f"A density that no way was given finds the answers likelier than some real fours: {told}. The best of these "
        f"answers are {_standing(rank[best])}."
    )


def _standing(percent: float) -> str:
    """Where the answers stand among real fours, of which half are below 50 %."""
    if percent >= 45:
        return "about as likely as real fours are"
    if percent >= 20:
        return "likelier than some real fours, but less likely than most"
    return "less likely than nearly all real fours"


def first_picture(made: NinesMadeFours) -> str:
    """One nine and two of its answers, side by side: HTML, or nothing where no nine has both.

    The nine is the one whose answer by both the judging density likes best.
    """
    sparse, both = made.results[WAYS[0]], made.results[WAYS[2]]
    have = np.asarray(sparse.found) & np.asarray(both.found)
    if not have.any():
        return ""
    n = int(np.where(have, made.rank[WAYS[2]], -1.0).argmax())
    steps = [Step([Shown(picture_pixels(made.x[n]), f"a handwritten {_FROM}")], f"Read as a {_FROM}.")]
    for way, name in ((WAYS[0], "An adversarial attack"), (WAYS[2], "A counterfactual explanation")):
        result, likelier = made.results[way], 100 * made.rank[way][n]
        count = int(changed_pixels(result.delta[n]))
        pictures = [
            Shown(picture_pixels(result.x[n]), f"the {_FROM} with {count} pixels changed, which is read as a {_TO}"),
            Shown(perturbation_pixels(result.delta[n], 1.0), f"the {count} pixels that change", True),
        ]
        change = f"{count} of {made.x[n].size} pixels change"
        text = f"{name}: {change}, to a picture likelier than {likelier:.0f} % of real fours."
        steps.append(Step(pictures, f"Read as a {_TO}.", text))
    return story(steps, 28 * 6)


def _pictures(made: NinesMadeFours) -> str:
    """The nines, and below them each way's answers and changes."""
    rows: list[tuple[str, list[Shown | str]]] = [
        ("original", [Shown(picture_pixels(x), f"nine number {n}") for n, x in enumerate(made.x, 1)])
    ]
    for name in WAYS:
        result = made.results[name]
        answers: list[Shown | str] = []
        changes: list[Shown | str] = []
        for n, found in enumerate(np.asarray(result.found)):
            alt = f"nine number {n + 1}, {name}"
            answers.append(Shown(picture_pixels(result.x[n]), alt) if found else "not found")
            change = Shown(perturbation_pixels(result.delta[n], 1.0), f"the change of {alt}", True)
            changes.append(change if found else "")
        rows += [(name, answers), ("its change", changes)]
    return sheet(rows, note=_COLOURS)
