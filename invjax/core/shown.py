"""How values look in one line: what they are and how large they are, never the numbers of an array.

A class takes it over by ``__repr__ = short_repr``. No array is fetched from a device for it, only single numbers are,
and inside compiled code a traced one shows as its shape.
"""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_PLAIN = (bool, int, float, complex, str, bytes, type(None), enum.Enum, os.PathLike, np.dtype)
_ROOM = 70  # characters of one value


def short_repr(self: Any) -> str:
    """``Name(field=value, …)`` of a dataclass or named tuple, without the fields that are at their default."""
    fields = ((name, value) for name, value, default in _fields(self) if not _same(value, default))
    return f"{type(self).__name__}({', '.join(f'{name}={shown(value)}' for name, value in fields)})"


def shown(value: Any) -> str:
    """A value in a few characters."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _array(value)
    if isinstance(value, _PLAIN):
        return _cut(repr(value))
    if isinstance(value, Mapping):
        return _several(value, "{", "}", [f"{key!r}: {shown(one)}" for key, one in _few(value.items())])
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        start, end = "[]" if isinstance(value, list) else "()"
        return _several(value, start, end, [shown(one) for one in _few(value)])
    if (name := getattr(value, "__qualname__", None)) is not None:
        return str(name)
    if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        return text if len(text := repr(value)) <= _ROOM and "\n" not in text else f"{type(value).__name__}(…)"
    if hasattr(value, "__nnx_repr__"):
        return type(value).__name__
    return _cut(repr(value))


def size_of(tree: Any) -> str:
    """How many numbers the arrays of a pytree hold: ``105,418 parameters``."""
    count = sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(tree))
    return f"{count:,} parameter{'s' * (count != 1)}"


def many(count: int, what: str) -> str:
    """``1 row``, ``1,797 rows``, ``2 classes``."""
    return f"{count:,} {what}{('es' if what.endswith('s') else 's') * (count != 1)}"


def _fields(owner: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, value, default) of each field that its class shows."""
    if dataclasses.is_dataclass(owner):
        for one in dataclasses.fields(owner):
            if one.repr and hasattr(owner, one.name):
                made = one.default_factory
                yield one.name, getattr(owner, one.name), one.default if made is dataclasses.MISSING else made()
    else:
        for name in owner._fields:
            yield name, getattr(owner, name), owner._field_defaults.get(name, dataclasses.MISSING)


def _same(value: Any, default: Any) -> bool:
    """Whether a value is its default, as far as that can be told without a look at arrays."""
    if value is default or (type(value) is type(default) and _empty(value)):
        return True
    plain = isinstance(value, (*_PLAIN, tuple)) and type(value) is type(default)
    return plain and not hasattr(value, "_fields") and repr(value) == repr(default)


def _empty(value: Any) -> bool:
    """A container without entries, or a dataclass without fields."""
    if dataclasses.is_dataclass(value):
        return not dataclasses.fields(value)
    return isinstance(value, list | dict | set) and not value


def _array(value: Any) -> str:
    """A single number of the host as it is, anything else by its dtype and shape."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.shape == ()):
        return _cut(repr(value.item()))
    known = isinstance(value, jax.Array) and not isinstance(value, Tracer) and value.is_fully_addressable
    if known and value.shape == () and not jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return _cut(f"{value.item():.6g}" if isinstance(value.item(), float) else repr(value.item()))
    return f"{value.dtype}{list(value.shape)}"


def _few(values: Any) -> list[Any]:
    return list(values)[:4]


def _several(values: Any, start: str, end: str, few: list[str]) -> str:
    """The entries where they are few and short, else how many there are."""
    text = f"{start}{', '.join(few)}{',' * (start == '(' and len(few) == 1)}{end}"
    return text if len(values) == len(few) and len(text) <= _ROOM else f"{start}{len(values)} entries{end}"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _ROOM else f"{text[: _ROOM - 1]}…"
