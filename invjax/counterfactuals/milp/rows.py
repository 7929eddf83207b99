"""Exact counterfactuals of one row or a list, and their proofs for any method's answers: the public functions."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import (
    BadArgument,
    Words,
    check_choice,
    check_entries,
    check_number,
    check_whole,
    of_shape,
)
from invjax.core.labels import check_flags, whole_numbers
from invjax.counterfactuals.milp.domain import Domain, box_domain
from invjax.counterfactuals.milp.exact import solve
from invjax.counterfactuals.milp.network import Layers, margin, pre_activations, relu_layers
from invjax.counterfactuals.milp.polytopes import search_polytopes
from invjax.counterfactuals.milp.question import Exact, Question
from invjax.counterfactuals.milp.space import Schema, read_space
from invjax.types import UNTARGETED, ArrayLike, Result, Status

Search = Literal["mip", "polytopes"]
Tighten = Literal["ibp", "lp", "milp"]
ASKED = {"objective", "kappa", "max_changes", "mad", "lof"}
HOW = {"method", "references", "time_limit", "mip_gap", "tighten"}


class Job(NamedTuple):
    """A question and how to answer it."""

    question: Question
    method: Search = "mip"
    references: Any = None
    start: np.ndarray | None = None
    time_limit: float = 60.0
    mip_gap: float = 1e-6
    tighten: Tighten = "lp"


def answer(job: Job) -> Exact:
    """The answer to one question; a function of the module, so that other processes can run it."""
    if job.method == "polytopes":
        assert job.references is not None  # checked where the job is made
        return search_polytopes(job.question, job.references, time_limit=job.time_limit, mip_gap=job.mip_gap)
    return solve(job.question, start=job.start, time_limit=job.time_limit, mip_gap=job.mip_gap, tighten=job.tighten)


def answers(jobs: Sequence[Job], workers: int = 0) -> list[Exact]:
    """All answers, in order. workers: processes to start; 0 answers in this one.

    A script that asks for workers needs the usual ``if __name__ == "__main__":``, because they import it afresh.
    """
    if not check_whole("workers", workers, 0) or len(jobs) < 2:
        return [answer(job) for job in jobs]
    # Spawned rather than forked, because JAX has threads.
    with ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(answer, jobs))


@kinds_checked
def exact_counterfactual(
    layers: Any,
    x: ArrayLike,
    target: int = UNTARGETED,
    *,
    label: int | None = None,
    bounds: tuple[ArrayLike, ArrayLike] = (0.0, 1.0),
    mask: ArrayLike | None = None,
    space: Any = None,
    start: ArrayLike | None = None,
    dtype: Any = np.float64,
    **options: Any,
) -> Exact:
    """The least change of one row that reaches the target with the margin κ, with a proof.

        min_{x'} cost(x', x)   s.t.   Z_t - max_{j != t} Z_j >= κ,   x' in bounds or space,   [LOF_k(x') <= θ]

    Args:
      layers: a small ReLU network, anything :func:`relu_layers` takes.
      x: [D] the row, in the network's coordinates. D columns.
      target: the wanted class; -1 (UNTARGETED): any class but ``label``.
      label: the row's class; by default what the network says. Read only where untargeted.
      bounds: (lower, upper) of x', scalars or [D], finite. mask: [D] bool, True where x may change.
      space: a :class:`invjax.constraints.FeatureSpace` instead of both: ranges, grids, directions, immutable features,
        categories with their transitions, linear relations. Its costs weigh the objective.
      start: [D] an answer already known: only better ones are searched.
      dtype: the answer is valid when rounded to it.
      options: what is asked, and how it is answered:

        * objective: "l1" (the default), "l0" (changed features), "linf", "mad_l1" (l1 with each numeric feature divided
          by ``mad`` [F]).
        * kappa: the margin in logit units, >= 0; 0.05.
        * max_changes: at most so many features change; None.
        * lof: a fitted :class:`LofModel` (:func:`lof_model`), whose θ x' must keep; None.
        * method: "mip" (the default), exact; "polytopes", the best within the activation patterns of ``references``
          [M, D] (by default the points of ``lof``), which is quick and near the data but proves nothing.
        * time_limit: seconds; 60. All programs share them: half goes to the bounds of the neurons at the most. The end
          is late by the half second in which a solution becomes an answer, and by a step of the solver (of some
          hundred neurons: another second). mip_gap: relative gap that counts as optimal; 1e-6.
        * tighten: "ibp", "lp" (the default) or "milp", how hard to work for the bounds of the neurons.

    Returns:
      :class:`Exact`; all comparisons up to the solver's tolerance of 1e-6 (the answer itself is valid in float64). A
      tie is no answer, also with κ = 0. A bound is kept only if no drawn point of the network is valid below it.

    Raises:
      ValueError: naming the argument, what it must be and what it was.
    """
    network = relu_layers(layers)
    row = np.asarray(x, np.float64).reshape(-1)
    if row.size != network[0][0].shape[0]:
        raise BadArgument("x", f"have the network's {network[0][0].shape[0]} columns", of_shape(np.shape(x)))
    if not np.isfinite(row).all():
        raise BadArgument("x", "be finite", row[~np.isfinite(row)][0], np.argmin(np.isfinite(row)))
    most = network[-1][0].shape[1] - 1
    target = check_whole("target", target, UNTARGETED, most)
    own = int(pre_activations(network, row)[-1].argmax()) if label is None else check_whole("label", label, 0, most)
    schema = None if space is None else read_space(space, dtype)
    domain = _domain(row.astype(dtype), bounds, mask, schema)
    begin = None if start is None else _numbers("start", start).reshape(-1)
    if begin is not None and (begin.shape != row.shape or not np.isfinite(begin).all()):
        raise BadArgument("start", f"be {row.size} finite numbers", start)
    return answer(make_job(network, domain, own, target, dtype, options)._replace(start=begin))


@kinds_checked
def mip_counterfactuals(
    model: Any,
    x: ArrayLike,
    label: ArrayLike,
    target: ArrayLike | None = None,
    *,
    bounds: tuple[ArrayLike, ArrayLike] = (0.0, 1.0),
    mask: ArrayLike | None = None,
    space: Any = None,
    workers: int = 0,
    **options: Any,
) -> Result:
    """:func:`exact_counterfactual` of a list of rows, as a :class:`invjax.types.Result` (evaluations are 0).

    Args:
      model: as ``layers`` there. x: [N, *S] rows, or [*S] with a scalar ``label``; answers have its dtype.
      label: [N] int. target: [N] int or scalar; None: any class but the label.
      bounds, mask: for all rows, each side a scalar or [*S]; or ``space``.
      workers: processes that share the rows; 0 works in this one.
      options: the options there; time_limit is that of each row.

    Status: FOUND (the wanted class wins in float64 and in x's dtype; a tie is no win, also with κ = 0); NOT_FOUND (the
    time ended, a proof failed its check, or no live polytope has an answer); INFEASIBLE (proven, or the row breaks its
    own schema); ALREADY_TARGET; NONFINITE (a NaN in the row).
    """
    rows = Rows.of(model, x, label, target, bounds, mask, space)
    good = np.array([rows.status(i) is None for i in range(rows.count)], bool)
    jobs = [rows.job(int(i), options) for i in np.flatnonzero(good)]
    solved = iter(answers(jobs, workers))
    points, status = rows.x.copy(), np.empty(rows.count, np.int32)
    for i in range(rows.count):
        early = rows.status(i)
        if early is not None:
            status[i] = early
            continue
        exact = next(solved)
        found = np.isfinite(exact.objective)
        none = Status.INFEASIBLE if exact.status == "infeasible" else Status.NOT_FOUND
        status[i] = Status.FOUND if found else none
        if found:
            point = np.where(exact.x == rows.x[i].astype(np.float64), rows.x[i], exact.x.astype(rows.x.dtype))
            if rows.schema is None or rows.schema.satisfied(rows.x[i], point):
                points[i] = point
            else:  # the judge has the last word, should rounding ever break a rule
                status[i] = Status.NOT_FOUND
    zeros, points = np.zeros(rows.count, np.int32), points.reshape(rows.shape)
    delta = points - rows.x.reshape(rows.shape)
    result = Result(points, delta, status, zeros, zeros.copy(), points.copy())
    return result[0] if rows.single else result


def make_job(layers: Layers, domain: Domain, label: int, target: int, dtype: Any, options: Mapping[str, Any]) -> Job:
    """The question about one row, and how to answer it. Raises BadArgument about an option."""
    if unknown := set(options) - ASKED - HOW:
        raise BadArgument("options", f"be of {', '.join(sorted(ASKED | HOW))}", Words(", ".join(sorted(unknown))))
    asked = {name: options[name] for name in ASKED & set(options)}
    if asked.get("mad") is not None:
        asked["mad"] = _numbers("mad", asked["mad"])
    if np.dtype(dtype).kind != "f":
        raise BadArgument("dtype", "be a type of floats", np.dtype(dtype))
    question = Question(layers, domain, label, target, dtype=dtype, **asked)
    job = Job(question, **{name: options[name] for name in HOW & set(options)})
    check_choice("method", job.method, get_args(Search))
    check_choice("tighten", job.tighten, get_args(Tighten))
    check_number("time_limit", job.time_limit, lambda v: v > 0, "a number of seconds > 0")
    check_number("mip_gap", job.mip_gap, lambda v: 0 <= v < 1, "in [0, 1)")
    if question.max_changes is not None:
        check_whole("max_changes", question.max_changes, 0)
    question.check()
    points = None if job.references is None else np.asarray(job.references, np.float64)
    if job.method == "polytopes":
        points = question.lof.points if points is None and question.lof is not None else points
        width = domain.x.size
        if points is None or points.size == 0 or points.reshape(len(points), -1).shape[1] != width:
            raise BadArgument("references", f"be points [M, {width}] for the method 'polytopes'", job.references)
        points = points.reshape(len(points), -1)
    return job._replace(references=points)


def _domain(row: np.ndarray, bounds: Any, mask: Any, schema: Schema | None) -> Domain:
    if schema is not None:
        if mask is not None:
            raise BadArgument("mask", "be None with a space", hint="immutable features have direction='none' there")
        return schema.domain(row)
    try:
        lower, upper = bounds
        mask = None if mask is None else np.broadcast_to(check_flags("mask", mask).reshape(-1), row.shape)
        if np.any(np.asarray(lower, np.float64) > np.asarray(upper, np.float64)):
            raise BadArgument("bounds", "have lower <= upper everywhere", bounds)
        return box_domain(row, lower, upper, mask)
    except BadArgument:
        raise
    except (TypeError, ValueError) as error:
        raise BadArgument("bounds", f"be (lower, upper), scalars or [{row.size}]", bounds) from error


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise BadArgument(name, "be numbers", values) from error


class Rows(NamedTuple):
    """The checked arguments of a list."""

    layers: list
    x: np.ndarray  # [N, D]
    shape: tuple  # [N, *S]
    label: np.ndarray  # [N]
    target: np.ndarray  # [N], UNTARGETED where no class is given
    domains: list  # [N] Domain, or None where the row breaks its own schema
    schema: Schema | None
    single: bool

    @classmethod
    def of(cls, model: Any, x: Any, label: Any, target: Any, bounds: Any, mask: Any, space: Any) -> Rows:
        layers = relu_layers(model)
        labels = whole_numbers("label", label, "be class indices")
        single = labels.ndim == 0
        rows = np.asarray(x)[None] if single else np.asarray(x)
        if rows.dtype.kind != "f":
            raise BadArgument("x", "be floating-point numbers", rows.dtype)
        labels = labels.reshape(-1)
        if not rows.size:
            raise BadArgument("x", "hold at least one row", of_shape(np.shape(x)))
        flat = rows.reshape(len(rows), -1)
        if flat.shape[1:] != (layers[0][0].shape[0],) or labels.shape != (len(rows),):
            raise BadArgument(
                "x", f"be [N, {layers[0][0].shape[0]}] with label [N]", Words(f"{np.shape(x)} and {np.shape(label)}")
            )
        if target is None:
            wanted = np.full(len(rows), UNTARGETED)
        else:
            wanted = np.asarray(target).reshape(-1)
            if wanted.shape not in ((1,), labels.shape):
                raise BadArgument("target", f"be one class or [{len(labels)}]", of_shape(np.shape(target)))
            wanted = np.broadcast_to(wanted, labels.shape)
        classes = layers[-1][0].shape[1]
        for name, values, least in (("label", labels, 0), ("target", wanted, UNTARGETED)):
            form = f"be integers from {least} to {classes - 1}"
            whole = whole_numbers(name, values, form)
            check_entries(name, whole, (whole < least) | (whole >= classes), form)
            if values.dtype.kind not in "iuO":
                raise BadArgument(name, form, values.dtype)
        schema = None if space is None else read_space(space, rows.dtype)
        domains: list = []
        for row in flat:
            broken = not np.isfinite(row).all() or (schema is not None and not schema.permits(row))
            domains.append(None if broken else _domain(row, bounds, mask, schema))
        return cls(layers, flat, rows.shape, labels.astype(int), wanted.astype(int), domains, schema, single)

    @property
    def count(self) -> int:
        return len(self.x)

    def status(self, i: int) -> Status | None:
        """How row i ends without a search, if it does."""
        if not np.isfinite(self.x[i]).all():
            return Status.NONFINITE
        if self.domains[i] is None:
            return Status.INFEASIBLE
        wins = margin(self.layers, self.x[i].astype(np.float64), self.label[i], self.target[i]) > 0
        return Status.ALREADY_TARGET if wins else None

    def job(self, i: int, options: dict[str, Any]) -> Job:
        """The question about row i, and how to answer it."""
        return make_job(self.layers, self.domains[i], int(self.label[i]), int(self.target[i]), self.x.dtype, options)
