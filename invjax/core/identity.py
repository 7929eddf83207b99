"""What a value is: a hash that every process finds again, by which a folder knows its run.

Arrays count by their values, settings by their fields (static ones included), functions by their code, the values that
they hold (cells, defaults, arguments of a ``partial``, the owner of a bound method) and the names that they look up in
their module. What can be imported by its name from an installed package is that name, because a package's own code
changes with its version. Nothing depends on ``id`` or ``hash``, which differ between processes.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import types
from collections.abc import Iterable, Mapping, Set
from pathlib import PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.code import constant_of_a_package, is_a_package, is_of_a_package, looked_up, own_names
from invjax.core.errors import BadArgument
from invjax.core.logits import is_nnx_module

_BLOCK = 16 * 2**20  # bytes that are hashed at once: an array on disk never stands in memory
_SHOWN = 64  # entries of an array that are described by their values
_JITTED = type(jax.jit(abs))
_WRAPPERS = (_JITTED, type(functools.lru_cache(abs)))
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented))


def digest(value: Any, *, name: str | None = None) -> str:
    """The hash of ``value``, 32 hexadecimal digits: equal for what gives equal answers, in any process.

    name: the user's name for what cannot be told apart (objects of C libraries, open files, locks). Without one such
    an object raises BadArgument about ``name``.
    """
    return _Walk(name is not None).value(value).hex()[:32]


def digest_of_structure(tree: Any, *, name: str | None = None) -> str:
    """The hash of a pytree without its leaves: classes, keys and static fields."""
    return _Walk(name is not None).structure(jax.tree.structure(tree)).hex()[:32]


def digest_of_leaves(tree: Any) -> str:
    """The hash of the leaves of a pytree alone: values, shapes, dtypes."""
    return digest(jax.tree.leaves(tree))


def describe(value: Any, *, name: str | None = None) -> Any:
    """``value`` for a reader, as JSON: settings by their fields, functions by their name and, if need be, their hash.

    Two values that :func:`digest` tells apart are described differently, but for the types of numbers.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, enum.Enum):
        return str(value)
    if isinstance(value, PurePath):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {key: describe(one, name=name) for key, one in _fields(value).items()}
        return {"class": describe(type(value), name=name), **fields}
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return [describe(one, name=name) for one in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array) and value.dtype.kind in "fiub" and value.size <= _SHOWN:
        return np.asarray(value).tolist()
    called = getattr(value, "__qualname__", type(value).__qualname__)
    return called if is_of_a_package(value) else f"{called} {digest(value, name=name)[:12]}"


class _Walk:
    """One walk over a value and all that it holds. Each object is hashed once, and a cycle is known by its depth."""

    def __init__(self, named: bool) -> None:
        self.named = named
        self.known: dict[int, bytes] = {}
        self.alive: list[Any] = []  # whatever is known by its id
        self.depth: dict[int, int] = {}  # what is being hashed
        self.way: list[str] = []  # where in the value we are, for the error

    def value(self, value: Any) -> bytes:
        if type(value) in _PLAIN:
            return _hashed(type(value).__name__, repr(value).encode())
        if id(value) in self.known:
            return self.known[id(value)]
        if id(value) in self.depth:
            return _hashed("cycle", str(self.depth[id(value)]).encode())
        self.depth[id(value)] = len(self.depth)
        try:
            found = self._of(value)
        except RecursionError:
            found = self._untold(value)
        finally:
            del self.depth[id(value)]
        self.known[id(value)] = found
        self.alive.append(value)
        return found

    def structure(self, tree: Any) -> bytes:
        """Of a treedef: the classes of its nodes, their static parts and their children."""
        node = tree.node_data()
        if node is None:
            return _hashed("leaf" if tree.num_leaves else "none")
        kind, fixed = node
        children = [self.structure(child) for child in tree.children()]
        return _hashed("node", self.value(kind), self.value(fixed), *children)

    def _of(self, value: Any) -> bytes:
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return self._array(value)
        if isinstance(value, enum.Enum):
            return _hashed("enum", self.value(type(value)), str(value).encode())
        if isinstance(value, np.dtype):
            return _hashed("dtype", value.name.encode(), repr(value.descr).encode())
        if type(value) in _WRAPPERS and not is_of_a_package(value):
            return self.value(value.__wrapped__)
        if isinstance(value, jax.tree_util.PyTreeDef):
            return self.structure(value)
        if isinstance(value, types.ModuleType):
            return _hashed("module", value.__name__.encode())
        if is_of_a_package(value):
            return _hashed("name", f"{value.__module__}.{value.__qualname__}".encode())
        if isinstance(value, types.CodeType):
            return self._code(value, None)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return _hashed("method", self._at("its function", value.__func__), self._at("its owner", value.__self__))
        if isinstance(value, functools.partial):  # jax's Partial is one
            function, arguments = self._at("function", value.func), (value.args, value.keywords)
            return _hashed("partial", function, self._all(arguments))
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, property):
            return _hashed("property", self._all([value.fget, value.fset, value.fdel]))
        if isinstance(value, staticmethod | classmethod):
            return _hashed(type(value).__name__, self.value(value.__func__))
        if isinstance(value, functools.cached_property):
            return _hashed("property", self.value(value.func))
        if isinstance(value, PurePath):
            return _hashed("path", str(value).encode())
        return self._object(value)

    def _object(self, value: Any) -> bytes:
        """Containers, pytrees, settings and whatever else can say of what it is made."""
        kind = self.value(type(value))
        if isinstance(value, tuple | list):
            return _hashed("list", kind, *(self._at(f"[{i}]", one) for i, one in enumerate(value)))
        if isinstance(value, Mapping):
            return _hashed("map", kind, self._map(value))
        if isinstance(value, Set):
            return _hashed("set", kind, *sorted(map(self.value, value)))
        if is_nnx_module(value):
            from flax import nnx

            from invjax.core.nnx import comparable

            graph, state = nnx.split(comparable(value))
            return _hashed("module", self.value(graph), self._all(jax.tree.leaves(state)))
        if dataclasses.is_dataclass(value):
            return _hashed("fields", kind, self._map(_fields(value)))
        children, tree = jax.tree.flatten(value, is_leaf=lambda node: node is not value)
        if not jax.tree_util.treedef_is_leaf(tree) and tree.node_data()[1] is not value:
            return _hashed("node", kind, self.value(tree.node_data()[1]), self._all(children))
        owner = getattr(value, "__self__", None)
        if callable(value) and owner is not None and not isinstance(owner, types.ModuleType):  # a method in C
            return _hashed("method", value.__name__.encode(), self._at("its owner", owner))
        return self._reduced(value, kind)

    def _reduced(self, value: Any, kind: bytes) -> bytes:
        """By what ``pickle`` would write; values that a cached property keeps are derived, and no part of it."""
        if (known := constant_of_a_package(value)) is not None:
            return _hashed("name", known.encode())
        try:
            made = value.__reduce_ex__(4)
        except Exception:  # whoever writes such a class raises what they like
            return self._untold(value)
        if isinstance(made, str):
            return _hashed("name", kind, made.encode())
        function, arguments, state, items, pairs = (*made, None, None, None)[:5]
        arguments = arguments or ()
        if isinstance(state, dict):
            state = {n: v for n, v in state.items() if not isinstance(_on_class(value, n), functools.cached_property)}
            state = _Attributes(state)
        rest = [list(items) if items is not None else None, list(pairs) if pairs is not None else None]
        return _hashed("object", kind, self.value(function), self._all(arguments), self.value(state), self._all(rest))

    def _untold(self, value: Any) -> bytes:
        if self.named:
            return _hashed("named", type(value).__qualname__.encode())
        where = f" ({', '.join(self.way)})" if self.way else ""
        wanted = "be given where a run is kept in a folder and one of its functions cannot be told from another"
        raise BadArgument("name", wanted, hint=f"nothing says which {type(value).__qualname__} it holds{where}")

    def _at(self, place: str, value: Any) -> bytes:
        self.way.append(place)
        found = self.value(value)
        self.way.pop()
        return found

    def _all(self, values: Iterable[Any]) -> bytes:
        return _hashed("all", *(self.value(one) for one in values))

    def _map(self, values: Mapping[Any, Any]) -> bytes:
        keys = sorted(((self.value(key), key) for key in values), key=lambda pair: pair[0])
        return _hashed("map", *(part for found, key in keys for part in (found, self._at(str(key), values[key]))))

    def _array(self, value: Any) -> bytes:
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return _hashed("key", str(jax.random.key_impl(value)).encode(), self._array(jax.random.key_data(value)))
        array = np.asarray(value)
        if array.dtype.hasobject:
            return _hashed("objects", str(array.shape).encode(), self._all(array.ravel().tolist()))
        sha = hashlib.sha256(f"array {array.dtype.name} {array.shape}".encode())
        rows = array if array.ndim else array[None]
        each = max(1, _BLOCK * len(rows) // max(1, rows.nbytes))
        for begin in range(0, len(rows), each):
            sha.update(bytes_of_array(rows[begin : begin + each]))
        return sha.digest()

    def _function(self, function: types.FunctionType) -> bytes:
        """Its code, defaults and cells; of a function of the user's also what it looks up in its module."""
        self.way.append(function.__qualname__)
        cells = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                cells[name] = cell.cell_contents
            except ValueError:  # not bound yet
                cells[name] = None
        held = [function.__defaults__, function.__kwdefaults__, _Attributes(cells)]
        if not is_a_package(function.__module__):
            held += [_Attributes(looked_up(function)), _Attributes(own_names(function))]
        found = _hashed("function", self._code(function.__code__, function.__doc__), *map(self.value, held))
        self.way.pop()
        return found

    def _code(self, code: types.CodeType, doc: str | None) -> bytes:
        """Without names of files, lines and comments."""
        constants = code.co_consts[1:] if doc is not None and code.co_consts[:1] == (doc,) else code.co_consts
        arguments = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
        names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
        return _hashed("code", code.co_code, *map(self.value, (constants, arguments, names)))

    def _class(self, kind: type) -> bytes:
        """The user's own class: its bases, functions and constants."""
        self.way.append(kind.__qualname__)
        found = _hashed("class", kind.__qualname__.encode(), self._all(kind.__bases__), self._map(own_names(kind)))
        self.way.pop()
        return found


def _fields(value: Any) -> dict[str, Any]:
    """Without those that its equality leaves aside."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.compare}


class _Attributes(dict):
    """Values by name that are hashed as such."""


def bytes_of_array(array: np.ndarray) -> memoryview:
    """The bytes of an array of any dtype, those of ml_dtypes (bfloat16, float8) included."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _hashed(kind: str, *parts: bytes) -> bytes:
    sha = hashlib.sha256(kind.encode())
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.digest()


def _on_class(value: Any, name: str) -> Any:
    return next((vars(kind)[name] for kind in type(value).__mro__ if name in vars(kind)), None)
