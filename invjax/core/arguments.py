"""Arguments of a wrong kind, at the doors of the library: each is a BadArgument that names it.

What a function says of its arguments is in their annotations: ``steps: int``, ``x: ArrayLike``, ``space: Any``. Its own
checks look at ranges and shapes. :func:`kinds_checked` looks at what is no number, no array or no function at all, of
which such checks know nothing and end in an error of Python's, far from the door.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh

from invjax.core.errors import MOST, BadArgument
from invjax.core.layout import automatic, is_explicit
from invjax.core.meant import call_explained

F = TypeVar("F", bound=Callable[..., Any])


def kinds_checked(function: F) -> F:
    """Decorate a public function: an argument of another kind than its annotation says is a BadArgument.

    What must be a number, a truth value, text or a path is refused before the function is called. Of arrays, networks
    and densities the function's own checks know more, and their words are better. So it is called with those, and what
    it does with them, an error or a result, is not handed on. Arrays that are laid over explicit axes of a mesh come in
    with automatic ones.
    """
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    order = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    found = {one.name: kinds_of(one.name, one.annotation, one.default, scope) for one in parameters}
    kinds = {name: kind for name, kind in found.items() if kind is not None}

    @functools.wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        given = {**dict(zip(order, args, strict=False)), **options}
        if laid := {name: automatic(name, value) for name, value in given.items() if is_explicit(value)}:
            args = (*(laid.get(name, value) for name, value in zip(order, args, strict=False)), *args[len(order) :])
            options = {name: laid.get(name, value) for name, value in options.items()}
        wrong = next((name for name, value in given.items() if name in kinds and not kinds[name].hold(value)), None)
        if wrong is None:
            try:
                return function(*args, **options)
            except TypeError as error:
                if (better := call_explained(error, function.__name__, signature, args, options)) is error:
                    raise
                raise better from None
        number, words = _scalar(given[wrong]), kinds[wrong].words
        if number is not None and abs(number) > MOST:
            words = words.replace("a whole number", f"a whole number up to {MOST}")
        refused = BadArgument(wrong, f"be {words}", given[wrong])
        misspelt = kinds[wrong].named and isinstance(given[wrong], str)  # for which its own check has a suggestion
        if kinds[wrong].plain and not misspelt:
            raise refused
        try:
            function(*args, **options)
        except (BadArgument, ImportError):
            raise
        except Exception as error:
            if isinstance(error, TypeError):
                better = call_explained(error, function.__name__, signature, args, options)
                raise (refused if better is error else better) from error
            raise refused from error
        raise refused

    return checked  # type: ignore[return-value]


class Kinds(NamedTuple):
    """What an argument may be: any of these."""

    holds: tuple[Callable[[Any], bool], ...]
    words: str
    plain: bool  # a number, a truth value, text, a path or None, and nothing else
    named: bool  # also one of some names

    def hold(self, value: Any) -> bool:
        """Whether it is one of them, as far as that can be told without its values."""
        return isinstance(value, Tracer) or any(one(value) for one in self.holds)


def kinds_of(name: str, annotation: Any, default: Any = None, scope: Mapping[str, Any] | None = None) -> Kinds | None:
    """What an annotation, as text, allows; None where it allows anything. scope: where it looks up aliases."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    if name in _BY_NAME and (text in _LOOSE or name in _ALWAYS):
        text = _BY_NAME[name] + (" | None" if default is None else "")
    holds, words, keys = [], [], []
    members = _members(text, scope or {})
    for part in members:
        key = re.match(r"[\w.]+", part)
        if key is None:
            return None
        if key[0] == "Literal":
            choices = re.findall(r"[\"']([^\"']*)[\"']", part)
            holds.append(lambda value, choices=tuple(choices): isinstance(value, str) and value in choices)
            if len(choices) <= MOST_LISTED or "str" not in members:  # else "text" says it, and the function the names
                words.append(("one of " if len(choices) > 1 else "") + ", ".join(map(repr, choices)))
        elif (known := _KINDS.get(key[0])) is not None:
            hold = _is_seed if key[0] == "int" and name == "seed" else known[0]
            if key[0] == "float" and isinstance(default, float) and math.isinf(default):
                known = hold, _ = _is_open_number, "a number"
            if (inner := re.fullmatch(r"Sequence\[(str|int|PredictFn|Callable|Hook)\b.*\]", part)) is not None:
                hold, words_of = _each(_KINDS[inner[1]][0]), _EACH[inner[1]]
                known = hold, f"a sequence of {words_of}"
            holds.append(hold)
            words.append(known[1])
        else:
            return None
        keys.append(key[0])
    return Kinds(tuple(holds), " or ".join(words), all(key in _PLAIN for key in keys), "Literal" in keys)


def _parts(text: str) -> list[str]:
    """The members of ``A | B[C | D]``."""
    parts, depth, begin = [], 0, 0
    for at, sign in enumerate(text):
        depth += (sign in "[(") - (sign in "])")
        if sign == "|" and not depth:
            parts.append(text[begin:at].strip())
            begin = at + 1
    return [*parts, text[begin:].strip()]


def _members(text: str, scope: Mapping[str, Any]) -> list[str]:
    """The members of a union; an alias of names, ``Norm = Literal["l1", "l2"]``, as that text."""
    found = []
    for part in _parts(text):
        alias = None if part in _KINDS else scope.get(part)
        for one in get_args(alias) if get_origin(alias) in (Union, UnionType) else (alias,):
            if get_origin(one) is Literal:
                found.append(f"Literal[{', '.join(map(repr, get_args(one)))}]")
            else:
                found.append(part if one is alias else one.__name__ if isinstance(one, type) else str(one))
    return found


def _scalar(value: Any) -> Any:
    """A real number as Python's own; None for anything else."""
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int | float):
        return value
    if isinstance(value, np.ndarray | np.generic | jax.Array) and value.size == 1:
        one = np.asarray(value).reshape(-1)[0].item() if value.dtype.kind != "O" else None
        return one if isinstance(one, int | float) and not isinstance(one, bool) else None
    return None


def _is_whole(value: Any) -> bool:
    number = _scalar(value)
    return number is not None and (isinstance(number, int) or number.is_integer()) and abs(number) <= MOST


def _is_seed(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    number = _scalar(value)
    return number is not None and math.isfinite(number)


def _is_open_number(value: Any) -> bool:
    number = _scalar(value)
    return number is not None and not math.isnan(number)


def _is_array(value: Any) -> bool:
    """Of numbers, keys or truth values, by its type; a list by its entries, if it is a short one."""
    if hasattr(value, "dtype"):
        return getattr(value.dtype, "kind", "V") not in "OSU"
    if isinstance(value, list | tuple) and len(value) <= _SHORT:
        try:
            return np.asarray(value).dtype.kind not in "OSU"
        except Exception:  # rows of unequal length, of which the function knows more
            return True
    return isinstance(value, int | float) or _is_sequence(value)


_SHORT = 64  # entries
MOST_LISTED = 20  # names of a message


def _is_list(value: Any) -> bool:
    return _is_array(value) and not isinstance(value, int | float) and getattr(value, "ndim", 1) > 0


def _is_sequence(value: Any) -> bool:
    lazy = _has(value, "__getitem__", "__array__")  # some are read when they are asked for
    many = isinstance(value, Iterable) or lazy
    return many and not isinstance(value, str | bytes | Mapping | set | type)


_EACH = {"str": "text", "int": "whole numbers", "PredictFn": "functions", "Callable": "functions", "Hook": "functions"}


def _each(hold: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether a value is a sequence of which every entry holds. What is read when it is asked for is not read."""
    known = list | tuple | np.ndarray
    return lambda value: _is_sequence(value) and (not isinstance(value, known) or all(map(hold, value)))


def _is_pair(value: Any) -> bool:
    return _is_sequence(value) and len(list(value)) == 2 and all(map(_is_array, value))


def _is_dtype(value: Any) -> bool:
    try:
        return value is not None and np.dtype(value).kind not in "OSU"
    except Exception:
        return False


def _has(value: Any, *names: str) -> bool:
    return any(hasattr(value, name) for name in names)


def _is_configuration(value: Any) -> bool:
    """Its method may be a property that wants sound constants."""
    return hasattr(type(value), "method") or "method" in getattr(value, "__dict__", {})


def _is_module(value: Any) -> bool:
    """Of flax's nnx, which is not imported for this."""
    return any(kind.__name__ == "Module" for kind in type(value).__mro__)


def _is_space(value: Any) -> bool:
    return hasattr(value, "compile") or hasattr(value, "width")


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "None": (lambda value: value is None, "None"),
    "int": (_is_whole, "a whole number"),
    "float": (_is_number, "a finite number"),
    "bool": (
        lambda value: isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)),
        "True or False",
    ),
    "str": (lambda value: isinstance(value, str), "text"),
    "Path": (lambda value: hasattr(value, "__fspath__"), "a path"),
    "os.PathLike": (lambda value: hasattr(value, "__fspath__"), "a path"),
    "ArrayLike": (_is_array, "an array of numbers"),
    "Values": (_is_array, "an array of numbers"),
    "np.ndarray": (_is_array, "an array of numbers"),
    "Array": (_is_array, "an array of numbers"),
    "Mapping": (lambda value: isinstance(value, Mapping), "a mapping"),
    "Sequence": (_is_sequence, "a sequence"),
    "Iterable": (_is_sequence, "a sequence"),
    "Callable": (callable, "a function"),
    "LogitsFn": (callable, "a function from x [B, *S] to logits [B, K]"),
    "Evaluator": (callable, "an evaluator, such as white_box or antithetic()"),
    "Predict": (callable, "a function"),
    "PredictFn": (callable, "a function"),
    "Explain": (callable, "a function"),
    "Density": (lambda value: hasattr(value, "log_prob"), "a density, with a method log_prob"),
    "FeatureSpace": (_is_space, "a FeatureSpace"),
    "List": (_is_list, "an array of numbers with at least one axis"),
    "Pair": (_is_pair, "a pair (lower, upper)"),
    "Type": (_is_dtype, "a dtype of numbers"),
    "Source": (lambda value: isinstance(value, str) or _has(value, "__fspath__", "info"), "a file or tfds:NAME"),
    "Explanation": (lambda value: hasattr(value, "people"), "an Explanation"),
    "LastLayer": (lambda value: hasattr(value, "kernel"), "the layer that last_layer() found"),
    "Result": (lambda value: hasattr(value, "x"), "a Result"),
    "Config": (_is_configuration, "a configuration"),
    "Rule": (lambda value: hasattr(value, "weigh"), "a rule such as GroupDRO"),
    "Function": (callable, "a function"),
    "nnx.Module": (_is_module, "an nnx.Module"),
    "Module": (_is_module, "an nnx.Module"),
    "tuple": (lambda value: isinstance(value, tuple), "a tuple"),
    **dict.fromkeys(("Augment", "Loss", "Freeze", "Measure", "Hook"), (callable, "a function")),
    "nnx.Rngs": (lambda value: hasattr(value, "params"), "nnx.Rngs"),
    "Mesh": (lambda value: isinstance(value, Mesh), "a jax.sharding.Mesh"),
    "TabularData": (lambda value: hasattr(value, "space"), "a table, from load_tabular, load_csv or from_space"),
    "ImageSource": (lambda value: hasattr(value, "read"), "a source of images, from open_images"),
}
_PLAIN = ("None", "int", "float", "bool", "str", "Literal", "Path", "os.PathLike")
_LOOSE = ("Any", "_empty", "ArrayLike", "np.ndarray")
_ALWAYS = ("bounds", "grid", "scale")
# Of arguments that are annotated as anything, those that are called so everywhere.
_BY_NAME = {
    "space": "FeatureSpace", "mesh": "Mesh", "density": "Density", "bounds": "Pair", "dtype": "Type",
    "source": "Source", "adversary": "Function", "checkpoint": "str | Path", "grid": "List",
    **dict.fromkeys(("x", "y", "delta", "points", "train", "train_x", "train_y", "images", "sets", "said"), "List"),
    "generator": "Config | Callable", "weights": "ArrayLike", "sampling": "ArrayLike",
    "percentiles": "ArrayLike", "scale": "ArrayLike",
    **dict.fromkeys(("example", "first", "second", "similar", "counterfactuals", "correct", "count"), "ArrayLike"),
}  # fmt: skip
