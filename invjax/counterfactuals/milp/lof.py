"""Plausibility as linear constraints: the local outlier factor of x' among the reference points is at most θ.

With d a norm's distance (l1 or linf), N_k(x') the k nearest reference points, d_k(n) the distance of reference point n
to its own k-th neighbour, and lrd_n its local reachability density (all three from the reference points alone):

    reach(x', n) = max(d(x', n), d_k(n))     LOF_k(x') = (1/k Σ_N lrd_n) · (1/k Σ_N reach(x', n)),  N = N_k(x')   (1)

which is scikit-learn's ``LocalOutlierFactor(n_neighbors=k, novelty=True)`` without its 1e-10 and with exactly k
neighbours. For k = 1 (the form of DACE, Kanamori et al. 2020), with the binary z_n = 1 for the nearest point,

    d(x', Σ_n z_n r_n) <= Σ_n z_n θ / lrd_n,    Σ_n z_n = 1,    z_n = 0 where lrd_n d_1(n) > θ,                      (2)
    d(x', Σ_n z_n r_n) <= d(x', r_m)            for every m.                                                         (3)

The center of (2) is linear in z: it takes D continuous variables, and no big constant. For k > 1 each point has its own
distance, and the product of the two sums of (1) is exact by McCormick's inequalities, one factor being binary. A
distance is bounded from *above* in (3): that takes binaries for the signs of x' - r_m. So (3) is written only for the
points that some answer has shown to be needed (:meth:`LofRows.violated`): every program solved on the way is a
relaxation, so its bound is a bound, and an answer that keeps (1) is the optimum.

Source: Tsiourvas, Sun, Perakis 2024 (LOF of a ReLU network's counterfactual as mixed-integer constraints); the union of
balls with a linear center and the lazy rows are this module's own.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from invjax.core.arguments import kinds_checked
from invjax.core.config import refuse_old_names
from invjax.core.errors import BadArgument, check_choice, check_number, check_whole, of_shape
from invjax.core.shown import short_repr
from invjax.counterfactuals.milp.program import Program
from invjax.types import ArrayLike

Metric = Literal["l1", "linf"]
METRICS: dict[Metric, Any] = {"l1": "cityblock", "linf": "chebyshev"}  # SciPy's names
APART = 1e-5  # what (3) and θ are kept by, so that the solver's 1e-6 decides nothing


class LofModel(NamedTuple):
    """The reference points and what (1) needs of each."""

    points: np.ndarray  # [M, D]
    lrd: np.ndarray  # [M] 1 / mean of reach over its own k neighbours
    reach: np.ndarray  # [M] d_k(n)
    neighbours: int
    metric: Metric
    threshold: float  # θ

    __repr__ = short_repr

    def distances(self, point: np.ndarray) -> np.ndarray:
        """[M] from ``point`` [D] to each reference point."""
        return cdist(point[None], self.points, METRICS[self.metric])[0]

    def factor(self, point: np.ndarray) -> float:
        """LOF_k of ``point`` [D], by (1)."""
        distance = self.distances(point)
        near = np.argsort(distance, kind="stable")[: self.neighbours]
        return float(self.lrd[near].mean() * np.maximum(distance[near], self.reach[near]).mean())


@kinds_checked
@refuse_old_names({"k": "neighbours"})
def lof_model(points: ArrayLike, threshold: float = 1.5, neighbours: int = 1, metric: Metric = "l1") -> LofModel:
    """Fit (1) to reference points, usually those of the target class.

    Args:
      points: [M, D] in x's coordinates, more than k different rows. Repeated rows count as one point, whose density
        would otherwise be infinite.
      threshold: θ > 0; 1 asks for a point as dense as its neighbours.
      neighbours: k, >= 1.
      metric: "l1" or "linf".

    Raises ValueError about an argument.
    """
    unique = np.unique(np.asarray(points, np.float64), axis=0)
    if unique.ndim != 2 or not np.isfinite(unique).all():
        raise BadArgument("points", "be finite numbers [M, D]", of_shape(np.shape(points)))
    check_choice("metric", metric, METRICS)
    neighbours = check_whole("neighbours", neighbours, 1, len(unique) - 1)
    check_number("threshold", threshold, lambda v: v > 0, "a number > 0")
    distance = cdist(unique, unique, METRICS[metric])
    np.fill_diagonal(distance, np.inf)
    near = np.argsort(distance, axis=1, kind="stable")[:, :neighbours]
    to_near = np.take_along_axis(distance, near, axis=1)
    reach = to_near[:, -1]
    lrd = 1.0 / np.maximum(to_near, reach[near]).mean(1)
    return LofModel(unique, lrd, reach, neighbours, metric, float(threshold))


class LofRows:
    """The constraints LOF <= θ in a program; ``among`` are the points of (3) written so far."""

    def __init__(self, program: Program, x: np.ndarray, model: LofModel, among: set[int]) -> None:
        """x: the variables of x' [D]; all of them bounded."""
        self.program, self.x, self.model = program, x, model
        low, high = np.concatenate(program.lower), np.concatenate(program.upper)
        self.low, self.high, self.whole = low[x], high[x], np.concatenate(program.whole)[x]
        self.chosen = program.variables(np.zeros(len(model.points)), self._possible(), whole=True)
        program.total(self.chosen, 1.0, model.neighbours, model.neighbours)
        self.apart = APART * min(1.0, float(self._size(np.ptp(model.points, axis=0))))  # in small units
        threshold = model.threshold - APART
        if model.neighbours == 1:
            self._nearest(threshold, among)
        else:
            self._neighbours(threshold, among)

    def _size(self, columns: np.ndarray) -> np.ndarray:
        """The norm over the last axis."""
        return columns.sum(-1) if self.model.metric == "l1" else columns.max(-1)

    def _possible(self) -> np.ndarray:
        """[M] 1 where the point can be the nearest at all and keep (2)."""
        model = self.model
        nearest = self._size(np.maximum(np.maximum(self.low - model.points, model.points - self.high), 0.0))
        if model.neighbours > 1:
            return np.ones(len(nearest))
        radius = model.threshold / model.lrd
        return ((model.reach <= radius) & (nearest <= radius)).astype(float)

    def _above(self, center: tuple[np.ndarray, np.ndarray] | None, point: np.ndarray | None) -> np.ndarray:
        """Variables whose total is at least the distance from x' to a linear center, or to a fixed point."""
        program, x = self.program, self.x
        if point is None:
            span = np.maximum(self.high, self.model.points.max(0)) - np.minimum(self.low, self.model.points.min(0))
            rest, shift = [(center[0], -center[1].T)], 0.0  # type: ignore[index]
            flipped = [(center[0], center[1].T)]  # type: ignore[index]
        else:
            span, rest, flipped = np.maximum(np.abs(self.high - point), np.abs(self.low - point)), [], []
            shift = point
        if self.model.metric == "l1":
            each = program.variables(np.zeros(len(x)), span)
            program.rows([(each, 1.0), (x, -1.0), *[(v, -c) for v, c in rest]], lower=-shift)
            program.rows([(each, 1.0), (x, 1.0), *[(v, -c) for v, c in flipped]], lower=shift)
            return each
        largest = program.variables(0.0, span.max())
        ones = np.repeat(largest, len(x))
        program.rows([(ones, 1.0), (x, -1.0), *[(v, -c) for v, c in rest]], lower=-shift)
        program.rows([(ones, 1.0), (x, 1.0), *[(v, -c) for v, c in flipped]], lower=shift)
        return largest

    def _below(self, point: np.ndarray) -> np.ndarray:
        """Variables whose total is at most the distance from x' to a point: one side of each |x'_i - r_i| is chosen."""
        program, x = self.program, self.x
        left, right = np.maximum(point - self.low, 0.0), np.maximum(self.high - point, 0.0)
        if self.model.metric == "l1":
            each = program.variables(np.zeros(len(x)), np.maximum(left, right))
            # The chord above |x' - r| is the whole truth at the ends: of a 0/1 column, and where r is outside.
            ends = np.abs(self.low - point), np.abs(self.high - point)
            width = self.high - self.low
            slope = np.where(width > 0, (ends[1] - ends[0]) / np.where(width > 0, width, 1.0), 0.0)
            program.rows([(each, 1.0), (x, -slope)], upper=ends[0] - slope * self.low)
            inner = np.flatnonzero((left > 0) & (right > 0) & ~self.whole)
            sign = program.variables(np.zeros(inner.size), 1.0, whole=True)
            e, v, r = each[inner], x[inner], point[inner]
            program.rows([(e, 1.0), (v, -1.0), (sign, 2 * left[inner])], upper=-r + 2 * left[inner])
            program.rows([(e, 1.0), (v, 1.0), (sign, -2 * right[inner])], upper=r)
            return each
        least = program.variables(0.0, float(np.maximum(left, right).max()))
        sides = program.variables(np.zeros(2 * len(x)), 1.0, whole=True)
        program.total(sides, 1.0, 1.0, 1.0)
        up, down, ones = sides[: len(x)], sides[len(x) :], np.repeat(least, len(x))
        most = float(np.maximum(left, right).max())
        program.rows([(ones, 1.0), (x, -1.0), (up, most + left)], upper=-point + most + left)
        program.rows([(ones, 1.0), (x, 1.0), (down, most + right)], upper=point + most + right)
        return least

    def _nearest(self, threshold: float, among: set[int]) -> None:
        """(2) and (3)."""
        program, model = self.program, self.model
        far = self._above((self.chosen, model.points), None)
        program.rows([(far, np.ones((1, far.size))), (self.chosen, -(threshold / model.lrd)[None])], upper=0.0)
        for m in sorted(among):
            least = self._below(model.points[m])
            ones = np.ones((1, least.size))
            terms = [(far, np.ones((1, far.size))), (least, -ones), (self.chosen[[m]], np.array([[-self.apart]]))]
            program.rows(terms, upper=-self.apart)

    def _neighbours(self, threshold: float, among: set[int]) -> None:
        """(1) for k > 1: S = Σ reach over the chosen, w_n = z_n S, and Σ lrd_n w_n <= k² θ."""
        program, model, chosen = self.program, self.model, self.chosen
        most = self._size(np.maximum(np.abs(self.high - model.points), np.abs(self.low - model.points)))
        # As Σ z lrd is at least the k smallest together, S can be no larger than this.
        limit = model.neighbours**2 * threshold / np.sort(model.lrd)[: model.neighbours].sum()
        total = program.variables(0.0, limit)
        cut = program.variables(0.0, float(most.max()))  # a distance between the chosen and the others
        paid = program.variables(np.zeros(len(most)), np.maximum(most, model.reach))
        product = program.variables(np.zeros(len(most)), limit)
        for n, point in enumerate(model.points):
            far = self._above(None, point)
            ones, one = np.ones((1, far.size)), chosen[[n]]
            program.rows([(paid[[n]], np.array([[1.0]])), (far, -ones), (one, np.array([[-most[n]]]))], lower=-most[n])
            program.rows([(far, ones), (cut, np.array([[-1.0]])), (one, np.array([[most[n]]]))], upper=most[n])
        program.rows([(paid, 1.0), (chosen, -model.reach)], lower=0.0)
        program.rows([(total, np.array([[1.0]])), (paid, -np.ones((1, paid.size)))], lower=0.0)
        program.rows([(product, 1.0), (np.repeat(total, paid.size), -1.0), (chosen, -limit)], lower=-limit)
        program.total(product, model.lrd, upper=model.neighbours**2 * threshold)
        for m in sorted(among):
            least = self._below(model.points[m])
            room = float(most.max()) + self.apart
            terms = [(least, np.ones((1, least.size))), (cut, np.array([[-1.0]])), (chosen[[m]], np.array([[room]]))]
            program.rows(terms, lower=self.apart)

    def violated(self, values: np.ndarray, point: np.ndarray) -> set[int]:
        """Points nearer to ``point`` than a chosen one, which the program did not know: what (3) lacks."""
        distance = self.model.distances(point)
        chosen = values[self.chosen] > 0.5
        return set(np.flatnonzero((distance < distance[chosen].max() + self.apart) & ~chosen).tolist())
