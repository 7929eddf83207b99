"""The common arguments of the plain functions, checked and normalised once, and the Result that they return."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.core.logits import as_logits_fn
from invjax.core.numerics import at_least_float32
from invjax.core.rows import map_rows
from invjax.engine import checks
from invjax.engine.confirm import confirmed
from invjax.solvers.best import there
from invjax.types import Array, ArrayLike, Bounds, Context, LogitsFn, Problem, Result, Status

CHUNK = 4096  # rows of a table at once


def _early(given: tuple[Context, Array | None], problems: Problem) -> Array:
    """[N] int32: the Status of rows that need no search, PENDING for the others."""
    ctx, probability = given
    logits = at_least_float32(ctx.logits(problems.x))
    has_target = jax.vmap(lambda problem, z: there(problem, z, probability))(problems, logits)
    status = jnp.where(has_target, Status.ALREADY_TARGET, Status.PENDING)
    status = jnp.where(jnp.isnan(logits).any(1), Status.NONFINITE, status)
    if ctx.constraints is not None:
        status = jnp.where(jax.vmap(ctx.constraints.permits)(problems.x), status, Status.INFEASIBLE)
    return status.astype(jnp.int32)


class Query(NamedTuple):
    """N rows, their targets, and what they may become."""

    ctx: Context
    problems: Problem  # NumPy leaves [N, ...]; no keys
    single: bool  # one row was given, without the leading axis

    @property
    def exact(self) -> bool:
        """Whether every point of the hull is permitted."""
        layout = None if self.ctx.constraints is None else self.ctx.constraints.layout
        return layout is None or not (layout.has_grids or layout.has_categories or layout.has_relations)

    def early(self, probability: float | None = None) -> np.ndarray:
        """[N] int32: ALREADY_TARGET, NONFINITE, INFEASIBLE (the row breaks its own schema), or PENDING.

        probability: that the target must have; None: it must win.
        """
        wanted = None if probability is None else jnp.asarray(probability, jnp.float32)
        return np.array(map_rows(_early, (self.ctx, wanted), self.problems, batch=CHUNK, few_shapes=True))

    def result(
        self, x: Any, status: np.ndarray, evaluations: Any, forwards: Any, attempt: Any,
        probability: float | None = None,
    ) -> Result:  # fmt: skip
        """The answers x [N, D] as a Result. probability: of the target, where that is wanted rather than a win."""
        answer = Result(x, x - self.problems.x, status.astype(np.int32), evaluations, forwards, attempt)
        answer = confirmed(answer, self.ctx, self.problems, probability=probability)
        return answer[0] if self.single else answer


def make_query(
    model: LogitsFn,
    x: ArrayLike,
    label: ArrayLike,
    target: ArrayLike | None,
    *,
    space: Any = None,
    bounds: Bounds | tuple[ArrayLike, ArrayLike] | None = None,
) -> Query:
    """Checked arguments; bounds are [0, 1] by default. Raises BadArgument."""
    if target is None:
        raise BadArgument("target", "be the wanted class of each row", None)
    network = as_logits_fn(model)
    problems, single = checks.make_problems(network, x, label, target=target, bounds=bounds, space=space)
    if problems.x.ndim != 2:
        raise BadArgument("x", "be rows [N, D]", problems.x.shape)
    checks.check_unmixed(network, problems, "model")
    constraints = None if space is None else checks.compile_space(space, problems.x.dtype)
    return Query(Context(network, None, constraints), jax.tree.map(np.asarray, problems), single)


def check_rows_of_targets(classes: np.ndarray, target: Any) -> None:
    """Raise BadArgument unless each wanted class has a training row; classes: [M] of the rows, target: [N]."""
    for one in np.unique(target):
        if not np.any(classes == one):
            raise BadArgument("train_y", "have rows of each target's class", Words(f"without any of class {one}"))
