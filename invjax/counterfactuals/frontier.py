"""The sparsity frontier: the best answer with 1, 2, …, M changed features, all from one compiled solve."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words
from invjax.core.host import own_work
from invjax.core.rows import map_rows
from invjax.counterfactuals.scfe import SCFE, objective
from invjax.engine import checks, prepare, run_batch
from invjax.engine.choosing import check_lanes, choose
from invjax.engine.confirm import confirmed
from invjax.engine.programs import Programs
from invjax.engine.progress import progress_bar
from invjax.engine.queue import Part
from invjax.types import Array, ArrayLike, Context, LogitsFn, Method, Problem, Result, Status


def _path(shared: tuple[Context, SCFE, Array], problems: Problem, method: Method) -> Result:
    """The answers [B, M, ...] to B problems with each of the M counts, which rise."""
    ctx, config, counts = shared

    def one(count: Array) -> tuple[Result, Array]:
        setting = dataclasses.replace(config, max_changes=count)
        result = run_batch(ctx, problems, setting, method=method)
        value = jax.vmap(lambda problem, x: objective(ctx, problem, setting, x))(problems, result.x)
        return result, jnp.where(result.status == Status.FOUND, value, jnp.inf)

    result, value = jax.vmap(one)(counts)  # fields [M, B, ...], and the objective of each answer
    # The best of this m and all smaller ones. [M, B, M]: which of them are allowed for m.
    allowed = jnp.tri(len(counts), dtype=bool)
    best = jnp.argmin(jnp.where(allowed[:, None, :], value.T[None], jnp.inf), axis=2)  # [M, B]
    own = jnp.arange(len(counts))[:, None]
    best = jnp.where(jnp.isfinite(jnp.take_along_axis(value, best, axis=0)), best, own)
    picked = jax.tree.map(
        lambda field: jnp.take_along_axis(field, best.reshape(best.shape + (1,) * (field.ndim - 2)), 0), result
    )
    picked = replace(picked, evaluations=result.evaluations, forwards=result.forwards)
    return jax.tree.map(lambda field: field.swapaxes(0, 1), picked)


@kinds_checked
@own_work()
def frontier(
    logits: LogitsFn,
    x: ArrayLike,
    label: ArrayLike,
    *,
    target: ArrayLike,
    max_changes: Sequence[int] | np.ndarray = (1, 2, 3, 4, 5),
    method: SCFE | None = None,
    lanes: int | Literal["auto"] = "auto",
    progress: bool | None = None,
    **problem: Any,
) -> Result:
    """S-CFE for every m in ``max_changes``: the fields of the Result are [N, M, ...], in the order given.

    The counts are a batch axis of one program, so one solve gives the whole path. An answer with few changes is also an
    answer for a larger m, so along each row (sorted by m) the objective never rises, and what was found stays found.

    Args:
      logits, x, label, target: as for :func:`invjax.solve`; x [N, *S].
      max_changes: the numbers m of features that may change, each >= 1.
      method: the other constants of S-CFE.
      lanes: how many (row, m) pairs are worked on at once, as for :func:`invjax.solve`.
      progress: show a bar, as for :func:`invjax.solve`; it counts rows as found that have an answer to the largest m.
      **problem: ``density``, ``space`` or ``bounds``, ``mask``, ``groups``, ``key`` of :func:`invjax.solve`.

    Raises:
      ValueError: naming the argument, what it must be and what it was.
    """
    config = SCFE() if method is None else method
    if not isinstance(config, SCFE):
        raise BadArgument("method", "be an S-CFE configuration", Words(type(config).__name__))
    counts = np.asarray(max_changes)
    if counts.ndim != 1 or not len(counts) or counts.dtype.kind not in "iu" or counts.min() < 1:
        raise BadArgument("max_changes", "be whole numbers >= 1", max_changes)
    check_lanes(lanes, None)
    made = prepare(logits, x, label, method=config, target=target, **problem)
    problems = checks.with_keys(made.problems, made.key)
    count = problems.label.shape[0]
    # More changes than there are features are no other question, and the counts are an axis of the program.
    asked, place = np.unique(np.minimum(counts, made.problems.x[0].size), return_inverse=True)
    programs = Programs(made.ctx, made.config, made.key, made.method)
    rows = max(1, min(count, choose(programs, made.problems, lanes, count * len(asked)).lanes // len(asked)))
    shared = (made.ctx, made.config, jnp.asarray(asked, jnp.int32))
    with progress_bar(progress, count) as on_part:  # the host waits for all of it: mostly for the compilation
        result = map_rows(_path, shared, problems, batch=rows, static=(made.method,))
        most = jax.tree.map(lambda field: field[:, -1], result)
        on_part(Part(np.arange(count), most, count, count, int(result.evaluations.max()), 0))
    result = jax.tree.map(lambda field: field[:, place], result)
    result = confirmed(result, made.ctx, made.problems, made.config)
    return result[0] if made.single else result
