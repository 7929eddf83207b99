"""Sparse-RS for one square patch, or a frame, of one image (Croce et al., AAAI 2022).

    min_{place, u}  L(f(x'))   x' = a corner of the box in each pixel of a patch of side s, x elsewhere              (1)
    min_u           L(f(x'))   the same in the frame of width w around the image                                    (2)

Both run the random search of :mod:`invjax.attacks.sparse_rs`: a candidate is kept if L is smaller, and the search
stops at the first point that has the wanted class. n is the budget of a start, i the query.

Patch. Every ``period``-th query moves the patch, by up to ⌊¾ (1 − i/n) H⌋ rows and likewise of columns. The others give
a random square of side s_i = max(⌊s √α_i⌋, 1) inside the patch one random colour. α_i = α / β_i with β = 1, 2, 4, …,
512 from queries 0, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001 of 10,000. The first patch is a mosaic of squares of
one random side.
Frame. A square of side s_i = max(3 ⌈(½ − i/n) α w²⌉, 1), with a corner at a random pixel of the frame, gets one random
colour where it lies in the frame. The first frame has a random colour in each pixel.
Both. Where s_i = 1 the colour differs from the present one, and in the second half of the queries with s_i = 1 one
random channel changes to its other end.

Deviations from the released code: images and patches need not be square, and the patch may lie at the last row; the
first patch is a mosaic, where theirs is painted with 1000 overlapping squares; squares beyond the image are cut, not
folded onto its edge. Where the mask forbids a change the pixels stay. Universal patches and frames, for many images at
once, are not covered.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from invjax.attacks import sparse_rs
from invjax.attacks.parts import corners, units
from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.core.numerics import replace_if
from invjax.types import Array, Method, Problem

BREAKS = (10, *sparse_rs.BREAKS[1:])
DIVISORS = tuple(2**j for j in range(len(BREAKS) + 1))


@config
class SparseRSPatch:
    """The constants of (1), for images. Targeted and untargeted.

    Fields:
      size: s, side of the patch, pixels, >= 1; at most the image's own sides. Released: 20 at 224 px, targeted 40.
      queries: the budget of one start, >= 1. Targeted: 50,000.
      initial_share: α, the share of the patch that the first queries change, in (0, 1]. Targeted: 0.1.
      period: the patch moves at every period-th query, >= 1. Targeted: 10.
      restarts: starts, >= 1.
      loss: as in :class:`invjax.attacks.sparse_rs.SparseRS` (static).

    Forward evaluations per example: 1 (the clean input) + at most restarts·queries; no gradients.
    """

    size: int = 20
    queries: int = 10_000
    initial_share: float = 0.4
    period: int = 4
    restarts: int = 1
    loss: sparse_rs.Loss = field(default="released", metadata=STATIC)

    RENAMED: ClassVar = {"alpha": "initial_share"}
    method: ClassVar[Method]

    def check(self) -> None:
        require_at_least(self, 1, "size", "period")
        require(self, "initial_share", lambda v: 0 < v <= 1, "in (0, 1]")
        sparse_rs.check_search(self)


@config
class SparseRSFrame:
    """The constants of (2), for images. Targeted and untargeted.

    Fields:
      width: w, pixels of the frame from each edge, >= 1. Released: 2 at 224 px, targeted 3.
      queries: the budget of one start, >= 1. Targeted: 50,000.
      initial_share: α, > 0: the first squares have a side of about 3/2 α w².
      restarts: starts, >= 1.
      loss: as in :class:`invjax.attacks.sparse_rs.SparseRS` (static).

    Forward evaluations per example: 1 (the clean input) + at most restarts·queries; no gradients.
    """

    width: int = 2
    queries: int = 10_000
    initial_share: float = 0.5
    restarts: int = 1
    loss: sparse_rs.Loss = field(default="released", metadata=STATIC)

    RENAMED: ClassVar = {"alpha": "initial_share"}
    method: ClassVar[Method]

    def check(self) -> None:
        require_at_least(self, 1, "width")
        require_above(self, 0, "initial_share")
        sparse_rs.check_search(self)


class Painted(NamedTuple):
    bits: Array  # [H, W, C] bool, the colours; a patch has them in the upper left corner
    place: Array  # [2] int32, row and column of the patch; a frame has zeros
    shown: Array  # [] bool: whether the pattern is in the image


def _blank(problem: Problem, config: SparseRSPatch | SparseRSFrame) -> Painted:
    units.need_image(problem, type(config).__name__)
    return Painted(jnp.zeros(problem.x.shape, bool), jnp.zeros(2, jnp.int32), jnp.zeros((), bool))


def _window(shape: tuple[int, ...], first: Array, sides: Array) -> Array:
    """Bool [H, W, 1]: the pixels of a rectangle. first, sides: [2] int32, rows and columns."""
    far = [jnp.arange(length) - first[axis] for axis, length in enumerate(shape[:2])]
    rows, columns = ((one >= 0) & (one < side) for one, side in zip(far, sides, strict=True))
    return (rows[:, None] & columns)[..., None]


def _paint(problem: Problem, where: Array, bits: Array) -> Array:
    """x with the corners ``bits`` [H, W, C] in the pixels ``where`` [H, W, 1]."""
    low, high = corners.ends(problem)
    return jnp.where(where, jnp.where(bits, high, low), problem.x)


def _colour(words: Array, old: Array, side: Array, late: Array) -> Array:
    """The new colour [C] of a square. old: [C] bool, the present one; words: as :func:`_words` gives them."""
    size = corners.length(old.size)
    new = corners.colours(words[1 : 1 + size], old.size)
    other = old ^ corners.flips(words[1 + size :], old.size)
    channel = jnp.arange(old.size) == corners.below(words[0], old.size)
    new = jnp.where((side == 1) & (new == old).all(), other, new)
    return jnp.where((side == 1) & late, old ^ channel, new)


def _words(problem: Problem, config: Any, trial: Array, query: Array) -> tuple[Array, Array]:
    """Four words for places, and the words for :func:`_colour`."""
    count = 1 + 2 * corners.length(problem.x.shape[2])
    words = corners.words(sparse_rs.key_of(problem, config, trial, query), (4 + count,))
    return words[:4], words[4:]


def _first(problem: Problem, make: Callable[[Array], Array], trial: Array, query: Array, bits: Array) -> Array:
    """``make(key)`` at a start, else ``bits``: the expensive first pattern is made only where it is needed."""
    return replace_if(query == 0, lambda n: make(jax.random.fold_in(problem.key, -1 - n)), trial, bits)


def _late(query: Array, first: Array, queries: Array | int) -> Array:
    """[] bool: the second half of the queries from ``first`` on, at which the smallest squares begin."""
    return query >= first + (queries - first) // 2


# ---------------------------------------------------------------------------------------------------------------------
# Patch
# ---------------------------------------------------------------------------------------------------------------------
def _sides(config: SparseRSPatch, share: Array) -> Array:
    """s_i for α_i (any shape), int32."""
    return sparse_rs.whole(config.size * jnp.sqrt(share))


def _mosaic(key: Array, shape: tuple[int, ...], size: Array | int) -> Array:
    """Bool [H, W, C]: squares of one random side in [1, max(⌈√size⌉ − 1, 1)], each of one colour."""
    words = corners.words(key, (*shape[:2], corners.length(shape[2]) + 1))
    most = jnp.maximum(jnp.ceil(jnp.sqrt(jnp.asarray(size, jnp.float32))).astype(jnp.int32) - 1, 1)
    side = 1 + corners.below(words[0, 0, -1], most)
    rows, columns = (jnp.arange(length) // side * side for length in shape[:2])
    return corners.colours(words[..., :-1], shape[2])[rows][:, columns]


def propose_patch(problem: Problem, config: SparseRSPatch, kept: Painted, trial: Array, query: Array) -> Painted:
    """The candidate of a query, from the best patch so far."""
    shape = problem.x.shape
    image = jnp.array(shape[:2], jnp.int32)
    whole = jnp.minimum(image, config.size)
    place, paint = _words(problem, config, trial, query)

    share = jnp.asarray(config.initial_share)
    side = _sides(config, sparse_rs.schedule(query, config.queries, share, BREAKS, DIVISORS))
    # The first query whose squares have side 1.
    smallest = _sides(config, share / jnp.asarray(DIVISORS, share.dtype)) == 1
    begins = jnp.concatenate([jnp.zeros(1, jnp.int32), sparse_rs.starts(config.queries, BREAKS)])
    first = jnp.min(jnp.where(smallest, begins, config.queries))

    square = jnp.minimum(side, whole)
    corner = corners.below(place[:2], whole - square + 1)
    colour = _colour(paint, kept.bits[corner[0], corner[1]], side, _late(query, first, config.queries))
    bits = jnp.where(_window(shape, corner, square), colour, kept.bits)

    left = 1 - query.astype(share.dtype) / config.queries
    reach = jnp.floor(0.75 * left * image).astype(jnp.int32)
    moves = (query % config.period == 0) & (reach > 0).any()
    moved = jnp.clip(kept.place + corners.below(place[2:], 2 * reach + 1) - reach, 0, image - whole)
    anywhere = corners.below(place[2:], image - whole + 1)
    bits = jnp.where(moves, kept.bits, bits)
    bits = _first(problem, lambda key: _mosaic(key, shape, config.size), trial, query, bits)
    there = jnp.where(query == 0, anywhere, jnp.where(moves, moved, kept.place))
    return Painted(bits, there, jnp.ones((), bool))


def render_patch(problem: Problem, config: SparseRSPatch, pattern: Painted) -> Array:
    """The image with the patch in its place. [H, W, C]"""
    shape = problem.x.shape
    sides = jnp.minimum(jnp.array(shape[:2]), config.size)
    bits = jnp.roll(jnp.roll(pattern.bits, pattern.place[0], 0), pattern.place[1], 1)
    return _paint(problem, _window(shape, pattern.place, sides) & pattern.shown, bits)


SparseRSPatch.method = sparse_rs.random_search("sparse-rs-patch", _blank, propose_patch, render_patch)


# ---------------------------------------------------------------------------------------------------------------------
# Frame
# ---------------------------------------------------------------------------------------------------------------------
def frame(shape: tuple[int, ...], width: Array | int) -> Array:
    """Bool [H, W, 1]: the pixels less than ``width`` from an edge."""
    rows, columns = (jnp.minimum(jnp.arange(n), n - 1 - jnp.arange(n)) for n in shape[:2])
    return jnp.minimum(rows[:, None], columns[None, :])[..., None] < width


def propose_frame(problem: Problem, config: SparseRSFrame, kept: Painted, trial: Array, query: Array) -> Painted:
    """The candidate of a query, from the best frame so far."""
    shape = problem.x.shape
    place, paint = _words(problem, config, trial, query)
    low, high = corners.ends(problem)
    edge = frame(shape, config.width)
    inside = (edge & (low < high).any(-1, keepdims=True)).reshape(-1)
    index = jnp.argmax(jnp.cumsum(inside) > corners.below(place[0], jnp.sum(inside)))
    pixel = jnp.stack([index // shape[1], index % shape[1]]).astype(jnp.int32)

    left = 0.5 - query / jnp.asarray(config.queries)
    square = 3 * jnp.ceil(left * config.initial_share * jnp.square(config.width)).astype(jnp.int32)
    side = jnp.clip(square, 1, math.prod(shape))
    back = corners.below(place[2:], 2) == 1
    first = pixel - jnp.where(back, side - 1, 0)
    half = (jnp.asarray(config.queries) + 1) // 2
    colour = _colour(paint, kept.bits[pixel[0], pixel[1]], side, _late(query, half, config.queries))
    bits = jnp.where(edge & _window(shape, first, jnp.stack([side, side])), colour, kept.bits)

    def anything(key: Array) -> Array:
        return corners.colours(corners.words(key, (*shape[:2], corners.length(shape[2]))), shape[2])

    return Painted(_first(problem, anything, trial, query, bits), kept.place, jnp.ones((), bool))


def render_frame(problem: Problem, config: SparseRSFrame, pattern: Painted) -> Array:
    """The image in its frame. [H, W, C]"""
    return _paint(problem, frame(problem.x.shape, config.width) & pattern.shown, pattern.bits)


SparseRSFrame.method = sparse_rs.random_search("sparse-rs-frame", _blank, propose_frame, render_frame)
