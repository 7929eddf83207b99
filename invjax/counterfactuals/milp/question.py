"""The problem that exact solvers solve for one row, and how a solver's point becomes an answer.

    min_{x'}  cost(x', x)     subject to     x' in the domain (box, grids, categories, relations, max_changes),
              margin of the wanted class at x' >= κ     and, if asked,     LOF_k(x') <= θ                           (1)

Every answer of a solver is solved again with all whole numbers fixed, cleaned of the solver's rounding, cast to the
type that the caller will use, and only then judged by the float64 network. Where it misses the margin by a rounding
error, the margin is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import numpy as np

from invjax.core.errors import BadArgument, check_choice, check_number
from invjax.core.shown import short_repr
from invjax.counterfactuals.milp.domain import Domain, Objective
from invjax.counterfactuals.milp.lof import LofModel, LofRows
from invjax.counterfactuals.milp.network import Layers, margin, rounding
from invjax.counterfactuals.milp.program import TOLERANCE, Program, Solution

RAISES = 10  # times that the margin is raised a little where an answer depends on the solver's tolerance
SPARE = 0.5  # seconds after the time limit in which a solution may still become an answer


class Exact(NamedTuple):
    """The answer of an exact solver for one row."""

    x: np.ndarray  # [D] the counterfactual; the row itself where none is known
    objective: float  # its cost; infinity where none is known
    bound: float  # nothing valid costs less (infinity: nothing valid exists), up to the solver's 1e-6
    # "optimal"; "feasible": found, but not proven best; "infeasible": proven; "time_limit": nothing was found in time;
    # "none": no live polytope has an answer.
    # "unproven": there was time, and the solver neither found anything nor proved that there is nothing.
    status: str
    seconds: float

    __repr__ = short_repr


class Question(NamedTuple):
    """(1) for one row: everything an exact solver needs, as NumPy arrays (so it can go to another process)."""

    layers: Layers
    domain: Domain
    label: int
    target: int  # UNTARGETED: any class but the label
    objective: Objective = "l1"
    kappa: float = 0.05
    max_changes: int | None = None
    mad: np.ndarray | None = None  # [F]
    lof: LofModel | None = None
    dtype: Any = np.float64  # the answer is valid when rounded to it

    __repr__ = short_repr

    def check(self) -> None:
        """Raise BadArgument for a question that cannot be solved."""
        check_choice("objective", self.objective, get_args(Objective))
        if self.objective == "mad_l1" and self.mad is None:
            raise BadArgument("mad", "be given, [F] > 0, for the objective 'mad_l1'")
        if self.mad is not None:
            good = np.shape(self.mad) == self.domain.category.shape and np.all(np.asarray(self.mad) > 0)
            if not good:
                raise BadArgument("mad", f"be {len(self.domain.category)} positive numbers", self.mad)
        width, classes = self.layers[0][0].shape[0], self.layers[-1][0].shape[1]
        if self.domain.x.size != width:
            raise BadArgument("x", f"have the network's {width} columns", self.domain.x.size)
        if not np.isfinite(self.domain.x).all():
            raise BadArgument("x", "be finite")
        if not (np.isfinite(self.domain.lower).all() and np.isfinite(self.domain.upper).all()):
            raise BadArgument(
                "bounds", "be finite in every column (or the space's ranges)", hint="exact solvers need them"
            )
        for name, value, least in (("label", self.label, 0), ("target", self.target, -1)):
            if not least <= value < classes:
                raise BadArgument(name, f"be from {least} to {classes - 1}", value)
        check_number("kappa", self.kappa, lambda v: v >= 0, "a margin >= 0")
        if self.lof is not None and not isinstance(self.lof, LofModel):
            raise BadArgument("lof", "be a LofModel of lof_model(points)", self.lof)
        if self.lof is not None and self.lof.points.shape[1] != width:
            raise BadArgument("lof", f"be fitted to points of {width} columns", self.lof.points.shape[1])

    def value(self, point: np.ndarray) -> float:
        """The cost of a point."""
        return self.domain.value(point, self.objective, self.mad)

    def unit(self) -> float:
        """The unit of absolute tolerances of the cost: 1, or what one feature can cost at the most if that is less."""
        return min(1.0, self.domain.dearest(self.objective, self.mad))

    def missing(self, point: np.ndarray, tolerance: float = 0.0) -> float:
        """By how much the margin at a point is too small; at most 0 where it is enough.

        Of κ it may miss ``tolerance``, but the wanted class must win: a tie is none. Without a tolerance it must win
        also where the network is evaluated in ``dtype``.
        """
        least = np.finfo(np.float64).tiny if tolerance else rounding(self.layers, point, self.dtype)
        return max(self.kappa - tolerance, least) - float(margin(self.layers, point, self.label, self.target))

    def valid(self, point: np.ndarray, tolerance: float = 0.0) -> bool:
        """Whether the point answers (1): the margin and θ within ``tolerance``, the domain within its rounding."""
        if not self.domain.allows(point, max(tolerance, TOLERANCE), self.max_changes):
            return False
        wins = self.missing(point, tolerance) <= 0
        return wins and (self.lof is None or self.lof.factor(point) <= self.lof.threshold * (1 + tolerance))

    def cheapest(self, *points: np.ndarray | None) -> tuple[np.ndarray | None, float]:
        """Of some points (None: none) the valid one that costs least, and its cost; infinity where there is none."""
        costs = [(self.value(point), i) for i, point in enumerate(points) if point is not None and self.valid(point)]
        cost, i = min(costs, default=(np.inf, None))
        return (None if i is None else points[i]), cost

    def finish(self, point: np.ndarray) -> np.ndarray:
        """The point as the caller will have it: cleaned, and rounded to ``dtype`` inside of the box."""
        cleaned = self.domain.clean(point)
        rounded = cleaned.astype(self.dtype).astype(np.float64)
        side = np.where(rounded > self.domain.upper, -np.inf, np.where(rounded < self.domain.lower, np.inf, rounded))
        inward = np.nextafter(cleaned.astype(self.dtype), side.astype(self.dtype)).astype(np.float64)
        return np.where(cleaned == self.domain.x, self.domain.x, inward)


class Written(NamedTuple):
    """A program of (1), and where in it the margin and the plausibility stand."""

    program: Program
    x: np.ndarray  # [D] variables
    margin: np.ndarray  # rows
    lof: LofRows | None


def polished(question: Question, written: Written, solution: Solution, until: float = np.inf) -> np.ndarray | None:
    """The solver's point as an answer that is valid in float64, or None.

    All whole variables are fixed, so what is left is linear: no neuron can be half on, no feature change by 1e-7.
    It may end ``SPARE`` seconds after ``until``: what was found at the last moment is not given up.
    """
    last = max(until, time.monotonic() + SPARE)
    program, rows = written.program, written.margin
    bases = np.concatenate(program.row_lower)[rows]
    extra = 0.0
    for _ in range(6):
        raised = {int(r): b + extra for r, b in zip(rows, bases, strict=True)}
        again = program.solve(fixed=solution.values, raised=raised, until=last)
        if again.values is None:
            return None
        point = question.finish(again.values[written.x])
        missing = question.missing(point)
        if missing <= 0:
            return point if question.valid(point) else None
        extra += 2 * missing + 1e-9
    return None


def search(
    question: Question, write: Callable[[float, float, set[int]], Written], most: float, until: float, gap: float
) -> tuple[np.ndarray | None, float]:
    """Solve a program, add the constraints that its answer breaks, and repeat until an answer is valid.

    write(kappa, most, among) -> the program with the margin κ, the objective at most `most`, and the LOF comparisons
    `among` -> (answer or None, lower bound: infinity where the program has no answer).
    """
    kappa, among, bound, raises = question.kappa, set[int](), -np.inf, 0
    while True:
        written = write(kappa, most, among)
        solution = written.program.solve(until=until, gap=gap)
        if kappa == question.kappa:  # such a program is a relaxation, so its bound holds
            bound = max(bound, solution.bound)
        if solution.values is None:
            return None, bound
        point = polished(question, written, solution, until)
        if point is not None:
            return point, bound
        lacking: set[int] = set()
        if written.lof is not None:
            lacking = written.lof.violated(solution.values, solution.values[written.x]) - among
        if lacking:
            among |= lacking
        elif raises == RAISES:
            return None, bound
        else:  # the answer depended on the solver's tolerance, or on rounding: ask for a little more
            raises += 1
            kappa += max(1e-5, rounding(question.layers, solution.values[written.x], question.dtype))
