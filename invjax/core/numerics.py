"""Arithmetic that stays finite: safe norms, per-lane selection, dtype helpers.

Attacks start at r = 0, where the gradient of a plain ``‖r‖`` is NaN; and ``where`` passes a NaN of the branch it does
not take into the gradient. So every norm here has the subgradient 0 at 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from invjax.types import Array, ArrayLike

Tree = TypeVar("Tree")
Out = TypeVar("Out")


def safe_sqrt(v: Array) -> Array:
    """``sqrt(v)`` for v >= 0, with derivative 0 (instead of infinity) at v = 0."""
    positive = v > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, v, jnp.ones_like(v))), jnp.zeros_like(v))


def safe_norm(r: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    """``‖r‖_2`` over ``axis`` (all axes by default), with the subgradient 0 at r = 0."""
    return safe_sqrt(jnp.sum(jnp.square(r), axis=axis, keepdims=keepdims))


def safe_divide(a: Array, b: Array) -> Array:
    """``a / b`` where b is not 0, else 0."""
    nonzero = b != 0
    return jnp.where(nonzero, a / jnp.where(nonzero, b, jnp.ones_like(b)), jnp.zeros_like(a / jnp.ones_like(b)))


def select(mask: Array, a: Tree, b: Tree) -> Tree:
    """Per lane ``a`` where ``mask`` else ``b``, leaf by leaf.

    mask: [B] (or []) bool; leaves of ``a`` and ``b``: [B, ...], typed PRNG keys included.
    """

    def pick(u: Any, v: Any) -> Any:
        return jnp.where(mask.reshape(mask.shape + (1,) * (jnp.ndim(u) - mask.ndim)), u, v)

    return jax.tree.map(pick, a, b)


def replace_if(needed: Array, make: Callable[[Tree], Array], argument: Tree, otherwise: Array) -> Array:
    """``make(argument)`` where ``needed`` [] bool, else ``otherwise``. For values that are expensive and rarely needed.

    Under ``vmap`` a ``lax.cond`` computes both branches at every call. A loop of at most one turn takes none unless
    some lane needs it. ``make(argument)`` has the shape of ``otherwise``.
    """

    def turn(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        # Tied to the carry, the argument is no constant of the loop: or the compiler would compute it all before.
        again, given = jax.lax.optimization_barrier((carry[0], argument))
        return jnp.zeros_like(again), make(given).astype(otherwise.dtype)

    return jax.lax.while_loop(lambda carry: carry[0], turn, (needed, otherwise))[1]


def as_float(a: ArrayLike) -> Array:
    """``a`` as it is where it holds floats; whole numbers and truth values as jax's default float. Never weakly typed.

    Constants take the type of the points they meet. Of whole numbers they would be rounded: a deviation of 0.25 to 0.
    """
    dtype = jnp.result_type(a)
    return jnp.asarray(a, dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float))


def at_least_float32(a: Array) -> Array:
    """``a`` in its own dtype, or float32 if that is narrower: logits of a bfloat16 network before the loss."""
    return a.astype(wide(a.dtype))


def wide(dtype: Any) -> Any:
    """``dtype``, or float32 if that is wider."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else dtype


def lifted(tree: Tree) -> Tree:
    """``tree`` with every float of 16 bits as float32, exactly; all other leaves as they are."""

    def lift(leaf: Any) -> Any:
        narrow = jnp.issubdtype(leaf.dtype, jnp.floating) and jnp.finfo(leaf.dtype).bits < 32
        return leaf.astype(jnp.float32) if narrow else leaf

    return jax.tree.map(lift, tree)


def narrowed_towards(point: Array, x: Array) -> Array:
    """``point`` in the dtype of x; where that is narrower, rounded towards x, so that no coordinate moves further away.

    So a perturbation obeys in 16 bits each limit that it obeyed in 32: a norm, a box, a number of changes.
    """
    if jnp.finfo(point.dtype).bits <= jnp.finfo(x.dtype).bits:
        return point.astype(x.dtype)
    near = point.astype(x.dtype)
    back, clean = near.astype(point.dtype), x.astype(point.dtype)
    beyond = jnp.where(point >= clean, back > point, back < point)
    return jnp.where(beyond, jnp.nextafter(near, x), near)


def promoting(function: Callable[..., Out]) -> Callable[..., Out]:
    """``function`` under jax's default rules of promotion, whatever its flags for dtypes and ranks say.

    A person sets these flags to be strict about their own code, such as the network. A method keeps the rules that it
    was written for.
    """

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Out:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return function(*args, **options)

    return call


def strong(tree: Tree, dtype: Any) -> Tree:
    """Leaves as arrays of fixed dtype (floats: ``dtype``, ints: int32), never weakly typed.

    A Python float and an array of the same value would be two different inputs to ``jit``: this makes them one.
    """

    def convert(leaf: Any) -> Any:
        if isinstance(leaf, bool) or (isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)):
            return jnp.asarray(leaf)
        kind = np.result_type(leaf).kind
        return jnp.asarray(leaf, dtype) if kind == "f" else jnp.asarray(leaf, jnp.int32) if kind in "iu" else leaf

    return jax.tree.map(convert, tree)


def uniform(key: Array, shape: tuple[int, ...], dtype: Any, lower: ArrayLike = 0.0, upper: ArrayLike = 1.0) -> Array:
    """``jax.random.uniform``, the same numbers; drawn along one axis, which XLA compiles several times faster."""
    return jax.random.uniform(key, (math.prod(shape),), dtype, lower, upper).reshape(shape)


def normal(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """``jax.random.normal`` in the same way."""
    return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)
