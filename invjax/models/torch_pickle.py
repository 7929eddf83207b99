"""The pickles of torch's weight files, read by a machine that can do nothing else.

A pickle is a program. It may call any function, and with BUILD it may set attributes of whatever it holds, also of the
reader's own functions, which would then stay changed for the whole process. So this machine knows only the commands
that torch.save writes. It calls only the functions that rebuild tensors in dictionaries, and sets no attribute. The
keys of its dictionaries are text or numbers, because hashing tuples in tuples overflows the stack.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from invjax.core.unpack import Budget

DTYPES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}

_COMMANDS = (
    "PROTO FRAME MARK STOP POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT "
    "BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES "
    "BINBYTES8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS "
    "GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD PERSID BINPERSID"
)
_KEYS = (str, bytes, int, float, type(None))  # or flat tuples of these


class RefusedPickle(Exception):
    """The pickle asks for something that a weights file does not need."""


class _Storage(NamedTuple):
    data: np.ndarray  # [numel]


def _rebuild_tensor(budget: Budget, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """``torch._utils._rebuild_tensor_v2``: a strided view, copied out of its storage after a bounds check."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise RefusedPickle("a tensor that is not made of a storage and non-negative sizes")
    if len(size) != len(stride):
        raise RefusedPickle("a tensor with unequal numbers of sizes and strides")
    data = storage.data
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if math.prod(size) and (last >= data.size or math.prod(size) > data.size):
        raise RefusedPickle(f"a tensor of shape {tuple(size)} that does not fit its storage of {data.size} numbers")
    if not math.prod(size):
        return np.empty(size, data.dtype)
    budget.take(math.prod(size) * data.itemsize, "the tensors that share one storage")
    view = np.lib.stride_tricks.as_strided(data[offset:], tuple(size), tuple(s * data.itemsize for s in stride))
    return view.copy()


def _rebuild_parameter(budget: Budget, data: Any, *_: Any) -> Any:
    return data


def _dictionary(budget: Budget, pairs: Iterable[Any] = ()) -> OrderedDict[Any, Any]:
    return _filled(OrderedDict(), [part for key, value in pairs for part in (key, value)])


ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _dictionary,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): name for name in DTYPES},
}


def _filled(target: Any, items: list[Any]) -> Any:
    """``target``, a dictionary, with the keys and values that alternate in ``items``."""
    if not isinstance(target, dict):
        raise RefusedPickle("an entry of something that is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not all(isinstance(part, _KEYS) for part in (key if type(key) is tuple else (key,))):
            raise RefusedPickle(f"a key that is {type(key).__name__}")
        target[key] = value
    return target


_Machine: Any = pickle._Unpickler  # the one that is written in Python: its commands can be taken away


class WeightsUnpickler(_Machine):
    """Knows ``ALLOWED`` and storages, nothing else.

    fetch: (key, kind, count) of a storage -> its numbers. budget: of the bytes of all tensors.
    """

    def __init__(
        self, file: Any, fetch: Callable[[str, str, int], np.ndarray] | None = None, budget: Budget | None = None
    ) -> None:
        super().__init__(file)
        self.fetch, self.budget = fetch, budget or Budget(0)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return ALLOWED[module_name, global_name]
        except KeyError:
            raise RefusedPickle(f"{module_name}.{global_name}"[:80]) from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            # The old format has a sixth entry: a view of a storage within another one, or None.
            case ("storage", str(kind), str(key), _, int(count), *views) if kind in DTYPES and views in ([], [None]):
                if key not in self.storages and self.fetch is not None:
                    self.storages[key] = _Storage(self.fetch(key, kind, count))
                if key in self.storages and self.storages[key].data.size == count:
                    return self.storages[key]
        raise RefusedPickle(f"a stored object that is no tensor but {type(pid).__name__}")

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not callable(function) or type(arguments) is not tuple:
            raise RefusedPickle("a call of something that is no function")
        self.append(function(self.budget, *arguments))

    def _build(self) -> None:
        self.stack.pop()  # _metadata of a state dict, which nothing here needs
        if not isinstance(self.stack[-1], OrderedDict):
            raise RefusedPickle(f"a command that changes {type(self.stack[-1]).__name__}")

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _filled(self.stack[-1], [key, value])

    def _setitems(self) -> None:
        items = self.pop_mark()
        _filled(self.stack[-1], items)

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append(_filled({}, items))

    def _refuse(self) -> None:
        raise RefusedPickle("a command that torch.save does not write")

    dispatch = (
        dict.fromkeys(_Machine.dispatch, _refuse)
        | {code: _Machine.dispatch[code] for code in (getattr(pickle, name)[0] for name in _COMMANDS.split())}
        | {
            pickle.REDUCE[0]: _reduce,
            pickle.BUILD[0]: _build,
            pickle.SETITEM[0]: _setitem,
            pickle.SETITEMS[0]: _setitems,
            pickle.DICT[0]: _dict,
        }
    )
