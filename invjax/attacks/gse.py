"""GSE: group-wise sparse perturbations (Sadiku, Wagner, Pokutta, ICLR 2025).

    min_r  L(f(x + r), t) + λ ‖r‖_{1/2}^{1/2} + regulariser,   x + r in the box,                                  (7)

with L the Carlini-Wagner margin. Phase I runs proximal steps with one weight λ per pixel, which falls near changed
pixels and grows elsewhere: changes gather in groups. Phase II minimises L + regulariser on the subspace V that the
weights have opened. λ is searched per example by bracketing and bisection; of the trials that reach the wanted class
the one with the fewest touched 8x8 windows (d_{2,0}) is kept.

Coordinates: r is measured in units in which the box has width 2, i.e. [-1, 1]: the paper's. All constants are in
these units, whatever the bounds of the data.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from invjax import losses, prox
from invjax.attacks.gse_fast import GSEFastConfig
from invjax.attacks.parts.coordinates import SIGNED, scale, to_data, to_units
from invjax.core import windows as images
from invjax.core.config import STATIC, config, require, require_choice
from invjax.core.errors import BadArgument, Words
from invjax.core.numerics import safe_divide, safe_norm, select
from invjax.solvers import momentum, search
from invjax.types import Array, ArrayLike, Context, Eval, Method, Outcome, Problem, Status

VARIANTS = ("released", "published", "fast")


@config
class GSEConfig:
    """Constants of ``"released"`` and ``"published"``, made by :func:`GSE`. In [-1, 1] coordinates."""

    mu: float = 1.0  # weight of the regulariser, >= 0
    sigma: float = 0.005  # step size, > 0
    k_hat: int = 50  # iterations of phase I
    iterations: int = 200  # iterations of a trial, both phases
    trials: int = 10  # values of λ tried, >= 1
    q: float = 0.25  # 1/q is the growth of λ per iteration where nothing is near, in (0, 1]
    growth: float = 2.0  # λ of the next trial over this one's while no trial has failed, > 1
    start: float = 0.01  # λ of the first trial over λ_max, > 0
    window: int = field(default=8, metadata=STATIC)  # side of the windows of d_{2,0}
    variant: str = field(default="released", metadata=STATIC)

    method: ClassVar[Method]

    def check(self) -> None:
        require(self, "mu", lambda v: v >= 0, "a weight >= 0")
        require(self, "sigma", lambda v: v > 0, "a step > 0")
        require(self, "k_hat", lambda v: v >= 1, "at least 1")
        require(self, "iterations", lambda v: v >= 1, "at least 1")
        require(self, "trials", lambda v: v >= 1, "at least 1")
        require(self, "q", lambda v: 0 < v <= 1, "in (0, 1]")
        require(self, "growth", lambda v: v > 1, "above 1")
        require(self, "start", lambda v: v > 0, "above 0")
        require(self, "window", lambda v: v >= 1, "at least 1")
        require_choice(self, "variant", ("released", "published"))


def GSE(variant: str = "fast", **constants: Any) -> GSEConfig | GSEFastConfig:
    """A GSE configuration: the variant's constants for 32x32 images, any of them replaced by keyword.

    variant: ``"released"``, the authors' code, step for step (its ``k_hat`` is 50 targeted, 30 untargeted);
    ``"published"``, the paper's algorithm; ``"fast"``, ours (:mod:`invjax.attacks.gse_fast`): fewer windows and pixels
    for a tenth of the gradients. The first two are a :class:`GSEConfig`, the last a :class:`GSEFastConfig`.

    Raises ValueError for another variant, TypeError for a constant that the variant does not have.
    """
    if variant not in VARIANTS:
        raise BadArgument("variant", f"be one of {', '.join(map(repr, VARIANTS))}", variant)
    return GSEFastConfig(**constants) if variant == "fast" else GSEConfig(variant=variant, **constants)


class GSEState(NamedTuple):
    z: Array  # [*S] the next point to ask, as a perturbation
    r: Array  # [*S] the last iterate (after the proximal or gradient step, before averaging or extrapolation)
    g0: Array  # [*S] gradient at r = 0: the first step of every trial needs no evaluation
    weights: Array  # [H, W] λ per pixel
    beta: Array  # [] momentum sequence
    k: Array  # [] int32, steps taken in this trial; -1 before the clean input was seen
    lam: search.Bracket  # the search for the largest λ that succeeds; ``lam.value`` is this trial's
    hit: Array  # [*S] the shortest point of this trial with the wanted class, data units (published only)
    hit_norm: Array  # [] its ‖r‖_2; infinity if there is none
    best: Array  # [*S] the point of the best trial, data units
    best_d20: Array  # [] its d_{2,0}; infinity if there is none
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: GSEConfig) -> GSEState:
    if problem.x.ndim != 3:
        raise BadArgument("x", "be images [N, H, W, C] for GSE", Words(f"examples of shape {problem.x.shape}"))
    zero, scalar = jnp.zeros_like(problem.x), jnp.zeros((), problem.x.dtype)
    far = jnp.full((), jnp.inf, problem.x.dtype)
    return GSEState(
        z=zero, r=zero, g0=zero, weights=zero[..., 0], beta=scalar + 1, k=jnp.int32(-1), lam=search.init(scalar),
        hit=problem.x, hit_norm=far, best=problem.x, best_d20=far, status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _ask(ctx: Context, problem: Problem, config: GSEConfig, state: GSEState) -> Array:
    return to_data(problem, state.z, SIGNED)


def _in_phase_one(config: GSEConfig, state: GSEState) -> Array:
    return state.k < config.k_hat


def _loss(ctx: Context, problem: Problem, config: GSEConfig, state: GSEState, point: Array, logits: Array) -> Array:
    """The margin alone: the regulariser needs no network, and its gradient is exact where r is (see ``_tell``)."""
    return losses.margin(logits, problem.label, problem.target)


def _regulariser_grad(config: GSEConfig, state: GSEState) -> Array:
    """∇ of μ‖r‖_2² in both phases (released), or of μ‖r‖_2 in phase II alone (published, (10)), at the asked z."""
    if config.variant == "published":
        direction = safe_divide(state.z, safe_norm(state.z))
        return jnp.where(_in_phase_one(config, state), 0, config.mu) * direction
    return 2 * config.mu * state.z


def half_weight(config: GSEConfig, lam: Array, sigma: Array) -> Array:
    """Weight w of ``prox(v, w) = argmin ½(u-v)² + w √|u|`` that stands for λ.

    The released code solves (u-v)² + λσ√|u|, without the ½: w = λσ/2. The published form has w = λσ.
    """
    return lam * sigma * (1.0 if config.variant == "published" else 0.5)


def lambda_max(config: GSEConfig, g: Array, sigma: Array) -> Array:
    """The smallest λ for which the first proximal step, from 0 along the gradient g, stays at 0 (closed form).

    Released: 1.0887 √σ ‖g‖_inf^{3/2}; its code searches for it by doubling and 50 bisections.
    """
    return prox.l_half_zero_weight(sigma * jnp.max(jnp.abs(g))) / half_weight(config, jnp.ones_like(sigma), sigma)


def grow_weights(weights: Array, r: Array, q: ArrayLike) -> Array:
    """λ_{t+1} = λ_t / M̄: M̄ = blur + 1 near changed pixels (λ falls), q elsewhere (λ grows). [H, W]."""
    near = images.gaussian_blur(images.changed(r).astype(weights.dtype))
    return weights / jnp.where(near > 0, near + 1, q)


def _step(config: GSEConfig, problem: Problem, state: GSEState, grad: Array, sigma: Array) -> GSEState:
    """One iteration from the asked point z with its gradient."""
    # In [-1, 1] coordinates, so that r is rounded as in the released code: this is its only rounding that matters.
    u = safe_divide(problem.x - (problem.upper + problem.lower) / 2, scale(problem, SIGNED))

    def clip(r: Array) -> Array:
        return jnp.clip(u + r, -1, 1) - u

    beta = momentum.next_beta(state.beta)
    first_phase = _in_phase_one(config, state)
    w = half_weight(config, state.weights, sigma)[..., None]
    if config.variant == "released":
        # V keeps λ <= λ_0. At the switch z is restricted but its gradient is not taken anew, as in the released code.
        closed = (state.weights > state.lam.value)[..., None] & ~first_phase
        at_switch = state.k == config.k_hat
        z = jnp.where(closed & at_switch, 0, state.z)
        old = jnp.where(at_switch, z, state.r)
        v = z - sigma * grad
        r = jnp.where(first_phase, prox.l_half(v, w), jnp.where(closed, 0, v))
        # The released "acceleration" is a convex average of the last two iterates, not an extrapolation.
        share = state.beta / beta
        z = share * r + (1 - share) * old
        weights = jnp.where(first_phase, grow_weights(state.weights, z, config.q), state.weights)
        return state._replace(z=clip(z), r=r, weights=weights, beta=beta, k=state.k + 1)
    v = state.z - sigma * grad
    opened = (state.weights < state.lam.value)[..., None]
    r = clip(jnp.where(first_phase, prox.l_half(v, w), jnp.where(opened, v, 0)))
    weights = jnp.where(first_phase, grow_weights(state.weights, r, config.q), state.weights)
    # Phase II begins at the restriction of r to V = {λ < λ_0}, with fresh momentum.
    at_switch = state.k + 1 == config.k_hat
    restricted = jnp.where((weights < state.lam.value)[..., None], r, 0)
    z = clip(jnp.where(at_switch, restricted, r + momentum.extrapolation(state.beta, beta) * (r - state.r)))
    r = jnp.where(at_switch, restricted, r)
    return state._replace(
        z=z, r=r, weights=weights, beta=jnp.where(at_switch, jnp.ones_like(beta), beta), k=state.k + 1
    )


def _judge(config: GSEConfig, problem: Problem, state: GSEState, ev: Eval, reached: Array) -> tuple[GSEState, Array]:
    """Whether the trial has ended, and its point in ``hit``."""
    if config.variant == "released":  # ends at the first success, in either phase
        far = jnp.full_like(state.hit_norm, jnp.inf)
        state = state._replace(hit=ev.point, hit_norm=jnp.where(reached, jnp.zeros_like(far), far))
        return state, reached | (state.k >= config.iterations)
    norm = safe_norm(to_units(problem, ev.point, SIGNED))
    better = reached & ~_in_phase_one(config, state) & (norm < state.hit_norm)
    state = state._replace(hit=jnp.where(better, ev.point, state.hit), hit_norm=jnp.where(better, norm, state.hit_norm))
    return state, state.k >= config.iterations


def _tell(ctx: Context, problem: Problem, config: GSEConfig, state: GSEState, ev: Eval) -> GSEState:
    grad = ev.grad * scale(problem, SIGNED) + _regulariser_grad(config, state)
    first = state.k < 0
    reached = losses.reached(ev.logits, problem.label, problem.target)

    state, ended = _judge(config, problem, state, ev, reached)
    ended &= ~first
    success = ended & jnp.isfinite(state.hit_norm)
    d20 = images.window_count(images.changed(state.hit - problem.x), config.window).astype(grad.dtype)
    better = success & (d20 < state.best_d20)
    best_d20 = jnp.where(better, d20, state.best_d20)

    g0 = jnp.where(first, grad, state.g0)
    sigma = jnp.asarray(config.sigma, grad.dtype)
    lam = select(ended, search.seek_largest(state.lam, success, grow=config.growth), state.lam)
    lam = select(first, search.init(config.start * lambda_max(config, g0, sigma)), lam)
    # The last two trials of an example without a success take ten times the step.
    bold = (lam.trials >= config.trials - 2) & jnp.isinf(best_d20)
    sigma = sigma * jnp.where(bold, 10, 1).astype(sigma.dtype)

    fresh = first | ended
    status = jnp.where(
        first & reached,
        Status.ALREADY_TARGET,
        jnp.where(
            lam.trials < config.trials,
            Status.PENDING,
            jnp.where(jnp.isfinite(best_d20), Status.FOUND, Status.NOT_FOUND),
        ),
    ).astype(jnp.int32)
    state = state._replace(
        z=jnp.where(fresh, 0, state.z),
        r=jnp.where(fresh, 0, state.r),
        g0=g0,
        weights=jnp.where(fresh, lam.value, state.weights),
        beta=jnp.where(fresh, 1, state.beta),
        k=jnp.where(fresh, 0, state.k),
        lam=lam,
        hit_norm=jnp.where(fresh, jnp.inf, state.hit_norm),
        best=jnp.where(better, state.hit, state.best),
        best_d20=best_d20,
        status=status,
    )
    return _step(config, problem, state, jnp.where(fresh, g0, grad), sigma)


def _result(ctx: Context, problem: Problem, config: GSEConfig, state: GSEState) -> Outcome:
    found = jnp.isfinite(state.best_d20)  # also where the network broke afterwards
    status = jnp.where(found, Status.FOUND, state.status)
    return Outcome(state.best, status, jnp.where(found, state.best, _ask(ctx, problem, config, state)))


GSEConfig.method = Method("gse", _init, _ask, _loss, _tell, result=_result)
