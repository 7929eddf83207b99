"""The sparsity frontier: the best answer with 1, 2, …, M changed features, all from one compiled solve."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.counterfactuals.scfe import SCFEConfig, objective
from invjax.engine import checks, prepare, run_batch
from invjax.types import Array, ArrayLike, Context, Problem, Result, Status


@partial(jax.jit, static_argnames=("method",))
def _solve(ctx: Context, problems: Problem, config: SCFEConfig, counts: Array, *, method: Any) -> tuple[Result, Array]:
    """Every problem with every count: fields [M, B, ...], and the objective of each answer."""

    def one(count: Array) -> tuple[Result, Array]:
        setting = dataclasses.replace(config, max_changes=count)
        result = run_batch(ctx, problems, setting, method=method)
        value = jax.vmap(lambda problem, x: objective(ctx, problem, setting, x))(problems, result.x)
        return result, jnp.where(result.status == Status.FOUND, value, jnp.inf)

    return jax.vmap(one)(counts)


def frontier(
    logits: Callable[[Array], Array],
    x: ArrayLike,
    label: ArrayLike,
    *,
    target: ArrayLike,
    max_changes: Sequence[int] = (1, 2, 3, 4, 5),
    method: SCFEConfig | None = None,
    lanes: int = 256,
    **problem: Any,
) -> Result:
    """S-CFE for every m in ``max_changes``: the fields of the Result are [N, M, ...], in the order given.

    The counts are a batch axis of one program: one solve for the whole path. An answer with few changes is also one
    with more, so along each row (sorted by m) the objective never rises and what was found stays found.

    Args:
      logits, x, label, target: as for :func:`invjax.solve`; x [N, *S].
      max_changes: the numbers m of features that may change, each >= 1.
      method: the other constants of S-CFE.
      lanes: how many (row, m) pairs are worked on at once.
      **problem: ``density``, ``space`` or ``bounds``, ``mask``, ``groups``, ``key`` of :func:`invjax.solve`.

    Raises:
      ValueError: naming the argument, what it must be and what it was.
    """
    config = SCFEConfig() if method is None else method
    if not isinstance(config, SCFEConfig):
        raise BadArgument("method", "be an S-CFE configuration", Words(type(config).__name__))
    counts = np.asarray(max_changes)
    if counts.ndim != 1 or not len(counts) or counts.dtype.kind not in "iu" or counts.min() < 1:
        raise BadArgument("max_changes", "be whole numbers >= 1", max_changes)
    order = np.argsort(counts, kind="stable")
    ctx, problems, config, chosen, key, single = prepare(logits, x, label, method=config, target=target, **problem)
    problems = checks.with_keys(problems, key)
    total = problems.label.shape[0]
    rows = max(1, min(total, lanes // len(counts)))
    parts = []
    for begin in range(0, total, rows):  # the last batch is filled up with rows of its own: one program for all
        index = np.resize(np.arange(begin, min(begin + rows, total)), rows)
        batch = jax.tree.map(lambda field, index=index: field[index], problems)
        result, value = _solve(ctx, batch, config, jnp.asarray(counts[order], jnp.int32), method=chosen)
        # The best of this m and all smaller ones. [M, B, M]: which of them are allowed for m.
        allowed = np.tril(np.ones((len(counts), len(counts)), bool))
        best = jnp.argmin(jnp.where(allowed[:, None, :], value.T[None], jnp.inf), axis=2)  # [M, B]
        own = jnp.arange(len(counts))[:, None]
        best = jnp.where(jnp.isfinite(jnp.take_along_axis(value, best, axis=0)), best, own)
        picked = jax.tree.map(
            lambda field, best=best: jnp.take_along_axis(field, best.reshape(best.shape + (1,) * (field.ndim - 2)), 0),
            result,
        )
        picked = picked._replace(evaluations=result.evaluations, forwards=result.forwards)
        keep = min(rows, total - begin)
        parts.append(jax.tree.map(lambda field, keep=keep: np.asarray(field).swapaxes(0, 1)[:keep], picked))
    result = Result(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
    result = jax.tree.map(lambda field: field[:, np.argsort(order)], result)
    return result.rows(0) if single else result
