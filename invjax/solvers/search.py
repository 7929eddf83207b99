"""Bracketing and bisection of one trade-off weight, as state transitions of one example.

A weight λ > 0 is tried, the trial succeeds or fails, the next λ follows. Where success is monotone in λ the searched
threshold λ* stays in ``[lower, upper]``. Two directions:

* :func:`seek_largest`: the largest weight that still succeeds (λ weighs the penalty; the released GSE code)

      success: lower ← λ;  λ ← growth · λ if nothing failed yet, else (upper + λ) / 2
      failure: upper ← λ;  λ ← (1 − shrink) · lower + shrink · λ              lower is 0 at the start

* :func:`seek_smallest`: the smallest weight that succeeds (λ weighs the classifier's loss; StrAttack, S-CFE)

      failure: lower ← λ;  λ ← growth · λ until the first success, then (lower + upper) / 2
      success: upper ← λ;  λ ← (1 − shrink) · lower + shrink · λ              shrink 1/2: bisection

Both are made of :func:`raise_` and :func:`lower_`. Every number is traced, so sweeping them does not recompile. Every
function is written for one example and is elementwise: batch it with ``vmap``, or call it with arrays of lanes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from invjax.core.numerics import select
from invjax.types import Array, ArrayLike


class Bracket(NamedTuple):
    """The search for one example; [] becomes [B] where it is used elementwise on lanes."""

    value: Array  # [] the weight to try now
    lower: Array  # [] the largest weight from which the search went up; 0 at the start
    upper: Array  # [] the smallest weight from which it went down; +inf at the start
    trials: Array  # [] int32 trials judged so far


def init(value: ArrayLike) -> Bracket:
    """Nothing known: try ``value`` (> 0; the search cannot leave 0) first. The dtype follows ``value``."""
    dtype = jnp.result_type(value)
    # An explicit dtype: a weakly typed value could not be carried through a loop.
    first = jnp.asarray(value, dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float))
    return Bracket(
        value=first,
        lower=jnp.zeros_like(first),
        upper=jnp.full_like(first, jnp.inf),
        trials=jnp.zeros(first.shape, jnp.int32),
    )


def _between(lower: Array, upper: Array, share: Array) -> Array:
    """``(1 − share) · lower + share · upper``."""
    return (1.0 - share) * lower + share * upper


def _up(lower: Array, upper: Array, growth: ArrayLike) -> Array:
    """The weight to try above ``lower``: half-way to ``upper`` if that is finite, else ``growth · lower``."""
    known = jnp.isfinite(upper)
    # Infinity never enters the arithmetic; and a weight that grew past the largest number stays that number.
    half = _between(lower, jnp.where(known, upper, lower), jnp.asarray(0.5, lower.dtype))
    grown = jnp.minimum(jnp.asarray(growth, lower.dtype) * lower, jnp.finfo(lower.dtype).max)
    return jnp.where(known, half, grown)


def raise_(bracket: Bracket, growth: ArrayLike) -> Bracket:
    """Go up: ``lower ← value``, then half-way to ``upper``, or ``growth · value`` while there is no upper end.

    growth: [] > 1.
    """
    value = _up(bracket.value, bracket.upper, growth)
    return Bracket(value, bracket.value, bracket.upper, bracket.trials + 1)


def lower_(bracket: Bracket, shrink: ArrayLike) -> Bracket:
    """Go down: ``upper ← value``, then the share ``shrink`` of the way from ``lower`` to it.

    shrink: [] in (0, 1); 1/2 is bisection.
    """
    value = _between(bracket.lower, bracket.value, jnp.asarray(shrink, bracket.value.dtype))
    return Bracket(value, bracket.lower, bracket.value, bracket.trials + 1)


def move(bracket: Bracket, up: Array, growth: ArrayLike, shrink: ArrayLike) -> Bracket:
    """:func:`raise_` where ``up`` [] bool, else :func:`lower_`."""
    return select(jnp.asarray(up), raise_(bracket, growth), lower_(bracket, shrink))


def seek_largest(bracket: Bracket, success: Array, growth: ArrayLike = 2.0, shrink: ArrayLike = 0.1) -> Bracket:
    """The next trial towards the largest weight that succeeds.

    The defaults are those of the released GSE code (Sadiku, Wagner, Pokutta 2024), whose ``search_factor`` is
    ``growth`` and which computes the descent as 0.9 · lower + 0.1 · λ.

    Args:
      bracket: the search, ``bracket.value`` just tried.
      success: [] bool, whether that trial succeeded.
      growth: [] > 1.
      shrink: [] in (0, 1).
    """
    return move(bracket, success, growth, shrink)


def seek_smallest(bracket: Bracket, success: Array, growth: ArrayLike = 10.0, shrink: ArrayLike = 0.5) -> Bracket:
    """The next trial towards the smallest weight that succeeds (growth 10: S-CFE; 5: StrAttack). As above."""
    return move(bracket, ~jnp.asarray(success), growth, shrink)
