"""One error for every bad argument: what it is called, what it must be, what it was.

Whoever calls on someone's behalf renames it (``error.renamed("weights")``) and the command line maps the name to its
option: nobody ever parses a message.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from invjax.core.meant import did_you_mean

NOTHING: Any = object()  # nothing to show


class Words(str):
    """A description of what an argument was, shown as it stands: ``Words("of shape (2, 3)")``."""

    __slots__ = ()


class BadArgument(ValueError):
    """``{name} must {wanted}, was {was} at index {index}; {hint}``.

    Fields:
      name: the argument, or the field of a configuration.
      wanted: what must hold, read after "must": "be at least 1", "have shape (3,)".
      was: the value (shown by ``repr``) or :class:`Words` about it; nothing by default.
      index: where in an array, an int or a tuple of ints.
      hint: what to do about it.
    """

    def __init__(
        self, name: str, wanted: str, was: Any = NOTHING, index: Any = None, *, hint: str | None = None
    ) -> None:
        self.name, self.wanted, self.was, self.index, self.hint = name, wanted, was, index, hint
        super().__init__(name, wanted)

    def __str__(self) -> str:
        text = f"{self.name} must {self.wanted}"
        if self.was is not NOTHING:
            text += f", was {_shown(self.was)}"
        if self.index is not None:
            text += f" at index {_plain_index(self.index)}"
        return text + (f"; {self.hint}" if self.hint else "")

    def renamed(self, name: str) -> BadArgument:
        """The same about the argument ``name``: the caller's own word for it."""
        return type(self)(name, self.wanted, self.was, self.index, hint=self.hint)

    def __reduce__(self) -> Any:
        return _again, (type(self), self.name, self.wanted, self.was, self.index, self.hint)


def _again(kind: type[BadArgument], name: str, wanted: str, was: Any, index: Any, hint: str | None) -> BadArgument:
    return kind(name, wanted, was, index, hint=hint)


def _shown(value: Any) -> str:
    """Words and dtypes as they stand, NumPy's scalars as Python's (``0.5``, not ``np.float32(0.5)``), else repr.

    In one line, however large the value is.
    """
    if isinstance(value, Words | np.dtype):
        return str(value)
    try:
        scalar = isinstance(value, np.generic) or (
            isinstance(value, jax.Array) and value.shape == () and not is_key(value)
        )
        text = " ".join(repr(value.item() if scalar else value).split())
    except Exception:  # of an object that cannot be shown, or an int of more digits than Python prints
        text = f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 20]} … {text[-15:]}"


_LONGEST = 200  # characters of a value in a message


def _plain_index(index: Any) -> Any:
    return int(index) if np.ndim(index) == 0 else tuple(int(i) for i in index)


def in_range(values: np.ndarray) -> Words:
    """What an array was, by its least and its largest entry."""
    return Words(f"in [{exactly(values.min())}, {exactly(values.max())}]")


def exactly(value: Any) -> str:
    """A number with the digits that tell it from every other: what is just beyond a limit does not look like it."""
    short = f"{value:g}"
    return short if float(short) == float(value) else _shown(value)


def of_shape(shape: Any) -> Words:
    """What an array was, by its shape."""
    return Words(f"of shape {tuple(shape)}")


def check_entries(name: str, values: np.ndarray, bad: np.ndarray, wanted: str, hint: str | None = None) -> None:
    """Raise BadArgument about the first entry of ``values`` where ``bad`` (bool, of the same shape) holds."""
    if np.any(bad):
        index: list[int] = np.argwhere(bad)[0].tolist()
        at = tuple(index) if len(index) > 1 else index[0] if index else None
        raise BadArgument(name, wanted, values[tuple(index)], at, hint=hint)


def check_shape(name: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raise BadArgument unless ``value`` (None: nothing) broadcasts to ``shape``."""
    given = () if value is None else np.shape(value)
    try:
        fits = np.broadcast_shapes(given, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise BadArgument(name, f"be a number or of shape {shape}", of_shape(given))


def check(name: str, value: Any, ok: Callable[[Any], bool], what: str) -> Any:
    """``value``, if it fulfils ``ok``; what cannot be compared (None, text, an array) does not.

    what: read after "must be".
    """
    try:
        good = bool(ok(value))
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        hint = "a number is written without quotes" if isinstance(value, str) and value[:1].isdigit() else None
        raise BadArgument(name, f"be {what}", value, hint=hint)
    return value


def check_whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """``value`` as an int, if it is a whole number from ``least`` to ``most``; truth values are none.

    most: by default the largest int32, which counts become on a device.
    """
    whole = isinstance(value, int | np.integer) or (isinstance(value, float | np.floating) and value.is_integer())
    if whole and not isinstance(value, bool) and least <= value <= (MOST if most is None else most):
        return int(value)
    most = MOST if most is None and whole and value > MOST else most
    raise BadArgument(name, f"be a whole number {f'>= {least}' if most is None else f'from {least} to {most}'}", value)


MOST = 2**31 - 1  # the largest int32


def check_seed(name: str, value: Any, bits: int = 64, least: int = 0) -> int:
    """``value`` as an int, if it is a whole number that NumPy's generators take; truth values are none.

    bits: 32 for its old RandomState. A key of jax has 32 too, and a sign (least: -(2**31)); it would drop the others.
    """
    if not isinstance(value, int | np.integer):
        raise BadArgument(name, "be a whole number", value)
    return check_whole(name, value, least, 2**bits - 1)


def check_number(
    name: str, value: Any, ok: Callable[[float], bool] | None = None, what: str = "a finite number"
) -> float:
    """``value`` as a float, if it is a finite number that fulfils ``ok``; truth values are none.

    what: read after "must be": "a number > 0".
    """
    known = not isinstance(value, Tracer) and getattr(value, "shape", None) == ()
    value = value.item() if known and value.dtype.kind in "fiu" else value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and abs(value) <= sys.float_info.max and (ok is None or ok(float(value))):
        return float(value)
    raise BadArgument(name, f"be {what}", value)


def check_choice(name: str, value: Any, choices: Iterable[str]) -> Any:
    """``value``, if it is one of ``choices``."""
    choices = list(choices)
    if isinstance(value, str) and value in choices:
        return value
    raise unknown_name(name, value, choices)


def unknown_name(name: str, value: Any, known: Iterable[Any], wanted: str | None = None) -> BadArgument:
    """The error about a name that is none of ``known``. It asks whether the closest one was meant.

    wanted: read after "must", by default "be one of" them.
    """
    known = list(known)
    return BadArgument(
        name, wanted or f"be one of {', '.join(map(repr, known))}", value, hint=did_you_mean(value, known)
    )


def warn(message: str) -> None:
    """A UserWarning at the line outside invjax from which the library was called."""
    frame, level = sys._getframe(1), 1
    ours = ("invjax", "contextlib")  # a decorator of ours stands between as contextlib
    while frame is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] in ours:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level + 1)


def is_key(value: Any) -> bool:
    """Whether ``value`` is an array of typed PRNG keys."""
    dtype = getattr(value, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def check_key(key: Any, name: str = "key") -> jax.Array:
    """One PRNG key as a typed threefry key, whatever its kind; None stands for ``jax.random.key(0)``.

    Draws of the other kinds ("rbg", "unsafe_rbg") depend on the batch under ``vmap``: an example would get other
    numbers beside other examples. So their bits are folded into a threefry key. One of threefry stays as it is.

    key: typed, or of the old kind (uint32, two of them for threefry).
    """
    if key is None:
        return jax.random.key(0, impl=_THREEFRY)
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    if is_key(key):
        if shape == ():
            return key if str(jax.random.key_impl(key)) == _THREEFRY else _threefry(jax.random.key_data(key))
    elif dtype == jnp.uint32 and shape is not None and len(shape) == 1 and shape[0] >= 2:
        return _threefry(jnp.asarray(key))
    was = key if shape is None else Words(f"an array of {dtype} and shape {shape}")
    raise BadArgument(name, "be one PRNG key, e.g. jax.random.key(0)", was)


_THREEFRY = "threefry2x32"


def _threefry(words: jax.Array) -> jax.Array:
    """A threefry key of these uint32 words, at least two: the first two, into which the others are folded."""
    key = jax.random.wrap_key_data(words[:2], impl=_THREEFRY)
    for word in words[2:]:
        key = jax.random.fold_in(key, word)
    return key
