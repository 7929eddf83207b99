"""One pixel: differential evolution looks for k pixels, from queries alone (Su, Vargas & Sakurai, 2019).

    min_m  L(f(x with k pixels set by m), t),       m = (row, column, C values) × k  in [0, 1]^{k (2 + C)}        (1)

with L the negated log-odds of the target, or the log-odds of the label. A population of P such m evolves by
:mod:`invjax.solvers.differential_evolution` with F drawn for each block; the search ends at the first query that
has the wanted class. The paper minimises the probability, which orders candidates in the same way, but rounds to 0 or
1 where the network is sure. The row is a share of the free rows, the column a share of the free pixels of that row: no
query is spent where the mask forbids a change. On a vector a pixel is a feature, and the row has no effect.

The paper mutates random members with F = 1/2. This code follows SciPy and the re-implementations built on it: it
mutates the best member, draws F from [1/2, 1], and begins with a Latin hypercube. Deviations from these: the population
is updated after every block, between SciPy's "immediate" and "deferred" (equal to the latter for ``block =
population``); there is no test of convergence (theirs, with atol = −1, never holds).
"""

from __future__ import annotations

from dataclasses import field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses
from invjax.attacks.parts import pixels
from invjax.core.config import STATIC, config, require, require_at_least
from invjax.core.errors import check_whole
from invjax.solvers import differential_evolution as evolution
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status


@config
class OnePixel:
    """The constants of (1); the defaults are those of the usual re-implementation. Targeted and untargeted.

    Fields:
      k: pixels that may change, >= 1 (static: it shapes the population).
      generations: generations after the first population, >= 0.
      weakest: least F, in [0, strongest]; F of a block is uniform between the two.
      strongest: greatest F, in [0, 2].
      recombination: probability that a parameter comes from the mutant, in [0, 1].
      population: P, >= 4 (static).
      block: candidates per call of the network, 1 … population (static).

    Queries per example (``Result.forwards``): whole blocks, at most P (generations + 1), the clean input included.
    Memory per lane: ``block`` images.
    """

    k: int = field(default=1, metadata=STATIC)
    generations: int = 75
    weakest: float = 0.5
    strongest: float = 1.0
    recombination: float = 1.0
    population: int = field(default=400, metadata=STATIC)
    # One candidate per call would leave a device idle, above all with few lanes. A whole generation would ask up to 399
    # queries more than needed after a success, and hold 400 images (240 MB at 224 px) per lane.
    block: int = field(default=50, metadata=STATIC)

    @property
    def method(self) -> Method:
        """The method for this block size: a property, as the number of points asked at once is a static shape."""
        return _METHOD._replace(width=self.block)

    def check(self) -> None:
        check_whole("OnePixel.k", self.k)
        require_at_least(self, 0, "generations")
        require(self, "weakest", lambda v: 0 <= v <= self.strongest, f"in [0, strongest = {self.strongest}]")
        require(self, "strongest", lambda v: 0 <= v <= 2, "in [0, 2]")
        require(self, "recombination", lambda v: 0 <= v <= 1, "a probability")
        check_whole("OnePixel.block", self.block, 1, check_whole("OnePixel.population", self.population, 4))


class OnePixelState(NamedTuple):
    members: Array  # [P, k(2+C)] the population
    odds: Array  # [P] L of each; infinity before it was asked
    tried: Array  # [b, k(2+C)] the candidates to ask next
    count: Array  # [] int32, blocks asked
    best: Best  # the first success, scored 0
    near: Best  # the point of least L, scored by it: the attempt of a failure
    status: Array  # [] int32, PENDING until decided


def _numbers(config: OnePixel, blocks: Array) -> Array:
    """[b] the number of each candidate after so many blocks: member + P · generation. The first of all, −1, is x."""
    return blocks * config.block - 1 + jnp.arange(config.block, dtype=jnp.int32)


def _init(ctx: Context, problem: Problem, config: OnePixel) -> OnePixelState:
    size = config.k * (2 + pixels.shape_of(problem.x.shape)[-1])
    members = evolution.latin_hypercube(jax.random.fold_in(problem.key, 0), config.population, size, problem.x.dtype)
    tried = members[_numbers(config, jnp.int32(0))]  # any member fills the place of x
    odds, best = jnp.full(config.population, jnp.inf, problem.x.dtype), nothing(problem)
    return OnePixelState(members, odds, tried, jnp.int32(0), best, best, jnp.int32(Status.PENDING))


def _points(problem: Problem, config: OnePixel, tried: Array) -> Array:
    """[b, *S] the inputs that candidates [b, k(2+C)] stand for."""
    image = pixels.grid(problem)
    free = image.free
    rows, columns = jnp.cumsum(free.any(1), dtype=jnp.int32), jnp.cumsum(free, 1, dtype=jnp.int32)

    def one(candidate: Array) -> Array:
        parts = candidate.reshape(config.k, -1)
        row = pixels.nth(rows, evolution.whole(parts[:, 0], rows[-1]))
        line = columns.at[row].get(mode="clip")  # [k, W]
        column = pixels.nth(line, evolution.whole(parts[:, 1], line[:, -1]))
        lower, upper = (side.at[row, column].get(mode="clip") for side in (image.lower, image.upper))
        return pixels.paint(image.x, row, column, pixels.from_share(lower, upper, parts[:, 2:]))

    return jax.vmap(one)(tried).reshape(-1, *problem.x.shape)


def _ask(ctx: Context, problem: Problem, config: OnePixel, state: OnePixelState) -> Array:
    points = _points(problem, config, state.tried)
    return points.at[0].set(jnp.where(state.count == 0, problem.x, points[0]))  # the first candidate of all is x


def _loss(ctx: Context, problem: Problem, config: OnePixel, state: OnePixelState, point: Array, logits: Array) -> Array:
    return losses.probability_gap(logits, problem.label, problem.target, 0.5)


def _next(problem: Problem, config: OnePixel, members: Array, odds: Array, blocks: Array) -> Array:
    """[b, k(2+C)] the candidates after so many blocks."""
    numbers = _numbers(config, blocks)
    index, generation = numbers % config.population, numbers // config.population
    key, scale = jax.random.fold_in(problem.key, blocks), (config.weakest, config.strongest)
    trials = evolution.trials(key, members, odds, index, scale, config.recombination)
    return jnp.where((generation < 1)[:, None], members[index], trials)


def _tell(ctx: Context, problem: Problem, config: OnePixel, state: OnePixelState, ev: Eval) -> OnePixelState:
    numbers = _numbers(config, state.count)
    candidate = numbers >= 0
    reached = jax.vmap(lambda z: losses.reached(z, problem.label, problem.target))(ev.logits)
    clean = jnp.any(reached & ~candidate)
    won = reached & candidate & (ev.point != problem.x).reshape(config.block, -1).any(1)

    index = jnp.where(candidate, numbers % config.population, config.population)
    members, odds = evolution.survive(state.members, state.odds, index, state.tried, ev.value)
    blocks = state.count + jnp.int32(1)

    success = won.any()
    value = jnp.where(success & ~won | ~candidate, jnp.inf, ev.value)
    winner = jnp.argmin(value)
    best = state.best.offer(ev.point[winner], 0, success & ~clean)
    # Less than a block of the budget may be left over; it is never overdrawn.
    spent = (blocks + 1) * config.block > config.population * (config.generations + 1)
    return OnePixelState(
        members=members,
        odds=odds,
        tried=_next(problem, config, members, odds, blocks),
        count=blocks,
        best=best,
        near=state.near.offer(ev.point[winner], value[winner], jnp.bool_(True)),
        status=best.status(clean, success | spent),
    )


def _result(ctx: Context, problem: Problem, config: OnePixel, state: OnePixelState) -> Outcome:
    return state.best.outcome(state.status, state.near.x)


_METHOD = Method("one-pixel", _init, _ask, _loss, _tell, result=_result, width=50, needs_grad=False)
