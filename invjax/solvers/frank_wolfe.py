"""Frank–Wolfe: steps towards the vertex of a convex set that minimises a linear function.

    s_t = argmin_{s ∈ C} ⟨∇h(r_t), s⟩,      r_{t+1} = r_t + γ_t (s_t − r_t),      γ_t in [0, 1]                    (1)
    gap_t = ⟨∇h(r_t), r_t − s_t⟩ >= h(r_t) − min_C h   for convex h                                                (2)

Every iterate stays in C without a projection; a method only needs the linear minimisation oracle of its set.

    box                    lower <= s <= upper                                            :func:`of_box`
    capped simplex         0 <= s <= 1,  Σ s <= k                                         :func:`of_capped_simplex`
    group nuclear ball     Σ_g max_c ‖r_{g,c}‖_* <= ε, patch g, channel c                 :func:`of_group_nuclear`

The dual norm of the last is ``max_g Σ_c ‖a_{g,c}‖_2`` (spectral norms): its vertices live on ONE patch, with rank one
and the full ε in every channel. (The released FWnucl chooses the patch by nuclear norms of the gradient, which is not
the oracle of any such ball.)
Sources: Frank & Wolfe 1956; Jaggi 2013; Kazemi et al. 2023 for the group nuclear norm.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from invjax.core.numerics import safe_divide, safe_sqrt
from invjax.core.ranks import largest
from invjax.types import Array, ArrayLike

SMALL = 8  # up to this side matrices are multiplied side by side; of 4 x 4 on CPU 1,500 take 0.6 ms instead of 19


def move(r: Array, vertex: Array, gamma: ArrayLike) -> Array:
    """(1): ``r + γ (vertex − r)``, exactly the vertex at γ = 1. gamma: [] in [0, 1]."""
    gamma = jnp.asarray(gamma, r.dtype)
    return (1 - gamma) * r + gamma * vertex


def gap(r: Array, vertex: Array, grad: Array) -> Array:
    """(2), [] >= 0 for r in the set."""
    return jnp.sum(grad * (r - vertex))


def of_box(grad: Array, lower: Array, upper: Array, otherwise: ArrayLike = 0.0) -> Array:
    """argmin over ``lower <= s <= upper``: the end that the gradient points away from; ``otherwise`` where it is 0."""
    return jnp.where(grad > 0, lower, jnp.where(grad < 0, upper, jnp.asarray(otherwise, grad.dtype)))


def of_capped_simplex(grad: Array, k: ArrayLike) -> Array:
    """argmin over ``0 <= s <= 1, Σ s <= k``: 1 at the (at most) k most negative entries. k: [] int, traced."""
    return (largest(-grad, k) & (grad < 0)).astype(grad.dtype)


def of_group_nuclear(patches: Array, radius: ArrayLike) -> Array:
    """argmin of ``⟨patches, s⟩`` over ``Σ_g max_c ‖s_{g,c}‖_* <= radius``.

    patches: [G, n, m, C] the gradient cut into patches; radius: [] >= 0. -> [G, n, m, C], 0 but on one patch.
    """
    matrices = jnp.moveaxis(patches, -1, 1)  # [G, C, n, m]
    left, size, right = top_pair(matrices)
    score = jnp.sum(size, axis=-1)  # [G] what each patch gains per unit of radius
    best = jnp.arange(score.shape[0]) == jnp.argmax(score)
    vertex = -left[..., :, None] * right[..., None, :]
    vertex = jnp.where(best[:, None, None, None], jnp.asarray(radius, patches.dtype) * vertex, jnp.zeros_like(vertex))
    return jnp.moveaxis(vertex, 1, -1)


def top_pair(a: Array) -> tuple[Array, Array, Array]:
    """The first left singular vector, singular value and right singular vector of each matrix, zeros where a = 0.

    a: [..., n, m] -> [..., n], [...], [..., m]. By repeated squaring of the normalised aᵀa, hence by matrix products
    alone: after j squarings the second direction has the share (σ_2/σ_1)^(2^(j+1)), and where that is not small σ_2
    is as good as σ_1 (the value is relatively exact to 1e-6 in float32 whatever the gap).
    """
    scale = jnp.max(jnp.abs(a), axis=(-2, -1), keepdims=True)
    unit = safe_divide(a, jnp.broadcast_to(scale, a.shape))
    transposed = jnp.swapaxes(unit, -1, -2)
    wide = a.shape[-1] > a.shape[-2]
    gram = unit @ transposed if wide else transposed @ unit  # the smaller of the two

    power = _squared(gram, jnp.finfo(a.dtype).nmant - 3)
    # Every column of the limit is the vector, up to its length: the one with the largest diagonal entry is the longest.
    column = jnp.argmax(jnp.diagonal(power, axis1=-2, axis2=-1), axis=-1)
    vector = _unit(jnp.take_along_axis(power, column[..., None, None], axis=-1)[..., 0])
    other = jnp.einsum("...nm,...n->...m" if wide else "...nm,...m->...n", unit, vector)
    size = safe_sqrt(jnp.sum(jnp.square(other), axis=-1)) * scale[..., 0, 0]
    left, right = (vector, _unit(other)) if wide else (_unit(other), vector)
    return left, size, right


def _squared(gram: Array, times: int) -> Array:
    """Matrices [..., k, k] squared so many times, normalised by their traces (sums of eigenvalues, none negative)."""
    k = gram.shape[-1]
    if k > SMALL:

        def square(_: int, b: Array) -> Array:
            trace = jnp.trace(b, axis1=-2, axis2=-1)[..., None, None]
            b = safe_divide(b, jnp.broadcast_to(trace, b.shape))
            return b @ b

        return jax.lax.fori_loop(0, times, square, gram)

    def square_all(_: int, b: Array) -> Array:
        """The matrices along the last axis: thousands of products of tiny ones are k³ of long vectors."""
        trace = jnp.sum(jnp.stack([b[i, i] for i in range(k)]), axis=0)
        b = safe_divide(b, jnp.broadcast_to(trace, b.shape))
        total = b[:, 0, None] * b[0]
        for i in range(1, k):
            total = total + b[:, i, None] * b[i]
        return total

    many = jnp.moveaxis(gram, (-2, -1), (0, 1)).reshape(k, k, -1)
    many = jax.lax.fori_loop(0, times, square_all, many)
    return jnp.moveaxis(many.reshape(k, k, *gram.shape[:-2]), (0, 1), (-2, -1))


def _unit(v: Array) -> Array:
    norm = safe_sqrt(jnp.sum(jnp.square(v), axis=-1, keepdims=True))
    return safe_divide(v, jnp.broadcast_to(norm, v.shape))


def ladder(top: Array, q: int) -> Array:
    """Step sizes ``top · 2^-j``, j = 0 … q−1, to be tried at once. top: [] in (0, 1]; q: static. -> [q]"""
    return top * jnp.asarray(0.5, top.dtype) ** jnp.arange(q).astype(top.dtype)


def choose(value: Array, values: Array, steps: Array) -> tuple[Array, Array, Array]:
    """The step of the lowest value, if that is below the value here.

    value: [] h(r); values: [q] h at the steps [q], a :func:`ladder`.
    Returns the index [] int32, whether the step is taken [] bool, and the next ladder's top []: four times the step
    taken (at most 1), or half of the last one where none lowered the value.
    """
    index = jnp.argmin(values).astype(jnp.int32)
    taken = values[index] < value
    top = jnp.where(taken, jnp.minimum(4 * steps[index], jnp.ones_like(value)), steps[-1] / 2)
    return index, taken, jnp.maximum(top, jnp.asarray(jnp.finfo(steps.dtype).eps, steps.dtype))
