"""Which output of a fitted model is which class of a table: by name, by value, or as the user says.

A model's own classes may be 0 and 1, True and False or "1.0" where the table has "0" and "1": these match by value.
Readable names ("bad", "good") match 0 and 1 only by position, and only if the model's answers on the table prove it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from invjax.core.errors import BadArgument, Words
from invjax.core.text import as_text

_PROOF = 0.55  # of two classes that could be swapped, so many of the rows must speak for the order


def match_classes(own: Sequence[Any] | None, names: Sequence[str], said: Any = None) -> np.ndarray | None:
    """[K] the position in ``own``, the model's classes, of each class ``names``; None where only the rows can tell.

    said: {the model's class: its name in the table}, or the names in the order of the model's classes.
    Raises BadArgument about ``classes`` for what cannot be matched.
    """
    names = list(names)
    if said is not None:
        return _as_said(own, names, said)
    if own is None:
        return None
    if len(own) == len(names):
        for same in (_same_text, _same_value):
            places = [[k for k, value in enumerate(own) if same(value, name)] for name in names]
            if all(len(place) == 1 for place in places):
                found = np.array([place[0] for place in places])
                if len(set(found.tolist())) == len(names):
                    return found
        if _only_counted(own):
            return None
    hint = f"the model has {len(own)} classes, the table {len(names)}"
    if len(own) == len(names):
        hint = f"say how with classes={_mapping(own, names)}, or with these names in another order"
    both = f"match the model's classes {_listed(own)} with those of the table, {_listed(names)}"
    raise BadArgument("classes", both, hint=hint)


def names_of(own: Sequence[Any], said: Any = None) -> list[str]:
    """[K] the names of the model's classes ``own``, in its order: as ``said``, or their own texts."""
    if said is None:
        return list(map(as_text, own))
    names = list(said.values()) if isinstance(said, Mapping) else list(said)
    names = [str(name) for name in names]
    places = _as_said(own, names, said).tolist()
    return [name for _, name in sorted(zip(places, names, strict=True))]


def check_order(own: Sequence[Any] | None, names: Sequence[str], predicted: np.ndarray, label: np.ndarray) -> None:
    """Raise BadArgument unless the rows prove that the model's outputs have the order of ``names``.

    predicted, label: [N] the outputs that win (−1 for none), and the classes of the rows. Of the rows of any two
    classes that got one of these two outputs, more than half must have got their own.
    """
    count = len(names)
    table = _table(predicted, label, count)
    for i in range(count):
        for j in range(i):
            right, swapped = table[i, i] + table[j, j], table[i, j] + table[j, i]
            if right < _PROOF * (right + swapped) or not right:
                what = "its outputs have no names" if own is None else f"its classes are {_listed(own)}"
                best = [names[int(k)] for k in linear_sum_assignment(-table.T)[1]]
                example = _mapping(range(count) if own is None else own, best)
                raise BadArgument(
                    "classes", f"say which of the model's outputs is which of {_listed(names)}",
                    hint=f"{what}, and the rows do not prove this order: of {int(right + swapped)} of {names[j]!r} "
                    f"and {names[i]!r} that get one of these, {int(swapped)} get the other one's; give for example "
                    f"classes={example}",
                )  # fmt: skip


def best_share(predicted: np.ndarray, label: np.ndarray, count: int) -> float:
    """The share of rows that are right if the outputs are the classes in the order that suits them best."""
    table = _table(predicted, label, count)
    return float(table[linear_sum_assignment(-table)].sum() / max(1, len(label)))


def _table(predicted: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
    """[K, K] how many rows of each class got each output."""
    table = np.zeros((count, count))
    np.add.at(table, (label[predicted >= 0], predicted[predicted >= 0]), 1)
    return table


def _mapping(own: Sequence[Any], names: Sequence[str]) -> str:
    """The argument ``classes`` that matches these."""
    return "{" + ", ".join(f"{_plain(value)!r}: {name!r}" for value, name in zip(own, names, strict=True)) + "}"


def _as_said(own: Sequence[Any] | None, names: list[str], said: Any) -> np.ndarray:
    count = len(names) if own is None else len(own)
    values = list(range(count)) if own is None else list(own)
    if isinstance(said, Mapping):
        given: list[Any] = [None] * count
        for value, name in said.items():
            at = [k for k, known in enumerate(values) if known == value or _same_text(known, as_text(value))]
            if not at:
                raise BadArgument("classes", f"have the model's classes {_listed(values)} as keys", value)
            given[at[0]] = str(name)
    elif isinstance(said, str) or not isinstance(said, Sequence | np.ndarray):
        wanted = "be {the model's class: its name}, or the names in the order of the model's classes"
        raise BadArgument("classes", wanted, said)
    else:
        given = [str(name) for name in said]
    if sorted(map(str, given)) != sorted(names):
        raise BadArgument("classes", f"name each of {_listed(names)} once", Words(", ".join(map(repr, given))))
    return np.array([given.index(name) for name in names])


def _same_text(value: Any, name: str) -> bool:
    return as_text(value) == name


def _same_value(value: Any, name: str) -> bool:
    """Whether both are the same number; the truth values count as 0 and 1."""
    one, other = _number(value), _number(name)
    return one is not None and one == other


def _number(value: Any) -> float | None:
    text = as_text(value)
    text = {"true": "1", "false": "0"}.get(text.strip().lower(), text)
    try:
        return float(text)
    except ValueError:
        return None


def _only_counted(own: Sequence[Any]) -> bool:
    """Whether the model's classes are 0, 1, … or 1, 2, … or −1 and 1: codes, not names."""
    found = [_number(value) for value in own if not isinstance(value, str | bytes)]
    count = len(own)
    return found in (list(range(count)), list(range(1, count + 1)), [-1, 1])


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(repr(_plain(value)) for value in values)
