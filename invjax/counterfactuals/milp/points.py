"""Points of the domain that have the wanted class, found without a solver: a start for it, and a check of what it says.

Everything here asks the float64 network of :mod:`.network` itself, and no program.
"""

from __future__ import annotations

import numpy as np

from invjax.counterfactuals.milp.domain import within
from invjax.counterfactuals.milp.network import margin
from invjax.counterfactuals.milp.question import Question

SAMPLES = 512  # points drawn for a start
CHECKS = 2048  # points drawn against a bound
TURNS = 8  # and a sixteenth of them so often around a known answer, nearer each time


def near_misses(question: Question) -> np.ndarray:
    """[n, D] points with the wanted margin, cheapest first: random ones of the domain, pulled to the row.

    The same question always makes the same draws.
    """
    domain, random = question.domain, np.random.default_rng(0)
    points = _draw(question, domain.lower, domain.upper, SAMPLES, random)
    if question.lof is not None:
        points = np.concatenate([question.lof.points, points])
    points = _one_hot(question, np.clip(points, domain.lower, domain.upper), random)
    points = _pulled(question, points[_wins(question, points)])
    return points[np.argsort(_costs(question, points), kind="stable")]


def cheaper(question: Question, cost: float, known: np.ndarray | None = None) -> np.ndarray | None:
    """A valid point below ``cost`` (infinity: any), if drawn points show one: it refutes a bound of ``cost``.

    Points are drawn from the part of the domain where no single change costs more, on every scale below that, and
    around a valid point already known.
    """
    domain, random = question.domain, np.random.default_rng(1)
    small = within(domain, question.objective, cost, question.mad)
    if cost <= 0 or np.any(small.lower > small.upper):
        return None
    numbers = ~domain.category[domain.feature]
    points = _draw(question, small.lower, small.upper, CHECKS, random)
    points = _one_hot(question, points, random, change=0.2)
    if np.isfinite(cost) and question.objective != "l0":  # what is too dear is moved to where it is not
        shrink = np.minimum(1.0, random.random(CHECKS) ** 0.25 * cost / np.maximum(_costs(question, points), 1e-300))
        points = np.where(numbers, domain.x + shrink[:, None] * (points - domain.x), points)
    best = _cheapest(question, points[_wins(question, points)], cost)
    if best is None and known is not None:
        best, value = known, question.value(known)
        for turn in range(TURNS):
            shift = (small.upper - small.lower) * 2.0**-turn * random.normal(size=(CHECKS // 16, domain.x.size))
            back, moves = random.random((2, *shift.shape)) < random.random((2, len(shift), 1))
            points = np.where(numbers, np.where(back, domain.x, best + moves * shift), best)
            points = _one_hot(question, np.clip(points, domain.lower, domain.upper), random, change=0.1, other=best)
            point = _cheapest(question, _pulled(question, points[_wins(question, points)]), value)
            if point is not None:
                best, value = point, question.value(point)
    return best if best is not None and question.value(best) < cost else None


def _cheapest(question: Question, points: np.ndarray, cost: float) -> np.ndarray | None:
    """The cheapest valid one of points that win, if it costs less than ``cost``."""
    for point in points[np.argsort(_costs(question, points), kind="stable")][:16]:
        answer = question.finish(point)
        if question.value(answer) < cost and question.valid(answer):
            return answer
    return None


def _pulled(question: Question, points: np.ndarray) -> np.ndarray:
    """Winning points [n, D] moved along the segment to the row up to the decision boundary; plausible ones stay."""
    numbers, x = ~question.domain.category[question.domain.feature], question.domain.x
    low, high = np.zeros(len(points)), np.ones(len(points))
    for _ in range(20 if question.lof is None and len(points) else 0):
        middle = (low + high) / 2
        inside = _wins(question, np.where(numbers, x + middle[:, None] * (points - x), points))
        low, high = np.where(inside, low, middle), np.where(inside, middle, high)
    return np.where(numbers, x + high[:, None] * (points - x), points)


def _wins(question: Question, points: np.ndarray) -> np.ndarray:
    return margin(question.layers, points, question.label, question.target) >= question.kappa


def _costs(question: Question, points: np.ndarray) -> np.ndarray:
    return question.domain.values(points, question.objective, question.mad)


def _draw(
    question: Question, lower: np.ndarray, upper: np.ndarray, count: int, random: np.random.Generator
) -> np.ndarray:
    """Even draws of a box, in which (of more than two columns) different numbers of columns stay as they are."""
    domain = question.domain
    points = lower + random.random((count, domain.x.size)) * (upper - lower)
    if domain.x.size > 2:
        stays = random.random(points.shape) > random.random((count, 1))
        points = np.where(stays & ~domain.category[domain.feature], domain.x, points)
    return points


def _one_hot(
    question: Question,
    points: np.ndarray,
    random: np.random.Generator,
    change: float = 1.0,
    other: np.ndarray | None = None,
) -> np.ndarray:
    """Random levels for the categories, of those that are allowed, for a share ``change``; else those of ``other``.

    other: [D]; the row by default.
    """
    domain, points = question.domain, points.copy()
    for f in np.flatnonzero(domain.category):
        columns = np.flatnonzero(domain.feature == f)
        allowed = columns[domain.upper[columns] > 0.5]
        points[:, columns] = 0.0
        if allowed.size:
            points[np.arange(len(points)), random.choice(allowed, len(points))] = 1.0
        if change < 1:
            stays = random.random((len(points), 1)) > change
            points[:, columns] = np.where(stays, (domain.x if other is None else other)[columns], points[:, columns])
    return points
