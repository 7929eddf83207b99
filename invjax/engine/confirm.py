"""FOUND answers are asked once more, in another batch, before they are handed back.

The engine believed a network in the batches of the run. An answer that only holds there (batch statistics, noise that
depends on the lane) is no answer: it becomes NOT_FOUND, stays in ``attempt``, and a warning counts them. This costs one
forward pass per answer, in batches of the one compiled shape of :mod:`invjax.core.mixing`.

Where float32 products are rounded (:mod:`invjax.core.precision`), the second look is at full precision. An answer that
does not hold there is no contradiction but a rounding error of the descent: the row is solved again in full precision.

Answers on the very boundary are kept: other batches round differently, and only a margin that is wrong by more than
rounding is a contradiction. So what is FOUND depends on no lane, neighbour or order, as before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.errors import warn
from invjax.core.mixing import ROWS, Traits, largest, look, traits, traits_of
from invjax.core.precision import judging
from invjax.engine import checks
from invjax.engine.evaluate import white_box
from invjax.engine.lanes import start
from invjax.engine.seen import seen_through
from invjax.types import Array, ArrayLike, Config, Context, Evaluator, Method, Problem, Result, Status

_MANY, _SMALL = 64, 128  # so many answers, each of at most so many features on a CPU, are asked in larger batches
_FLOAT32 = 2e-5  # of the largest logit: what batches in float32 differ by


def asked_at_once(answers: int, features: int) -> int:
    """Rows of each question about so many answers of so many features."""
    small = features <= _SMALL or jax.default_backend() != "cpu"
    return _MANY if answers >= _MANY and small else ROWS


def confirmed(result: Result, ctx: Context, problems: Problem, config: Config = None, **how: Any) -> Result:
    """As :func:`confirm`, with a warning in the place of the numbers. how: its other arguments."""
    result, withdrawn, total = confirm(result, ctx, problems, config, **how)
    warn_withdrawn(withdrawn, total)
    return result


def warn_withdrawn(withdrawn: int, total: int) -> None:
    """Say how many of ``total`` answers did not hold."""
    if withdrawn:
        warn(
            f"{withdrawn} of {total} answers were FOUND in the batches of the run but do not hold in another batch. "
            "They are NOT_FOUND now, and Result.attempt has them. The network, or the evaluator, lets rows depend on "
            "each other or on their place in the batch (batch statistics, random numbers that are not the example's)"
        )


def confirm(
    result: Result,
    ctx: Context,
    problems: Problem,
    config: Config = None,
    *,
    method: Method | None = None,
    evaluator: Evaluator = white_box,
    key: Array | None = None,
    probability: ArrayLike | None = None,
    again: Callable[[np.ndarray], Result] | None = None,
) -> tuple[Result, int, int]:
    """``result`` [N] without the answers that do not hold in another batch; the number of these, and of all answers.

    Nothing is asked of a traced result, of what calls the host (each row is a query there), and through an evaluator
    with the attribute ``repeatable = False``. method, key: of the run, for an evaluator of the user's own. probability:
    what the target must have instead of a win; None takes that of ``config``, if it has one. again: solves the rows
    [n] anew in full precision; given where the run was at a lower one.
    """
    if checks.is_traced(result, ctx.logits, problems) or not getattr(evaluator, "repeatable", True):
        return result, 0, 0
    status = np.asarray(result.status)
    row, answer = np.nonzero(status.reshape(len(status), -1) == Status.FOUND)  # of sets: several answers of a row
    if not len(row):
        return result, 0, 0
    x = np.asarray(result.x).reshape(len(status), -1, *problems.x.shape[1:])[row, answer]
    asked = _Again(ctx, problems, config, method, evaluator, key)
    if asked.traits.calls_host:
        return result, 0, len(row)
    probability = getattr(config, "probability", None) if probability is None else probability
    held = asked.hold(row, x, probability, strict=again is not None)
    if held.all():
        return result, 0, len(row)
    wrong = np.zeros((len(status), int(np.prod(status.shape[1:]))), bool)
    wrong[row, answer] = ~held
    result = _without(result, problems, wrong.reshape(status.shape))
    if again is None:
        return result, int((~held).sum()), len(row)
    rows = np.flatnonzero(wrong.any(1))
    own = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], problems._replace(key=None))
    anew, withdrawn, _ = confirm(
        again(rows), ctx, own, config, method=method, evaluator=evaluator, key=key, probability=probability
    )
    return _with(result, rows, anew), withdrawn, len(row)


def _with(result: Result, rows: np.ndarray, anew: Result) -> Result:
    """The result with other answers to some rows; both runs' evaluations count."""
    changed = jax.tree.map(np.array, result)
    for name, field in vars(anew).items():
        own = getattr(changed, name)
        own[rows] = field + (own[rows] if name in ("evaluations", "forwards") else 0)
    return jax.tree.map(jnp.asarray, changed) if isinstance(result.x, jax.Array) else changed


def _without(result: Result, problems: Problem, wrong: np.ndarray) -> Result:
    """The result with the answers ``wrong`` [N] or [N, P] taken back."""
    x, delta, status, attempt = (np.array(field) for field in (result.x, result.delta, result.status, result.attempt))
    clean = np.asarray(problems.x)
    clean = np.broadcast_to(clean[:, None], x.shape) if wrong.ndim > 1 else clean
    attempt[wrong], x[wrong], delta[wrong], status[wrong] = x[wrong], clean[wrong], 0, Status.NOT_FOUND
    changed = replace(result, x=x, delta=delta, status=status, attempt=attempt)
    return jax.tree.map(jnp.asarray, changed) if isinstance(result.x, jax.Array) else changed


@partial(jax.jit, static_argnames=("method", "evaluator"))
def _look_again(
    ctx: Context, problems: Problem, config: Config, points: Array, key: Array, *, method: Method, evaluator: Evaluator
) -> Array:
    """Logits [B, K] of points [B, *S] through an evaluator of the user's own."""
    problems = checks.with_keys(problems, key)
    states = start(method, ctx, config, problems).state
    once = method._replace(needs_grad=False, width=None)
    return evaluator(once, ctx, config, problems, states, points).logits


def _lacks(logits: np.ndarray, label: Any, target: Any, probability: ArrayLike | None) -> np.ndarray:
    """[B] how far logits [B, K] are from what is wanted, in logit units; positive where they are not an answer.

    ``losses.gap`` or ``losses.probability_gap`` on the host, where nothing has to be compiled.
    """
    own = np.arange(logits.shape[1]) == np.where(target >= 0, target, label)[:, None]
    aimed, rest = logits[own], np.where(own, -np.inf, logits)
    other = rest.max(1) if probability is None else np.logaddexp.reduce(rest, axis=1)
    odds = 0.0 if probability is None else np.log(float(probability)) - np.log1p(-float(probability))  # type: ignore[arg-type]
    with np.errstate(invalid="ignore"):
        return np.where(target >= 0, other - aimed, aimed - other) + odds


class _Again:
    """Asks for the logits of answers, ``ROWS`` - 1 at once (many rows of a table: more), beside a clean row at least.

    invjax's own evaluators judge by the bare network. Then it is the program of the first check, whatever the method.
    """

    def __init__(
        self, ctx: Context, problems: Problem, config: Config, method: Method | None, evaluator: Evaluator,
        key: Array | None,
    ) -> None:  # fmt: skip
        self.ctx, self.config, self.method, self.evaluator, self.key = ctx, config, method, evaluator, key
        self.problems: Problem = jax.tree.map(np.asarray, problems._replace(key=None))
        self.bare = method is None or seen_through(evaluator, ctx.logits) is ctx.logits
        self.traits = self._traits()

    def _traits(self) -> Traits:
        x = self.problems.x
        if self.bare:
            return traits(self.ctx.logits, x.shape[1:], x.dtype)
        rows = np.zeros(ROWS, int)
        words = {"method": self.method, "evaluator": self.evaluator}
        return traits_of(_look_again.trace(*self._arguments(rows, x[rows]), **words).jaxpr)

    def _arguments(self, rows: np.ndarray, points: Any) -> tuple[Any, ...]:
        return self.ctx, jax.tree.map(lambda leaf: leaf[rows], self.problems), self.config, points, self.key

    def _logits(self, rows: np.ndarray, points: np.ndarray) -> Array:
        """[B, K], not waited for: all batches are on their way before the first is read."""
        if self.bare:
            return look(self.ctx.logits, points)
        assert self.method is not None
        with judging():
            return _look_again(*self._arguments(rows, points), method=self.method, evaluator=self.evaluator)

    def hold(self, rows: np.ndarray, x: np.ndarray, probability: ArrayLike | None, strict: bool) -> np.ndarray:
        """[n] bool: the answers x [n, *S] of the rows [n] have what is wanted, up to rounding.

        strict: up to that of float32, which other batches differ by.
        """
        size = asked_at_once(len(rows), x[0].size)
        outs: list[tuple[int, Array]] = []
        for begin in range(0, len(rows), size - 1):
            some = rows[begin : begin + size - 1]
            fill = size - len(some)
            beside = (some[-1] + 1 + np.arange(fill)) % len(self.problems.x)
            # The answers stand behind the clean rows: in another place than in the run, where they were at most there.
            points = np.concatenate([self.problems.x[beside], x[begin : begin + size - 1]])
            outs.append((fill, self._logits(np.concatenate([beside, some]), points)))
        out = np.concatenate([np.asarray(logits)[fill:] for fill, logits in outs]).astype(np.float64)
        lacks = _lacks(out, self.problems.label[rows], self.problems.target[rows], probability)
        rounding = min(self.traits.rounding, _FLOAT32) if strict else self.traits.rounding
        return lacks <= rounding * largest(out)
