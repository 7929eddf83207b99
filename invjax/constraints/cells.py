"""Cells of known rows, found again by their coordinates: float32 holds a number to seven digits, its cell holds all."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from invjax.constraints.features import Feature
from invjax.constraints.table import Table, columns, numbers

_TENS = np.array([float(f"1e{power}") for power in range(301)])
_MOST_DIGITS = 15  # a decimal of so many digits means one float64, and every reader of CSV files reads that one


class KnownCells:
    """The cells of a table, each under the coordinate that it is encoded to.

    Of several cells with one coordinate the first counts. The two ends of a feature's range are known as well.
    Two objects are equal where they know the same cells, so they may be part of a compiled program's key.
    """

    def __init__(self, features: Sequence[Feature], center: np.ndarray, scale: np.ndarray, table: Table) -> None:
        found = columns(table, [feature.name for feature in features])
        self._numbers: dict[str, np.ndarray] = {}  # by feature [m] raw values, all different, the first ones first
        self._levels: dict[str, np.ndarray] = {}  # by feature, for each of its levels the cell that stands for it
        self.whole: dict[str, bool] = {}  # by feature, whether its column holds integers
        self._scaling = {feature.name: (c, s) for feature, c, s in zip(features, center, scale, strict=True)}
        self._codes: dict[tuple[str, Any], tuple[np.ndarray, np.ndarray]] = {}
        digest = hashlib.sha256()
        for feature in features:
            column = found[feature.name]
            if feature.levelled:
                known = self._levels[feature.name] = _forms(feature, column)
            else:
                values = np.append(numbers(feature, column), feature.range)
                values = values[np.isfinite(values)]
                first = np.sort(np.unique(values, return_index=True)[1])
                known = self._numbers[feature.name] = values[first]
                self.whole[feature.name] = column.dtype.kind in "iu"
            digest.update(repr((feature.name, known.dtype.str, self.whole.get(feature.name))).encode())
            digest.update(repr(known.tolist()).encode() if known.dtype.kind == "O" else known.tobytes())
        self._digest = digest.hexdigest()

    def before(self, numbers: Mapping[str, np.ndarray]) -> KnownCells:
        """The same, knowing these numbers (columns by name) too, and before any other of the same coordinate."""
        more = copy.copy(self)
        more._numbers = {name: np.append(numbers.get(name, ()), values) for name, values in self._numbers.items()}
        more._codes = {}
        extra = [(name, np.asarray(values, np.float64).tobytes()) for name, values in sorted(numbers.items())]
        more._digest = hashlib.sha256(repr((self._digest, extra)).encode()).hexdigest()
        return more

    def numbers(self, name: str, x: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
        """[N] float64: the raw values of the coordinates x [N] where they are known, else ``otherwise`` [N]."""
        codes, values = self._index(name, x.dtype)
        if not len(codes):
            return otherwise
        at = np.minimum(np.searchsorted(codes, x), len(codes) - 1)
        return np.where(codes[at] == x, values[at], otherwise)

    def levels(self, name: str) -> np.ndarray:
        """[levels] the cells of a feature's levels, as the table has them."""
        return self._levels[name]

    def _index(self, name: str, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        key = (name, np.dtype(dtype).str)
        if key not in self._codes:
            center, scale = self._scaling[name]
            codes, first = np.unique(((self._numbers[name] - center) / scale).astype(dtype), return_index=True)
            self._codes[key] = codes, self._numbers[name][first]
        return self._codes[key]

    def __eq__(self, other: object) -> bool:
        return self._digest == other._digest if isinstance(other, KnownCells) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._digest)


def _forms(feature: Feature, column: np.ndarray) -> np.ndarray:
    """For each level the first cell of the column that means it ("3" for the level 3), else the level itself."""
    forms: list[Any] = list(feature.levels)
    cells = list(dict.fromkeys(cell for cell in column.tolist() if _hashable(cell)))
    positions = numbers(feature, _objects(cells))
    for cell, position in reversed(list(zip(cells, positions.tolist(), strict=True))):
        if position == position:  # not NaN
            forms[int(position)] = cell
    return as_column(forms) if column.dtype.kind != "O" else _objects(forms)


def _hashable(cell: Any) -> bool:
    try:
        hash(cell)
    except TypeError:
        return False
    return True


def _objects(cells: Sequence[Any]) -> np.ndarray:
    column = np.empty(len(cells), object)
    column[:] = cells
    return column


def as_column(cells: Sequence[Any]) -> np.ndarray:
    """Cells as an array of their own type, of objects where they are of several types or one is None."""
    types = {type(cell) for cell in cells}
    return np.asarray(cells) if len(types) == 1 and types != {type(None)} else _objects(cells)


def shortest(raw: np.ndarray, x: np.ndarray, center: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """[N, F] the decimals nearest to ``raw`` with the fewest digits (5 to 15) that have the coordinates x [N, F].

    What a person typed comes back as it was typed, and what is written down has no digits that the coordinate lacks.
    """
    low, high = np.full(raw.shape, 5), np.full(raw.shape, _MOST_DIGITS)
    size, values = _exponents(raw), rounded(raw)
    while (low < high).any():  # halving: more digits lie nearer to raw, so they have its coordinate too
        digits = (low + high) // 2
        found = _rounded(raw, digits - 1 - size)
        fits = ((found - center) / scale).astype(x.dtype) == x
        values = np.where(fits, found, values)
        low, high = np.where(fits, low, np.minimum(digits + 1, high)), np.where(fits, digits, high)
    return values


def rounded(raw: np.ndarray, digits: int = _MOST_DIGITS) -> np.ndarray:
    """Numbers at so many significant digits: the float64 nearest to that decimal. Infinities and NaN stay."""
    return _rounded(raw, digits - 1 - _exponents(raw))


def _exponents(raw: np.ndarray) -> np.ndarray:
    """The powers of ten of the first digits; 0 for 0 and for what is not finite."""
    size = np.abs(raw)
    return np.floor(np.log10(np.where((size > 0) & np.isfinite(size), size, 1.0))).astype(int)


def _rounded(raw: np.ndarray, places: np.ndarray) -> np.ndarray:
    up, down = _TENS[np.clip(places, 0, 300)], _TENS[np.clip(-places, 0, 300)]  # one of the two is 1: exact
    return np.rint(raw * up / down) / up * down
