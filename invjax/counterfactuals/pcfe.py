"""PCFE: the nearest counterfactual in a high-density ellipsoid of the target class, by convex programs.

    min_x'  φ(x' - x)   s.t.   Z_t(x') - Z_k(x') >= κ for all k ≠ t,   (x' - μ_i)ᵀ Σ_i⁻¹ (x' - μ_i) <= r_i       (1)

for every component i of the target's Gaussian mixture, and the best of the answers. r_i is where the component alone
has the density δ, ``log w_i N(x'; μ_i, Σ_i) >= log δ``: so every answer has log p(x' | t) >= log δ. δ is the
α-quantile of the density over the target's training rows. Source: Artelt & Hammer 2020, "Convex density constraints for
computing plausible counterfactual explanations", where δ is the median. Their released code keeps the rows of LEAST
density, so that its ellipsoids contain all the training rows. That error is not repeated here.

For a classifier with linear logits (1) is convex and solved to its optimum
(:mod:`invjax.counterfactuals.parts.convex`). Others are linearised around the iterate, again and again, starting from
the mean of the component. Between an iterate that has the target and one that has lost it, the last valid point of the
segment is the next to linearise at (all other constraints are convex). The true network judges every answer, and no
optimality is claimed there.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from invjax import losses
from invjax.constraints import actions
from invjax.core.arguments import kinds_checked
from invjax.core.config import refuse_old_names
from invjax.core.density import check_density
from invjax.core.errors import BadArgument, Words, check_choice, check_number, check_whole, of_shape
from invjax.core.host import own_work
from invjax.core.logits import num_classes
from invjax.core.numerics import at_least_float32, select
from invjax.core.rows import map_rows
from invjax.counterfactuals.parts import convex
from invjax.counterfactuals.parts.query import Query, check_rows_of_targets, make_query
from invjax.densities import GMM, fit_gmm, quantiles
from invjax.engine.evaluate import forward
from invjax.solvers.best import Best, nothing, shortfall
from invjax.types import Array, ArrayLike, Bounds, Context, LogitsFn, Problem, Result, Status

Norm = Literal["l1", "l2"]
SEGMENT = (0.5, 0.75, 0.9, 0.97, 1.0)  # points tried between a valid point and the new one
TIGHTEN, SHRINK = 2.0, 0.85  # factors of margin and radius where rounding to the grid has lost validity


class Components(NamedTuple):
    """The ellipsoids of all classes, on the host."""

    ellipsoid: convex.Ellipsoid  # fields [C, ...], float64
    label: np.ndarray  # [C] int32

    def of(self, label: int) -> np.ndarray:
        """Indices of the class's ellipsoids that are not empty."""
        return np.flatnonzero((self.label == label) & (self.ellipsoid.radius > 0))


def components(gmm: GMM, threshold: ArrayLike) -> Components:
    """Where each component of ``gmm`` alone has at least the log-density ``threshold`` [K] of its class."""
    constant, factor = np.asarray(gmm.constant, np.float64), np.asarray(gmm.factor, np.float64)
    classes, count, size = gmm.mean.shape
    if factor.ndim == 3:
        basis, variance = np.broadcast_to(np.eye(size), (classes, count, size, size)), factor**-2.0
    else:  # the precision is F Fᵀ = U S² Uᵀ
        basis, singular, _ = np.linalg.svd(np.where(constant[..., None, None] > -1e29, factor, np.eye(size)))
        variance = np.where(singular > 0, singular, 1.0) ** -2.0
    radius = 2 * (constant - np.asarray(threshold, np.float64)[:, None])
    mean = np.asarray(gmm.mean, np.float64) + np.asarray(gmm.center, np.float64)
    flat = convex.Ellipsoid(
        mean.reshape(-1, size), basis.reshape(-1, size, size), variance.reshape(-1, size), radius.reshape(-1)
    )
    return Components(flat, np.repeat(np.arange(classes, dtype=np.int32), count))


class _Numbers(NamedTuple):
    kappa: Array
    slack: Array  # the part of κ that may be missing
    tolerance: Array
    inner_steps: Array
    linearisations: Array


class _State(NamedTuple):
    """One row with one component; every leaf with the lane axis [n]."""

    at: Array  # [D] where to linearise next
    anchor: Array  # [D] the last point of the hull that had the target
    best: Best
    margin: Array  # [] asked of the linearised classifier
    shrink: Array  # [] of the radius
    settled: Array  # [] bool
    rounds: Array  # [] int32


def _start(ctx: Context, problems: Problem, e: convex.Ellipsoid, numbers: _Numbers, norm: Norm, exact: bool) -> _State:
    at = jax.vmap(lambda problem, e: actions(ctx.constraints, problem).project(e.mean))(problems, e)
    ones = jnp.ones(at.shape[0], at.dtype)
    state = _State(
        at, at, jax.vmap(nothing)(problems), ones * numbers.kappa, ones, ones < 0, jnp.zeros(len(ones), jnp.int32)
    )
    # The mean itself may be an answer, and the only one that a network at its most curved ever gives.
    return _judge(ctx, problems, e, numbers, state, at[:, None], norm, exact)[0]


def _round(
    ctx: Context, problems: Problem, e: convex.Ellipsoid, numbers: _Numbers, state: _State, norm: Norm, exact: bool
) -> _State:
    """Linearise, solve, look along the segment."""
    z, pull = jax.vjp(lambda u: at_least_float32(ctx.logits(u)), state.at)
    slopes = jax.vmap(lambda k: pull(jnp.broadcast_to(k, z.shape))[0])(jnp.eye(z.shape[1], dtype=z.dtype))  # [K, n, D]

    def candidate(problem: Problem, e: convex.Ellipsoid, s: _State, z: Array, slopes: Array) -> Array:
        row = actions(ctx.constraints, problem)
        normal = slopes[problem.target] - slopes
        offset = s.margin - (z[problem.target] - z).astype(normal.dtype) + normal @ s.at
        own = jnp.arange(z.shape[0]) == problem.target
        h = convex.unit_rows(
            convex.Halfspaces(jnp.where(own[:, None], jnp.zeros_like(normal), normal), jnp.where(own, -1.0, offset))
        )
        inner = e._replace(radius=e.radius * s.shrink)
        limit = jnp.where(s.settled, 0, numbers.inner_steps)
        u = convex.solve(row, h, inner, s.at, numbers.tolerance, limit, norm).u
        return row.project(convex.polish(row, h, inner, u, numbers.tolerance, norm))

    new = jax.vmap(candidate, in_axes=(0, 0, 0, 0, 1))(problems, e, state, z, slopes)
    share = jnp.asarray(SEGMENT, new.dtype)[:, None]
    segment = state.anchor[:, None] + share * (new - state.anchor)[:, None]
    segment = segment.at[:, -1].set(new)  # bit for bit: the solution's zeros
    told, valid = _judge(ctx, problems, e, numbers, state, segment, norm, exact)

    last = jnp.max(jnp.where(valid, jnp.arange(len(SEGMENT)), -1), axis=1)  # the valid point farthest along, or -1
    reached = jnp.take_along_axis(segment, jnp.maximum(last, 0)[:, None, None], axis=1)[:, 0]
    any_valid = last >= 0
    size = jnp.maximum(1, jnp.max(jnp.abs(new), axis=1))
    still = jnp.max(jnp.abs(new - state.at), axis=1) <= 100 * numbers.tolerance * size
    lost = ~any_valid if exact else ~told.best.found
    after = told._replace(
        at=jnp.where((any_valid & exact)[:, None], reached, new),
        anchor=jnp.where(any_valid[:, None], reached, state.anchor),
        margin=jnp.where(lost, TIGHTEN * state.margin, state.margin),
        shrink=jnp.where(lost & (not exact), SHRINK * state.shrink, state.shrink),
        settled=state.settled | (still & ~lost),
        rounds=state.rounds + 1,
    )
    return select(state.settled, state, after)


def _judge(
    ctx: Context,
    problems: Problem,
    e: convex.Ellipsoid,
    numbers: _Numbers,
    state: _State,
    points: Array,
    norm: Norm,
    exact: bool,
) -> tuple[_State, Array]:  # fmt: skip
    """The state with its best, after points [n, q, D] of the hull; and which of them have the target, [n, q] bool.

    Where a row has grids, categories or relations (``exact`` is False), its points are judged as they are, and recorded
    as they snap.
    """
    asked = points
    if not exact:
        snap = jax.vmap(lambda problem, u: jax.vmap(actions(ctx.constraints, problem).snap)(u))
        asked = jnp.concatenate([points, snap(problems, points)], axis=1)
    logits = forward(ctx, asked)

    def one(problem: Problem, e: convex.Ellipsoid, kept: Best, u: Array, z: Array) -> tuple[Best, Array]:
        row = actions(ctx.constraints, problem)
        missing = jax.vmap(lambda z: shortfall(problem, z, numbers.kappa))(z)
        wins = jax.vmap(lambda z: losses.reached(z, problem.label, problem.target))(z)
        dense = jax.vmap(lambda u: convex.distance(e, u))(u) <= e.radius * (1 + 1e-4)
        valid = wins & (missing <= numbers.slack) & dense
        feasible = valid & jax.vmap(row.satisfied)(u)
        cost = jax.vmap(row.cost)(u) if norm == "l1" else 0.5 * jnp.sum(jnp.square(u - problem.x), axis=1)
        score = jnp.where(feasible, cost, jnp.inf)
        first = jnp.argmin(score)
        return kept.offer(u[first], score[first], feasible[first]), valid[: points.shape[1]]

    kept, valid = jax.vmap(one)(problems, e, state.best, asked, logits)
    return state._replace(best=kept), valid


def _descend(
    shared: tuple[Context, _Numbers], problems: Problem, e: convex.Ellipsoid, norm: Norm, exact: bool
) -> _State:
    """All rounds of n lanes, until every lane has settled."""
    ctx, numbers = shared

    def unsettled(carry: tuple[Array, _State]) -> Array:
        return (carry[0] < numbers.linearisations) & ~carry[1].settled.all()

    def turn(carry: tuple[Array, _State]) -> tuple[Array, _State]:
        return carry[0] + 1, _round(ctx, problems, e, numbers, carry[1], norm, exact)

    first = _start(ctx, problems, e, numbers, norm, exact)
    return jax.lax.while_loop(unsettled, turn, (jnp.int32(0), first))[1]


@kinds_checked
@refuse_old_names({"alpha": "quantile", "rounds": "linearisations", "tol": "tolerance", "iterations": "inner_steps"})
@own_work()
def pcfe(
    model: LogitsFn,
    x: ArrayLike,
    label: ArrayLike,
    target: ArrayLike,
    *,
    train_x: ArrayLike | None = None,
    train_y: ArrayLike | None = None,
    gmm: GMM | None = None,
    threshold: ArrayLike | None = None,
    space: Any = None,
    bounds: Bounds | tuple[ArrayLike, ArrayLike] | None = None,
    quantile: float = 0.5,
    kappa: float = 0.05,
    norm: Norm = "l1",
    linearisations: int = 10,
    tolerance: float | None = None,
    inner_steps: int = 3000,
) -> Result:
    """Plausible counterfactuals by convex programs: formula (1) of the module.

    Args:
      model: logits [B, D] -> [B, K], differentiable; linear logits (logistic and softmax regression) give the optimum.
      x: [N, D] rows in model coordinates, or [D] with a scalar ``label``. label, target: [N] int.
      train_x, train_y: [M, D] rows with their classes [M], for the mixture and for δ.
      gmm: the mixture of the classes; None: :func:`invjax.densities.fit_gmm` of the rows (5 full components each).
      threshold: [K] log δ of each class; None: the α-quantile of the rows' log-density.
      space: what each feature may become; or bounds: the box, [0, 1] by default.
      quantile: α, in [0, 1): a larger one asks for denser regions.
      kappa: margin κ, logit units, > 0; an answer keeps at least 99 % of it.
      norm: φ: "l1", weighted with the features' costs, or "l2" (1/2 ‖·‖²).
      linearisations: most linearisations per component; linear logits take two.
      tolerance: residual at which ADMM ends, model coordinates; 2e-6 in float32, 1e-8 in float64. The active
        constraints are then met exactly (polish).
      inner_steps: most iterations of ADMM per linearisation.

    Returns:
      Result [N]. ``evaluations`` counts gradients of single logits, ``forwards`` the points judged. NOT_FOUND: no
      component gave a valid point. INFEASIBLE: the row breaks its own schema, or no component is as dense as δ.

    Raises:
      ValueError: an argument, or rows and threshold missing.
    """
    check_number("quantile", quantile, lambda v: 0 <= v < 1, "in [0, 1)")
    check_number("kappa", kappa, lambda v: v > 0, "a margin > 0")
    check_choice("norm", norm, get_args(Norm))
    query = make_query(model, x, label, target, space=space, bounds=bounds)
    if train_x is not None and train_y is not None:
        check_rows_of_targets(np.asarray(train_y), query.problems.target)
        gmm = fit_gmm(train_x, train_y) if gmm is None else gmm
        threshold = quantiles(gmm, train_x, train_y, quantile) if threshold is None else threshold
    if gmm is None or threshold is None:
        raise BadArgument("train_x", "be given with train_y, unless both gmm and threshold are given")
    dtype = query.problems.x.dtype
    if not isinstance(gmm, GMM):
        raise BadArgument("gmm", "be a mixture of fit_gmm or from_sklearn", Words(f"of type {type(gmm).__name__}"))
    if query.problems.x.shape[1] != gmm.mean.shape[-1]:
        wanted = f"have the {gmm.mean.shape[-1]} columns of the mixture, [N, D]"
        raise BadArgument("x", wanted, query.problems.x.shape)
    check_density(gmm, query.problems.x.shape[1:], dtype, query.problems.target, "gmm")
    if np.shape(threshold) != (gmm.classes,):
        raise BadArgument("threshold", f"be one number per class [{gmm.classes}]", of_shape(np.shape(threshold)))
    if tolerance is not None:
        check_number("tolerance", tolerance, lambda v: v > 0, "None or a number > 0")
    else:
        tolerance = 1e-8 if dtype == np.float64 else 2e-6
    margin = jnp.asarray(kappa, dtype)
    numbers = _Numbers(
        margin, 0.01 * margin, jnp.asarray(tolerance, dtype), jnp.int32(check_whole("inner_steps", inner_steps)),
        jnp.int32(check_whole("linearisations", linearisations)),
    )  # fmt: skip
    return _run(query, components(gmm, threshold), numbers, norm)


def _run(query: Query, parts: Components, numbers: _Numbers, norm: Norm) -> Result:
    problems = query.problems
    count, size = problems.x.shape
    status = query.early()
    status[(status == Status.PENDING) & [not len(parts.of(int(t))) for t in problems.target]] = Status.INFEASIBLE
    lanes = [(n, c) for n in np.flatnonzero(status == Status.PENDING) for c in parts.of(int(problems.target[n]))]
    found, attempt, score = problems.x.copy(), problems.x.copy(), np.full(count, np.inf)
    evaluations, forwards = np.zeros(count, np.int32), np.ones(count, np.int32)
    if lanes:
        row, component = np.array(lanes).T
        own = jax.tree.map(lambda leaf: leaf[row], problems)
        e = convex.Ellipsoid(*(field[component].astype(problems.x.dtype) for field in parts.ellipsoid))
        # A lane holds a matrix: that limits how many are worked on at once.
        most = max(8, min(1024, 2 ** int(np.log2(max(8, 2**27 // size**2)))))
        end = map_rows(_descend, (query.ctx, numbers), own, e, batch=most, static=(norm, query.exact), few_shapes=True)
        np.add.at(evaluations, row, end.rounds * num_classes(query.ctx.logits, (size,), problems.x.dtype))
        np.add.at(forwards, row, len(SEGMENT) * (1 if query.exact else 2) * (1 + end.rounds))
        for i, n in enumerate(row):
            if end.best.score[i] < score[n]:
                score[n], found[n], attempt[n] = end.best.score[i], end.best.x[i], end.best.x[i]
            elif not np.isfinite(score[n]):
                attempt[n] = end.at[i]
    searched = np.where(np.isfinite(score), Status.FOUND, Status.NOT_FOUND)
    return query.result(found, np.where(status == Status.PENDING, searched, status), evaluations, forwards, attempt)
