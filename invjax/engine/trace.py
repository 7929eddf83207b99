"""``invjax.trace``: the same run as ``solve``, with what happened at every iteration written down."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses
from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check_whole
from invjax.core.host import own_work
from invjax.core.numerics import lifted
from invjax.core.shown import short_repr
from invjax.engine.checks import check_evaluator
from invjax.engine.confirm import confirmed
from invjax.engine.evaluate import white_box
from invjax.engine.lanes import Lanes, finish, learn, look, start
from invjax.engine.solve import prepare
from invjax.types import Array, ArrayLike, Config, Context, Evaluator, Method, Problem, Result


class Trace(NamedTuple):
    """What was asked at each of T iterations by N examples. Rows of ended examples repeat; see ``active``."""

    support: Array  # [T, N] int32, coordinates in which the asked point differs from the clean input
    gap: Array  # [T, N] how far the logits are from the wanted class, logit units; negative: reached
    value: Array  # [T, N] the method's loss
    norm: Array  # [T, N] ‖asked point - clean input‖_2, data units
    active: Array  # [T, N] bool, not finished before this iteration

    __repr__ = short_repr


@partial(jax.jit, static_argnames=("method", "evaluator", "steps"))
def _run(
    ctx: Context, problems: Problem, config: Config, *, method: Method, evaluator: Evaluator, steps: int
) -> tuple[Result, Trace]:
    def iterate(lanes: Lanes, _: Any) -> tuple[Lanes, Trace]:
        evals = look(method, evaluator, ctx, config, problems, lanes)
        flat = (lifted(evals.point) - lifted(problems.x)).reshape(problems.label.shape[0], -1)
        row = Trace(
            support=(flat != 0).sum(1, dtype=jnp.int32),
            gap=jax.vmap(losses.gap)(evals.logits, problems.label, problems.target),
            value=evals.value,
            norm=jnp.sqrt(jnp.sum(flat**2, axis=1)),
            active=lanes.active,
        )
        return learn(method, evaluator, ctx, config, problems, lanes, evals), row

    lanes, rows = jax.lax.scan(iterate, start(method, ctx, config, problems), length=steps)
    return finish(method, ctx, config, problems, lanes), rows


@kinds_checked
@own_work()
def trace(
    logits: Any,
    x: ArrayLike,
    label: ArrayLike,
    *,
    method: Config,
    steps: int,
    evaluator: Evaluator = white_box,
    **arguments: Any,
) -> tuple[Result, Trace]:
    """Run ``steps`` iterations of a method on a batch and record each of them.

    Args:
      logits, x, label, method, evaluator: as for :func:`invjax.solve`; ``label`` is [N].
      steps: iterations T, static. An example that needs more ends as PENDING.
      **arguments: ``target``, ``bounds``, ``mask``, ``groups``, ``key``, ``ids``, ``density`` of :func:`invjax.solve`.

    Returns:
      The Result [N] and the Trace [T, N].

    Raises:
      ValueError: as :func:`invjax.solve`; also for a method that asks several points at once.
    """
    steps = check_whole("steps", steps)
    check_evaluator(evaluator)
    prepared = prepare(logits, x, label, method=method, **arguments)
    if prepared.single:
        raise BadArgument("label", "be [N], a batch, for a trace", Words("a scalar"))
    if prepared.method.width is not None:
        raise BadArgument("method", "ask one point at a time for a trace", Words(prepared.method.name))
    result, rows = _run(*prepared.batch(), method=prepared.method, evaluator=evaluator, steps=steps)
    ctx, problems, config, chosen, key, _ = prepared
    return confirmed(result, ctx, problems, config, method=chosen, evaluator=evaluator, key=key), rows
