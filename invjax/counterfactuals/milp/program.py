"""A mixed-integer linear program that is written down piece by piece, and HiGHS (through SciPy) that solves it.

HiGHS counts in absolute numbers: it sets coefficients up to 1e-9 to 0, and keeps a row and a variable's range to 1e-6.
So a program is handed over in units of its own. With v = base + unit · w every variable w is of order 1, whatever its
range; rows and the objective are multiplied by numbers. All of these numbers are powers of 2, which round nothing, and
they are 1 within two or three digits of 1, where a program needs no units.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from invjax.core.errors import BadArgument, Words
from invjax.types import ArrayLike

# HiGHS calls a row kept when it misses it by 1e-6 or less, and a variable whole when it is so near to a whole number.
TOLERANCE = 1e-6
DROPPED = 1e-9  # coefficients that HiGHS sets to 0
# Where the largest size of a variable, coefficient of a row, and coefficient of the objective may lie as they are.
_VARIABLE, _ROW, _OBJECTIVE = (2.0**-7, 2.0**7), (2.0**-10, 2.0**10), (1.0, 2.0**20)


class Solution(NamedTuple):
    """What the solver said."""

    status: str  # "optimal", "infeasible", "limit" (the time ended), "error"
    values: np.ndarray | None  # [variables] the best point; None: none known
    value: float  # its objective; infinity: none known
    bound: float  # nothing is below; infinity where infeasible


class Scaled(NamedTuple):
    """The rows of a program in HiGHS's units: ``low <= matrix w <= high`` with v = base + unit · w."""

    matrix: Any  # [rows, variables] sparse
    low: np.ndarray  # [rows]
    high: np.ndarray  # [rows]
    base: np.ndarray  # [variables]
    unit: np.ndarray  # [variables]
    factor: np.ndarray  # [rows] by which a row was multiplied
    moved: np.ndarray  # [rows] A base: what the base takes from a row's sides
    room: np.ndarray  # [rows] by how much the sides were widened for the coefficients left out


class Program:
    """``min c v  subject to  row_lower <= A v <= row_upper,  lower <= v <= upper,  some v whole numbers``."""

    def __init__(self) -> None:
        self.lower: list[np.ndarray] = []
        self.upper: list[np.ndarray] = []
        self.whole: list[np.ndarray] = []
        self.size = 0
        self.blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # rows, columns, coefficients
        self.row_lower: list[np.ndarray] = []
        self.row_upper: list[np.ndarray] = []
        self.count = 0
        self.cost: dict[int, float] = {}
        self._scaled: tuple[tuple[int, int], Scaled] | None = None  # of so many variables and rows

    def variables(self, lower: ArrayLike, upper: ArrayLike, whole: bool = False) -> np.ndarray:
        """New variables within their bounds; lower, upper: [n] -> their indices [n]."""
        low, high = (np.array(one, np.float64) for one in np.broadcast_arrays(np.atleast_1d(lower), upper))
        self.lower.append(low)
        self.upper.append(high)
        self.whole.append(np.full(low.shape, whole))
        self.size += low.size
        return np.arange(self.size - low.size, self.size)

    def rows(
        self, terms: Sequence[tuple[np.ndarray, ArrayLike]], lower: ArrayLike = -np.inf, upper: ArrayLike = np.inf
    ) -> np.ndarray:
        """``lower <= sum of coefficients @ variables <= upper`` -> the indices of the rows.

        terms: pairs of variables [n] and coefficients: [m, n] for m rows; [m] with n = m for one variable in each.
        A coefficient of 1-D form is therefore a diagonal.
        """
        count = 0
        for columns, coefficients in terms:
            matrix = np.asarray(coefficients, np.float64)
            count = matrix.shape[0] if matrix.ndim else len(columns)
            if matrix.ndim < 2:
                row, column, value = np.arange(count), np.asarray(columns), np.broadcast_to(matrix, count)
            else:
                row, inner = np.nonzero(matrix)
                column, value = np.asarray(columns)[inner], matrix[row, inner]
            self.blocks.append((row + self.count, column, value))
        self.row_lower.append(np.broadcast_to(np.asarray(lower, np.float64), count))
        self.row_upper.append(np.broadcast_to(np.asarray(upper, np.float64), count))
        self.count += count
        return np.arange(self.count - count, self.count)

    def total(self, variables: np.ndarray, weights: ArrayLike, lower: float = -np.inf, upper: float = np.inf) -> int:
        """One row ``lower <= weights · variables <= upper`` -> its index."""
        weights = np.broadcast_to(np.asarray(weights, np.float64), len(variables))
        return int(self.rows([(variables, weights[None])], lower, upper)[0])

    def minimise(self, cost: dict[int, float]) -> None:
        """The objective, as variable -> coefficient."""
        self.cost = dict(cost)

    def scaled(self) -> Scaled:
        """The rows in HiGHS's units; computed once for as long as nothing is added.

        Raises BadArgument where coefficients that HiGHS would set to 0 decide more than its tolerance.
        """
        if self._scaled is not None and self._scaled[0] == (self.size, self.count):
            return self._scaled[1]
        lower, upper, whole = (np.concatenate(one) for one in (self.lower, self.upper, self.whole))
        base, unit = _units(lower, upper, whole)
        if self.count:
            row, column, value = (np.concatenate(one) for one in zip(*self.blocks, strict=True))
            low, high = np.concatenate(self.row_lower), np.concatenate(self.row_upper)
        else:
            row, column, value, low, high = np.zeros(0, int), np.zeros(0, int), *np.zeros((3, 0))
        shape = (self.count, self.size)
        moved = sparse.coo_array((value, (row, column)), shape=shape).tocsr() @ base
        matrix = sparse.coo_array((value * unit[column], (row, column)), shape=shape).tocsr()
        matrix.sum_duplicates()
        largest = np.zeros(self.count)
        row = np.repeat(np.arange(self.count), np.diff(matrix.indptr))
        np.maximum.at(largest, row, np.abs(matrix.data))
        factor = _factor(largest, _ROW)
        matrix.data *= factor[row]
        # What HiGHS would leave out is left out here, and the sides are moved by all that it can come to.
        small = np.abs(matrix.data) <= DROPPED
        most = np.maximum(np.abs(lower - base), np.abs(upper - base)) / unit
        most = np.where(np.isfinite(most), most, 1 / DROPPED)
        room = np.bincount(row[small], (np.abs(matrix.data) * most[matrix.indices])[small], self.count)
        if np.any(room > TOLERANCE):
            was = Words(f"one whose small terms come to {room.max():.1g} of the largest, and are lost to the solver")
            wanted = "have neurons, and the space relations, whose terms are within nine digits of each other"
            raise BadArgument("model", wanted, was, hint="rescale the columns")
        matrix.data[small] = 0.0
        matrix.eliminate_zeros()
        low, high = (low - moved) * factor - room, (high - moved) * factor + room
        answer = Scaled(matrix, low, high, base, unit, factor, moved, room)
        self._scaled = (self.size, self.count), answer
        return answer

    def solve(
        self,
        *,
        cost: dict[int, float] | None = None,
        relaxed: bool = False,
        fixed: np.ndarray | None = None,
        raised: dict[int, float] | None = None,
        until: float | None = None,
        gap: float = 1e-6,
    ) -> Solution:
        """Solve it.

        cost: another objective. relaxed: forget that variables are whole. fixed: [variables], a point whose whole
        variables are kept as they are (rounded); what is left is linear. raised: rows whose lower side is another.
        until: when to stop, on the clock of ``time.monotonic``. gap: relative gap at which an answer counts as optimal.
        """
        if until is not None and until <= time.monotonic():
            return Solution("limit", None, np.inf, -np.inf)
        lower, upper, whole = (np.concatenate(one) for one in (self.lower, self.upper, self.whole))
        if np.any(lower > upper):
            size = np.maximum(1.0, np.minimum(np.abs(lower), np.abs(upper)))
            if np.any(lower > upper + TOLERANCE * size):
                return Solution("infeasible", None, np.inf, np.inf)
            upper = np.maximum(lower, upper)
        if fixed is not None:
            lower, upper = np.where(whole, np.round(fixed), lower), np.where(whole, np.round(fixed), upper)
        whole = whole & ~(relaxed or fixed is not None)
        rows = self.scaled()
        vector = np.zeros(self.size)
        for column, value in (self.cost if cost is None else cost).items():
            vector[column] += value
        offset, vector = float(vector @ rows.base), vector * rows.unit
        dear = float(_factor(np.abs(vector).max(initial=0.0), _OBJECTIVE))
        constraints: Any = ()
        if self.count:
            low = rows.low.copy()
            for at, side in (raised or {}).items():
                low[at] = (side - rows.moved[at]) * rows.factor[at] - rows.room[at]
            constraints = (LinearConstraint(rows.matrix, low, rows.high),)  # type: ignore[arg-type]  # its stubs know no arrays
        options: dict[str, float | bool] = {"mip_rel_gap": gap}
        box = Bounds((lower - rows.base) / rows.unit, (upper - rows.base) / rows.unit)  # type: ignore[arg-type]
        for presolve in (True, False):
            if until is not None and np.isfinite(until):
                options["time_limit"] = max(until - time.monotonic(), 1e-2)
            # Status 4 is also what presolve says when it cannot tell infeasible from unbounded: ask without it.
            answer = milp(
                vector * dear, integrality=whole.astype(int), bounds=box, constraints=constraints,
                options={**options, "presolve": presolve},
            )  # fmt: skip
            if answer.status != 4:
                break
        said = _read(answer, bool(whole.any()))
        values = None if said.values is None else rows.base + rows.unit * said.values
        return Solution(said.status, values, said.value / dear + offset, said.bound / dear + offset)


def _units(lower: np.ndarray, upper: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The base and the unit of each variable; a whole one keeps its own, so that it stays whole.

    The base is 0, except where all of a range lies far from 0 (a time stamp), and then it is the nearer end.
    """
    bounded = np.isfinite(lower) & np.isfinite(upper) & ~whole
    low, high = np.where(bounded, lower, 0.0), np.where(bounded, np.maximum(lower, upper), 0.0)
    near = np.clip(0.0, low, high)
    base = np.where(np.abs(near) > _VARIABLE[1] * (high - low), near, 0.0)
    reach = np.maximum(np.abs(low - base), np.abs(high - base))
    outside = (reach < _VARIABLE[0]) | (reach > _VARIABLE[1])
    return base, np.where(outside & (reach > 0), 1 / _factor(reach, (1.0, 1.0)), 1.0)


def _factor(largest: ArrayLike, band: tuple[float, float]) -> np.ndarray:
    """The power of 2 that brings ``largest`` into the band, if it is outside (of one number: next to it); 1 for 0."""
    size = np.log2(np.where(np.asarray(largest) > 0, largest, 1.0))
    least, most = np.log2(band)
    up, down = np.maximum(np.ceil(least - size), 0.0), np.maximum(np.ceil(size - most), 0.0)
    return np.exp2(np.where(np.asarray(largest) > 0, up - down, 0.0))


def _read(answer: Any, mixed: bool) -> Solution:
    status = {0: "optimal", 1: "limit", 2: "infeasible"}.get(answer.status, "error")
    if status == "infeasible":
        return Solution(status, None, np.inf, np.inf)
    point, value = answer.x, np.inf if answer.fun is None else float(answer.fun)
    bound = answer.mip_dual_bound if mixed else value if status == "optimal" else None
    known = point is not None
    return Solution(
        status, point if known else None, value if known else np.inf,
        -np.inf if bound is None or not np.isfinite(bound) else float(bound),
    )  # fmt: skip
