"""SAIF: sparse perturbations by Frank–Wolfe on a mask and a perturbation together (Imtiaz et al. 2022).

    min_{s, p}  L(f(x + s ⊙ p), t)    s.t.  0 <= s <= 1,  Σ s <= k,   ‖p‖_∞ <= ε,  x + p in the box                (1)

with L the cross-entropy. Both sets have closed-form oracles (:mod:`invjax.solvers.frank_wolfe`): the k most negative
entries of ∇_s = p ⊙ ∇L, and the end of each interval that s ⊙ ∇L points away from. The step is 1 / (2^j √(t + 1))
with the smallest j, never less than before, that does not raise L. p starts at its oracle at x, s at the k largest
gains.

s is a convex combination, whose support outgrows k: what is judged and returned is s restricted to its k largest
entries, so that at most k units change. Deviations from the released code: signs of a targeted start; the step is the
example's own, not the batch's; the oracle of p knows the box. r is in [-1, 1] units.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses, projections
from invjax.attacks.parts.coordinates import SIGNED, room, scale, to_data
from invjax.attacks.parts.units import need_image
from invjax.core.config import STATIC, config, require, require_choice
from invjax.solvers import frank_wolfe
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status

UNITS = ("feature", "pixel")


@config
class SAIF:
    """The attack's constants, r in [-1, 1] units.

    Fields:
      max_changes: k, units that may change, >= 1. (The GSE comparison: 50 targeted and 25 untargeted at 32 px, 500 and
        50 at 224 px.)
      eps: bound on every |p|, > 0.
      steps: Frank–Wolfe steps, >= 1.
      halvings: j of the first step, >= 0.
      kappa: confidence, logit units, >= 0.
      unit: "feature", or "pixel": all channels of a pixel share their s (static).
      probes: step sizes tried per iteration, >= 1 (static).

    Stops at the first success. Evaluations per example: at most 1 + steps, and probes + 1 times as many forwards.
    """

    max_changes: int = 50
    eps: float = 1.0
    steps: int = 200
    halvings: int = 1
    kappa: float = 0.0
    unit: str = field(default="feature", metadata=STATIC)
    probes: int = field(default=3, metadata=STATIC)

    method: ClassVar[Method]

    def check(self) -> None:
        require(self, "max_changes", lambda v: v >= 1, "at least 1")
        require(self, "eps", lambda v: v > 0, "a bound > 0")
        require(self, "steps", lambda v: v >= 1, "at least 1")
        require(self, "halvings", lambda v: v >= 0, "at least 0")
        require(self, "kappa", lambda v: v >= 0, "a margin >= 0")
        require(self, "probes", lambda v: v >= 1, "at least 1")
        require_choice(self, "unit", UNITS)


class SAIFState(NamedTuple):
    p: Array  # [*S] the perturbation
    s: Array  # [*S], or [H, W, 1] for pixels: the mask
    p_vertex: Array  # [*S] where p goes
    s_vertex: Array  # as s: where s goes
    value: Array  # [] loss at s ⊙ p
    halvings: Array  # [] int32, j
    k: Array  # [] int32, steps taken; -1 before the clean input was seen
    best: Array  # [*S] a point with the wanted class, data units
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: SAIF) -> SAIFState:
    if config.unit == "pixel":
        need_image(problem, "SAIF with unit='pixel'")
    zero, scalar = jnp.zeros_like(problem.x), jnp.zeros((), problem.x.dtype)
    mask = _per_unit(config, zero)
    return SAIFState(
        zero, mask, zero, mask, scalar, jnp.int32(config.halvings), jnp.int32(-1), problem.x, jnp.int32(Status.PENDING)
    )


def _per_unit(config: SAIF, a: Array) -> Array:
    """Sums over each unit, in the shape of s."""
    return jnp.sum(a, axis=-1, keepdims=True) if config.unit == "pixel" else a


def _ask(ctx: Context, problem: Problem, config: SAIF, state: SAIFState) -> Array:
    return to_data(problem, state.s * state.p, SIGNED)


def _loss(ctx: Context, problem: Problem, config: SAIF, state: SAIFState, point: Array, logits: Array) -> Array:
    return losses.cross_entropy(logits, problem.label, problem.target)


def _tell(ctx: Context, problem: Problem, config: SAIF, state: SAIFState, ev: Eval) -> SAIFState:
    first = state.k < 0
    clean = first & losses.reached(ev.logits, problem.label, problem.target)
    grad = ev.grad * scale(problem, SIGNED)
    low, high = room(problem, config.eps, SIGNED)
    # At the clean input s ⊙ ∇L = 0 says nothing: p is the oracle at s = 1, then s the oracle at that p.
    of_p = jnp.where(first, grad, state.s * grad)
    p_vertex = frank_wolfe.of_box(of_p, low, high, otherwise=state.p)
    p = jnp.where(first, p_vertex, state.p)
    s_vertex = frank_wolfe.of_capped_simplex(_per_unit(config, p * grad), config.max_changes)
    status = jnp.where(clean, Status.ALREADY_TARGET, state.status).astype(jnp.int32)
    return state._replace(
        p=p,
        s=jnp.where(first, s_vertex, state.s),
        p_vertex=p_vertex,
        s_vertex=s_vertex,
        value=ev.value,
        k=state.k + jnp.int32(1),
        status=status,
    )


def _steps(config: SAIF, state: SAIFState) -> Array:
    """The step sizes tried, [q]."""
    turns = (state.halvings + jnp.arange(config.probes)).astype(state.p.dtype)
    return jnp.asarray(0.5, state.p.dtype) ** turns / jnp.sqrt((jnp.maximum(state.k, 1) + 1).astype(state.p.dtype))


def _moved(state: SAIFState, step: Array) -> tuple[Array, Array]:
    """(p, s) after a step."""
    return frank_wolfe.move(state.p, state.p_vertex, step), frank_wolfe.move(state.s, state.s_vertex, step)


def _sparse(problem: Problem, config: SAIF, state: SAIFState) -> Array:
    """The iterate with the k largest entries of s alone, in data units."""
    return to_data(problem, projections.top_m(state.s, config.max_changes) * state.p, SIGNED)


def _probe(ctx: Context, problem: Problem, config: SAIF, state: SAIFState) -> Array:

    def after(step: Array) -> Array:
        p, s = _moved(state, step)
        return to_data(problem, s * p, SIGNED)

    soft = jax.vmap(after)(_steps(config, state))
    return jnp.concatenate([_sparse(problem, config, state)[None], soft])


def _tell_probe(
    ctx: Context, problem: Problem, config: SAIF, state: SAIFState, points: Array, logits: Array
) -> SAIFState:
    pending = state.status == Status.PENDING
    success = losses.gap(logits[0], problem.label, problem.target) < -config.kappa
    success &= pending & jnp.any(points[0] != problem.x)
    values = jax.vmap(lambda z: losses.cross_entropy(z, problem.label, problem.target))(logits[1:])
    down = values.astype(state.value.dtype) <= state.value
    index = jnp.argmax(down)
    p, s = _moved(state, _steps(config, state)[index])
    # The first iterate is the start itself, of which no loss is known yet: it stays, to be asked.
    taken = down.any() & (state.k > 0)
    more = jnp.where(down.any(), index, config.probes)
    status = jnp.where(success, Status.FOUND, jnp.where(state.k >= config.steps, Status.NOT_FOUND, Status.PENDING))
    return state._replace(
        p=jnp.where(taken, p, state.p),
        s=jnp.where(taken, s, state.s),
        halvings=(state.halvings + jnp.where(state.k > 0, more, 0)).astype(jnp.int32),
        best=jnp.where(success, points[0], state.best),
        status=jnp.where(pending, status, state.status).astype(jnp.int32),
    )


def _result(ctx: Context, problem: Problem, config: SAIF, state: SAIFState) -> Outcome:
    found = state.status == Status.FOUND
    return Outcome(state.best, state.status, jnp.where(found, state.best, _sparse(problem, config, state)))


SAIF.method = Method("saif", _init, _ask, _loss, _tell, result=_result, probe=_probe, tell_probe=_tell_probe)
