"""S-CFE: sparse, plausible, actionable counterfactuals by proximal gradient steps.

    min_{x'}  d(x' − x) − τ log q(x', t)  +  β Σ_f cost_f φ(x'_f − x_f)                                           (1)
    subject to  gap(x', t) <= −κ,   x' in A(x),   at most m features changed

(Sadiku, Wagner, Nagarajan, Pokutta 2025, arXiv 2410.15723, the problem (12)–(15) of its authors' slides): d the
proximity, q the density of the target class, φ in {l0, l½, l⅔, l1}, A(x) what x may become. The published method
minimises ``d + γ L − τ log q`` and searches γ by restarts. Here γ is the multiplier of validity, solved for in every
step (:mod:`invjax.counterfactuals.parts.multiplier`), so no γ needs a trial of its own. One descent is a monotone
accelerated proximal gradient method: a step that raises the merit ``d − τ log q + β Σ φ + γ̄ max(0, gap + κ)`` is taken
back, its length halved and the momentum restarted. γ̄ is 1.5 times the largest recent γ. One example has four phases:

* *direct*: a descent from x that changes at most m features from its first step;
* *graduated*: a descent from x with all features at first and geometrically fewer until m, which finds other, often
  better, features;
* *polish*: a descent from the best point so far, on the features that it changes;
* *exchange*, only where A(x) is discrete: one feature at a time, over all its values (:mod:`.exchange`), until nothing
  is gained.

Every asked point is an output of the proximal map, exactly sparse and in A(x). So the evaluation of a step is also its
test of validity, and the best valid point of all is kept. Where A(x) is discrete the descents move in its hull, the
nearest admissible points for several γ are probed, and only those count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses
from invjax.constraints import actions
from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.core.errors import BadArgument
from invjax.core.meant import explained
from invjax.core.numerics import select
from invjax.counterfactuals.parts import proximity as distances
from invjax.counterfactuals.parts.exchange import moves
from invjax.counterfactuals.parts.multiplier import Here, step
from invjax.penalties import PenaltyName
from invjax.solvers.best import Best, nothing, shortfall, there
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status

DIRECT, GRADUATED, POLISH, EXCHANGE, END = range(5)
NO_LIMIT = 2**30  # as max_changes: all features
PROBES = 6  # neighbours in a discrete A(x) that are probed per step
BEYOND = 1e-3  # logits beyond the margin that a step aims at
WARM = 12  # steps that the graduated descent takes to come down to m features


@config
class SCFE:
    """The constants of S-CFE. Distances are in model coordinates.

    Fields:
      max_changes: m, features that may change, >= 1; a number above that of the features sets no limit.
      tau: τ, weight of the log density of the target class (``solve(density=...)``), >= 0.
      beta: β, weight of the penalty, >= 0.
      penalty: φ: "none", "l0", "l_half", "l_two_thirds" or "l1" (static).
      kappa: margin of validity, logit units, >= 0.
      probability: the wanted softmax probability of the target instead of a bare win; None or in (0, 1).
      gamma_max: the largest weight of validity; 0 keeps the classifier out of the descent (the status still asks it).
      step_size: σ at the start of a descent, units of x² per objective, > 0.
      momentum: μ, in [0, 1).
      steps: steps of the direct descent, and of the graduated one after its first 12, >= 1.
      polish: steps of the last descent, >= 0.
      exchanges: rounds of exchange at most, >= 0.
      proximity: d: SquaredL2, Mahalanobis or MadL1.

    Evaluations per example: at most 2 steps + 12 + polish; where A(x) is discrete also one per exchange, and six
    forwards per evaluation.
    """

    max_changes: int = 3
    tau: float = 0.0
    beta: float = 0.0
    penalty: PenaltyName = field(default="none", metadata=STATIC)
    kappa: float = 0.05
    probability: float | None = None
    gamma_max: float = float("inf")
    step_size: float = 0.1
    momentum: float = 0.8
    steps: int = 20
    polish: int = 10
    exchanges: int = 12
    proximity: distances.Proximity = field(default_factory=distances.SquaredL2)

    RENAMED: ClassVar[Mapping[str, str]] = {
        "iterations": "steps",
        "step": "step_size",
        "variant": "the class SCFEReleased",
    }
    method: ClassVar[Method]

    def __post_init__(self) -> None:
        if isinstance(self.max_changes, str):  # SCFE("released"), as it was called
            raise BadArgument("variant", "be left out", self.max_changes, hint="the released code is SCFEReleased()")

    @property
    def wants_density(self) -> bool:
        """Whether there must be a density."""
        return self.tau > 0

    def check(self) -> None:
        require_at_least(self, 1, "max_changes", "steps")
        require_at_least(self, 0, "tau", "beta", "kappa", "gamma_max", "polish", "exchanges")
        require_above(self, 0, "step_size")
        require(self, "probability", lambda v: v is None or 0 < v < 1, "None or in (0, 1)")
        require(self, "momentum", lambda v: 0 <= v < 1, "in [0, 1)")
        distances.check(self)


class SCFEState(NamedTuple):
    ask: Array  # [*S] the next point to ask
    here: Here  # the last accepted point
    merit: Array  # [] its merit; +inf at the start of a descent
    moved: Array  # [*S] the accepted point minus the one before
    size: Array  # [] σ
    gamma: Array  # [] γ̄
    count: Array  # [] int32, evaluations in this descent
    phase: Array  # [] int32: DIRECT, GRADUATED, POLISH, EXCHANGE, END
    aim: Array  # [] int32, the class a plausible answer looks like
    candidates: Array | None  # [PROBES, *S] where A(x) is discrete: the points whose neighbours in A(x) are probed
    nearest: Best | None  # where A(x) is discrete: the point of A(x) with the least gap
    gained: Array  # [] bool, the last probes bettered best or nearest
    best: Best
    status: Array  # [] int32, PENDING until decided


def _smooth(ctx: Context, problem: Problem, config: SCFE, aim: Array, point: Array) -> Array:
    """[] φ: what is differentiable in (1) beside validity."""
    value = config.proximity.value(point - problem.x)
    if ctx.density is None:
        return value
    return value - jnp.asarray(config.tau, point.dtype) * ctx.density.log_prob(point, aim)


def _charge(row: Any, config: SCFE, point: Array) -> Array:
    return jnp.asarray(config.beta, point.dtype) * row.penalty(point, config.penalty)


def objective(ctx: Context, problem: Problem, config: SCFE, point: Array) -> Array:
    """[] the objective (1) at a point; for the class of an untargeted problem see ``SCFEState.aim``."""
    row = actions(ctx.constraints, problem)
    return _smooth(ctx, problem, config, problem.target, point) + _charge(row, config, point)


def _init(ctx: Context, problem: Problem, config: SCFE) -> SCFEState:
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
        size=jnp.asarray(config.step_size, x.dtype),
        gamma=none,
        count=jnp.int32(0),
        phase=jnp.int32(DIRECT),
        aim=jnp.int32(0),
        candidates=candidates,
        nearest=nearest,
        gained=jnp.ones((), bool),
        best=nothing(problem),
        status=jnp.int32(Status.PENDING),
    )


def _ask(ctx: Context, problem: Problem, config: SCFE, state: SCFEState) -> Array:
    if state.nearest is None:
        return state.ask
    best = jnp.where(state.best.found, state.best.x, state.nearest.x)
    return jnp.where(state.phase == EXCHANGE, best, state.ask)


def _loss(ctx: Context, problem: Problem, config: SCFE, state: SCFEState, point: Array, logits: Array) -> Array:
    # A tenth more than the margin: the linearisation ends on the boundary, and rounding must not decide.
    return shortfall(problem, logits, 1.1 * config.kappa + BEYOND, config.probability)


def _limit(config: SCFE, phase: Array, count: Array, features: int) -> tuple[Array, Array]:
    """Features that the next point may change, and the share of β that is charged, after ``count`` steps."""
    m = jnp.minimum(jnp.asarray(config.max_changes, jnp.int32), features)
    share = jnp.where(phase == GRADUATED, jnp.minimum((count + 1) / WARM, 1.0), 1.0)
    relaxed = jnp.round(features * (jnp.maximum(m, 1) / features) ** share).astype(jnp.int32)
    return jnp.maximum(m, relaxed), share


def _tell(ctx: Context, problem: Problem, config: SCFE, state: SCFEState, ev: Eval) -> SCFEState:
    x, dtype = problem.x, problem.x.dtype
    row = actions(ctx.constraints, problem)
    first, exchanging = (state.phase == DIRECT) & (state.count == 0), state.phase == EXCHANGE
    clean = there(problem, ev.logits, config.probability)
    aim = jnp.where(first, losses.wanted(ev.logits, problem.label, problem.target), state.aim)

    smooth, slope = jax.value_and_grad(lambda u: _smooth(ctx, problem, config, aim, u))(ev.point)
    # Where the logits are so flat that BEYOND is a long way, a hundredth of a unit of x has to do.
    beyond = jnp.minimum(jnp.asarray(BEYOND, dtype), 0.01 * jnp.max(jnp.abs(ev.grad)))
    gap = ev.value - (BEYOND - beyond)
    asked = Here(ev.point, gap, ev.grad, smooth, slope, _charge(row, config, ev.point))

    best = state.best
    changes = row.changed(ev.point)
    if row.exact:
        valid = shortfall(problem, ev.logits, config.kappa, config.probability) <= 0
        few = jnp.sum(changes) <= config.max_changes
        best = best.offer(ev.point, smooth + asked.charge, valid & few & ~first)

    # Monotone: a step that raised the merit is taken back. While the graduated descent gives up features, the merit
    # may rise.
    merit = smooth + asked.charge + state.gamma * jnp.maximum(asked.gap, 0)
    settled = (state.phase != GRADUATED) | (state.count > WARM + 1)
    worse = ~(merit <= state.merit + 1e-4 * jnp.abs(state.merit) + 1e-5) & settled & (state.count > 0)
    here = select(worse, state.here, asked)
    moved = jnp.where(worse | (state.count == 0), jnp.zeros_like(x), ev.point - state.here.point)
    size = state.size * jnp.where(worse, 0.5, 1.1).astype(dtype)

    most, share = _limit(config, state.phase, state.count, changes.shape[0])
    weight = size * jnp.asarray(config.beta, dtype) * share.astype(dtype)
    polishing = (state.phase == POLISH) & best.found
    if config.penalty == "l0":  # constant on the features that stay, where its threshold would only forbid short moves
        weight = jnp.where(polishing, jnp.zeros_like(weight), weight)
    mover = row.pinned(row.changed(best.x) | ~polishing)
    base = here.point + jnp.asarray(config.momentum, dtype) * moved - size * here.slope
    taken = step(
        mover, here, base, size,
        weight=weight, penalty=config.penalty, max_changes=most, gamma_max=config.gamma_max,
    )  # fmt: skip
    gamma = jnp.maximum(0.95 * state.gamma, 1.5 * taken.gamma)
    merit = here.smooth + here.charge + gamma * jnp.maximum(here.gap, 0)

    # The descent ends when its steps are spent, or when it stands still.
    count = state.count + 1
    length = jnp.max(jnp.abs(taken.point - here.point))
    still = (length <= 1e-4 * (1 + jnp.max(jnp.abs(here.point - x)))) & settled & (state.count > 0)
    still = jnp.where(state.phase == EXCHANGE, ~state.gained, still)
    steps, polish, exchanges = (jnp.asarray(n, jnp.int32) for n in (config.steps, config.polish, config.exchanges))
    room = jnp.stack([steps, steps + WARM, polish, exchanges])[jnp.minimum(state.phase, EXCHANGE)]
    over = (count >= room) | still
    phase = jnp.where(over, state.phase + 1, state.phase)
    phase = jnp.where((phase == POLISH) & (~best.found | (polish < 1)), EXCHANGE, phase)
    phase = jnp.where((phase == EXCHANGE) & (row.exact | (exchanges < 1)), END, phase)
    zero = jnp.zeros((), dtype)
    state = state._replace(
        ask=jnp.where(over, jnp.where(phase == POLISH, best.x, x), taken.point),
        here=here,
        merit=jnp.where(over, jnp.inf, merit).astype(dtype),
        moved=moved,
        size=jnp.where(over, jnp.asarray(config.step_size, dtype), size),
        gamma=jnp.where(over, zero, gamma),
        count=jnp.where(over, 0, count),
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


def _probe(ctx: Context, problem: Problem, config: SCFE, state: SCFEState) -> Array:
    if state.candidates is None:
        return jnp.zeros((0, *problem.x.shape), problem.x.dtype)
    row = actions(ctx.constraints, problem)
    return jax.vmap(lambda u: row.snap(u, config.max_changes))(state.candidates)


def _tell_probe(
    ctx: Context, problem: Problem, config: SCFE, state: SCFEState, points: Array, logits: Array
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
    gained = jnp.where(best.found, best.score < state.best.score, nearest.score < state.nearest.score)
    late = best.found & (state.status == Status.NOT_FOUND)
    status = jnp.where(late, Status.FOUND, state.status).astype(jnp.int32)
    return state._replace(best=best, nearest=nearest, gained=gained, status=status)


def _result(ctx: Context, problem: Problem, config: SCFE, state: SCFEState) -> Outcome:
    return state.best.outcome(state.status, state.here.point)


SCFE.method = Method("s-cfe", _init, _ask, _loss, _tell, result=_result, probe=_probe, tell_probe=_tell_probe)


@explained
def DCFE(beta: float = 0.1, tau: float = 1.0, **constants: Any) -> SCFE:
    """DCFE: ``‖r‖² + β ‖r‖_1`` (an elastic net) and the pull of the density's gravity, any number of features changed.

    It takes a density of :func:`invjax.densities.fit_knn`. Source: Zhang, Chen, Wen, Li 2023, as the S-CFE slides give
    it.
    """
    return SCFE(**{"max_changes": NO_LIMIT, "penalty": "l1", "beta": beta, "tau": tau, **constants})
