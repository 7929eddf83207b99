"""Greedy local search over single pixels, from queries alone (Narodytska & Kasiviswanathan 2017, algorithm 3).

Values are v in [-1/2, 1/2], the box. One round, from the image so far Î and a list of pixels:

    score of a pixel     log-odds of the label after setting v ← p · sign(v) in all its channels of Î              (1)
    the t lowest         v ← r v,  + 1 below −1/2,  − 1 above 1/2       ("cyclic")                                 (2)
    the next list        all pixels within d rows and d columns of one of these t                                  (3)

until the label is not among the k most likely classes. The first list is drawn at random.

With a target, (1) is the negated log-odds of the target, and k has no effect. The paper scores by probabilities, which
give the same order but round to 0 or 1 where the network is sure. It does not say what to do with long lists: here at
most ``candidates`` of (3), drawn at random, are scored, as in advertorch's re-implementation. Deviations: points
outside the box, which p > 1/2 makes, are clipped to it, since a real classifier would refuse them. So each point of (1)
is an input like any other, and the search also ends where one of them has the wanted class. The sign of 0 is +1. On a
vector a pixel is a feature.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax import losses
from invjax.attacks.parts import pixels
from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.core.errors import check_whole
from invjax.core.numerics import safe_divide
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status


@config
class LocalSearch:
    """The constants of (1)-(3). Targeted and untargeted.

    Fields:
      perturbation: p, the |v| of a pixel that is scored, > 0; from 1/2 on it is an end of the box.
      cyclic_factor: r, in [0, 2]; 1 changes nothing.
      top: k, untargeted: the label must not be among so many most likely classes, >= 1.
      rounds: rounds at most, >= 1 (advertorch: 10).
      half_side: d, half the side of a neighbourhood in pixels, >= 0 (static: it shapes the list).
      pixels_per_round: t, pixels changed in a round, >= 1 (static, likewise).
      candidates: pixels scored in a round, >= pixels_per_round (static).

    Queries per example (``Result.forwards``): candidates + 1 per round, at most rounds + 1 times, as the image after
    the last round is classified as well. Memory per lane: candidates + 1 images.
    """

    perturbation: float = 1.0
    cyclic_factor: float = 1.5
    top: int = 1
    rounds: int = 150
    half_side: int = field(default=5, metadata=STATIC)
    pixels_per_round: int = field(default=5, metadata=STATIC)
    candidates: int = field(default=128, metadata=STATIC)

    RENAMED: ClassVar = {"p": "perturbation", "r": "cyclic_factor", "k": "top", "d": "half_side",
                         "t": "pixels_per_round"}  # fmt: skip

    @property
    def method(self) -> Method:
        """The method for this length of the list: a property, as the number of points asked at once is a static shape.

        A round is one call of the network: the image itself and its candidates, which do not depend on one another.
        """
        return _METHOD._replace(width=self.candidates + 1)

    def check(self) -> None:
        require_above(self, 0, "perturbation")
        require(self, "cyclic_factor", lambda v: 0 <= v <= 2, "in [0, 2]")
        require_at_least(self, 1, "top", "rounds")
        check_whole("LocalSearch.half_side", self.half_side, 0)
        least = check_whole("LocalSearch.pixels_per_round", self.pixels_per_round)
        wanted = f"a whole number >= pixels_per_round = {least}"
        require(self, "candidates", lambda v: isinstance(v, int) and v >= least, wanted)


class LocalSearchState(NamedTuple):
    image: Array  # [*S] Î
    pixels: Array  # [L] int32, the list: row · W + column, or H · W for no pixel
    count: Array  # [] int32, rounds made
    best: Best  # the first success, scored 0
    status: Array  # [] int32, PENDING until decided


def draw(problem: Problem, config: LocalSearch, among: Array, none: int, rounds: Array) -> Array:
    """[L] int32: at most L of the pixels ``among`` [n], at random, filled up with ``none`` (no pixel)."""
    among = jnp.pad(among, (0, max(0, config.candidates - among.size)), constant_values=none)
    ticket = jax.random.uniform(jax.random.fold_in(problem.key, rounds), among.shape, jnp.float32)
    chosen = jax.lax.top_k(jnp.where(among == none, -1.0, ticket), config.candidates)[1]
    return among[chosen]


def _init(ctx: Context, problem: Problem, config: LocalSearch) -> LocalSearchState:
    free = pixels.grid(problem).free.reshape(-1)
    everywhere = jnp.where(free, jnp.arange(free.size, dtype=jnp.int32), free.size)
    first = draw(problem, config, everywhere, free.size, jnp.int32(0))
    return LocalSearchState(problem.x, first, jnp.int32(0), nothing(problem), jnp.int32(Status.PENDING))


def _values(image: pixels.Grid, row: Array, column: Array) -> tuple[Array, Array, Array]:
    """v of pixels [n], and their boxes. Each [n, C]."""
    value, lower, upper = (a.at[row, column].get(mode="clip") for a in image)
    return safe_divide(value - lower, upper - lower) - 0.5, lower, upper


def _ask(ctx: Context, problem: Problem, config: LocalSearch, state: LocalSearchState) -> Array:
    image = pixels.grid(problem)._replace(x=state.image.reshape(pixels.shape_of(problem.x.shape)))
    row, column = jnp.divmod(state.pixels, image.x.shape[1])
    v, lower, upper = _values(image, row, column)
    reach = jnp.minimum(jnp.asarray(config.perturbation, v.dtype), 0.5)
    down = (v < 0) ^ (jnp.abs(v) == reach)
    ends = pixels.from_share(lower, upper, jnp.where(down, -config.perturbation, config.perturbation) + 0.5)
    probes = jax.vmap(lambda i, j, value: image.x.at[i, j].set(value, mode="drop"))(row, column, ends)
    return jnp.concatenate([state.image[None], probes.reshape(-1, *problem.x.shape)])


def _loss(ctx: Context, problem: Problem, config: LocalSearch, state: Any, point: Array, logits: Array) -> Array:
    return losses.probability_gap(logits, problem.label, problem.target, 0.5)


def _wanted(problem: Problem, config: LocalSearch, logits: Array) -> Array:
    """[] bool: the target wins; or, without a target, k classes beat the label."""
    beaten = jnp.sum(logits > logits[problem.label], dtype=jnp.int32) >= jnp.int32(config.top)
    return jnp.where(problem.target >= 0, losses.reached(logits, problem.label, problem.target), beaten)


def cyclic(v: Array, factor: Array | float) -> Array:
    """(2): in [-1/2, 1/2] for v in the same interval and a factor in [0, 3]."""
    moved = factor * v
    return moved + jnp.where(moved < -0.5, 1, jnp.where(moved > 0.5, -1, 0)).astype(v.dtype)


def neighbours(free: Array, chosen: Array, half_side: int) -> Array:
    """(3) [t (2d+1)²] int32: each free pixel near one of ``chosen`` [t] once, filled up with free.size for no pixel."""
    height, width = free.shape
    offset = np.arange(-half_side, half_side + 1, dtype=np.int32)
    row, column = (part[:, None, None] for part in jnp.divmod(chosen, width))
    row, column = jnp.broadcast_arrays(row + offset[:, None], column + offset)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) & (chosen < free.size)[:, None, None]
    # ``inside`` rules out the negative indices, which would count from the end of the image.
    inside &= free.at[row, column].get(mode="clip")
    place = jnp.sort(jnp.where(inside, row * width + column, free.size).reshape(-1))
    again = jnp.concatenate([jnp.zeros(1, bool), place[1:] == place[:-1]])
    return jnp.where(again, free.size, place)


def _tell(ctx: Context, problem: Problem, config: LocalSearch, state: LocalSearchState, ev: Eval) -> LocalSearchState:
    wanted = jax.vmap(lambda z: _wanted(problem, config, z))(ev.logits)
    clean = (state.count == 0) & wanted[0]
    wanted &= (ev.point != problem.x).reshape(wanted.shape[0], -1).any(1)

    image = pixels.grid(problem)
    free, none = image.free, image.free.size
    score = jnp.where(state.pixels < none, ev.value[1:], jnp.inf)
    chosen = state.pixels[jax.lax.top_k(-score, config.pixels_per_round)[1]]
    row, column = jnp.divmod(chosen, free.shape[1])
    now = image._replace(x=ev.point[0].reshape(image.x.shape))
    v, lower, upper = _values(now, row, column)
    share = cyclic(v, config.cyclic_factor) + 0.5
    moved = now.x.at[row, column].set(pixels.from_share(lower, upper, share), mode="drop")

    rounds = state.count + jnp.int32(1)
    success = wanted.any() & ~clean
    best = state.best.offer(ev.point[jnp.argmax(wanted)], 0, success)  # Î itself comes before its candidates
    status = best.status(clean, success | (rounds > config.rounds))
    return LocalSearchState(
        image=jnp.where(status == Status.PENDING, moved.reshape(problem.x.shape), state.image),
        pixels=draw(problem, config, neighbours(free, chosen, config.half_side), none, rounds),
        count=rounds,
        best=best,
        status=status,
    )


def _result(ctx: Context, problem: Problem, config: LocalSearch, state: LocalSearchState) -> Outcome:
    return state.best.outcome(state.status, state.image)


_METHOD = Method("local-search", _init, _ask, _loss, _tell, result=_result, width=129, needs_grad=False)
