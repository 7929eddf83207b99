"""What was meant by a name that is not known: the closest one that is."""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

# What is called otherwise in other libraries: our names, of which the first that fits is taken, and theirs.
_OTHERS = {
    ("logits", "model"): "model network net classifier predict fmodel",
    ("x", "images", "frame"): "images image inputs input data samples",
    ("label", "labels"): "y labels ytrue",
    ("method", "attack"): "attack config algorithm",
    ("target", "targets"): "targets ytarget targetclass desiredclass",
    ("eps",): "epsilon radius maxnorm",
    ("steps", "max_steps"): "niter nbiter numiter iters iterations maxiter maxiterations numsteps nsteps",
    ("step_size", "rate", "optimiser"): "lr learningrate alpha epsstep relstepsize absstepsize step",
    ("restarts",): "nrestarts numrestarts numrandominit",
    ("lanes", "batch"): "batchsize batch",
    ("key", "seed"): "seed rng randomstate",
    ("progress",): "verbose disp tqdm",
    ("delimiter",): "sep separator",
    ("answers",): "totalcfs numcfs ncfs",
    ("out",): "output folder dir outdir outputdir",
    ("bounds",): "clipmin clipmax cliprange datarange",
    ("x",): "adv advs xadv adversarial adversarials counterfactual",
    ("delta",): "perturbation perturbations noise r",
    ("found", "success"): "success succeeded isadv valid",
    ("linf", "upper"): "inf max maximum high chebyshev",
    ("lower",): "min minimum low",
    ("levels",): "categories values classes",
    ("up",): "increase increasing grow",
    ("down",): "decrease decreasing fall",
    ("none", "direction", "immutable"): "immutable frozen fixed actionable mutable",
    ("l2",): "2 20 euclidean",
    ("l1",): "1 10 manhattan",
}
_ELSEWHERE = {word: ours for ours, words in _OTHERS.items() for word in words.split()}
_LONGEST = 100  # characters of a name
_VERY_CLOSE = 0.75  # share of letters in common, of difflib
_WORD = 3  # letters that are looked for inside of names


def closest(word: Any, names: Iterable[Any]) -> str | None:
    """The one of ``names`` that ``word`` is close to: by its letters and digits, or as other libraries call it."""
    plain = _plain(word)
    known = {name: _plain(name) for name in names if isinstance(name, str)}
    if not plain or len(plain) > _LONGEST:
        return None
    for name, own in known.items():
        if own == plain:
            return name
    for ours in _ELSEWHERE.get(plain, ()):
        if ours in known:
            return ours
    near = difflib.get_close_matches(plain, known.values(), 1, _VERY_CLOSE)
    as_long = [own for own in known.values() if abs(len(own) - len(plain)) <= 1]
    near = near or difflib.get_close_matches(plain, as_long, 1)
    near = near or [own for own in known.values() if len(plain) >= _WORD and plain in own]  # CNN is a SmallCNN
    near = near or difflib.get_close_matches(plain, known.values(), 1)
    return next((name for name, own in known.items() if near and own == near[0]), None)


def did_you_mean(word: Any, names: Iterable[Any], prefix: str = "", quoted: bool = True) -> str | None:
    """The question after :func:`closest`, ``"did you mean 'steps'?"``; None where nothing is close."""
    found = closest(word, names)
    if found is None:
        return None
    found = prefix + found
    return f"did you mean {repr(found) if quoted else found}?"


def suggest_names(module: str) -> None:
    """Let the module of this name answer for attributes that it lacks: with an AttributeError that has the closest."""

    def __getattr__(name: str) -> Any:
        raise no_attribute(module, name)

    vars(sys.modules[module])["__getattr__"] = __getattr__


def no_attribute(module: str, name: str, more: str | None = None) -> AttributeError:
    """The error about an attribute that a module lacks. more: where it is, if that is known.

    The names that the module exports come first. Python, which would add a suggestion of its own, is not told the name.
    """
    found, text = sys.modules[module], f"module {module!r} has no attribute {name!r}"
    if name.startswith("_"):
        return AttributeError(text, name=name, obj=found)
    public, shown = getattr(found, "__all__", ()), (one for one in dir(found) if not one.startswith("_"))
    hint = more or did_you_mean(name, public) or did_you_mean(name, shown)
    return AttributeError(f"{text}; {hint}" if hint else text, name=name, obj=None)


def place_of(name: str, folder: str, parts: Iterable[str]) -> str | None:
    """The first of the ``parts`` of a package that exports ``name``. Their sources are read, and none is loaded."""
    for part in parts:
        source = Path(folder, part, "__init__.py")
        source = source if source.is_file() else Path(folder, f"{part}.py")
        tree = ast.parse(source.read_text(encoding="utf-8") if source.is_file() else "")
        for node in (node for node in tree.body if isinstance(node, ast.Assign)):
            if getattr(node.targets[0], "id", "") == "__all__" and name in ast.literal_eval(node.value):
                return part
    return None


def call_explained(
    error: TypeError, name: str, signature: inspect.Signature, args: tuple[Any, ...], options: dict[str, Any]
) -> TypeError:
    """The error of a call ``name(*args, **options)`` that does not fit the signature, with what to write instead.

    An error that came from inside of the function is returned as it is.
    """
    try:
        signature.bind(*args, **options)
        return error
    except TypeError:
        parameters = signature.parameters.values()
    known = [one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    strange = [option for option in options if option not in known]
    if strange and not any(one.kind is one.VAR_KEYWORD for one in parameters):
        free = [option for option in known[len(args) :] if option not in options]
        hint = did_you_mean(strange[0], free) or f"it takes {', '.join(known) or 'no arguments'}"
        return TypeError(f"{name}() got an unexpected keyword argument {strange[0]!r}; {hint}")
    needed = [
        f"{one.name}=..." if one.kind is one.KEYWORD_ONLY else one.name
        for one in parameters
        if one.default is one.empty and one.name in known
    ]
    return TypeError(f"{error}; call {name}({', '.join(needed)})")


def fields_told(made: F) -> F:
    """Decorate a named tuple: an attribute that it lacks is an AttributeError with those that it has."""

    def __getattr__(self: Any, name: str) -> Any:
        known = ", ".join(one for one in dir(made) if not one.startswith("_") and one not in ("count", "index"))
        hint = "" if name.startswith("_") else f"; it has {known}"
        raise AttributeError(f"{made.__name__!r} object has no attribute {name!r}{hint}", name=name, obj=None)

    made.__getattr__ = __getattr__  # type: ignore[attr-defined]
    return made


def explained(made: F) -> F:
    """Decorate a class or function: a call that does not fit its signature is answered as by :func:`call_explained`."""
    if isinstance(made, type):
        made.__init__ = init_explained(made)  # type: ignore[misc]
        return made  # type: ignore[return-value]
    signature = inspect.signature(made)

    @functools.wraps(made)
    def called(*args: Any, **options: Any) -> Any:
        try:
            return made(*args, **options)
        except TypeError as error:
            if (better := call_explained(error, made.__name__, signature, args, options)) is error:
                raise
            raise better from None

    return called  # type: ignore[return-value]


def init_explained(made: type, refuse: Callable[[dict[str, Any]], None] | None = None) -> Callable[..., None]:
    """The ``__init__`` of a class that explains calls which do not fit. refuse: looks at the arguments first."""
    fill: Any = made.__init__  # type: ignore[misc]
    signature = inspect.signature(made)

    @functools.wraps(fill)
    def __init__(self: Any, *args: Any, **options: Any) -> None:
        try:
            fill(self, *args, **options)
        except TypeError as error:
            if refuse is not None:
                refuse(options)
            if (better := call_explained(error, made.__name__, signature, args, options)) is error:
                raise
            raise better from None

    return __init__


def _plain(word: Any) -> str:
    """The letters and digits of a name, in lower case; of a number, as it is written."""
    if (
        isinstance(word, bool)
        or not isinstance(word, str | float | int)
        or (isinstance(word, int) and not 0 <= word <= 99)
    ):
        return ""
    return re.sub(r"[\W_]", "", str(word)).casefold()
