"""The logits as an evaluator sees them: for whoever judges an answer outside of a run."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.engine.blackbox import Antithetic, surrogate
from invjax.engine.evaluate import white_box
from invjax.types import UNTARGETED, Array, Context, Evaluator, LogitsFn, Method, Problem


def _nothing(*_: Any) -> Array:
    return jnp.zeros(())


# Asks for the logits of one point per row, and for nothing else.
_LOOK = Method("look", _nothing, _nothing, _nothing, _nothing, needs_grad=False)


@dataclasses.dataclass(frozen=True)
class _Seen:
    evaluator: Evaluator

    def __call__(self, logits: LogitsFn, x: Array) -> Array:
        count = x.shape[0]
        rows = jnp.arange(count, dtype=jnp.int32)
        sides = (jnp.full(count, np.finfo(np.float32).min, x.dtype), jnp.full(count, np.finfo(np.float32).max, x.dtype))
        problems = Problem(
            x, jnp.zeros_like(rows), jnp.full_like(rows, UNTARGETED), *sides, None, None,
            jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), rows), rows,
        )  # fmt: skip
        return self.evaluator(_LOOK, Context(logits), None, problems, rows, x).logits


def seen_through(evaluator: Evaluator, logits: LogitsFn) -> LogitsFn:
    """The classifier that ``evaluator`` shows: x [B, *S] -> logits [B, K], a pytree with the same weights.

    The evaluators of the library show the network's own logits, so the network itself comes back.
    """
    if evaluator is white_box or evaluator is surrogate or isinstance(evaluator, Antithetic):
        return logits
    return jax.tree_util.Partial(_Seen(evaluator), logits)
