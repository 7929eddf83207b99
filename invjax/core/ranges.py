"""Checks of weights, radii and boxes in the mathematics of one array, where their numbers are known.

Under ``jit`` and ``vmap`` they are not: there a weight below 0 or a box without a point gives an answer that means
nothing, as the docstrings say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from invjax.core.errors import check_entries, exactly


def check_least(name: str, value: Any, least: float = 0.0, above: bool = False) -> None:
    """Raise BadArgument unless all of ``value`` is at least (or ``above``) ``least``; NaN is not. None is nothing."""
    wanted = f"be {'>' if above else '>='} {exactly(least)}"
    _check(name, value, lambda known: ~(known > least) if above else ~(known >= least), wanted)


def check_box(lower: Any, upper: Any) -> None:
    """Raise BadArgument where a side is NaN, or lower > upper somewhere. None is an open side."""
    for name, side in (("lower", lower), ("upper", upper)):
        _check(name, side, np.isnan, "be numbers")
    if lower is not None and upper is not None and not _traced(lower) and not _traced(upper):
        low, high = np.broadcast_arrays(*(np.asarray(side, np.float64) for side in jax.device_get((lower, upper))))
        check_entries("lower", low, low > high, "be at most upper")


def _check(name: str, value: Any, bad: Callable[[np.ndarray], np.ndarray], wanted: str) -> None:
    if value is None or _traced(value):
        return
    known = np.asarray(jax.device_get(value))
    if known.dtype.kind not in "fiub":
        known = known.astype(np.float64)  # of jax's own kinds, such as bfloat16
    check_entries(name, known, np.asarray(bad(known)), wanted)


def _traced(value: Any) -> bool:
    return isinstance(value, Tracer)
