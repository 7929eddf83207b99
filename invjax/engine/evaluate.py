"""How the engine looks at the network: value, gradient and logits of all asked points in one call.

An evaluator is a function ``(method, ctx, config, problems, states, points) -> Eval`` of batched arguments; pass
another one to ``solve(evaluator=...)`` for a black box, a surrogate or a narrower precision.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from invjax.core.errors import BadArgument
from invjax.core.numerics import at_least_float32, lifted, promoting
from invjax.types import Array, Config, Context, Eval, Method, Problem, State


def forward(ctx: Context, points: Array) -> Array:
    """Logits of ``points`` [B, q, *S] -> [B, q, K] in one call of the network on [B·q, *S]."""
    lanes, width = points.shape[:2]
    logits = at_least_float32(ctx.logits(points.reshape((lanes * width, *points.shape[2:]))))
    return logits.reshape(lanes, width, -1)


def losses_at(
    method: Method, ctx: Context, config: Config, problems: Problem, states: State, wide: Array, logits: Array
) -> Array:
    """The method's loss [B, P] at points ``wide`` [B, P, *S] with these logits [B, P, K]; at least float32."""

    def one(problem: Problem, state: State, points: Array, logits: Array) -> Array:
        return jax.vmap(lambda u, z: promoting(method.loss)(ctx, problem, config, state, u, z))(points, logits)

    return jax.vmap(one)(*lifted((problems, states, wide, logits)))


def loss_gradients(
    method: Method, ctx: Context, config: Config, problems: Problem, states: State, wide: Array, logits: Array
) -> tuple[Array, Array, Array]:
    """Values [B, P] of :func:`losses_at`, direct gradients [B, P, *S] and gradients in the logits [B, P, K]."""

    def one(problem: Problem, state: State, point: Array, logits: Array) -> tuple[Array, tuple[Array, Array]]:
        return jax.value_and_grad(
            lambda u, z: promoting(method.loss)(ctx, problem, config, state, u, z), argnums=(0, 1)
        )(point, logits)

    per_lane = jax.vmap(one, in_axes=(None, None, 0, 0))
    values, (direct, through) = jax.vmap(per_lane)(*lifted((problems, states, wide, logits)))
    return values, direct, through


def pulled(pull: Callable[[Array], tuple[Array]], through: Array) -> Array:
    """Gradients through the network, at least float32, from those in its logits, ``through`` [B, P, K].

    pull: of ``jax.vjp``. In 16 bits a small gradient would become 0 on its way: the network is given one of about
    size 1, and a power of two takes it back.
    """
    exponent = jnp.frexp(jnp.max(jnp.abs(through), axis=-1, keepdims=True))[1]
    grad = at_least_float32(pull(jnp.ldexp(through, -exponent))[0])
    return jnp.ldexp(grad, exponent.reshape(exponent.shape[:2] + (1,) * (grad.ndim - 2)))


def evaluation(method: Method, problems: Problem, wide: Array, values: Array, grad: Array, logits: Array) -> Eval:
    """The Eval of points [B, P, *S]: gradient 0 where x may not change, no axis P for a method without a width."""
    if problems.mask is not None:
        grad = jnp.where(problems.mask[:, None], grad, jnp.zeros_like(grad))
    dtype = lifted(wide).dtype
    result = Eval(wide, values.astype(dtype), grad.astype(dtype), logits)
    return result if method.width is not None else jax.tree.map(lambda field: field[:, 0], result)


def forward_only(method: Method, ctx: Context, config: Config, problems: Problem, states: State, wide: Array) -> Eval:
    """Evaluate a method that needs no gradient: one forward pass, and zeros for the gradient."""
    logits = forward(ctx, wide)
    values = losses_at(method, ctx, config, problems, states, wide, logits)
    return evaluation(method, problems, wide, values, jnp.zeros_like(wide), logits)


def white_box(method: Method, ctx: Context, config: Config, problems: Problem, states: State, points: Array) -> Eval:
    """The exact gradient, by one ``value_and_grad`` through one call of the network.

    points: [B, *S], or [B, P, *S] for a method of width P. The losses are summed: no example's gradient sees another
    example, as long as the network itself does not mix its batch. Query methods cost a forward pass only.
    """
    wide = points if method.width is not None else points[:, None]
    if not method.needs_grad:
        return forward_only(method, ctx, config, problems, states, wide)

    def total(wide: Array) -> tuple[Array, tuple[Array, Array]]:
        logits = forward(ctx, wide)
        values = losses_at(method, ctx, config, problems, states, wide, logits)
        return values.sum(), (values, logits)

    try:
        if jnp.finfo(wide.dtype).bits < 32:
            logits, pull = jax.vjp(lambda points: forward(ctx, points), wide)
            values, grad, through = loss_gradients(method, ctx, config, problems, states, wide, logits)
            grad = grad + pulled(pull, through)
        else:
            grad, (values, logits) = jax.grad(total, has_aux=True)(wide)
    except (ValueError, TypeError, NotImplementedError) as error:
        if "JVP" not in str(error) and "differentiat" not in str(error):  # jax has no type for it
            raise
        hint = "take a method by queries, or an evaluator that estimates them (engine.antithetic, engine.surrogate)"
        wanted = f"be differentiable for {method.name!r}, which asks for gradients ({error})"
        raise BadArgument("logits", wanted, hint=hint) from error
    return evaluation(method, problems, wide, values, grad, logits)
