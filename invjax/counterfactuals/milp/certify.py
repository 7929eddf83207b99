"""Certificates: how far a method's answers are from the optimum, or the proof that there is none."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, check_number, of_shape
from invjax.core.host import own_work
from invjax.counterfactuals.milp.domain import Objective
from invjax.counterfactuals.milp.question import Question
from invjax.counterfactuals.milp.rows import Rows, answers
from invjax.types import ArrayLike, Result, Status


class Certificate(NamedTuple):
    """What is proven about a list of answers, each field with the leading axis [N]. All costs are float64."""

    status: np.ndarray  # [N] str: see :func:`certify`
    found: np.ndarray  # [N] cost of the method's answer; infinity where it has none, or one that is not valid
    optimum: np.ndarray  # [N] the least cost known, the method's answer included; infinity: none known
    bound: np.ndarray  # [N] proven: nothing valid costs less; infinity: nothing valid exists
    gap: np.ndarray  # [N] (found - bound) / max(bound, 1e-9): the excess cost at most; infinity: no answer
    x: np.ndarray  # [N, *S] a point of cost `optimum`; the row where none is known
    seconds: np.ndarray  # [N]

    def __repr__(self) -> str:
        """How many of each status, and the gaps."""
        kinds, counts = np.unique(self.status, return_counts=True)
        said = ", ".join(f"{kind} {count}" for kind, count in zip(kinds, counts, strict=True))
        gaps = self.gap[np.isfinite(self.gap)]
        more = f"; gap {gaps.mean():.3g} on average, {gaps.max():.3g} at worst" if gaps.size else ""
        return f"Certificate({said or 'empty'}{more})"


@kinds_checked
@own_work()
def certify(
    model: Any,
    x: ArrayLike,
    label: ArrayLike,
    target: ArrayLike | None,
    result: Result | ArrayLike,
    *,
    bounds: tuple[ArrayLike, ArrayLike] = (0.0, 1.0),
    mask: ArrayLike | None = None,
    space: Any = None,
    norm: Objective = "l0",
    kappa: float = 0.05,
    workers: int = 0,
    tolerance: float = 1e-5,
    **options: Any,
) -> Certificate:
    """Compare a method's answers with the optimum: the least cost(x', x) with margin κ within bounds or space.

    Give the bounds (or space) and κ that the method had. Plausibility does not count here (τ = 0), except as ``lof``.

    Args:
      model: a small ReLU network, see :func:`relu_layers`.
      x, label, target: the rows as the method had them: [N, *S], [N], [N] (or None: untargeted).
      result: a Result of N rows, or answers [N, *S] (all taken as found).
      bounds, mask, space: as the method had them.
      norm: "l0" (changed features), "l1", "linf" or "mad_l1" (with ``mad``): what is minimised.
      kappa: the margin, logit units. workers: processes to start; 0 works in this one.
      tolerance: by how much an answer may miss the margin in float64 and still count as valid (float32 rounding).
      options: max_changes, mad, lof, time_limit (of each row), mip_gap, tighten, of :func:`exact_counterfactual`.

    Returns:
      A :class:`Certificate`. Its status is

      * ``"optimal"``: no valid point is better than the answer;
      * ``"gap"``: a better point exists, or any point where the method has no valid answer (`x`, `optimum`);
      * ``"infeasible"``: the method found nothing and provably no valid point exists, or the row breaks its schema;
      * ``"unknown"``: the time ended before any of these was proven, or a proof failed its check on the network;
      * ``"already"``: the row itself has the wanted class, so there is nothing to prove.

      Proofs hold up to the solver's tolerance of 1e-6. A valid answer has the wanted class, also with κ = 0: a tie is
      none.
    """
    check_number("tolerance", tolerance, lambda v: v >= 0, "a number >= 0 in logit units")
    rows = Rows.of(model, x, label, target, bounds, mask, space)
    points, claimed = _claims(result, rows)
    jobs, order = [], []
    found, status = np.full(rows.count, np.inf), np.full(rows.count, "unknown", dtype="<U10")
    for i in range(rows.count):
        early = rows.status(i)
        if early is None:
            job = rows.job(i, {**options, "objective": norm, "kappa": kappa})
            if claimed[i] and _valid(job.question, points[i], tolerance):
                found[i] = job.question.value(points[i])
                job = job._replace(start=points[i])
            jobs.append(job)
            order.append(i)
        else:
            status[i] = {Status.ALREADY_TARGET: "already", Status.INFEASIBLE: "infeasible"}.get(early, "unknown")
    optimum, bound = found.copy(), np.zeros(rows.count)
    best, seconds = rows.x.astype(np.float64), np.zeros(rows.count)
    best[np.isfinite(found)] = points[np.isfinite(found)]
    bound[status == "infeasible"] = np.inf
    optimum[status == "already"] = found[status == "already"] = 0.0
    for i, job, exact in zip(order, jobs, answers(jobs, workers), strict=True):
        seconds[i] = exact.seconds
        # An answer that misses the margin by rounding may lie as much below the optimum.
        bound[i] = min(exact.bound, found[i])
        if exact.objective < found[i]:
            optimum[i], best[i] = exact.objective, exact.x
        status[i] = _verdict(float(found[i]), exact.objective, float(bound[i]), job.question.unit())
    excess = np.where(np.isfinite(found) & np.isfinite(bound), found, 0.0) - np.where(np.isfinite(bound), bound, 0.0)
    gap = np.where(np.isfinite(found), np.maximum(excess, 0.0) / np.maximum(bound, 1e-9), np.inf)
    gap = np.where((status == "optimal") | (status == "already"), np.minimum(gap, 0.0), gap)
    return Certificate(status, found, optimum, bound, gap, best.reshape(rows.shape), seconds)


def _verdict(found: float, best: float, bound: float, unit: float) -> str:
    close = 1e-4 * abs(found) + 1e-5 * unit if np.isfinite(found) else 0.0
    if not np.isfinite(found):
        return "infeasible" if bound == np.inf else "gap" if np.isfinite(best) else "unknown"
    if found - bound <= close:
        return "optimal"
    return "gap" if best < found - close else "unknown"


def _valid(question: Question, point: np.ndarray, tolerance: float) -> bool:
    return bool(np.isfinite(point).all()) and question.valid(point, tolerance)


def _claims(result: Any, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """(answers [N, D], [N] bool: the method says that it found one)."""
    known = isinstance(result, Result)
    points = np.asarray(result.x if known else result, np.float64)
    points = points[None] if rows.single else points
    if points.shape != rows.shape:
        raise BadArgument("result", f"hold answers of x's shape {rows.shape}", of_shape(points.shape))
    claimed = np.reshape(np.asarray(result.status) == Status.FOUND, -1) if known else np.ones(rows.count, bool)
    return points.reshape(rows.count, -1), claimed
