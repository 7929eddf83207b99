"""Changes in words and numbers: "rooms 5.9 → 6.4, tax 330 → 300"."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from invjax.constraints import Feature, FeatureSpace
from invjax.constraints.notation import Notation
from invjax.core.text import as_text

_FEW = 3  # significant digits of a number without a grid
_MOST = 12
ARROW = " → "


class Change(NamedTuple):
    """One feature that changes, in raw units."""

    feature: str
    old: Any  # a number, or the name of a level
    new: Any
    text: str  # "tax 330 → 300"
    notation: Notation | None = None  # of the numbers in the text

    def __repr__(self) -> str:
        return f"Change({self.text})"


def changes(
    space: FeatureSpace, factual: Mapping[str, Any], answer: Mapping[str, Any], row: int, more: int | None = 0
) -> tuple[Change, ...]:
    """The features in which row ``row`` of two tables differs, in the order of the space. more: see :func:`pair`."""
    found = []
    for feature in space.features:
        old, new = _plain(factual[feature.name][row]), _plain(answer[feature.name][row])
        if not _same(old, new):
            before, after = pair(feature, old, new, more)
            found.append(Change(feature.name, old, new, f"{feature.name} {before}{ARROW}{after}", feature.notation))
    return tuple(found)


def sentence(found: Sequence[Change]) -> str:
    """All changes of a row in one line."""
    return ", ".join(change.text for change in found)


def read(change: Change) -> Any:
    """The new value as a reader of the text takes it: the number that is printed, or the level."""
    if not isinstance(change.new, int | float):
        return change.new
    text = change.text.rsplit(ARROW, 1)[1]
    value = None if change.notation is None else change.notation.read(text)
    try:
        return float(text) if value is None else value
    except ValueError:  # a truth value
        return change.new


def pair(feature: Feature, old: Any, new: Any, more: int | None = 0) -> tuple[str, str]:
    """Two values of a feature as text, rounded to the same number of decimals, enough to tell the two apart.

    Levels are shown by their names, numbers on a grid with the decimals of the grid, other numbers with three
    significant digits of the larger and at least two of the difference, in the notation of their file.

    more: further digits beyond these, where a rounded value would not do; None for all that a float64 has.
    """
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in (old, new)):
        return as_text(old), as_text(new)
    if feature.levelled:
        return _whole(old), _whole(new)
    dress = str if feature.notation is None else feature.notation.dress
    before, after = (_whole(old), _whole(new)) if more is None else _rounded(feature, old, new, more)
    return dress(before), dress(after)


def _rounded(feature: Feature, old: float, new: float, more: int) -> tuple[str, str]:
    """Two numbers as :func:`pair` has them, as Python writes them."""
    size, apart = max(abs(old), abs(new)), abs(old - new)
    if not math.isfinite(size) or size >= 1e9 or 0 < size < 1e-4:
        return _general(old, new, more)
    if feature.grid:
        decimals = max(_decimals(feature.grid), _decimals(feature.origin))
    else:
        least = 0 if feature.notation is None else feature.notation.decimals
        decimals = max(_FEW - 1 - _exponent(size), 1 - _exponent(apart), least)
    texts = [f"{value:.{min(decimals, _MOST) + more}f}" for value in (old, new)]
    texts = [text.rstrip("0").rstrip(".") if "." in text else text for text in texts]
    return (texts[0], texts[1]) if texts[0] != texts[1] else _general(old, new, more)


def number(value: float, digits: int = _FEW) -> str:
    """A number with this many significant digits; as a power of ten only from a million on."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.{max(digits - 1 - _exponent(value), 0)}f}" if 1e-4 <= abs(value) < 1e6 else f"{value:.{digits}g}"


def probability(value: float) -> str:
    """``0.87``; ``<0.01`` and ``>0.99`` instead of a rounded 0 or 1."""
    if math.isnan(value):
        return "–"
    return "<0.01" if value < 0.005 else ">0.99" if value > 0.995 else f"{value:.2f}"


def costs(space: FeatureSpace, factual: Mapping[str, Any], answer: Mapping[str, Any], encoded: Any) -> np.ndarray:
    """[N] ``Σ_f cost_f |u_f − x_f|`` in model coordinates; for a category, ``cost_f`` times the cost of its transition.

    encoded: the two tables in model coordinates, (x, u), each [N, D].
    """
    x, u = (np.asarray(side, np.float64) for side in encoded)
    total, column = np.zeros(len(x)), 0
    for feature in space.features:
        if feature.kind == "category":
            old, new = (np.asarray(side[feature.name], object) for side in (factual, answer))
            for i, (a, b) in enumerate(zip(old, new, strict=True)):
                if str(a) != str(b):
                    total[i] += feature.cost * (feature.transitions.get((_plain(a), _plain(b)), 1.0) or 0.0)
        else:
            total += feature.cost * np.abs(u[:, column] - x[:, column])
        column += feature.columns
    return total


def _whole(value: float) -> str:
    """A number with all of its digits: ``5``, ``0.1``, ``1e-05``."""
    text = f"{value:g}"
    return text if float(text) == value else repr(value)


def _general(old: float, new: float, more: int) -> tuple[str, str]:
    for digits in range(_FEW + more, 18):
        texts = f"{old:.{digits}g}", f"{new:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def _exponent(value: float) -> int:
    """The exponent of the first significant digit; 0 for 0."""
    return math.floor(math.log10(abs(value))) if value else 0


def _decimals(value: float) -> int:
    """How many decimals a grid needs: 0 for 5, 1 for 0.5, 2 for 0.25."""
    if not math.isfinite(value):
        return 0
    return next(
        (n for n in range(_MOST) if abs(value * 10**n - round(value * 10**n)) < 1e-9 * max(1, abs(value))), _MOST
    )


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _same(old: Any, new: Any) -> bool:
    both_nan = all(isinstance(value, float) and math.isnan(value) for value in (old, new))
    return bool(old == new) or both_nan or str(old) == str(new)
