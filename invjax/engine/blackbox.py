"""Evaluators for classifiers without a gradient: antithetic finite differences, or the gradient of a surrogate.

Both give the exact value of the loss at the black box's logits z(x), and its gradient by the chain rule

    ∇ = ∂loss/∂x at fixed z   (exact: density, proximity, everything but the network)   +   Ĵᵀ ∂loss/∂z

with Ĵ an estimate of the Jacobian of z. Pass them to ``solve(evaluator=...)``; a classifier becomes a function of jax
by :func:`invjax.models.blackbox.black_box`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check_whole
from invjax.core.meant import explained
from invjax.core.numerics import lifted, normal, safe_divide
from invjax.engine.evaluate import evaluation, forward, forward_only, loss_gradients, pulled
from invjax.types import Array, Config, Context, Eval, Method, Problem, State


# ---------------------------------------------------------------------------------------------------------------------
# Finite differences
# ---------------------------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Antithetic:
    """The evaluator that :func:`antithetic` makes; equal options are the same program."""

    samples: int
    scale: tuple[float, ...]
    coordinates: bool

    def calls(self, shape: tuple[int, ...]) -> int:
        """Points at which the network is called for one value and gradient; shape: that of one example."""
        return 1 + 2 * (int(np.prod(shape)) if self.coordinates else self.samples)

    def __call__(
        self, method: Method, ctx: Context, config: Config, problems: Problem, states: State, points: Array
    ) -> Eval:
        wide = points if method.width is not None else points[:, None]  # [B, P, *S]
        lanes, width, shape = wide.shape[0], wide.shape[1], wide.shape[2:]
        if not method.needs_grad:
            return forward_only(method, ctx, config, problems, states, wide)

        exact = lifted(wide)  # of points in 16 bits: where they are, and how far apart, is computed in 32
        step = self._step(shape, exact.dtype)
        around, steps, direct = jax.vmap(lambda problem, points: self._around(problem, points, step))(
            lifted(problems), exact
        )
        pairs = steps.shape[2]  # around: [B, P, 2, pairs, *S]
        around = around.astype(wide.dtype).reshape(lanes, width, 2 * pairs, *shape)
        asked = jnp.concatenate([wide[:, :, None], around], axis=2)
        logits = forward(ctx, asked.reshape(lanes, width * (1 + 2 * pairs), *shape))
        logits = logits.reshape(lanes, width, 1 + 2 * pairs, -1)
        center, sides = logits[:, :, 0], logits[:, :, 1:].reshape(lanes, width, 2, pairs, -1)

        values, own, through = loss_gradients(method, ctx, config, problems, states, wide, center)
        rise = jnp.einsum("bpnk,bpk->bpn", sides[:, :, 0] - sides[:, :, 1], through).astype(exact.dtype)
        network = jnp.einsum("bpn,bpn...->bp...", rise, direct)
        return evaluation(method, problems, wide, values, own + network, center)

    def _step(self, shape: tuple[int, ...], dtype: Any) -> Array:
        scale = jnp.asarray(self.scale, dtype)
        if scale.size not in (1, int(np.prod(shape))):
            raise BadArgument("scale", f"be one number or one per column of {shape}", Words(scale.size))
        return jnp.broadcast_to(scale.reshape(shape) if scale.size > 1 else scale.reshape(()), shape)

    def _around(self, problem: Problem, points: Array, step: Array) -> tuple[Array, Array, Array]:
        """For points [P, *S] of one problem: x ± h u [P, 2, n, *S], h u, and u / (2 n h), the weights of the rises."""
        room = jnp.broadcast_to(problem.upper - problem.lower, step.shape)
        if problem.mask is not None:
            room = jnp.where(problem.mask, room, jnp.zeros_like(room))

        def one(index: Array, point: Array) -> tuple[Array, Array, Array]:
            if self.coordinates:
                u = jnp.eye(step.size, dtype=step.dtype).reshape(step.size, *step.shape)
                count = 1
            else:
                u = _directions(jax.random.fold_in(_counter(problem.key, point), index), self.samples, step)
                count = self.samples
            # Both ends stay in the box, and apart: a narrow column gets a smaller step, a point at an edge is
            # differenced a little inside it. One step per column, the same for all directions: Ĵ stays unbiased.
            reach = jnp.max(jnp.abs(u), axis=0)
            h = jnp.minimum(step, safe_divide(room, 2 * reach))
            h = jnp.where((reach > 0) & (room > 0), h, jnp.zeros_like(h))
            move = h * u
            lower, upper = problem.lower + jnp.abs(move), problem.upper - jnp.abs(move)
            inside = jnp.where(move != 0, jnp.maximum(jnp.minimum(point, upper), lower), point)
            return jnp.stack([inside + move, inside - move]), move, safe_divide(u, 2 * count * h)

        return jax.vmap(one)(jnp.arange(points.shape[0]), points)


def _counter(key: Array, point: Array) -> Array:
    """``key`` folded with the bits of the point: new directions at a new point, whatever the lane or the iteration."""
    bits = jax.lax.bitcast_convert_type(point, jnp.uint32).reshape(-1)
    odd = 2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1
    return jax.random.fold_in(key, jnp.sum(bits * odd * jnp.uint32(2654435761), dtype=jnp.uint32))


def _directions(key: Array, samples: int, like: Array) -> Array:
    """[n, *S] directions of length sqrt(D), orthogonal in blocks of D: mean u uᵀ is I, exactly if D divides n."""
    size = like.size
    blocks = -(-samples // size)
    draws = normal(key, (blocks, size, min(samples, size)), like.dtype)
    q, r = jnp.linalg.qr(draws)
    # The signs of R's diagonal make Q uniformly distributed.
    q = q * jnp.where(jnp.diagonal(r, axis1=1, axis2=2) < 0, -1, 1).astype(q.dtype)[:, None]
    rows = jnp.swapaxes(q, 1, 2).reshape(-1, size)[:samples]
    return (rows * jnp.sqrt(jnp.asarray(size, like.dtype))).reshape(samples, *like.shape)


@kinds_checked
def antithetic(samples: int = 16, scale: float | Any = 0.1, *, coordinates: bool = False) -> Antithetic:
    """The gradient of a black box by central differences, all lanes and points in one call of the network.

        Ĵ = 1/(2n) Σ_i (z(x + h∘u_i) - z(x - h∘u_i)) (u_i / h)ᵀ

    u_i: directions of length sqrt(D), drawn from the example's key and the point (orthogonal, so that Ĵ of a linear z
    is exact once n is a multiple of D); or the D unit vectors. The points stay in the example's limits.

    Args:
      samples: n, pairs of points per gradient, >= 1; not used with ``coordinates``. Static.
      scale: h in model coordinates, > 0: one number, or one per column. A forest is constant between its thresholds:
        let h span a few of them. Static.
      coordinates: central differences along each column, 2 D points: less noise, for few columns.

    Returns:
      An evaluator for ``solve(evaluator=...)``. ``result.evaluations`` counts one per gradient; of the
      ``evaluator.calls(shape)`` points that each looks at, all but the asked one count as ``result.forwards``.

    Raises:
      ValueError: ``samples`` is not a positive integer, ``scale`` not positive; at the call, ``scale`` has another
        length than the example.
    """
    samples = check_whole("samples", samples)
    values = np.asarray(scale, np.float64).reshape(-1)
    numbers = values.size and np.asarray(scale).dtype.kind != "b"
    if not numbers or not np.isfinite(values).all() or not (values > 0).all():
        raise BadArgument("scale", "be positive", scale)
    return Antithetic(samples, tuple(values.tolist()), bool(coordinates))


# ---------------------------------------------------------------------------------------------------------------------
# A surrogate
# ---------------------------------------------------------------------------------------------------------------------
@explained
def surrogate(method: Method, ctx: Context, config: Config, problems: Problem, states: State, points: Array) -> Eval:
    """Logits and values of the black box, gradients through the network beside it; one call of each.

        Ĵ = the Jacobian of the surrogate at x;   ∂loss/∂z at the black box's own logits

    ``ctx.logits`` is what :func:`invjax.models.blackbox.with_surrogate` makes: anything called like the black box that
    has a differentiable classifier in its attribute ``surrogate``. Its weights are traced like those of any network.
    """
    beside = getattr(ctx.logits, "surrogate", None)
    if beside is None:
        raise BadArgument("logits", "be with_surrogate(model, surrogate) for this evaluator", Words("no surrogate"))
    wide = points if method.width is not None else points[:, None]
    if not method.needs_grad:
        return forward_only(method, ctx, config, problems, states, wide)
    logits = forward(ctx, wide)
    values, own, through = loss_gradients(method, ctx, config, problems, states, wide, logits)
    _, pull = jax.vjp(lambda u: forward(ctx._replace(logits=beside), u), wide)
    network = pulled(pull, through) if jnp.finfo(wide.dtype).bits < 32 else pull(through)[0]
    return evaluation(method, problems, wide, values, own + network, logits)
