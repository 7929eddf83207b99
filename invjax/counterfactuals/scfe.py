"""S-CFE: sparse, plausible, actionable counterfactuals by proximal gradient steps.

    min_{x'}  d(x' − x) − τ log q(x', t)  +  β Σ_f cost_f φ(x'_f − x_f)                                           (1)
    subject to  gap(x', t) <= −κ,   x' in A(x),   at most m features changed

(Sadiku, Wagner, Nagarajan, Pokutta 2025, arXiv 2410.15723, the problem (12)–(15) of its authors' slides): d the
proximity, q the density of the target class, φ in {l0, l½, l⅔, l1}, A(x) what may become of x. The published method
minimises ``d + γ L − τ log q`` and searches γ by restarts; here γ is the multiplier of validity, solved for in every
step (:mod:`invjax.counterfactuals.parts.multiplier`), without a trial per γ. One descent is a monotone
accelerated proximal gradient method: a step that raises the merit ``d − τ log q + β Σ φ + γ̄ max(0, gap + κ)`` is taken
back, its length halved and the momentum restarted; γ̄ is 1.5 times the largest γ of late. Descents of one example:

* *direct*: from x with m features from the start;
* *graduated*: from x with all features at first, geometrically fewer until m. It finds other, often better, features;
* *polish*: from the best point so far, on its own features;
* *exchange*, only where A(x) is discrete: one feature at a time, over all its values (:mod:`.exchange`), until nothing
  is gained.

Every asked point is an output of the proximal map: exactly sparse and in A(x), so the evaluation of a step is also its
test of validity, and the best valid point of all is kept. Where A(x) is discrete the descents move in its hull; the
nearest admissible points for several γ are probed, and only those count.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses
from invjax.constraints import actions
from invjax.core.config import STATIC, config, require, require_choice
from invjax.core.numerics import select
from invjax.counterfactuals.parts import proximity as distances
from invjax.counterfactuals.parts.exchange import moves
from invjax.counterfactuals.parts.multiplier import Here, step
from invjax.penalties import PENALTIES
from invjax.solvers.best import Best, nothing, shortfall
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status

DIRECT, GRADUATED, POLISH, EXCHANGE, END = range(5)
NO_LIMIT = 2**30  # max_changes: all of them
PROBES = 6  # neighbours in a discrete A(x) that are looked at per step
WARM = 12  # steps in which the graduated descent comes down to m features


@config
class SCFEConfig:
    """The constants of S-CFE. Distances are in model coordinates.

    Fields:
      max_changes: m, features that may change, >= 1; larger than there are: no limit.
      tau: τ, weight of the log density of the target class (``solve(density=...)``), >= 0.
      beta: β, weight of the penalty, >= 0.
      penalty: φ: "none", "l0", "l_half", "l_two_thirds" or "l1" (static).
      kappa: margin of validity, logit units, >= 0.
      probability: the wanted softmax probability of the target instead of a bare win; None or in (0, 1).
      gamma_max: the largest weight of validity; 0: the classifier plays no part in the descent (only in the status).
      step: σ at the start of a descent, units of x² per objective, > 0.
      momentum: μ, in [0, 1).
      iterations: steps of the direct descent, and of the graduated one after its first 12, >= 1.
      polish: steps of the last descent, >= 0.
      exchanges: rounds of exchange at most, >= 0.
      proximity: d: SquaredL2, Mahalanobis or MadL1.

    Evaluations per example: at most 2 iterations + 12 + polish (+ exchanges and six forwards per step where A(x) is
    discrete).
    """

    max_changes: int = 3
    tau: float = 0.0
    beta: float = 0.0
    penalty: str = field(default="none", metadata=STATIC)
    kappa: float = 0.05
    probability: float | None = None
    gamma_max: float = float("inf")
    step: float = 0.1
    momentum: float = 0.8
    iterations: int = 20
    polish: int = 10
    exchanges: int = 12
    proximity: distances.Proximity = field(default_factory=distances.SquaredL2)

    method: ClassVar[Method]

    def check(self) -> None:
        require(self, "max_changes", lambda v: v >= 1, "at least 1")
        require(self, "tau", lambda v: v >= 0, "a weight >= 0")
        require(self, "beta", lambda v: v >= 0, "a weight >= 0")
        require_choice(self, "penalty", PENALTIES)
        require(self, "kappa", lambda v: v >= 0, "a margin >= 0")
        require(self, "probability", lambda v: v is None or 0 < v < 1, "None or in (0, 1)")
        require(self, "gamma_max", lambda v: v >= 0, "a weight >= 0")
        require(self, "step", lambda v: v > 0, "a length > 0")
        require(self, "momentum", lambda v: 0 <= v < 1, "in [0, 1)")
        require(self, "iterations", lambda v: v >= 1, "at least 1")
        require(self, "polish", lambda v: v >= 0, "at least 0")
        require(self, "exchanges", lambda v: v >= 0, "at least 0")
        distances.check(self)


class SCFEState(NamedTuple):
    ask: Array  # [*S] the next point to ask
    here: Here  # the last accepted point
    merit: Array  # [] its merit; +inf at the start of a descent
    moved: Array  # [*S] the accepted point minus the one before
    size: Array  # [] σ
    gamma: Array  # [] γ̄
    k: Array  # [] int32, evaluations in this descent
    phase: Array  # [] int32: DIRECT, GRADUATED, POLISH, EXCHANGE, END
    aim: Array  # [] int32, the class a plausible answer looks like
    candidates: Array | None  # [PROBES, *S] where A(x) is discrete: the points whose neighbours in A(x) are probed
    nearest: Best | None  # likewise: the point of A(x) with the least gap
    gained: Array  # [] bool, the last probes bettered best or nearest
    best: Best
    status: Array  # [] int32, PENDING until decided


def _smooth(ctx: Context, problem: Problem, config: SCFEConfig, aim: Array, point: Array) -> Array:
    """[] φ: what is differentiable in (1) beside validity."""
    value = config.proximity.value(point - problem.x)
    if ctx.density is None:
        return value
    return value - jnp.asarray(config.tau, point.dtype) * ctx.density.log_prob(point, aim)


def _charge(row: Any, config: SCFEConfig, point: Array) -> Array:
    return jnp.asarray(config.beta, point.dtype) * row.penalty(point, config.penalty)


def _init(ctx: Context, problem: Problem, config: SCFEConfig) -> SCFEState:
    x, zero = problem.x, jnp.zeros_like(problem.x)
    none = jnp.zeros((), x.dtype)
    row = actions(ctx.constraints, problem)
    candidates = nearest = None
    if not row.exact:
        candidates, nearest = jnp.broadcast_to(x, (PROBES, *x.shape)), nothing(problem)
    return SCFEState(
        ask=x,
        here=Here(x, none, zero, none, zero, none),
        merit=none + jnp.inf,
        moved=zero,
        size=jnp.asarray(config.step, x.dtype),
        gamma=none,
        k=jnp.int32(0),
        phase=jnp.int32(DIRECT),
        aim=jnp.int32(0),
        candidates=candidates,
        nearest=nearest,
        gained=jnp.ones((), bool),
        best=nothing(problem),
        status=jnp.int32(Status.PENDING),
    )


def objective(ctx: Context, problem: Problem, config: SCFEConfig, point: Array) -> Array:
    """[] the objective (1) at a point; for the class of an untargeted problem see ``SCFEState.aim``."""
    return _smooth(ctx, problem, config, problem.target, point) + _charge(
        actions(ctx.constraints, problem), config, point
    )


def _ask(ctx: Context, problem: Problem, config: SCFEConfig, state: SCFEState) -> Array:
    if state.nearest is None:
        return state.ask
    found = jnp.isfinite(state.best.score)
    return jnp.where(state.phase == EXCHANGE, jnp.where(found, state.best.x, state.nearest.x), state.ask)


def _loss(ctx: Context, problem: Problem, config: SCFEConfig, state: SCFEState, point: Array, logits: Array) -> Array:
    # A tenth more than the margin: the linearisation ends on the boundary, and rounding must not decide.
    return shortfall(problem, logits, 1.1 * config.kappa + 1e-3, config.probability)


def _limit(config: SCFEConfig, phase: Array, k: Array, count: int) -> tuple[Array, Array]:
    """Features that the next point may change, and the share of β that is charged, after k steps of a descent."""
    m = jnp.minimum(jnp.asarray(config.max_changes, jnp.int32), count)
    share = jnp.where(phase == GRADUATED, jnp.minimum((k + 1) / WARM, 1.0), 1.0)
    relaxed = jnp.round(count * (jnp.maximum(m, 1) / count) ** share).astype(jnp.int32)
    return jnp.maximum(m, relaxed), share


def _tell(ctx: Context, problem: Problem, config: SCFEConfig, state: SCFEState, ev: Eval) -> SCFEState:
    x, dtype = problem.x, problem.x.dtype
    row = actions(ctx.constraints, problem)
    first, exchanging = (state.phase == DIRECT) & (state.k == 0), state.phase == EXCHANGE
    clean = shortfall(problem, ev.logits, 0.0, config.probability) < 0
    aim = jnp.where(first, losses.wanted(ev.logits, problem.label, problem.target), state.aim)

    smooth, slope = jax.value_and_grad(lambda u: _smooth(ctx, problem, config, aim, u))(ev.point)
    asked = Here(ev.point, ev.value, ev.grad, smooth, slope, _charge(row, config, ev.point))

    best = state.best
    changes = row.changed(ev.point)
    if row.exact:
        valid = shortfall(problem, ev.logits, config.kappa, config.probability) <= 0
        few = jnp.sum(changes) <= config.max_changes
        best = best.offer(ev.point, smooth + asked.charge, valid & few & ~first)

    # Monotone: a step that raised the merit is taken back; one of the graduated descent is not to blame for losing
    # features.
    merit = smooth + asked.charge + state.gamma * jnp.maximum(asked.gap, 0)
    settled = (state.phase != GRADUATED) | (state.k > WARM + 1)
    worse = ~(merit <= state.merit + 1e-4 * jnp.abs(state.merit) + 1e-5) & settled & (state.k > 0)
    here = select(worse, state.here, asked)
    moved = jnp.where(worse | (state.k == 0), jnp.zeros_like(x), ev.point - state.here.point)
    size = state.size * jnp.where(worse, 0.5, 1.1).astype(dtype)

    count = changes.shape[0]
    most, share = _limit(config, state.phase, state.k, count)
    weight = size * jnp.asarray(config.beta, dtype) * share.astype(dtype)
    polishing = (state.phase == POLISH) & jnp.isfinite(best.score)
    mover = row.pinned(row.changed(best.x) | ~polishing)
    base = here.point + jnp.asarray(config.momentum, dtype) * moved - size * here.slope
    taken = step(
        mover, here, base, size,
        weight=weight, penalty=config.penalty, max_changes=most, gamma_max=config.gamma_max,
    )  # fmt: skip
    gamma = jnp.maximum(0.95 * state.gamma, 1.5 * taken.gamma)
    merit = here.smooth + here.charge + gamma * jnp.maximum(here.gap, 0)

    # The descent ends when its steps are spent, or when it stands still.
    k = state.k + 1
    length = jnp.max(jnp.abs(taken.point - here.point))
    still = (length <= 1e-4 * (1 + jnp.max(jnp.abs(here.point - x)))) & settled & (state.k > 0)
    still = jnp.where(state.phase == EXCHANGE, ~state.gained, still)
    iterations = jnp.asarray(config.iterations, jnp.int32)
    polish, exchanges = (jnp.asarray(n, jnp.int32) for n in (config.polish, config.exchanges))
    room = jnp.stack([iterations, iterations + WARM, polish, exchanges])[jnp.minimum(state.phase, EXCHANGE)]
    over = (k >= room) | still
    phase = jnp.where(over, state.phase + 1, state.phase)
    phase = jnp.where((phase == POLISH) & (~jnp.isfinite(best.score) | (polish < 1)), EXCHANGE, phase)
    phase = jnp.where((phase == EXCHANGE) & (row.exact | (exchanges < 1)), END, phase)
    zero = jnp.zeros((), dtype)
    state = state._replace(
        ask=jnp.where(over, jnp.where(phase == POLISH, best.x, x), taken.point),
        here=here,
        merit=jnp.where(over, jnp.inf, merit).astype(dtype),
        moved=moved,
        size=jnp.where(over, jnp.asarray(config.step, dtype), size),
        gamma=jnp.where(over, zero, gamma),
        k=jnp.where(over, 0, k),
        phase=phase,
        aim=aim,
        best=best,
        status=best.status(first & clean, phase >= END),
    )
    if row.exact:
        return state
    near = jnp.concatenate([taken.point[None], taken.candidates[1:PROBES]])
    price = 10 * (1 + jnp.max(jnp.abs(asked.slope))) / (jnp.max(jnp.abs(asked.normal)) + jnp.finfo(dtype).tiny)
    other = moves(row, asked, price, jnp.asarray(config.max_changes, jnp.int32), PROBES)
    return state._replace(candidates=jnp.where(exchanging, other, near))


def _probe(ctx: Context, problem: Problem, config: SCFEConfig, state: SCFEState) -> Array:
    if state.candidates is None:
        return jnp.zeros((0, *problem.x.shape), problem.x.dtype)
    row = actions(ctx.constraints, problem)
    return jax.vmap(lambda u: row.snap(u, config.max_changes))(state.candidates)


def _tell_probe(
    ctx: Context, problem: Problem, config: SCFEConfig, state: SCFEState, points: Array, logits: Array
) -> SCFEState:
    row = actions(ctx.constraints, problem)

    def judge(point: Array, logits: Array) -> tuple[Array, Array, Array]:
        gap = shortfall(problem, logits, config.kappa, config.probability)
        changed = row.changed(point)
        good = (jnp.sum(changed) <= config.max_changes) & jnp.any(changed) & row.satisfied(point)
        score = _smooth(ctx, problem, config, state.aim, point) + _charge(row, config, point)
        return jnp.where(good & (gap <= 0), score, jnp.inf), jnp.where(good, gap, jnp.inf), good

    assert state.nearest is not None
    scores, gaps, good = jax.vmap(judge)(points, logits)
    i, j = jnp.argmin(scores), jnp.argmin(gaps)
    best = state.best.offer(points[i], scores[i], jnp.isfinite(scores[i]))
    nearest = state.nearest.offer(points[j], gaps[j], good[j])
    found = jnp.isfinite(best.score)
    gained = jnp.where(found, best.score < state.best.score, nearest.score < state.nearest.score)
    late = found & (state.status == Status.NOT_FOUND)
    status = jnp.where(late, Status.FOUND, state.status).astype(jnp.int32)
    return state._replace(best=best, nearest=nearest, gained=gained, status=status)


def _result(ctx: Context, problem: Problem, config: SCFEConfig, state: SCFEState) -> Outcome:
    return state.best.outcome(state.status, state.here.point)


SCFEConfig.method = Method("s-cfe", _init, _ask, _loss, _tell, result=_result, probe=_probe, tell_probe=_tell_probe)


def DCFE(beta: float = 0.1, tau: float = 1.0, **constants: Any) -> SCFEConfig:
    """DCFE: ``‖r‖² + β ‖r‖_1`` (an elastic net) and the pull of the density's gravity, any number of features changed.

    For a density of :func:`invjax.densities.fit_knn`. Source: Zhang, Chen, Wen, Li 2023, as the S-CFE slides give it.
    """
    return SCFEConfig(**{"max_changes": NO_LIMIT, "penalty": "l1", "beta": beta, "tau": tau, **constants})
