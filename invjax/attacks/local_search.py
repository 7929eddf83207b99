"""Greedy local search over single pixels, from queries alone (Narodytska & Kasiviswanathan 2017, algorithm 3).

Values are v in [-1/2, 1/2], the box. One round, from the image so far Î and a list of pixels:

    score of a pixel     log-odds of the label after setting v ← p · sign(v) in all its channels of Î              (1)
    the t lowest         v ← r v,  + 1 below −1/2,  − 1 above 1/2       ("cyclic")                                 (2)
    the next list        all pixels within d rows and d columns of one of these t                                  (3)

until the label is not among the k most likely classes. The first list is drawn at random.

Targeted: (1) is the negated log-odds of the target, and k says nothing. The paper scores by probabilities, which order
in the same way but round where the network is sure. It is silent on long lists: here at most ``candidates`` of (3),
drawn at random, are scored, as in the re-implementation of advertorch. Deviations: points outside the box, which
p > 1/2 makes, are clipped to it, as a real classifier would refuse them; so each point of (1) is an input like any
other, and the search also ends at one of these that has the wanted class. The sign of 0 is +1. On a vector a pixel is
a feature.
"""

from __future__ import annotations

from dataclasses import field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax import losses
from invjax.attacks.parts import pixels
from invjax.core.config import STATIC, config, require
from invjax.core.numerics import safe_divide
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status


@config
class LocalSearch:
    """The constants of (1)-(3). Targeted and untargeted.

    Fields:
      p: |v| of a pixel that is scored, > 0; from 1/2 on an end of the box.
      r: factor of the cyclic change, in [0, 2]; 1 changes nothing.
      k: untargeted: so many classes must beat the label, >= 1.
      rounds: at most, >= 1 (advertorch: 10).
      d: half side of a neighbourhood, pixels, >= 0 (static: it shapes the list).
      t: pixels changed in a round, >= 1 (static, likewise).
      candidates: pixels scored in a round, >= t (static).

    Queries per example (``Result.forwards``): candidates + 1 per round, at most rounds + 1 times, as the image after
    the last round is looked at as well. Memory per lane: candidates + 1 images.
    """

    p: float = 1.0
    r: float = 1.5
    k: int = 1
    rounds: int = 150
    d: int = field(default=5, metadata=STATIC)
    t: int = field(default=5, metadata=STATIC)
    candidates: int = field(default=128, metadata=STATIC)

    @property
    def method(self) -> Method:
        """The method of this list's length."""
        # A round is one call of the network: the image itself and its candidates, which do not depend on one another.
        return _METHOD._replace(width=self.candidates + 1)

    def check(self) -> None:
        require(self, "p", lambda v: v > 0, "above 0")
        require(self, "r", lambda v: 0 <= v <= 2, "in [0, 2]")
        require(self, "k", lambda v: v >= 1, "at least 1")
        require(self, "rounds", lambda v: v >= 1, "at least 1")
        require(self, "d", lambda v: isinstance(v, int) and v >= 0, "a whole number >= 0")
        require(self, "t", lambda v: isinstance(v, int) and v >= 1, "a whole number >= 1")
        least = self.t
        require(self, "candidates", lambda v: isinstance(v, int) and v >= least, f"a whole number >= t = {least}")


class LocalSearchState(NamedTuple):
    image: Array  # [*S] Î
    pixels: Array  # [L] int32, the list: row · W + column; H · W: no pixel
    k: Array  # [] int32, rounds made
    best: Array  # [*S] the point that has the wanted class; x before
    status: Array  # [] int32, PENDING until decided


def _draw(problem: Problem, config: LocalSearch, among: Array, none: int, rounds: Array) -> Array:
    """[L] at most L of the pixels ``among`` [n], at random; ``none`` stands for no pixel, and fills up."""
    among = jnp.pad(among, (0, max(0, config.candidates - among.size)), constant_values=none)
    ticket = jax.random.uniform(jax.random.fold_in(problem.key, rounds), among.shape, jnp.float32)
    chosen = jax.lax.top_k(jnp.where(among == none, -1.0, ticket), config.candidates)[1]
    return among[chosen]


def _init(ctx: Context, problem: Problem, config: LocalSearch) -> LocalSearchState:
    free = pixels.grid(problem).free.reshape(-1)
    everywhere = jnp.where(free, jnp.arange(free.size, dtype=jnp.int32), free.size)
    first = _draw(problem, config, everywhere, free.size, jnp.int32(0))
    return LocalSearchState(problem.x, first, jnp.int32(0), problem.x, jnp.int32(Status.PENDING))


def _values(image: pixels.Grid, row: Array, column: Array) -> tuple[Array, Array, Array]:
    """v of pixels [n], and their boxes. Each [n, C]."""
    value, lower, upper = (a.at[row, column].get(mode="clip") for a in image)
    return safe_divide(value - lower, upper - lower) - 0.5, lower, upper


def _ask(ctx: Context, problem: Problem, config: LocalSearch, state: LocalSearchState) -> Array:
    image = pixels.grid(problem)._replace(x=state.image.reshape(pixels.shape_of(problem.x.shape)))
    row, column = jnp.divmod(state.pixels, image.x.shape[1])
    v, lower, upper = _values(image, row, column)
    ends = pixels.from_share(lower, upper, jnp.where(v < 0, -config.p, config.p) + 0.5)
    probes = jax.vmap(lambda i, j, value: image.x.at[i, j].set(value, mode="drop"))(row, column, ends)
    return jnp.concatenate([state.image[None], probes.reshape(-1, *problem.x.shape)])


def _loss(
    ctx: Context, problem: Problem, config: LocalSearch, state: LocalSearchState, point: Array, logits: Array
) -> Array:
    return losses.probability_gap(logits, problem.label, problem.target, 0.5)


def _wanted(problem: Problem, config: LocalSearch, logits: Array) -> Array:
    """[] bool: the target wins; untargeted k classes beat the label."""
    above = jnp.sum(logits > logits[problem.label], dtype=jnp.int32)
    return jnp.where(
        problem.target >= 0, losses.reached(logits, problem.label, problem.target), above >= jnp.int32(config.k)
    )


def cyclic(v: Array, r: Array | float) -> Array:
    """(2): in [-1/2, 1/2] for v there and r in [0, 3]."""
    moved = r * v
    return moved + jnp.where(moved < -0.5, 1, jnp.where(moved > 0.5, -1, 0)).astype(v.dtype)


def _neighbours(free: Array, chosen: Array, d: int) -> Array:
    """(3) [t (2d+1)²] int32: each free pixel near one of ``chosen`` [t] once; free.size: none."""
    height, width = free.shape
    offset = np.arange(-d, d + 1, dtype=np.int32)
    row, column = (part[:, None, None] for part in jnp.divmod(chosen, width))
    row, column = jnp.broadcast_arrays(row + offset[:, None], column + offset)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) & (chosen < free.size)[:, None, None]
    # An index below 0 would count from the end: it is out of the image by ``inside`` alone.
    inside &= free.at[row, column].get(mode="clip")
    place = jnp.sort(jnp.where(inside, row * width + column, free.size).reshape(-1))
    again = jnp.concatenate([jnp.zeros(1, bool), place[1:] == place[:-1]])
    return jnp.where(again, free.size, place)


def _tell(ctx: Context, problem: Problem, config: LocalSearch, state: LocalSearchState, ev: Eval) -> LocalSearchState:
    wanted = jax.vmap(lambda z: _wanted(problem, config, z))(ev.logits)
    first = state.k == 0
    clean = first & wanted[0]
    wanted &= (ev.point != problem.x).reshape(wanted.shape[0], -1).any(1)

    image = pixels.grid(problem)
    free, none = image.free, image.free.size
    score = jnp.where(state.pixels < none, ev.value[1:], jnp.inf)
    lowest = jax.lax.top_k(-score, config.t)[1]
    chosen = state.pixels[lowest]
    row, column = jnp.divmod(chosen, free.shape[1])
    now = image._replace(x=ev.point[0].reshape(image.x.shape))
    v, lower, upper = _values(now, row, column)
    moved = now.x.at[row, column].set(pixels.from_share(lower, upper, cyclic(v, config.r) + 0.5), mode="drop")

    rounds = state.k + jnp.int32(1)
    success, spent = wanted.any(), rounds > config.rounds
    status = jnp.where(success, Status.FOUND, jnp.where(spent, Status.NOT_FOUND, Status.PENDING))
    status = jnp.where(clean, Status.ALREADY_TARGET, status).astype(jnp.int32)
    going = status == Status.PENDING
    return LocalSearchState(
        image=jnp.where(going, moved.reshape(problem.x.shape), state.image),
        pixels=_draw(problem, config, _neighbours(free, chosen, config.d), none, rounds),
        k=rounds,
        best=jnp.where(success, ev.point[jnp.argmax(wanted)], state.best),  # Î itself before its candidates
        status=status,
    )


def _result(ctx: Context, problem: Problem, config: LocalSearch, state: LocalSearchState) -> Outcome:
    found = state.status == Status.FOUND
    return Outcome(state.best, state.status, jnp.where(found, state.best, state.image))


_METHOD = Method("local-search", _init, _ask, _loss, _tell, result=_result, width=129, needs_grad=False)
