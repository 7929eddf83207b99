"""SAIF: sparse perturbations by Frank–Wolfe on a mask and a perturbation together (Imtiaz et al. 2022).

    min_{s, p}  L(f(x + s ⊙ p), t)    s.t.  0 <= s <= 1,  Σ s <= k,   ‖p‖_∞ <= ε,  x + p in the box                (1)

with L the cross-entropy, in the form that does not saturate (:func:`invjax.losses.log_odds`). Both sets have
closed-form oracles (:mod:`invjax.solvers.frank_wolfe`): the k most negative entries of ∇_s = p ⊙ ∇L, and the end of
each interval that s ⊙ ∇L points away from. The step size is 1 / (2^j √(t + 1)) with the smallest j, never less than
before, that does not raise L. p starts at its oracle at x, s at the k largest gains.

s is a convex combination, whose support outgrows k. So the point that is judged and returned has only the k largest
entries of s: at most k units change. Deviations from the released code: the signs of a targeted start are right; each
example has a step size of its own, not the batch's; the oracle of p knows the box. r is in [-1, 1] units.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses, projections
from invjax.attacks.parts.coordinates import SIGNED, room, scale, to_data
from invjax.attacks.parts.units import need_image
from invjax.core.config import OPEN, STATIC, config, require_above, require_at_least
from invjax.solvers import frank_wolfe
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status


@config
class SAIF:
    """The attack's constants, r in [-1, 1] units.

    Fields:
      k: units that may change, >= 1. (The GSE comparison: 50 targeted and 25 untargeted at 32 px, 500 and 50 at 224
        px.)
      eps: bound on every |p|, > 0.
      steps: Frank–Wolfe steps, >= 1.
      halvings: j of the first step, >= 0.
      kappa: margin of a success, logit units, >= 0.
      unit: "feature", or "pixel": all channels of a pixel share one entry of s (static).
      probes: step sizes probed in each step, >= 1 (static).

    Stops at the first success. Evaluations per example: at most 1 + steps, and probes + 1 times as many forwards.
    """

    k: int = 50
    eps: float = field(default=1.0, metadata=OPEN)
    steps: int = 200
    halvings: int = 1
    kappa: float = 0.0
    unit: Literal["feature", "pixel"] = field(default="feature", metadata=STATIC)
    probes: int = field(default=3, metadata=STATIC)

    RENAMED: ClassVar = {"max_changes": "k"}
    method: ClassVar[Method]

    def check(self) -> None:
        require_at_least(self, 1, "k", "steps", "probes")
        require_above(self, 0, "eps")
        require_at_least(self, 0, "halvings", "kappa")


class SAIFState(NamedTuple):
    p: Array  # [*S] the perturbation
    s: Array  # [*S], or [H, W, 1] for pixels: the mask
    p_vertex: Array  # [*S] where p goes
    s_vertex: Array  # as s: where s goes
    value: Array  # [] loss at s ⊙ p
    halvings: Array  # [] int32, j
    count: Array  # [] int32, steps taken; -1 before the clean input was seen
    best: Best  # the first success, scored 0
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: SAIF) -> SAIFState:
    if config.unit == "pixel":
        need_image(problem, "SAIF with unit='pixel'")
    zero, scalar = jnp.zeros_like(problem.x), jnp.zeros((), problem.x.dtype)
    mask = _per_unit(config, zero)
    halvings, status = jnp.int32(config.halvings), jnp.int32(Status.PENDING)
    return SAIFState(zero, mask, zero, mask, scalar, halvings, jnp.int32(-1), nothing(problem), status)


def _per_unit(config: SAIF, a: Array) -> Array:
    """Sums over each unit, in the shape of s."""
    return jnp.sum(a, axis=-1, keepdims=True) if config.unit == "pixel" else a


def _ask(ctx: Context, problem: Problem, config: SAIF, state: SAIFState) -> Array:
    return to_data(problem, state.s * state.p, SIGNED, config.eps)


def _loss(ctx: Context, problem: Problem, config: SAIF, state: SAIFState, point: Array, logits: Array) -> Array:
    return losses.log_odds(logits, problem.label, problem.target)


def _tell(ctx: Context, problem: Problem, config: SAIF, state: SAIFState, ev: Eval) -> SAIFState:
    first = state.count < 0
    clean = first & losses.reached(ev.logits, problem.label, problem.target)
    grad = ev.grad * scale(problem, SIGNED)
    low, high = room(problem, config.eps, SIGNED)
    # At the clean input s ⊙ ∇L = 0 says nothing. So p is the oracle at s = 1, and s the oracle at that p.
    of_p = jnp.where(first, grad, state.s * grad)
    p_vertex = frank_wolfe.of_box(of_p, low, high, otherwise=state.p)
    p = jnp.where(first, p_vertex, state.p)
    s_vertex = frank_wolfe.of_capped_simplex(_per_unit(config, p * grad), config.k)
    return state._replace(
        p=p,
        s=jnp.where(first, s_vertex, state.s),
        p_vertex=p_vertex,
        s_vertex=s_vertex,
        value=ev.value,
        count=state.count + jnp.int32(1),
        status=jnp.where(clean, Status.ALREADY_TARGET, state.status).astype(jnp.int32),
    )


def _sizes(config: SAIF, state: SAIFState) -> Array:
    """The step sizes probed, [q]."""
    dtype = state.p.dtype
    turns = (state.halvings + jnp.arange(config.probes)).astype(dtype)
    return jnp.asarray(0.5, dtype) ** turns / jnp.sqrt((jnp.maximum(state.count, 1) + 1).astype(dtype))


def _moved(state: SAIFState, size: Array) -> tuple[Array, Array]:
    """(p, s) after a step of this size."""
    return frank_wolfe.move(state.p, state.p_vertex, size), frank_wolfe.move(state.s, state.s_vertex, size)


def _sparse(problem: Problem, config: SAIF, state: SAIFState) -> Array:
    """The iterate with only the k largest entries of s, in data units."""
    return to_data(problem, projections.top_m(state.s, config.k) * state.p, SIGNED, config.eps)


def _probe(ctx: Context, problem: Problem, config: SAIF, state: SAIFState) -> Array:
    soft = jax.vmap(lambda size: to_data(problem, jnp.multiply(*_moved(state, size)), SIGNED, config.eps))(
        _sizes(config, state)
    )
    return jnp.concatenate([_sparse(problem, config, state)[None], soft])


def _tell_probe(
    ctx: Context, problem: Problem, config: SAIF, state: SAIFState, points: Array, logits: Array
) -> SAIFState:
    clean = state.status == Status.ALREADY_TARGET
    success = losses.gap(logits[0], problem.label, problem.target) < -config.kappa
    success &= ~clean & jnp.any(points[0] != problem.x)
    values = jax.vmap(lambda z: losses.log_odds(z, problem.label, problem.target))(logits[1:])
    down = values.astype(state.value.dtype) <= state.value
    index = jnp.argmax(down)
    p, s = _moved(state, _sizes(config, state)[index])
    # The first iterate is the start itself, whose loss is not known yet: it stays, to be asked next.
    taken = down.any() & (state.count > 0)
    more = jnp.where(down.any(), index, config.probes)
    best = state.best.offer(points[0], 0, success)
    return state._replace(
        p=jnp.where(taken, p, state.p),
        s=jnp.where(taken, s, state.s),
        halvings=(state.halvings + jnp.where(state.count > 0, more, 0)).astype(jnp.int32),
        best=best,
        status=best.status(clean, success | (state.count >= config.steps)),
    )


def _result(ctx: Context, problem: Problem, config: SAIF, state: SAIFState) -> Outcome:
    return state.best.outcome(state.status, _sparse(problem, config, state))


SAIF.method = Method("saif", _init, _ask, _loss, _tell, result=_result, probe=_probe, tell_probe=_tell_probe)
