"""How the methods of :func:`invjax.recourse.explain_rows` are called."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Literal

import jax
import numpy as np

from invjax.core.errors import BadArgument, check_whole
from invjax.counterfactuals import SCFE, face, frontier, pcfe
from invjax.engine import solve
from invjax.engine.evaluate import white_box
from invjax.recourse.plan import FUNCTIONS, Plan
from invjax.recourse.reading import AskedRows
from invjax.types import Result

_FILLED = 64  # shorter lists are filled up to a power of two; the engine does it for longer ones


def call_method(
    plan: Plan,
    rows: AskedRows,
    *,
    key: Any,
    lanes: int | Literal["auto"],
    progress: bool | None,
    mask: np.ndarray | None = None,
    least: int = 8,
) -> Result | None:
    """Answers to the rows that need one, all of which obey the schema; None if no row does.

    mask: [N, D] bool, the columns that may change; not for face and pcfe. least: fill shorter lists up to this length.

    The draws of a row depend on no other row. Short lists are filled up to a power of two with rows of their own, so
    that few shapes are compiled, and so that lists of about one length give the same answers bit for bit.
    """
    todo, x, label, target = rows.question()
    if not len(todo):
        return None
    space = plan.data.space
    if plan.method in FUNCTIONS:
        known: dict[str, Any] = {"train_x": plan.data.x[plan.train], "train_y": plan.data.label[plan.train]}
        known |= {"space": space, "quantile": plan.alpha}
        if plan.method == "face":
            wanted = plan.probability
            return face(plan.seen, x, label, target, density=plan.density, probability=wanted, **known).result
        return pcfe(plan.network, x, label, target, **known)
    count = len(todo)
    most = _FILLED if lanes == "auto" else lanes
    fill = np.resize(np.arange(count), max(count, min(most, max(least, 8, 1 << (count - 1).bit_length()))))
    with warnings.catch_warnings():
        # Rows without a gradient are not left alone here (invjax.recourse.completing), and the record says so.
        warnings.filterwarnings("ignore", message=".* saw no gradient but zero", category=UserWarning)
        result = solve(
            plan.network, x[fill], label[fill], target=target[fill], method=plan.config, density=plan.density,
            space=space, evaluator=plan.evaluator, ids=todo[fill], key=key, lanes=lanes, progress=progress,
            mask=None if mask is None else mask[todo][fill],
        )  # fmt: skip
    return jax.tree.map(lambda field: np.asarray(field)[:count], result)


def check_frontier(plan: Plan, most: int) -> int:
    """``most``, at most the number of features. Raises ValueError unless it is 0 or the plan fits.

    It fits if it is S-CFE with a differentiable model.
    """
    most = min(check_whole("frontier", most, 0), len(plan.data.space.features))
    if most and not (isinstance(plan.config, SCFE) and plan.evaluator is white_box):
        raise BadArgument("frontier", "be left out", hint="it needs the method s-cfe and a model with a gradient")
    return most


def frontier_of(plan: Plan, rows: AskedRows, most: int) -> Iterator[tuple[int, Result]]:
    """The answers with at most 1, …, ``most`` changed features, to the rows that need one."""
    _, x, label, target = rows.question()
    assert isinstance(plan.config, SCFE)
    counts = range(1, most + 1)
    result = frontier(
        plan.network, x, label, target=target, max_changes=list(counts), method=plan.config, density=plan.density,
        space=plan.data.space, progress=False,
    )  # fmt: skip
    for i, m in enumerate(counts):
        yield m, jax.tree.map(lambda field, i=i: np.asarray(field)[:, i], result)
