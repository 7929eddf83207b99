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
from invjax.counterfactuals.milp.network import margin, pre_activations
from invjax.counterfactuals.milp.program import TOLERANCE, Program
from invjax.counterfactuals.milp.question import Exact, Question, Written, search

SAMPLES = 512  # points drawn by `first_answer`
PIECES = 6  # polytopes it tries


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
    """Some good answer, quickly: random points of the box (or plausible ones), pulled to the row, then their polytopes.

    Points that have the wanted class are moved along the segment to the row up to the decision boundary, and the
    pieces of the nearest ones are solved exactly. The same question always makes the same draws.
    """
    domain, random = question.domain, np.random.default_rng(0)
    points = domain.lower + random.random((SAMPLES, domain.x.size)) * (domain.upper - domain.lower)
    if domain.x.size > 2:  # few changes at a time too
        stays = random.random(points.shape) > random.random((SAMPLES, 1))
        points = np.where(stays & ~domain.category[domain.feature], domain.x, points)
    if question.lof is not None:
        points = np.concatenate([question.lof.points, points])
    points = _one_hot(question, np.clip(points, domain.lower, domain.upper), random)

    def wins(points: np.ndarray) -> np.ndarray:
        return margin(question.layers, points, question.label, question.target) >= question.kappa

    points = points[wins(points)]
    if not len(points):
        return None
    low, high = np.zeros(len(points)), np.ones(len(points))
    numbers = ~domain.category[domain.feature]
    for _ in range(20 if question.lof is None else 0):
        middle = (low + high) / 2
        there = np.where(numbers, domain.x + middle[:, None] * (points - domain.x), points)
        inside = wins(there)
        low, high = np.where(inside, low, middle), np.where(inside, middle, high)
    points = np.where(numbers, domain.x + high[:, None] * (points - domain.x), points)
    cost = np.array([domain.value(point, question.objective, question.mad) for point in points])
    best, value = None, np.inf
    for pattern in patterns(question, points[np.argsort(cost, kind="stable")[: 4 * PIECES]])[:PIECES]:
        if time.monotonic() > until:
            break
        point = in_piece(question, pattern, value, until)
        if point is not None and question.value(point) < value - TOLERANCE:
            best, value = point, question.value(point)
    return best


def _one_hot(question: Question, points: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Random levels for the categories, of those that are allowed."""
    domain, points = question.domain, points.copy()
    for f in np.flatnonzero(domain.category):
        columns = np.flatnonzero(domain.feature == f)
        allowed = columns[domain.upper[columns] > 0.5]
        points[:, columns] = 0.0
        if allowed.size:
            points[np.arange(len(points)), random.choice(allowed, len(points))] = 1.0
    return points
