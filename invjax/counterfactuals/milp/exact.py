"""The minimal counterfactual of a ReLU network, with its proof: a mixed-integer linear program.

An answer found in live polytopes first (:mod:`.polytopes`) cuts the domain down to what is no worse, and over that
small domain most neurons have one sign; then HiGHS solves (1) of :mod:`.question`.
"""

from __future__ import annotations

import time

import numpy as np

from invjax.counterfactuals.milp.domain import place, within
from invjax.counterfactuals.milp.encode import encode, tightened
from invjax.counterfactuals.milp.lof import LofRows
from invjax.counterfactuals.milp.points import cheaper
from invjax.counterfactuals.milp.polytopes import first_answer
from invjax.counterfactuals.milp.program import TOLERANCE, Program
from invjax.counterfactuals.milp.question import Exact, Question, Written, search


def solve(
    question: Question,
    *,
    start: np.ndarray | None = None,
    time_limit: float = 60.0,
    mip_gap: float = 1e-6,
    tighten: str = "lp",
) -> Exact:
    """The optimum of (1) by one mixed-integer program.

    start: [D] a valid answer already known; only what is better is searched. time_limit: seconds. mip_gap: relative.
    tighten: how the network's bounds are computed, see :func:`.encode.tightened`.
    """
    begun = time.monotonic()
    until = begun + time_limit
    row = question.domain.x
    if question.valid(row):
        return Exact(row.copy(), question.value(row), 0.0, "optimal", time.monotonic() - begun)
    best, value = question.cheapest(start, first_answer(question, begun + 0.1 * time_limit))

    counting = question.objective == "l0" and question.domain.counting
    # Fewer changes are at least one fewer; of real costs also the known answer itself is left in.
    most = value - 1 if counting else value * (1 + 1e-6) + TOLERANCE
    bound = value  # where only the row itself would be better, which is not valid
    if most >= 1 or not counting:
        options = {"objective": question.objective, "mad": question.mad, "max_changes": question.max_changes}
        small = within(question.domain, question.objective, most, question.mad)
        soon, later = begun + 0.2 * time_limit, begun + 0.5 * time_limit
        boxes = tightened(question.layers, small, tighten, later, soon, **options, most=most)

        def write(kappa: float, most: float, among: set[int]) -> Written:
            program = Program()
            x = place(program, small, **options, most=most)
            lof = None if question.lof is None else LofRows(program, x, question.lof, among)
            net = encode(program, x, question.layers, boxes, question.label, question.target, kappa)
            return Written(program, x, net.margin, lof)

        point, bound = search(question, write, most, until, mip_gap)
        best, value = question.cheapest(best, point)
        if counting and np.isfinite(bound):
            bound = np.ceil(bound - 1e-4)
        # Nothing is cheaper than what the program was asked for: so the known answer bounds it, as does 0.
        bound = max(min(bound, value), 0.0)
    # The solver's word is not taken for it: a point of the network that is cheaper than its bound refutes it.
    close = 10 * TOLERANCE * question.unit()
    refuting = cheaper(question, bound - close, best)
    if refuting is not None:
        best, value = question.cheapest(best, refuting)
        bound = 0.0
    seconds = time.monotonic() - begun
    if best is None:
        late = "time_limit" if time.monotonic() >= until else "unproven"
        return Exact(row.copy(), np.inf, float(bound), "infeasible" if bound == np.inf else late, seconds)
    optimal = value - bound <= mip_gap * abs(value) + close
    return Exact(best, float(value), float(bound), "optimal" if optimal else "feasible", seconds)
