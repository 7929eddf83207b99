"""A mixed-integer linear program that is written down piece by piece, and HiGHS (through SciPy) that solves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from invjax.types import ArrayLike

# HiGHS calls a row kept when it misses it by 1e-6 or less, and a variable whole when it is so near to a whole number.
TOLERANCE = 1e-6


class Solution(NamedTuple):
    """What the solver said."""

    status: str  # "optimal", "infeasible", "limit" (the time ended), "error"
    values: np.ndarray | None  # [variables] the best point; None: none known
    value: float  # its objective; infinity: none known
    bound: float  # nothing is below; infinity where infeasible


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

    def solve(
        self,
        *,
        cost: dict[int, float] | None = None,
        relaxed: bool = False,
        fixed: np.ndarray | None = None,
        raised: dict[int, float] | None = None,
        seconds: float | None = None,
        gap: float = 1e-6,
    ) -> Solution:
        """Solve it.

        cost: another objective. relaxed: forget that variables are whole. fixed: [variables], a point whose whole
        variables are kept as they are (rounded); what is left is linear. raised: rows whose lower side is another.
        seconds: time limit. gap: relative gap at which an answer counts as optimal.
        """
        lower, upper, whole = (np.concatenate(one) for one in (self.lower, self.upper, self.whole))
        if np.any(lower > upper):
            if np.any(lower > upper + TOLERANCE):
                return Solution("infeasible", None, np.inf, np.inf)
            upper = np.maximum(lower, upper)
        if fixed is not None:
            lower, upper = np.where(whole, np.round(fixed), lower), np.where(whole, np.round(fixed), upper)
        whole = whole & ~(relaxed or fixed is not None)
        vector = np.zeros(self.size)
        for column, value in (self.cost if cost is None else cost).items():
            vector[column] += value
        constraints: Any = ()
        if self.count:
            row, column, value = (np.concatenate(one) for one in zip(*self.blocks, strict=True))
            matrix = sparse.coo_array((value, (row, column)), shape=(self.count, self.size)).tocsr()
            low, high = np.concatenate(self.row_lower), np.concatenate(self.row_upper)
            for at, side in (raised or {}).items():
                low[at] = side
            constraints = (LinearConstraint(matrix, low, high),)  # type: ignore[arg-type]  # its stubs know no arrays
        options: dict[str, float | bool] = {"mip_rel_gap": gap}
        if seconds is not None:
            options["time_limit"] = max(seconds, 1e-2)
        box = Bounds(lower, upper)  # type: ignore[arg-type]
        for presolve in (True, False):
            # Status 4 is also what presolve says when it cannot tell infeasible from unbounded: ask without it.
            answer = milp(
                vector, integrality=whole.astype(int), bounds=box, constraints=constraints,
                options={**options, "presolve": presolve},
            )  # fmt: skip
            if answer.status != 4:
                break
        return _read(answer, bool(whole.any()))


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
