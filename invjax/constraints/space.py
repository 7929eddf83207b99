"""FeatureSpace: what the columns of a table are and may become, declared once in raw units."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from invjax.constraints import encode as coding
from invjax.constraints import judge
from invjax.constraints.compiled import Constraints, compile_space
from invjax.constraints.features import Feature, Relation
from invjax.constraints.notation import Notation
from invjax.constraints.schema import Schema
from invjax.constraints.table import Table, columns, infer_features, numbers
from invjax.core.errors import BadArgument, Words
from invjax.core.files import write_atomic
from invjax.core.meant import closest
from invjax.core.unpack import Unreadable, one_line, read_json
from invjax.types import Result

if TYPE_CHECKING:
    import pandas as pd

_KEYS = ("invjax_feature_space", "notes", "features", "relations", "center", "scale")  # of a file


class FeatureSpace(Schema):
    """The schema of a table: raw units in, raw units out.

    Model coordinates x [N, D] have one column ``(raw − center)/scale`` per feature (of an ordinal one, its position),
    but K columns of 0 and 1 per category of K levels, in the order of the features. A *table* is a dict
    name -> [N] array, a pandas DataFrame or an array [N, F]; tables that are returned are dicts.

    Args:
      features: what each column may become.
      relations: linear relations between features that are not categories.
      center, scale: raw units, [F] or {name: number}; 0 and 1 by default. A scale of 0 (a constant feature) counts
        as 1. Categories use neither.

    Raises BadArgument, naming the feature or the relation, for equal names, a relation over an unknown name or a
    category, a center or scale that is not finite, and a negative scale.
    """

    @overload
    @classmethod
    def infer(cls, table: Table, /, **overrides: Feature | Mapping[str, Any]) -> FeatureSpace: ...
    @overload
    @classmethod
    def infer(
        cls, table: Table, relations: Iterable[Relation] = (), **overrides: Feature | Mapping[str, Any]
    ) -> FeatureSpace: ...
    @classmethod
    def infer(cls, table: Table, relations: Any = (), **overrides: Any) -> FeatureSpace:
        """A schema from data: ranges and levels are those that occur; center and scale are mean and standard deviation.

        Floats become continuous, whole numbers integer, text and truth values categories, and an ordered pandas
        categorical becomes ordinal. overrides: by column name a Feature, or a dict of the fields that differ, e.g.
        ``age={"direction": "up"}`` (``**{"a name with spaces": {...}}``).
        Raises BadArgument for a name without a column, and for a column without any value.
        """
        features, found = infer_features(table, overrides)
        center, scale = np.zeros(len(features)), np.ones(len(features))
        for i, feature in enumerate(features):
            values = numbers(feature, found[feature.name])
            values = values[np.isfinite(values)]
            if feature.kind != "category" and values.size:
                center[i], scale[i] = values.mean(), values.std()
        return cls(features, relations, center, scale)

    def encode(self, table: Table, dtype: Any = np.float32) -> np.ndarray:
        """[N, D] in ``dtype``. A cell that is not a number becomes NaN, an unknown category 0 in all its columns."""
        return coding.encode(self.features, self.center, self.scale, table, dtype)

    def decode(self, x: Any, factual: Table | None = None) -> dict[str, np.ndarray]:
        """A table from x [N, D]: numbers within their range and on their grid, of a category the largest column.

        factual: the table that x started from; features that did not change come back bit for bit.
        """
        return coding.decode(self.features, self.center, self.scale, x, factual)

    def reasons(self, table: Table) -> list[str]:
        """For each row "" if it obeys the schema, else the constraints that it breaks, separated by "; "."""
        return ["; ".join(row) for row in judge.reasons(self.features, self.relations, table)]

    def violations(self, factual: Table, table: Table) -> list[list[str]]:
        """For each row the violations of ``table`` as an answer to ``factual``: its own, and forbidden moves."""
        own = judge.reasons(self.features, self.relations, table)
        return [a + b for a, b in zip(own, judge.moves(self.features, factual, table), strict=True)]

    def compile(self, dtype: Any = np.float32) -> Constraints:
        """The schema as arrays of model coordinates: see :class:`invjax.constraints.Constraints`."""
        return compile_space(self, dtype)

    def to_pandas(self, result: Result, factual: Table | None = None) -> pd.DataFrame:
        """The table of :meth:`invjax.Result.to_pandas`, with l0 in features and the answers in raw units.

        A column per feature follows (``NAME (feature)`` where the name is taken). factual: the table that x started
        from; with it, what did not change comes back bit for bit.
        Raises ImportError where pandas is missing, BadArgument where ``result`` has other columns.
        """
        x = np.asarray(result.x)
        if x.shape[-1] != self.width:
            raise BadArgument("result", f"have the {self.width} columns of the space", Words(f"{x.shape[-1]} columns"))
        frame = result.to_pandas()
        delta = np.asarray(result.delta).reshape(len(frame), -1)
        if factual is not None:
            each = len(frame) // max(1, np.size(result.evaluations))  # answers of a row: more than one in a set
            factual = {name: np.repeat(column, each) for name, column in columns(factual, self.names).items()}
        changed = np.zeros((len(frame), len(self.names)), bool)
        rows, where = np.nonzero(delta)
        changed[rows, self.column_features[where]] = True
        frame["l0"] = changed.sum(1)
        taken = set(frame.columns)
        for name, column in self.decode(x.reshape(len(frame), -1), factual).items():
            frame[f"{name} (feature)" if name in taken else name] = column
        return frame

    def to_json(self, path: str | os.PathLike[str], notes: Iterable[str] = ()) -> None:
        """Write the schema as JSON. notes: sentences for whoever edits the file; reading leaves them out.

        Raises BadArgument about a schema that would not be read back as it is, before anything is written; OSError.
        """
        features = []
        for feature, center, scale in zip(self.features, self.center.tolist(), self.scale.tolist(), strict=True):
            entry = {field.name: getattr(feature, field.name) for field in dataclasses.fields(feature)}
            entry["notation"] = None if feature.notation is None else feature.notation._asdict()
            entry["transitions"] = [[old, new, cost] for (old, new), cost in feature.transitions.items()]
            entry |= {side: _finite(entry[side]) for side in ("lower", "upper")}
            if feature.kind != "category" or (center, scale) != (0.0, 1.0):
                entry |= {"center": center, "scale": scale}
            features.append({key: list(value) if isinstance(value, tuple) else value for key, value in entry.items()})
        relations = [{"coefficients": dict(r.coefficients), "upper": r.upper} for r in self.relations]
        content: dict[str, Any] = {"invjax_feature_space": 2, "features": features, "relations": relations}
        if said := list(notes):
            content = {"notes": said, **content}
        try:
            text = json.dumps(content, indent=1, allow_nan=False, default=_plain)
            same = self._of(json.loads(text)) == self
        except (TypeError, ValueError) as error:
            raise BadArgument("space", "hold what JSON can hold", hint=one_line(error)) from error
        if not same:
            raise BadArgument(
                "space", "be read back as it is", hint="its levels are neither text, numbers nor truth values"
            )
        write_atomic(path, text.encode())

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> FeatureSpace:
        """Read what :meth:`to_json` wrote, or a file of that form. Raises BadArgument where it has another.

        A feature brings its own center and scale, so that one can be deleted or moved by hand. The first form of the
        file had two lists beside the features instead, and is still read.
        """
        wanted = "be a feature space as to_json writes it"
        try:
            return cls._of(read_json(path))
        except Unreadable as error:
            raise BadArgument("path", wanted, os.fspath(path), hint=str(error)) from None
        except BadArgument:
            raise
        except TypeError as error:
            raise BadArgument("path", wanted, os.fspath(path), hint=str(error)[:300]) from None
        except (AttributeError, KeyError, ValueError, OverflowError) as error:
            raise BadArgument("path", wanted, os.fspath(path), hint=repr(error)[:200]) from None

    @classmethod
    def _of(cls, content: Any) -> FeatureSpace:
        """The schema that a JSON file holds."""
        for key in content:
            if key not in _KEYS and (near := closest(key, _KEYS)):  # others are comments
                raise BadArgument("schema", f"call its keys {', '.join(_KEYS)}", key, hint=f"did you mean {near!r}?")
        entries = [dict(entry) for entry in content["features"]]
        units = [_units(entries, side, content.get(side)) for side in ("center", "scale")]
        features = [_feature(entry) for entry in entries]
        relations = [Relation(**entry) for entry in content.get("relations", ())]
        return cls(features, relations, *units)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FeatureSpace):
            return NotImplemented
        same = self.features == other.features and self.relations == other.relations
        return same and np.array_equal(self.center, other.center) and np.array_equal(self.scale, other.scale)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"FeatureSpace({len(self.features)} features, {len(self.relations)} relations, {self.width} columns)"


def _plain(value: Any) -> Any:
    """A number of NumPy, which JSON does not know, as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is none of its types")


def _finite(value: float) -> float | None:
    """``value``, or None for an infinity, which JSON cannot hold."""
    return None if math.isinf(value) else value


def _units(entries: list[dict[str, Any]], side: str, given: Any) -> Any:
    """The centers or scales that the features bring, taken out of them; ``given`` (of the first form) where none does.

    A feature without one has what ``FeatureSpace`` takes by default.
    """
    own = {str(entry.get("name")): entry.pop(side) for entry in entries if side in entry}
    return own or given


def _feature(entry: dict[str, Any]) -> Feature:
    sides = {"lower": -math.inf, "upper": math.inf}
    entry = {key: sides[key] if key in sides and value is None else value for key, value in entry.items()}
    transitions = {(old, new): cost for old, new, cost in entry.pop("transitions", ())}
    if entry.get("notation") is not None:
        entry["notation"] = Notation(**entry["notation"])
    return Feature(**{**entry, "levels": tuple(entry.get("levels", ()))}, transitions=transitions)


def check_space(space: Any, compiled: bool = False) -> Any:
    """``space``, if it is a FeatureSpace, or where ``compiled`` says so its compiled form. Raises BadArgument."""
    if isinstance(space, FeatureSpace) or (compiled and isinstance(space, Constraints)):
        return space
    hint = None
    if isinstance(space, str | os.PathLike):
        hint = "FeatureSpace.from_json(path) reads one from a file"
    elif isinstance(space, Iterable) and any(isinstance(one, Feature) for one in space):
        hint = "FeatureSpace(features) makes one of them"
    wanted = "be a FeatureSpace" + (" or its compiled form" if compiled else "")
    raise BadArgument("space", wanted, Words(f"of type {type(space).__name__}"), hint=hint)
