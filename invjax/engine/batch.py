"""``run_batch``: one compiled loop over a whole batch; traces inside the user's own ``jit`` and ``vmap``."""

from __future__ import annotations

from functools import partial

import jax

from invjax.engine.evaluate import white_box
from invjax.engine.lanes import advance, finish, start
from invjax.types import Config, Context, Evaluator, Method, Problem, Result


@partial(jax.jit, static_argnames=("method", "evaluator"))
def run_batch(
    ctx: Context, problems: Problem, config: Config, *, method: Method, evaluator: Evaluator = white_box
) -> Result:
    """Solve B problems together until the last one has ended.

    problems: every leaf with leading axis [B]. Returns a Result with leading axis [B]. Compiled once per shape and
    method: weights, targets and the numbers in ``config`` are traced.
    """
    lanes = start(method, ctx, config, problems)
    lanes, _ = advance(method, evaluator, ctx, config, problems, lanes)
    return finish(method, ctx, config, problems, lanes)
