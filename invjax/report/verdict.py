"""What measured numbers mean, in sentences: no word of praise that the number does not earn."""

from __future__ import annotations

import math
from collections.abc import Mapping

_FIVE = 5  # neighbours asked


def share_of(found: int, total: int, one: str, rest: str = "") -> str:
    """``all 8 rows``, ``only 1 of 8 rows``, ``none of the 8 rows``: the start of a sentence about a share.

    "only" stands below one half. one: the noun for one of them; rest: what follows the noun.
    """
    if total == 1:
        return f"the one {one}{rest}" if found else f"not the one {one}{rest}"
    if found in (0, total):
        return f"all {total} {one}s{rest}" if found else f"none of the {total} {one}s{rest}"
    return f"{'only ' if 2 * found < total else ''}{found} of {total} {one}s{rest}"


def compared(value: float, other: float, more: str = "more", fewer: str = "fewer", same: str = "as many") -> str:
    """Which of three words fits ``value`` beside ``other``; equal within one in a hundred."""
    if math.isclose(value, other, rel_tol=0.01, abs_tol=1e-9):
        return same
    return more if value > other else fewer


def judged(summary: Mapping[str, float], asked: int) -> str:
    """What the measures of counterfactuals say about them, in one paragraph.

    Args:
      summary: of an :class:`invjax.recourse.Explanation`: ``validity``, ``plausible``, ``ynn``, ``redundancy``,
        ``violations``; NaN where there is nothing to measure.
      asked: how many rows did not have the wanted class.
    """
    if not asked:
        return "Every row already has the wanted class, so there was nothing to find."
    valid = _count(summary["validity"], asked)
    rows = _start(share_of(valid, asked, "row", " to change"))
    said = [f"{rows} {_have(valid)} an answer that holds as it is printed."]
    if not valid:
        return said[0]
    plausible = summary.get("plausible", math.nan)
    if not math.isnan(plausible):
        said.append(_plausibility(_count(plausible, valid), valid))
    neighbours = summary.get("ynn", math.nan)
    if not math.isnan(neighbours):
        said.append(_neighbourhood(neighbours))
    if summary.get("redundancy", 0.0) >= 0.05:
        said.append(
            f"Of the changes of an answer {summary['redundancy']:.1f} on average could be undone without losing the "
            "wanted class."
        )
    return " ".join(said)


def _plausibility(dense: int, valid: int) -> str:
    lead = f"{_start(share_of(dense, valid, 'answer'))} {'is' if dense == 1 else 'are'} as plausible as was asked"
    if dense == valid:
        return f"{lead}."
    rest = "they lie" if dense == 0 else "the other lies" if valid - dense == 1 else f"the other {valid - dense} lie"
    rarer = "where training rows of the wanted class are rarer"
    if 2 * dense >= valid:
        return f"{lead}; {rest} {rarer}."
    return f"{lead}; {rest} {rarer}, so most of these answers are valid but not plausible."


def _neighbourhood(share: float) -> str:
    lead = f"Of the {_FIVE} training rows nearest to an answer the model gives {100 * share:.0f} % the wanted class"
    if share >= 0.8:
        return f"{lead}: the answers lie well inside it."
    if share >= 0.5:
        return f"{lead}: the answers lie inside it, but near its border."
    return f"{lead}: the answers lie just across the model's border, among rows of other classes."


def _count(share: float, of: int) -> int:
    return 0 if math.isnan(share) else round(share * of)


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _start(text: str) -> str:
    return text[:1].upper() + text[1:]
