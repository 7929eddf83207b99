"""What one row may become, in float64 for exact solvers: box, grids, categories, linear relations; and what it costs.

With x the row, f its features and c_f their weights, the change of a numeric feature costs c_f |x'_f - x_f| and that of
a category to level j costs m_j (c_f times its transition's cost; 0 where it stays). Then

    "l1"  sum of all costs                       "mad_l1"  "l1" with c_f / MAD_f for the numeric features
    "l0"  sum of c_f over the changed numeric features and of m_j        "linf"  the largest of all costs           (1)
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from invjax.counterfactuals.milp.program import TOLERANCE, Program
from invjax.types import ArrayLike

Objective = Literal["l1", "l0", "linf", "mad_l1"]


class Domain(NamedTuple):
    """One row and what it may become. D columns, F features, R relations."""

    x: np.ndarray  # [D] the row
    lower: np.ndarray  # [D]
    upper: np.ndarray  # [D]
    step: np.ndarray  # [D] x' is x plus a whole multiple of it; 0: any number
    feature: np.ndarray  # [D] int, the feature of the column
    category: np.ndarray  # [F] bool: its columns are one-hot
    cost: np.ndarray  # [F] c_f of (1)
    move: np.ndarray  # [D] m_j of (1); 0 for numbers
    matrix: np.ndarray  # [R, D], matrix @ x' <= limit where a column with an entry that is not 0 has changed
    limit: np.ndarray  # [R]

    def weights(self, mad: np.ndarray | None = None) -> np.ndarray:
        """[F] the weights c_f of (1)."""
        return self.cost if mad is None else np.where(self.category, self.cost, self.cost / mad)

    @property
    def counting(self) -> bool:
        """Whether "l0" is the number of changed features: all weights are 1."""
        reachable = self.category[self.feature] & ~self.current() & (self.upper > 0.5)
        return bool(np.all(self.cost == 1) and np.all(self.move[reachable] == 1))

    def current(self) -> np.ndarray:
        """[D] bool: the levels that the row has."""
        return self.category[self.feature] & (self.x > 0.5)

    def changed(self, point: np.ndarray) -> np.ndarray:
        """[F] bool: the features in which ``point`` differs from the row."""
        return np.bincount(self.feature, point != self.x, len(self.category)) > 0

    def value(self, point: np.ndarray, objective: Objective, mad: np.ndarray | None = None) -> float:
        """What ``point`` costs by (1)."""
        return float(self.values(point, objective, mad))

    def values(self, points: np.ndarray, objective: Objective, mad: np.ndarray | None = None) -> np.ndarray:
        """[N] (or [], for one) what points [N, D] cost by (1)."""
        weights, category = self.weights(mad if objective == "mad_l1" else None), self.category[self.feature]
        far = points != self.x if objective == "l0" else np.abs(points - self.x)
        paid = np.where(category, self.move * points, weights[self.feature] * far)
        return paid.max(-1) if objective == "linf" else paid.sum(-1)

    def reach(self) -> np.ndarray:
        """[D] how far each column can move."""
        return np.maximum(np.maximum(self.upper - self.x, self.x - self.lower), 0.0)

    def dearest(self, objective: Objective, mad: np.ndarray | None = None) -> float:
        """What the change of one feature costs at the most: the unit of an objective's tolerances, where below 1."""
        weights = self.weights(mad if objective == "mad_l1" else None)[self.feature]
        paid = weights * ((self.reach() > 0) if objective == "l0" else self.reach())
        return float(np.where(self.category[self.feature], self.move, paid).max(initial=0.0))

    def allows(self, point: np.ndarray, tolerance: float = 1e-6, max_changes: int | None = None) -> bool:
        """Whether ``point`` is in the domain, each rule with ``tolerance`` relative to its numbers' size (or range)."""
        room = tolerance * np.minimum(1 + np.abs(self.x), self.upper - self.lower + np.abs(self.x))
        inside = np.all(point >= self.lower - room) and np.all(point <= self.upper + room)
        grid = self.step > 0
        turns = (point - self.x)[grid] / self.step[grid]
        whole = np.all(np.abs(turns - np.round(turns)) * self.step[grid] <= room[grid])
        one_hot = self.category[self.feature]
        levels = np.all(np.minimum(np.abs(point), np.abs(point - 1))[one_hot] <= tolerance)
        sums = np.bincount(self.feature, point, len(self.category))[self.category]
        scale = 1 + np.abs(self.matrix) @ np.abs(point)
        related = np.all((self.matrix @ point <= self.limit + tolerance * scale) | ~self.touched(point))
        few = max_changes is None or self.changed(point).sum() <= max_changes
        return bool(inside and whole and levels and np.all(np.abs(sums - 1) <= tolerance) and related and few)

    def touched(self, point: np.ndarray) -> np.ndarray:
        """[R] bool: a column of the relation changed. A breach that the row has by rounding may stay."""
        return np.any((self.matrix != 0) & (point != self.x), axis=1)

    def clean(self, point: np.ndarray) -> np.ndarray:
        """``point`` of a solver without its rounding: on the grid, one-hot, in the box; what stayed is x to the bit."""
        turns = np.round((point - self.x) / np.where(self.step > 0, self.step, 1.0))
        answer = np.where(self.step > 0, self.x + turns * self.step, point)
        answer = np.where(self.category[self.feature], np.round(point), answer)
        answer = np.clip(answer, self.lower, self.upper)
        stays = 1e-9 * np.minimum(1 + np.abs(self.x), self.upper - self.lower + 1e-6 * np.abs(self.x))
        return np.where(np.abs(answer - self.x) <= stays, self.x, answer)


def box_domain(x: ArrayLike, lower: ArrayLike = 0.0, upper: ArrayLike = 1.0, mask: ArrayLike | None = None) -> Domain:
    """The row x [D] in a box; lower, upper: scalars or [D]. mask: [D] bool, True where x may change.

    A masked column keeps its value even where that is outside of the box.
    """
    row = np.array(x, np.float64).reshape(-1)
    low, high = (np.broadcast_to(np.asarray(one, np.float64).reshape(-1), row.shape) for one in (lower, upper))
    if mask is not None:
        free = np.broadcast_to(np.asarray(mask, bool).reshape(-1), row.shape)
        low, high = np.where(free, low, row), np.where(free, high, row)
    count, zero = row.size, np.zeros(row.size)
    return Domain(
        row, low.copy(), high.copy(), zero, np.arange(count), np.zeros(count, bool), np.ones(count), zero,
        np.zeros((0, count)), np.zeros(0),
    )  # fmt: skip


def within(domain: Domain, objective: Objective, most: float, mad: np.ndarray | None = None) -> Domain:
    """The domain without changes that alone cost more than ``most``: a tighter box tightens the network's bounds."""
    if objective == "l0" or not np.isfinite(most):
        return domain
    weights = domain.weights(mad if objective == "mad_l1" else None)[domain.feature]
    room = np.where(weights > 0, most / np.where(weights > 0, weights, 1.0), np.inf)
    room = np.where(domain.category[domain.feature], np.inf, room)
    lower, upper = np.maximum(domain.lower, domain.x - room), np.minimum(domain.upper, domain.x + room)
    costly = domain.category[domain.feature] & (domain.move > most)
    return domain._replace(lower=lower, upper=np.where(costly, np.minimum(upper, lower), upper))


def place(
    program: Program,
    domain: Domain,
    *,
    objective: Objective = "l1",
    mad: np.ndarray | None = None,
    max_changes: int | None = None,
    most: float = np.inf,
) -> np.ndarray:
    """Write the domain and the objective (1) into the program -> the variables of x' [D].

    max_changes: at most so many features change. most: the objective may be no larger.
    """
    one_hot, grid = domain.category[domain.feature], domain.step > 0
    # The grid may end a rounding error outside of the box; `clean` brings its ends back.
    step, start = np.where(grid, domain.step, 1.0), domain.x
    first = np.ceil((domain.lower - start) / step - 1e-6)
    last = np.floor((domain.upper - start) / step + 1e-6)
    lower = np.where(grid, start + first * step, domain.lower)
    upper = np.where(grid, start + last * step, domain.upper)
    x = np.empty(domain.x.size, int)
    x[~one_hot] = program.variables(lower[~one_hot], upper[~one_hot])
    x[one_hot] = program.variables(lower[one_hot], upper[one_hot], whole=True)
    if grid.any():
        turns = program.variables(first[grid], last[grid], whole=True)
        program.rows([(x[grid], 1.0), (turns, -step[grid])], start[grid], start[grid])
    for f in np.flatnonzero(domain.category):
        program.total(x[domain.feature == f], 1.0, 1.0, 1.0)
    for row, limit in zip(domain.matrix, domain.limit, strict=True):
        excess = row @ domain.x - limit
        if excess <= 0:
            program.total(x, row, upper=limit)
        else:  # kept by those that touch it; `touch` is 1 for them
            used, touch = np.flatnonzero(row), program.variables(0.0, 1.0, whole=True)
            program.rows([(x, row[None]), (touch, np.array([[excess]]))], upper=limit + excess)
            ones, start = np.repeat(touch, used.size), domain.x[used]
            program.rows([(x[used], 1.0), (ones, start - domain.upper[used])], upper=start)
            program.rows([(x[used], 1.0), (ones, start - domain.lower[used])], lower=start)

    if objective == "l0" or max_changes is not None:
        change = _changes(program, domain, x)
        if max_changes is not None:
            program.total(change, 1.0, upper=max_changes)
    if objective == "l0":
        numbers = ~domain.category
        levels = np.flatnonzero(one_hot & (domain.move > 0))
        cost = dict(zip(change[numbers].tolist(), domain.cost[numbers].tolist(), strict=True))
        cost |= dict(zip(x[levels].tolist(), domain.move[levels].tolist(), strict=True))
    else:
        cost = _distances(program, domain, x, objective, domain.weights(mad if objective == "mad_l1" else None))
    program.minimise(cost)
    if np.isfinite(most):
        program.total(np.array(list(cost)), np.array(list(cost.values())), upper=most)
    return x


def _changes(program: Program, domain: Domain, x: np.ndarray) -> np.ndarray:
    """[F] variables, 1 where the feature may differ from the row: (lower - x) c <= x' - x <= (upper - x) c."""
    change = program.variables(np.zeros(len(domain.category)), 1.0, whole=True)
    one_hot = domain.category[domain.feature]
    numbers, own = np.flatnonzero(~one_hot), change[domain.feature[~one_hot]]
    start = domain.x[numbers]
    program.rows([(x[numbers], 1.0), (own, start - domain.upper[numbers])], upper=start)
    program.rows([(x[numbers], 1.0), (own, start - domain.lower[numbers])], lower=start)
    levels = np.flatnonzero(domain.current())
    program.rows([(x[levels], 1.0), (change[domain.feature[levels]], 1.0)], 1.0, 1.0)
    return change


def _distances(
    program: Program, domain: Domain, x: np.ndarray, objective: Objective, weights: np.ndarray
) -> dict[int, float]:
    """Variables above |x'_f - x_f|, and the objective made of them, as variable -> coefficient."""
    one_hot = domain.category[domain.feature]
    numbers, levels = np.flatnonzero(~one_hot), np.flatnonzero(one_hot & (domain.move > 0))
    weight, start = weights[domain.feature[numbers]], domain.x[numbers]
    reach = domain.reach()[numbers]
    dearest = max((weight * reach).max(initial=0.0), domain.move[levels].max(initial=0.0))
    if objective == "linf":
        largest = program.variables(0.0, dearest * (1 + TOLERANCE))
        ones = np.repeat(largest, len(numbers))
        program.rows([(ones, 1.0), (x[numbers], -weight)], lower=-weight * start)
        program.rows([(ones, 1.0), (x[numbers], weight)], lower=weight * start)
        program.rows([(np.repeat(largest, len(levels)), 1.0), (x[levels], -domain.move[levels])], lower=0.0)
        return {int(largest[0]): 1.0}
    far = program.variables(np.zeros(len(numbers)), reach * (1 + TOLERANCE))
    program.rows([(far, 1.0), (x[numbers], -1.0)], lower=-start)
    program.rows([(far, 1.0), (x[numbers], 1.0)], lower=start)
    paid = dict(zip(far.tolist(), weight.tolist(), strict=True))
    return paid | dict(zip(x[levels].tolist(), domain.move[levels].tolist(), strict=True))
