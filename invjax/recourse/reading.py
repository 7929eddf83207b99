"""The rows in question as they come in: columns, targets, and which of them need no method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax.constraints import FeatureSpace
from invjax.constraints.table import columns
from invjax.core.errors import BadArgument, Words, of_shape
from invjax.core.labels import classes_of
from invjax.data.tables.table import Table, TabularData
from invjax.recourse.judging import share_of, there
from invjax.recourse.plan import Plan
from invjax.recourse.raw import logits_of_table
from invjax.types import Status


class AskedRows(NamedTuple):
    """N rows before any method has seen them."""

    names: list[str]
    table: Table  # raw units
    x: np.ndarray  # [N, D] float32, the same encoded
    logits: np.ndarray  # [N, K] float64, NaN where the network gives no numbers
    predicted: np.ndarray  # [N] class, -1 for none
    target: np.ndarray  # [N] wanted class
    status: np.ndarray  # [N] int32, PENDING for the rows that need a method
    reasons: list[str]  # why another row has no answer

    def rivals(self, rows: np.ndarray) -> np.ndarray:
        """[n] int32: the likeliest class of each row but its target: as a rule, the predicted one."""
        rest = self.logits[rows].copy()
        rest[np.arange(len(rows)), self.target[rows]] = -np.inf
        return rest.argmax(1).astype(np.int32)

    def sound(self) -> Table:
        """The rows that obey the schema."""
        kept = np.flatnonzero(self.status != Status.INFEASIBLE)
        return {name: np.asarray(column)[kept] for name, column in self.table.items()}

    def question(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The n rows that need a method: their indices [n], x [n, D], :meth:`rivals` and target [n] int32."""
        todo = np.flatnonzero(self.status == Status.PENDING)
        return todo, self.x[todo], self.rivals(todo), self.target[todo].astype(np.int32)


def read_rows(plan: Plan, rows: Any, ids: Sequence[Any] | None, target: Any, undesired: Any = None) -> AskedRows:
    """Rows of the table, or a table of others, with what can be said of each without a method.

    Arguments as in :func:`invjax.recourse.explain_rows`. Raises ValueError naming the argument.
    """
    data, space = plan.data, plan.data.space
    table, names = _table(data, rows, ids)
    x, reasons = space.encode(table), space.reasons(table)
    for n, row in enumerate(x):
        if not reasons[n] and not np.isfinite(row).all():
            reasons[n] = "a cell is not a number"
    logits = logits_of_table(plan.seen, space, table)
    predicted = classes_of(logits)
    wanted = _targets(data, target, undesired, logits, predicted)
    status = np.full(len(names), Status.PENDING, np.int32)
    status[predicted < 0] = Status.NONFINITE
    status[there(logits, wanted, plan.probability) & (predicted >= 0)] = Status.ALREADY_TARGET
    bound = _nothing_may_change(space, x)
    for n in range(len(names)):
        if reasons[n]:
            status[n] = Status.INFEASIBLE
        elif status[n] == Status.PENDING and bound[n]:
            status[n], reasons[n] = Status.INFEASIBLE, "no feature of this row may change, or has room to"
        elif status[n] == Status.NONFINITE:
            reasons[n] = "the model gives no finite numbers for this row"
        elif status[n] == Status.ALREADY_TARGET:
            reasons[n] = _already(plan.probability, data.classes[wanted[n]], logits[n], wanted[n])
    return AskedRows(names, table, x, logits, predicted, wanted, status, reasons)


def _table(data: TabularData, rows: Any, ids: Sequence[Any] | None) -> tuple[Table, list[str]]:
    """The rows as columns, and their names."""
    if isinstance(rows, Mapping) or (hasattr(rows, "columns") and hasattr(rows, "iloc")):
        table = columns(rows, data.space.names)
        index = getattr(rows, "index", None)
        found = range(len(next(iter(table.values())))) if index is None else index
    else:
        chosen = data.test if rows is None else rows
        try:
            found = np.atleast_1d(np.arange(len(data.label))[chosen])
        except (IndexError, TypeError) as error:
            raise BadArgument("rows", f"be rows of the {len(data.label)} of the table, or a table", rows) from error
        table = data.rows(found)
        found = found if data.ids is None else data.ids[found]
    if ids is not None and np.ndim(ids) != 1:
        raise BadArgument("ids", "be a list of names", of_shape(np.shape(ids)))
    names = [str(name) for name in (found if ids is None else ids)]
    count = len(next(iter(table.values())))
    if not names or len(names) != count:
        raise BadArgument("ids", f"name each of the {count} rows", len(names))
    return table, names


def _targets(data: TabularData, target: Any, undesired: Any, logits: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """[N] wanted classes."""
    count = len(predicted)
    if undesired is not None and target is not None:
        raise BadArgument("undesired", "be left out where a target is given", undesired)
    if target is None and undesired is None:
        target = data.desired
    if target is None:  # the runner-up, of the rows in question
        # A class that is ruled out (−infinity) comes last, but before the class that the row has.
        rest = np.nan_to_num(logits, nan=np.finfo(logits.dtype).min, posinf=np.inf, neginf=np.finfo(logits.dtype).min)
        rest[np.arange(count), predicted] = -np.inf
        rival = rest.argmax(1).astype(np.int32)
        if undesired is None:
            return rival
        stuck = (predicted == data.class_of(undesired, "undesired")) | (predicted < 0)
        return np.where(stuck, rival, predicted).astype(np.int32)
    given = np.atleast_1d(np.asarray(target))
    if given.shape not in ((1,), (count,)):
        raise BadArgument("target", f"be one class or one for each of the {count} rows", Words(f"shape {given.shape}"))
    wanted = [data.class_of(one) for one in given.tolist()]
    return np.broadcast_to(np.asarray(wanted, np.int32), (count,)).copy()


def _already(probability: float | None, name: str, logits: np.ndarray, target: int) -> str:
    if probability is None:
        return f"the model already says {name!r}"
    share = share_of(logits[None], np.array([target]))[0]
    return f"the model already gives {name!r} the probability {share:.2f}"


def _nothing_may_change(space: FeatureSpace, x: np.ndarray) -> np.ndarray:
    """[N] bool: no column has room."""
    low, high = jax.vmap(space.compile(np.float32).limits)(jnp.asarray(np.where(np.isfinite(x), x, 0), np.float32))
    return np.all(np.asarray(low) >= np.asarray(high), axis=1)
