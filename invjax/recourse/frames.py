"""From a fitted model and a DataFrame to explanations, with DataFrames in and out.

recourse = from_predictor(forest, loans, "paid", target="yes", immutable=["age"])
explanation = recourse.explain(applicants)
print(explanation.text())
answers = explanation.to_pandas()
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from invjax.constraints import FeatureSpace, Relation
from invjax.constraints.table import columns, no_column
from invjax.core.errors import BadArgument, Words, check_choice, check_seed, unknown_name
from invjax.core.meant import explained
from invjax.core.text import as_text
from invjax.data.tables.table import TabularData, from_space
from invjax.recourse.answers import Explanation
from invjax.recourse.asking import as_series, known_features
from invjax.recourse.classifiers import GradientName, TableClassifier, of_rows, tested
from invjax.recourse.fitted import is_fitted, table_predictor
from invjax.recourse.matching import match_classes, names_of
from invjax.recourse.missing import patterns, together, without_features
from invjax.recourse.rows import explain_rows, freeze

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class TableExplainer:
    """A fitted model with the rows and the schema that its explanations refer to. Made by :func:`from_predictor`."""

    data: TabularData  # the labelled rows; ``data.space`` is the schema
    classifier: TableClassifier  # the model, asked in raw columns, with a gradient beside it
    frame: pd.DataFrame  # the features of the DataFrame that it was made from
    own: tuple[Any, ...]  # the model's values of ``data.classes``
    target: Any = None  # the class that is wanted unless ``explain`` is told another
    gradient: GradientName = "surrogate"
    seed: int = 0
    parts: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)  # the same without missing features

    def explain(self, rows: Any = None, *, target: Any = None, **options: Any) -> Explanation:
        """Explanations of rows: those of a DataFrame, one row as a Series, positions in the table, or None for all.

        ``to_pandas()`` of what is returned has the index of the rows and the dtypes of the table.

        Args:
          rows: other columns than the features are ignored.
          target: the wanted class, its name or the model's own value; one, or one for each row.
          options: further arguments of :func:`invjax.recourse.explain_rows`: method, max_changes, plausibility, ….

        Raises ValueError: an argument, naming it; a column that the rows lack.
        """
        rows = self._rows(rows)
        target = _named(self.target if target is None else target, self.own, self.data.classes)
        groups = self._groups(rows)
        if len(groups) == 1:
            found = self._explained(groups[0][0], rows, target, options)
            return dataclasses.replace(found, frame=rows, settings=found.settings | _note(groups))
        done = []
        for gone, chosen in groups:
            own = {"ids": np.asarray(options["ids"], object)[chosen]} if options.get("ids") is not None else {}
            wanted = target if target is None or np.ndim(target) == 0 else np.asarray(target)[chosen]
            done.append((chosen, self._explained(gone, rows.iloc[chosen], wanted, {**options, **own})))
        found = together(done, columns(rows, self.data.space.names), self.data)
        return dataclasses.replace(found, frame=rows, settings=found.settings | _note(groups))

    def _groups(self, rows: Any) -> list[tuple[tuple[str, ...], np.ndarray]]:
        """Features that are missing, and the rows that lack these, as far as the model takes missing cells."""
        found: dict[tuple[str, ...], list[np.ndarray]] = {}
        for kind, chosen in patterns(rows.isna().to_numpy()):
            gone = tuple(str(name) for name in rows.columns[kind])
            found.setdefault(gone if self._part(gone) is not None else (), []).append(chosen)
        return [(gone, np.sort(np.concatenate(chosen))) for gone, chosen in found.items()]

    def _part(self, gone: tuple[str, ...]) -> tuple[TabularData, TableClassifier] | None:
        """Data and classifier without some features; None where the model takes no missing cells."""
        if gone not in self.parts:
            predictor = self.classifier.predictor
            if not gone or predictor is None:
                return self.data, self.classifier
            try:
                data, asked = without_features(self.data, predictor, gone)
                self.parts[gone] = data, of_rows(data, asked, self.gradient, self.seed)
            except BadArgument:
                self.parts[gone] = None
        return self.parts[gone]

    def _explained(self, gone: tuple[str, ...], rows: Any, target: Any, options: Mapping[str, Any]) -> Explanation:
        found = self._part(gone)
        assert found is not None
        data, chosen = found
        given = {"evaluator": chosen.evaluator, **options}
        return explain_rows(data, chosen.model, rows[list(data.space.names)], target=target, **given)

    def _rows(self, rows: Any) -> Any:
        names = list(self.frame.columns)
        if rows is None:
            return self.frame
        if hasattr(rows, "to_frame") and not hasattr(rows, "columns"):  # a Series
            rows = rows.to_frame().T
            rows = rows.assign(**{
                name: as_series(np.asarray(rows[name]), self.frame[name].dtype).set_axis(rows.index)
                for name in names if name in rows
            })  # fmt: skip
        elif not hasattr(rows, "iloc"):
            try:
                return self.frame.iloc[np.atleast_1d(np.arange(len(self.frame))[rows])]
            except (IndexError, TypeError) as error:
                wanted = f"be a DataFrame, or positions in the {len(self.frame)} rows of the table"
                raise BadArgument("rows", wanted, rows) from error
        if not len(rows):
            raise BadArgument("rows", "have at least one row")
        rows = _texts(rows)
        if missing := [name for name in names if name not in rows.columns]:
            raise no_column("rows", missing[0], rows.columns, names)
        return rows[names]

    def __repr__(self) -> str:
        return f"TableExplainer({self.data!r}; {self.classifier.words})"


@explained
def from_predictor(
    model: Any,
    frame: Any,
    label: Any,
    *,
    target: Any = None,
    immutable: Sequence[str] = (),
    categories: Sequence[str] = (),
    threshold: float | None = None,
    classes: Any = None,
    space: FeatureSpace | None = None,
    relations: Sequence[Relation] = (),
    gradient: GradientName = "surrogate",
    seed: int = 0,
) -> TableExplainer:
    """Explanations of a fitted model's decisions, from the DataFrame that it knows.

    The model is asked in the raw columns of the frame, under its own names, in its order and dtypes, and the classes
    are matched by name: :func:`invjax.recourse.fitted.table_predictor`. An answer counts only if the model itself says
    so of the changed row as it is written down.

    Args:
      model: a fitted classifier with ``predict_proba``, ``decision_function`` or ``predict`` (scikit-learn, also a
        Pipeline; XGBoost, LightGBM, CatBoost), or a function of a DataFrame that returns probabilities [N, K].
      frame: a pandas DataFrame with labelled rows, as a rule those that the model was trained on. The features are the
        columns that the model was fitted on; all but ``label`` if it does not know their names. Missing cells are
        passed on to a model that takes them; they stay missing in the answers.
      label: the name of the column that holds the class; or a Series or array of classes, one per row.
      target: the wanted class, its name or the model's own value. None: for each row the second most likely.
      immutable: features that may not change.
      categories: columns of numbers that are names.
      threshold: the probability at which the model decides for the second of its two classes; None: 1/2, or the one
        that the model itself carries. The probabilities that are reported stay the model's own.
      classes: {the model's class: its name}, or the names in the order of the model's classes, where the model's own
        values do not say it.
      space: the schema; None infers one with the ranges of the frame, in which everything else may change both ways.
      relations: between numbers, for an inferred schema.
      gradient, seed: as for :func:`invjax.recourse.classifier`.

    Raises:
      BadArgument: an argument, naming it; the model does not fit the frame, or is worse on it than its own ``predict``.
      ImportError: pandas is missing.
    """
    if not (hasattr(frame, "columns") and hasattr(frame, "iloc")):
        hint = "pandas.read_csv(path) reads one" if isinstance(frame, str | os.PathLike) else None
        hint = "the model comes first, then the frame" if is_fitted(frame) else hint
        raise BadArgument("frame", "be a pandas DataFrame", Words(type(frame).__name__), hint=hint)
    frame, values = _labelled(frame, label)
    frame = _texts(frame)
    frame = frame[[name for name in frame.columns if name in known_features(model, list(frame.columns))]]
    names, own, index = _classes(model, values, classes)
    if space is None:
        space = _inferred(frame, categories, relations)
    elif len(categories) or len(relations):
        raise BadArgument("categories and relations", "be left out with a space", hint="it declares them itself")
    rows = np.arange(len(frame))
    data = from_space("the table", frame, index, names, space, (rows, rows))
    data = freeze(data, immutable)
    check_choice("gradient", gradient, get_args(GradientName))
    check_seed("seed", seed, 32, -(2**31))
    wanted = _named(target, own, names)
    for one in [] if wanted is None else np.atleast_1d(np.asarray(wanted, object)).tolist():
        if str(one) not in names:
            raise unknown_name("target", one, names, f"be one of the classes {', '.join(names)}")
    predictor = table_predictor(model, data, classes=classes, threshold=threshold, dtypes=dict(frame.dtypes.items()))
    chosen = tested(of_rows(data, predictor, gradient, seed), data)
    return TableExplainer(data, chosen, frame, own, wanted, gradient, seed)


def _note(groups: Sequence[tuple[tuple[str, ...], np.ndarray]]) -> dict[str, str]:
    """What the settings of an explanation say about rows with missing cells."""
    count = sum(len(chosen) for gone, chosen in groups if gone)
    return {"missing cells": f"of {count} rows, which are explained in the features that they have"} if count else {}


def _texts(frame: Any) -> Any:
    """The frame with its columns' names as text."""
    return frame.set_axis([str(name) for name in frame.columns], axis=1)


def _labelled(frame: Any, label: Any) -> tuple[Any, np.ndarray]:
    """The frame without its label, and the values [N] of the label."""
    if isinstance(label, str) or (np.ndim(label) == 0 and not hasattr(label, "index")):
        if isinstance(label, Mapping) or label not in frame.columns:
            known = list(map(str, frame.columns))
            raise unknown_name("label", label, known, f"be one of the columns {', '.join(known)}")
        frame, label = frame.drop(columns=label), frame[label]
    elif hasattr(label, "index") and hasattr(label, "reindex") and not label.index.equals(frame.index):
        if not label.index.is_unique or set(label.index) != set(frame.index):
            raise BadArgument("label", "have the index of the frame")
        label = label.reindex(frame.index)
    values = np.asarray(label)
    if values.shape != (len(frame),):
        raise BadArgument("label", f"have one class for each of the {len(frame)} rows", Words(f"shape {values.shape}"))
    gone = [i for i, value in enumerate(values.tolist()) if value is None or value != value]
    if gone:
        raise BadArgument("label", "have a class for each row", Words("a missing one"), gone[0])
    return frame, values


def _classes(model: Any, values: np.ndarray, said: Any) -> tuple[tuple[str, ...], tuple[Any, ...], np.ndarray]:
    """The K names of the classes, the model's own values of these, and [N] the class of each row."""
    present = sorted(set(values.tolist()), key=lambda value: (isinstance(value, str), value))
    own = getattr(getattr(model, "__self__", model), "classes_", None)
    known = present if own is None else [value.item() if hasattr(value, "item") else value for value in own]
    if len(present) > len(known) or len(known) < 2:
        raise BadArgument("label", f"have the {len(known)} classes of the model", Words(f"{len(present)} classes"))
    labels = list(map(as_text, present))
    names = names_of(known, said)
    if set(names) == set(labels):  # what the frame calls the classes
        order = [names.index(text) for text in labels]
    else:
        order = _places(known, present)
        if order is None and len(present) == len(known):  # codes: the rows will prove the order
            order, names = list(range(len(known))), labels
        elif order is None:
            wanted = f"hold the model's classes {', '.join(map(repr, known))}"
            raise BadArgument("label", wanted, Words(", ".join(map(repr, labels))))
    place = dict(zip(present, order, strict=True))
    return tuple(names), tuple(known), np.array([place[value] for value in values.tolist()], np.int32)


def _places(known: Sequence[Any], present: Sequence[Any]) -> list[int] | None:
    """Where the values of the label are among the model's classes."""
    if len(known) == len(present):
        found = match_classes(known, list(map(as_text, present)))
        return None if found is None else found.tolist()
    texts, wanted = list(map(as_text, known)), list(map(as_text, present))
    return [texts.index(text) for text in wanted] if set(wanted) <= set(texts) else None


def _inferred(frame: Any, categories: Sequence[str], relations: Sequence[Relation]) -> FeatureSpace:
    names = list(frame.columns)
    for name, dtype in frame.dtypes.items():
        if dtype.kind in "mM":
            hint = "leave the column out, or make it a number, such as a year"
            raise BadArgument("frame", "have numbers, text and truth values", Words(f"{dtype} in {name!r}"), hint=hint)
    if strange := [name for name in categories if name not in names]:
        raise unknown_name("categories", strange[0], names, f"name columns of the frame ({', '.join(names)})")
    return FeatureSpace.infer(frame, relations, **{name: {"kind": "category"} for name in categories})


def _named(target: Any, own: Sequence[Any], names: Sequence[str]) -> Any:
    """Names of classes where the model's own values were given."""
    if target is None or isinstance(target, str):
        return target
    if isinstance(target, Mapping):
        raise BadArgument("target", "be one class or one for each row", target)
    known = dict(zip(own, names, strict=True))
    found = [known.get(one, one) for one in np.atleast_1d(np.asarray(target)).tolist()]
    return found[0] if np.ndim(target) == 0 else np.array([str(one) for one in found], object)
