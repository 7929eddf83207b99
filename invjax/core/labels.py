"""What whole numbers stand for: classes, groups and statuses, checked once at the door; and the class that scores name.

A label that is text, begins at 1 or wraps around compares as "wrong" with everything, and a row of NaN has its largest
entry at place 0. Neither is an error by itself, so both are looked at here before anything is compared or counted.
"""

from __future__ import annotations

import numbers
from typing import Any

import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument, Words, check_entries, of_shape
from invjax.types import Array, Status

NO_CLASS = -1  # the class of a row of scores that names none
_MOST, _LARGEST = np.iinfo(np.int32).max, np.iinfo(np.int64).max
_FEWEST, _EACH = 1000, 10  # so many classes are always possible, and so many for each example
_STATUSES = tuple(int(status) for status in Status)


def check_indices(
    name: str,
    values: Any,
    count: int | None,
    total: int | None = None,
    *,
    what: str = "classes",
    of: str = "the model",
    strict: bool = False,
) -> np.ndarray:
    """``values`` [N] as int32 in [0, total), on the host. Floats and truth values pass where they are whole numbers.

    Args:
      name: of the argument, for the message.
      values: of shape [count]; None leaves N open.
      total: K or G; None for any that fits into 32 bits.
      what: "classes", "groups", … of: whose they are. Both for the message.
      strict: refuse floats and truth values, too.

    Raises:
      BadArgument: another shape, or an entry that is no such number. It names the first one and its row.
    """
    given, noun = _array(name, values, what), "classes" if what == "classes" else f"{what.removesuffix('s')} indices"
    if given.ndim != 1 or (count is not None and len(given) != count):
        length = "N" if count is None else count
        raise BadArgument(name, f"be {noun} of shape ({length},), one per example", of_shape(given.shape))
    wanted = f"be {noun} {'0, 1, …' if total is None else f'0 … {total - 1}'} as whole numbers"
    whole = whole_numbers(name, given, wanted)
    if strict and (given.dtype == bool or jnp.issubdtype(given.dtype, jnp.floating)):
        raise BadArgument(name, wanted, given.dtype, hint="give them as integers")
    if total is None:
        check_entries(name, whole, (whole < 0) | (whole > _MOST), wanted)
    else:
        bad = (whole < 0) | (whole >= total)
        if bad.any():
            from_one = whole.min() == 1 and whole.max() == total
            row = int(np.argmax(bad))
            hint = f"the first of the {what} is 0: subtract 1" if from_one else None
            raise BadArgument(name, f"lie in [0, {total}), the {what} of {of}", whole[row], row, hint=hint)
    return whole.astype(np.int32)


def count_classes(name: str, labels: np.ndarray) -> int:
    """K of checked labels [N]: the largest plus 1. Raises BadArgument where N examples hardly have so many classes."""
    most = max(_FEWEST, _EACH * len(labels))
    check_entries(name, labels, labels >= most, f"be classes 0 … K-1, below {most} for {len(labels)} examples")
    return int(labels.max()) + 1


def whole_numbers(name: str, values: Any, wanted: str) -> np.ndarray:
    """``values`` as an array of integers, in which nothing is rounded or wrapped around.

    Raises BadArgument ``name must wanted`` about the first entry that is no whole number.
    """
    array = _array(name, values, wanted)
    if array.dtype.kind == "O":  # Python's own numbers, as pandas keeps them
        bad = ~np.asarray([_is_number(entry) for entry in array.flat], bool)
        check_entries(name, array, bad.reshape(array.shape), wanted)
        array = np.asarray(array.tolist())
    if array.dtype.kind in "iu":
        return array
    if array.dtype.kind == "b":
        return array.astype(np.int64)
    if array.size == 0:
        return np.zeros(array.shape, np.int64)
    if not jnp.issubdtype(array.dtype, jnp.floating):  # text, dates, integers beyond 64 bits
        raise BadArgument(name, wanted, array.flat[0], (0,) * array.ndim if array.ndim > 1 else 0)
    exact = array.astype(np.float64)
    with np.errstate(invalid="ignore"):
        bad = ~(np.isfinite(exact) & (exact == np.floor(exact)) & (np.abs(exact) < 2.0**63))
    check_entries(name, exact, bad, wanted)
    return exact.astype(np.int64)


def check_status(name: str, values: Any) -> np.ndarray:
    """``values`` of any shape as int32, each a :class:`~invjax.types.Status`. Raises BadArgument about the first other.

    Names of statuses are refused: compared with a number, each would count as a failure.
    """
    wanted = "hold statuses (invjax.Status) as whole numbers"
    array = whole_numbers(name, values, wanted)
    check_entries(name, array, ~np.isin(array, _STATUSES), wanted)
    return array.astype(np.int32)


def check_flags(name: str, values: Any) -> np.ndarray:
    """``values`` of any shape as bool: truth values, or 0 and 1. Raises BadArgument about the first entry that is not.

    Text is refused, because ``bool("False")`` is true.
    """
    wanted = "be bool, or 0 and 1"
    array = _array(name, values, wanted)
    if array.dtype.kind == "b":
        return array
    whole = whole_numbers(name, array, wanted)
    check_entries(name, whole, (whole != 0) & (whole != 1), wanted)
    return whole.astype(bool)


def classes_of(scores: Any) -> Any:
    """The class with the largest score, [..., K] -> [...] int; ``NO_CLASS`` where the scores name none. Traceable.

    They name none where one of them is NaN, or all are -inf: a network that diverged has no class, not class 0.
    """
    xp: Any = np if isinstance(scores, np.ndarray) else jnp
    top = scores.max(-1)
    return xp.where(xp.isnan(top) | (top == -xp.inf), NO_CLASS, scores.argmax(-1))


def check_finite(name: str, scores: np.ndarray, what: str = "logits") -> None:
    """Raise BadArgument, about the network ``name``, where one of its ``scores`` [N, ...] is NaN. It names the row."""
    broken = np.isnan(scores).any(tuple(range(1, scores.ndim)))
    if broken.any():
        shown = "NaN for all of them" if broken.all() else f"NaN for {broken.sum()} of them"
        was = Words(f"{shown}, the first")
        hint = "are the weights those of a training that diverged?"
        raise BadArgument(name, f"give finite {what} for the {len(scores)} examples", was, np.argmax(broken), hint=hint)


def no_class(classes: Array, total: int) -> Array:
    """Where ``classes`` are none of 0 … total - 1; bool, traceable, for maps that are NaN there."""
    return (classes < 0) | (classes >= total)


def _is_number(entry: Any) -> bool:
    """Whether a Python object is a number that 64 bits hold."""
    return isinstance(entry, numbers.Real | np.bool_) and bool(abs(entry) <= _LARGEST)  # type: ignore[operator]


def _array(name: str, values: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(values)
        mixed = array.dtype.kind in "US" and isinstance(values, list | tuple)  # [0, "cat"] is no list of text
        return np.asarray(values, object) if mixed else array
    except ValueError as error:  # rows of unequal length
        raise BadArgument(name, f"be an array of {what}", Words(f"a {type(values).__name__}")) from error
