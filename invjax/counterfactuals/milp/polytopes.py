"""Live polytopes: search only near the data, one linear piece of the network at a time.

Within the polytope of one activation pattern the network is affine, so (1) of :mod:`.question` loses all binaries of
its neurons, and over a box a linear program is left. Restricted to the patterns of the reference points (the *live*
polytopes) this is a fast heuristic whose answers lie near the data. It proves no optimum over all x'.

Source: Tsiourvas, Sun, Perakis 2024, the decomposition; the order (nearest polytope first, cut off at the best answer
so far) is this module's own.
"""

from __future__ import annotations

import time

import numpy as np

from invjax.counterfactuals.milp.domain import place, within
from invjax.counterfactuals.milp.encode import inside_piece
from invjax.counterfactuals.milp.lof import LofRows
from invjax.counterfactuals.milp.network import pre_activations
from invjax.counterfactuals.milp.points import near_misses
from invjax.counterfactuals.milp.program import TOLERANCE, Program
from invjax.counterfactuals.milp.question import Exact, Question, Written, search

PIECES = 6  # polytopes that `first_answer` tries


def patterns(question: Question, points: np.ndarray) -> list[list[np.ndarray]]:
    """The different activation patterns of the points [M, D], in the points' order."""
    hidden = [z > 0 for z in pre_activations(question.layers, points)[:-1]]
    if not hidden:
        return [[]]
    seen, first = np.unique(np.concatenate(hidden, axis=1), axis=0, return_index=True)
    del seen
    return [[layer[i] for layer in hidden] for i in np.sort(first)]


def in_piece(
    question: Question, pattern: list[np.ndarray], most: float, until: float, gap: float = 1e-6
) -> np.ndarray | None:
    """The best answer inside one polytope that costs at most ``most``, or None."""
    small = within(question.domain, question.objective, most, question.mad)

    def write(kappa: float, most: float, among: set[int]) -> Written:
        program = Program()
        x = place(
            program, small, objective=question.objective, mad=question.mad, max_changes=question.max_changes, most=most
        )
        lof = None if question.lof is None else LofRows(program, x, question.lof, among)
        rows = inside_piece(program, x, question.layers, pattern, small, question.label, question.target, kappa)
        return Written(program, x, rows, lof)

    return search(question, write, most, until, gap)[0]


def search_polytopes(
    question: Question, references: np.ndarray, *, time_limit: float = 60.0, mip_gap: float = 1e-6
) -> Exact:
    """The best answer over the polytopes of the reference points [M, D]: never "optimal", its bound is 0."""
    begun = time.monotonic()
    points = np.asarray(references, np.float64)
    near = points[np.argsort(np.abs(points - question.domain.x).sum(1), kind="stable")]
    best, value = None, np.inf
    for pattern in patterns(question, near):
        if time.monotonic() > begun + time_limit:
            break
        point = in_piece(question, pattern, value, begun + time_limit, mip_gap)
        if point is not None and question.value(point) < value:
            best, value = point, question.value(point)
    if best is None:
        seconds = time.monotonic() - begun
        return Exact(question.domain.x.copy(), np.inf, 0.0, "time_limit" if seconds > time_limit else "none", seconds)
    return Exact(best, value, 0.0, "feasible", time.monotonic() - begun)


def first_answer(question: Question, until: float) -> np.ndarray | None:
    """Some good answer, quickly: drawn points that have the wanted class, pulled to the row, then their polytopes.

    The pieces of the nearest ones are solved exactly. The same question always makes the same draws.
    """
    points = near_misses(question)
    best, value = question.cheapest(*[question.finish(point) for point in points[:PIECES]])
    for pattern in patterns(question, points[: 4 * PIECES])[:PIECES]:
        if time.monotonic() > until:
            break
        point = in_piece(question, pattern, value, until)
        if point is not None and question.value(point) < value - TOLERANCE:
            best, value = point, question.value(point)
    return best
