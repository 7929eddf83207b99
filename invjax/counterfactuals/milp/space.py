"""A FeatureSpace for exact solvers: its compiled arrays in float64, and the domain of one row."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from invjax.constraints.space import FeatureSpace, check_space
from invjax.counterfactuals.milp.domain import Domain

ROUNDINGS = 2.0  # kept from a relation in addition to the constraints' own margin: the answer is rounded once more


@jax.jit
def _permits(compiled: Any, row: Any) -> Any:
    return compiled.permits(row)


@jax.jit
def _satisfied(compiled: Any, row: Any, point: Any) -> Any:
    return compiled.satisfied(row, point)


class Schema(NamedTuple):
    """The arrays of :class:`invjax.constraints.Constraints` on the host, float64 where they were a FeatureSpace's."""

    compiled: Any  # Constraints in the rows' dtype: the judge of rows and answers
    arrays: Any  # Constraints whose leaves are NumPy arrays
    owner: np.ndarray  # [D] int, the feature of each column
    category: np.ndarray  # [F] bool

    def permits(self, row: np.ndarray) -> bool:
        """Whether the row [D] obeys the schema."""
        return bool(_permits(self.compiled, row))

    def satisfied(self, row: np.ndarray, point: np.ndarray) -> bool:
        """Whether ``point`` is an admissible answer to the row, in their dtype."""
        return bool(_satisfied(self.compiled, row, point))

    def domain(self, row: np.ndarray) -> Domain:
        """What the row [D] may become."""
        a, x = self.arrays, np.asarray(row, np.float64)
        one_hot = self.category[self.owner]
        # As Constraints.limits, which always lie around the row.
        lower = np.minimum(np.where(a.can_fall, a.lower, x), x)
        upper = np.maximum(np.where(a.can_rise, a.upper, x), x)
        now = one_hot & (x > 0.5)
        upper = np.where(one_hot & a.forbidden[now].any(0), x, upper)
        cost = a.cost.astype(np.float64)
        move = np.where(one_hot, cost[self.owner] * a.transition[now].sum(0), 0.0)
        matrix, eps = a.relations.matrix, np.finfo(np.asarray(row).dtype).eps
        largest = np.maximum(np.abs(lower), np.abs(upper)) + a.relations.shift
        size = np.where(matrix != 0, np.abs(matrix) * np.where(np.isfinite(largest), largest, 0.0), 0.0).sum(1)
        room = np.where(a.relations.margin > 0, a.relations.margin + ROUNDINGS, 0.0) * eps
        limit = a.relations.upper - room * (size + np.abs(a.relations.upper))
        return Domain(x, lower, upper, a.grid, self.owner, self.category, cost, move, matrix, limit)


def read_space(space: Any, dtype: Any) -> Schema:
    """The schema of a FeatureSpace or of compiled Constraints, for rows of ``dtype``.

    Raises ValueError where ``space`` is neither.
    """
    if isinstance(check_space(space, compiled=True), FeatureSpace):
        # The exact solver's grid points and relations are float64, also where the program's arrays are float32.
        wide = getattr(jax, "enable_x64", None)
        if wide is None:  # until jax 0.8
            from jax.experimental import enable_x64 as wide  # type: ignore[attr-defined]
        with wide(True):
            arrays = jax.tree.map(np.asarray, space.compile(np.float64))
        compiled = space.compile(dtype if jax.config.jax_enable_x64 else np.float32)  # type: ignore[attr-defined]
    else:
        compiled, arrays = space, jax.tree.map(lambda leaf: _double(np.asarray(leaf)), space)
    layout = compiled.layout
    owner = np.repeat(np.arange(len(layout.widths)), layout.widths)
    return Schema(compiled, arrays, owner, np.array(layout.categories, bool))


def _double(leaf: np.ndarray) -> np.ndarray:
    return leaf.astype(np.float64) if leaf.dtype.kind == "f" else leaf
