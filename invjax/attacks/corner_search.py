"""CornerSearch: few pixels at corners of the colour cube, ranked by what each does alone (Croce & Hein, ICCV 2019).

    min_r  ‖r‖_0 = number of changed units,   each changed unit at a corner of the box,   f(x + r) in the wanted class

1. The scan asks every change of one unit to a corner (a pixel with C channels has 2^C). A success ends the search.
2. R rankings keep the best N of these changes: one by the gap of the logits, and one for each of the R − 1 strongest
   rivals c on x, by Z_y − Z_c (untargeted, y the label) or Z_c − Z_t (t the target), the smallest first.
3. For k = 2, 3, … and each ranking the search asks the best corner of each of its first k *different* units. After the
   first success one unit after the other goes back to x, where the wanted class survives it.
4. For k = 2, 3, … below what step 3 found, and for each ranking, the search asks ``samples`` draws of k of the N
   changes, with replacement, of rank ρ = N − 1 − ⌊N √u⌋, u uniform, so that P(ρ) = (2 (N − ρ) − 1)/N². Of two corners
   of one unit the better ranked counts. The search ends at the first success, from which units go back as in step 3.

The paper and its code have steps 1, 2 and 4, with a table over all corners and for ten classes. Here the scan keeps R
running lists of N numbers, and skips corners that equal x. Step 3 asks at most R (k − 1) + k points. It is exact where
f is linear and the attack untargeted: against one rival, the fewest units are those that gain most. (The first
⌈N/2^C⌉ units are sure to be listed, 13 of three channels by default; many more where several corners of a unit do
little.) Step 3 and the going back can only lower ‖r‖_0. Targeted and untargeted; queries only.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses
from invjax.attacks.parts import corners
from invjax.core.config import STATIC, config, require, require_at_least
from invjax.core.errors import BadArgument, Words
from invjax.core.logits import num_classes
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status

CLEAN, SCAN, LEADING, TRIM, SAMPLES, PRUNE, OVER = range(7)  # the phases of the search
NONE = -1  # the code of an empty place in a list


@config
class CornerSearch:
    """The attack's constants; the defaults are the published ones.

    Fields:
      k: the most units that may change, >= 1, at most ``listed``. (Paper: 50 at 32 px.)
      samples: draws for each number of units and each ranking, >= 0.
      listed: N, one-unit changes that each ranking keeps, >= 1 (static).
      rankings: R, the most rankings, >= 1; K classes have K of them (static).
      unit: what is counted: "pixel" or "feature" (static).

    Forward evaluations per example: 1 (the clean input) + at most U·2^C of step 1, for U units of C channels (8192 at
    32x32x3, 401,408 at 224x224x3), + R (k − 1) (samples + 1) + 2 k; no gradients.
    """

    k: int = 10
    samples: int = 1000
    listed: int = field(default=100, metadata=STATIC)
    rankings: int = field(default=10, metadata=STATIC)
    unit: corners.Unit = field(default="pixel", metadata=STATIC)

    RENAMED: ClassVar = {"max_changes": "k"}
    method: ClassVar[Method]

    def check(self) -> None:
        require_at_least(self, 1, "listed", "rankings")
        require(self, "k", lambda v: 1 <= v <= self.listed, f"in [1, listed] = [1, {self.listed}]")
        require_at_least(self, 0, "samples")


class CornerState(NamedTuple):
    asked: Array  # [N] int32, the codes of the next candidate, in any places; NONE elsewhere
    picked: Array  # [N] int32, the codes of the best point
    scores: Array  # [R, N] ascending; infinity where the list is not full
    codes: Array  # [R, N] int32, unit · 2^C + colour of each; NONE where the list is not full
    rivals: Array  # [R - 1] int32, the rankings' classes
    rows: Array  # [] int32, rankings in use: R, or fewer where the network rules classes out
    count: Array  # [] int32, queries answered
    phase: Array  # [] int32
    cursor: Array  # [] int32, SCAN: the code asked
    size: Array  # [] int32, LEADING and SAMPLES: how many units
    row: Array  # [] int32, LEADING and SAMPLES: the ranking
    number: Array  # [] int32, SAMPLES: the draw; TRIM, PRUNE: the place that goes back
    limit: Array  # [] int32, the size stays below it
    best: Best  # scored by its changed units
    near: Best  # the changed point of least gap, scored by it: the attempt of a failure
    status: Array  # [] int32, PENDING until decided


def _shape(problem: Problem, config: CornerSearch) -> tuple[int, int]:
    count, channels = corners.shape_of(problem, config.unit, "CornerSearch")
    if channels > 30 or count * 2**channels >= 2**31:
        was = Words(f"{count} x 2^{channels}")
        raise BadArgument("x", "have fewer than 2^31 one-unit corners for CornerSearch", was)
    return count, channels


def _init(ctx: Context, problem: Problem, config: CornerSearch) -> CornerState:
    count, _ = _shape(problem, config)
    classes = num_classes(ctx.logits, problem.x.shape, problem.x.dtype)
    rows = 1 if classes == 2 else min(config.rankings, classes)  # with two classes every ranking is that by the gap
    none, zero = jnp.full(config.listed, NONE, jnp.int32), jnp.int32(0)
    largest = jnp.minimum(jnp.asarray(config.k, jnp.int32), count)
    return CornerState(
        asked=none, picked=none, scores=jnp.full((rows, config.listed), jnp.inf, problem.x.dtype),
        codes=jnp.broadcast_to(none, (rows, config.listed)), rivals=jnp.zeros(rows - 1, jnp.int32),
        rows=jnp.int32(rows), count=zero,
        phase=jnp.int32(CLEAN), cursor=zero, size=jnp.int32(2), row=zero, number=zero,
        limit=(largest + 1).astype(jnp.int32), best=nothing(problem), near=nothing(problem),
        status=jnp.int32(Status.PENDING),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Points
# ---------------------------------------------------------------------------------------------------------------------
def _ends(problem: Problem, shape: tuple[int, int]) -> tuple[Array, Array, Array]:
    """x, the lower and the upper ends, each [U, C]."""
    low, high = corners.ends(problem)
    return problem.x.reshape(shape), low.reshape(shape), high.reshape(shape)


def _next(problem: Problem, shape: tuple[int, int], code: Array) -> Array:
    """The first code >= ``code`` whose corner differs from x and from those before it; the total if none does."""
    total = shape[0] << shape[1]
    x, low, high = _ends(problem, shape)

    def idle(code: Array) -> Array:
        unit, bits = code >> shape[1], corners.bits_of(code, shape[1])
        fixed = low[unit] == high[unit]  # the bit changes nothing there: only 0 is asked
        same = jnp.where(bits, high[unit], low[unit]) == x[unit]
        return jnp.all(same) | jnp.any(bits & fixed)

    return jax.lax.while_loop(lambda c: (c < total) & idle(jnp.minimum(c, total - 1)), lambda c: c + 1, code)


def _render(problem: Problem, shape: tuple[int, int], codes: Array) -> Array:
    """x with units at the corners of these codes [N], no two of one unit; NONE stands for no unit. [*S]"""
    x, low, high = _ends(problem, shape)
    unit = jnp.where(codes == NONE, 0, codes) >> shape[1]
    values = jnp.where(corners.bits_of(codes, shape[1]), high[unit], low[unit])
    return x.at[jnp.where(codes == NONE, shape[0], unit)].set(values, mode="drop").reshape(problem.x.shape)


def _apart(codes: Array, channels: int, wanted: Array) -> Array:
    """Bool [N]: the wanted places, except those whose unit an earlier wanted place has."""
    unit, place = codes >> channels, jnp.arange(codes.size)
    before = (unit[:, None] == unit[None, :]) & (place[:, None] > place[None, :]) & wanted[None, :]
    return wanted & ~before.any(1)


def skewed(key: Array, size: int, filled: Array) -> Array:
    """[size] int32: ranks in [0, filled) with ``P(ρ) = (2 (filled − ρ) − 1)/filled²``. filled: [] int32, >= 1."""
    u = jax.random.uniform(key, (size,), jnp.float32)
    top = jnp.minimum(jnp.floor(filled * jnp.sqrt(u)).astype(jnp.int32), filled - 1)
    return filled - 1 - top


def _choice(problem: Problem, shape: tuple[int, int], state: CornerState) -> Array:
    """The codes [N] of the candidate that the state's counters describe."""
    codes, place = state.codes[state.row], jnp.arange(state.codes.shape[1])
    listed = codes != NONE
    first = _apart(codes, shape[1], listed)
    ranks = skewed(jax.random.fold_in(problem.key, state.count), codes.size, jnp.maximum(jnp.sum(listed), 1))
    drawn = jnp.zeros(codes.size, bool).at[jnp.where(place < state.size, ranks, codes.size)].set(True, mode="drop")
    leading, several = first & (jnp.cumsum(first) <= state.size), _apart(codes, shape[1], drawn)
    phases = [state.phase == phase for phase in (SCAN, LEADING, SAMPLES)]
    without = jnp.where(place != state.number, state.picked, NONE)  # TRIM and PRUNE
    cases = [
        jnp.where(place == 0, state.cursor, NONE),
        jnp.where(leading, codes, NONE),
        jnp.where(several, codes, NONE),
    ]
    return jnp.select(phases, cases, without)


def _ask(ctx: Context, problem: Problem, config: CornerSearch, state: CornerState) -> Array:
    return _render(problem, _shape(problem, config), state.asked)


def _loss(ctx: Context, problem: Problem, config: CornerSearch, state: Any, point: Array, logits: Array) -> Array:
    return losses.gap(logits, problem.label, problem.target)


# ---------------------------------------------------------------------------------------------------------------------
# What an answer changes
# ---------------------------------------------------------------------------------------------------------------------
def _aim(problem: Problem) -> Array:
    """[] int32: the target; untargeted, the label."""
    return jnp.where(problem.target >= 0, problem.target, problem.label)


def _strongest(problem: Problem, logits: Array, count: int) -> Array:
    """[count] int32: the classes with the largest logits, without the target; untargeted, without the label."""
    others = jnp.where(jnp.arange(logits.size) == _aim(problem), -jnp.inf, losses.grounded(logits))
    return jnp.argsort(-others)[:count].astype(jnp.int32)


def _insert(problem: Problem, state: CornerState, logits: Array, gap: Array) -> tuple[Array, Array]:
    """The lists with the code under the cursor put in its place; of equal scores the older comes first."""
    targeted = problem.target >= 0
    logits = losses.grounded(logits)
    ahead = jnp.take(logits, _aim(problem), mode="clip") - logits[state.rivals]
    scores = jnp.concatenate([gap[None], jnp.where(targeted, -ahead, ahead)]).astype(state.scores.dtype)[:, None]
    place, at = jnp.arange(state.scores.shape[1]), jnp.sum(state.scores <= scores, axis=1, keepdims=True)

    def put(old: Array, new: Array) -> Array:
        return jnp.where(place < at, old, jnp.where(place == at, new, jnp.roll(old, 1, axis=1)))

    return put(state.scores, scores), put(state.codes, state.cursor)


def _tell(ctx: Context, problem: Problem, config: CornerSearch, state: CornerState, ev: Eval) -> CornerState:
    shape, clean, scan = _shape(problem, config), state.phase == CLEAN, state.phase == SCAN
    reached = losses.reached(ev.logits, problem.label, problem.target)
    changed = jnp.sum(state.asked != NONE, dtype=jnp.int32)
    best = state.best.offer(ev.point, changed, reached & ~clean)
    better = best.score < state.best.score
    scores, codes = _insert(problem, state, ev.logits, ev.value)
    others = losses.rivals(ev.logits, _aim(problem))
    rows = jnp.where(others < 2, 1, jnp.minimum(others + 1, state.codes.shape[0])).astype(jnp.int32)
    told = state._replace(
        picked=jnp.where(better, state.asked, state.picked),
        scores=jnp.where(scan, scores, state.scores),
        codes=jnp.where(scan, codes, state.codes),
        rivals=jnp.where(clean, _strongest(problem, ev.logits, state.rivals.size), state.rivals),
        rows=jnp.where(clean, rows, state.rows),
        count=state.count + jnp.int32(1),
        cursor=_next(problem, shape, state.cursor + scan),
        best=best,
        near=state.near.offer(ev.point, ev.value, ~clean),
    )
    state = _turn(told, shape[0] << shape[1], better, changed, config.samples)
    state = state._replace(status=best.status(clean & reached, state.phase == OVER))
    return state._replace(asked=_choice(problem, shape, state))


def _turn(state: CornerState, total: int, better: Array, changed: Array, samples: Array | int) -> CornerState:
    """The counters of the next candidate. better: the point just asked, of ``changed`` units, is the best so far."""
    samples = jnp.asarray(samples, jnp.int32)
    begin, scan, leading, trim, sampling, prune = (
        state.phase == phase for phase in (CLEAN, SCAN, LEADING, TRIM, SAMPLES, PRUNE)
    )

    # The draws turn fastest, then the rankings, then the size.
    number = state.number + sampling
    next_row = leading | (sampling & (number >= samples))
    row = state.row + next_row
    larger = row >= state.rows
    size, row = state.size + larger, jnp.where(larger, 0, row)
    number = jnp.where(next_row, 0, number)

    limit = jnp.where(better, changed, state.limit)
    scanned = (begin | scan) & (state.cursor >= total)
    phase = jnp.where(begin, SCAN, state.phase)
    phase = jnp.where(scanned, jnp.where((limit > 2) & (state.codes[0, 0] != NONE), LEADING, OVER), phase)
    phase = jnp.where(scan & better, OVER, phase)
    phase = jnp.where(leading & (better | (size >= limit)), TRIM, phase)
    phase = jnp.where(sampling & (size >= limit), OVER, phase)
    phase = jnp.where(sampling & better, PRUNE, phase)

    # One unit after the other goes back. Of two units none can: every single one has been asked.
    cutting = (phase == TRIM) | (phase == PRUNE)
    place, start = jnp.arange(state.picked.size), jnp.where(trim | prune, state.number + 1, 0)
    left = (state.picked != NONE) & (place >= start)
    number = jnp.where(cutting, jnp.argmax(left), number)
    stop = cutting & (~left.any() | (limit <= 2))
    draws = stop & (phase == TRIM) & (limit > 2) & (samples > 0)
    phase = jnp.where(stop, jnp.where(draws, SAMPLES, OVER), phase)
    size, row, number = (jnp.where(draws, first, value) for first, value in ((2, size), (0, row), (0, number)))
    counters = {"phase": phase, "size": size, "row": row, "number": number, "limit": limit}
    return state._replace(**{name: value.astype(jnp.int32) for name, value in counters.items()})


def _result(ctx: Context, problem: Problem, config: CornerSearch, state: CornerState) -> Outcome:
    return state.best.outcome(state.status, state.near.x)


CornerSearch.method = Method("corner-search", _init, _ask, _loss, _tell, result=_result, needs_grad=False)
