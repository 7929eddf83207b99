"""A fitted predictor of a table: asked in raw units, by the names, order and dtypes it was fitted on.

    p(table) [N, K] = the model's probabilities of the N rows, one column per class of the data            (1)

Everything that could go wrong in silence is tried on the labelled rows before the predictor is used: which columns it
takes, which of its outputs is which class, and whether (1) decides as the model's own ``predict`` does.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit, logit, softmax

from invjax.core.errors import BadArgument, Words, check, of_shape
from invjax.core.meant import explained
from invjax.data.tables.table import Table, TabularData
from invjax.recourse.asking import Columns, ways_to_ask
from invjax.recourse.matching import best_share, check_order, match_classes

_TRIED = 10_000  # labelled rows that a predictor is tried on
_WORSE = 0.05  # a predictor may be so much worse than its own score; another unit must be so much better
_ODDS = 2e-6  # how far a decision at a threshold lies from a tie, as a probability: float32 keeps it
OUTPUTS = ("predict_proba", "decision_function", "predict")


@dataclasses.dataclass(frozen=True, eq=False)
class TablePredictor:
    """A fitted model as a function of raw tables: (1). Made by :func:`table_predictor`; it is its own identity."""

    model: Any  # what was fitted
    classes: tuple[str, ...]  # K, those of the data
    columns: Columns  # how a table becomes what the model takes
    output: str  # of OUTPUTS: where the probabilities come from; "" where the model itself is called
    order: np.ndarray  # [K] which output is which class
    threshold: float | None  # probability of the last of the model's classes at which it decides for it
    words: str  # how it is asked, and how well it does
    accuracy: float  # on the labelled rows that it was tried on

    def __call__(self, table: Mapping[str, np.ndarray]) -> np.ndarray:
        """[N, K] float64 probabilities (1) of a table in raw units; the largest is the model's decision.

        With a threshold t a probability p is given as ``σ(logit p − logit t)``, which is above 1/2 exactly where
        p >= t. A predictor without probabilities has ``σ`` or softmax of its scores, or 0 and 1.
        Raises BadArgument with the model's own message where the model raises.
        """
        own = self.probabilities(table)
        if self.threshold is None:
            return _first_wins(own, self.order)
        positive = int(np.argmax(self.order))
        yes = own[:, positive]
        with np.errstate(divide="ignore"):
            moved = expit(logit(yes) - logit(self.threshold))
        moved = np.where(yes >= self.threshold, np.maximum(moved, 0.5 + _ODDS), np.minimum(moved, 0.5 - _ODDS))
        moved = np.where(np.isnan(yes), np.nan, moved)
        return np.stack([1 - moved, moved] if positive == 1 else [moved, 1 - moved], axis=1)

    def own_probability(self, share: np.ndarray, target: np.ndarray) -> np.ndarray:
        """[n] what the model itself gives the classes ``target`` [n], from the probabilities of a call."""
        if self.threshold is None:
            return share
        at = np.where(target == int(np.argmax(self.order)), 1, -1) * logit(self.threshold)
        with np.errstate(divide="ignore"):
            return expit(logit(share) + at)

    def probabilities(self, table: Mapping[str, np.ndarray]) -> np.ndarray:
        """[N, K] float64, the same as the model gives them, whatever the threshold."""
        return _outputs(self.model, self.output, self.columns, table, len(self.classes))[:, self.order]


def is_fitted(model: Any) -> bool:
    """Whether ``model`` is a predictor in the manner of scikit-learn, or the bound method of one."""
    return any(callable(getattr(_owner(model), name, None)) for name in OUTPUTS)


@explained
def table_predictor(
    model: Any,
    data: TabularData,
    *,
    classes: Any = None,
    threshold: float | None = None,
    dtypes: Mapping[str, Any] | None = None,
    name: str = "the model",
) -> TablePredictor:
    """A fitted model as a function of tables like ``data.table``.

    The columns go in under the names that the model was fitted on (``feature_names_in_``), in its order. A model
    without names takes an array of the table's columns in their order, or, if it is right on over 5 points more of the
    rows that way, of the encoded columns ``data.x``; ``words`` says which.

    Args:
      model: has ``predict_proba``, ``decision_function`` or ``predict``; or a function of a DataFrame that returns
        probabilities. Its ``classes_`` are matched with ``data.classes`` by name and by value. Codes (0, 1, …) are
        matched by position if the rows prove the order.
      classes: {the model's class: its name in ``data.classes``}, or the names in the order of the model's classes.
      threshold: the probability at which the model decides for the second of its two classes; None: 1/2, or the one
        that the model itself carries.
      dtypes: pandas dtypes of the columns, where they are more than those of ``data.table``.
      name: what ``words`` calls it.

    Raises:
      BadArgument: about "model" (no such output, columns that do not fit, worse on the rows by over 5 points than its
        own ``predict``, or what the model itself raises), "classes" or "threshold".
    """
    method = getattr(model, "__name__", "") if getattr(model, "__self__", None) is not None else ""
    model = _owner(model)
    if threshold is not None:
        check("threshold", threshold, lambda value: 0 < value < 1, "a probability in (0, 1)")
        if len(data.classes) != 2:
            raise BadArgument("threshold", "be left out where there are more than two classes", len(data.classes))
    outputs = [method] if method in OUTPUTS else [output for output in OUTPUTS if hasattr(model, output)]
    if not outputs and not callable(model):
        wanted = "have predict_proba, decision_function or predict, or be a function of a table"
        raise BadArgument("model", wanted, Words(type(model).__name__))
    own = getattr(model, "classes_", None)
    own = None if own is None else list(own)
    order = match_classes(own, data.classes, classes)
    trial = _Trial(model, own, data, order, outputs or [""])
    best = trial.columns(ways_to_ask(model, data, dtypes))
    if order is None:
        check_order(own, data.classes, best.won, data.label[best.rows])
        order = np.arange(len(data.classes))
    carried = _carried(model, own) if threshold is None and best.output == "predict_proba" else None
    predictor = TablePredictor(model, data.classes, best.columns, best.output, order, threshold or carried, "", 0.0)
    return _checked(predictor, data, best, threshold is not None, name)


@dataclasses.dataclass(frozen=True)
class _Way:
    """One way to ask that works, and what came of it on the labelled rows."""

    columns: Columns
    output: str
    rows: np.ndarray
    accuracy: float  # by the output or by predict, whichever is right more often
    won: np.ndarray  # [n] the output that wins, -1 for none
    predicted: np.ndarray | None  # [n] classes by the model's own predict
    agreement: float = 1.0  # of the output with predict


@dataclasses.dataclass(frozen=True)
class _Trial:
    """A model on trial on the labelled rows."""

    model: Any
    own: list[Any] | None
    data: TabularData
    order: np.ndarray | None
    outputs: list[str]

    def columns(self, ways: Sequence[Columns]) -> _Way:
        """The first way that works, or the encoded columns if they do better by 5 points."""
        found, errors = [], []
        for columns in ways:
            if found and not columns.encoded:
                continue
            try:
                found.append(self._tried(columns))
            except BadArgument as error:
                errors.append(error)
        if not found:
            raise errors[0]
        first = found[0]
        return next((way for way in found[1:] if way.accuracy > first.accuracy + _WORSE), first)

    def _tried(self, columns: Columns) -> _Way:
        label = self.data.label
        rows = np.unique(np.linspace(0, len(label) - 1, min(_TRIED, len(label))).astype(int))
        whole = rows[np.isfinite(self.data.x[rows]).all(1)]
        try:
            return self._on(columns, rows)
        except BadArgument:
            if len(whole) in (0, len(rows)):
                raise
            return self._on(columns, whole)  # a model that takes no missing cells

    def _on(self, columns: Columns, rows: np.ndarray) -> _Way:
        """The output that decides most as ``predict`` does; ``predict`` itself where there is no other."""
        table, label, names = self.data.rows(rows), self.data.label[rows], self.data.classes
        predicted = self._predicted(columns, table)
        ways = []
        for output in self.outputs:
            try:
                out = _outputs(self.model, output, columns, table, len(names), self.own)
            except _NoOutput:
                continue
            won = np.where(np.isnan(out).any(1), -1, out.argmax(1))
            won = won if self.order is None else np.append(np.argsort(self.order), -1)[won]
            agreement = 1.0 if predicted is None else float((won == predicted).mean())
            said = [won] if predicted is None else [won, predicted]
            if self.order is None:  # then in the order of the classes that suits the rows best
                found = max(best_share(one, label, len(names)) for one in said)
            else:
                found = max(float((one == label).mean()) for one in said)
            ways.append(_Way(columns, output, rows, found, won, predicted, agreement))
            if agreement == 1 or _carried(self.model, self.own) is not None:
                break
        if not ways:
            raise BadArgument("model", f"give the {len(names)} classes of {self.data.name}")
        return max((way for way in ways if way.output != "predict"), key=lambda way: way.agreement, default=ways[-1])

    def _predicted(self, columns: Columns, table: Table) -> np.ndarray | None:
        """[n] classes of the data by the model's own ``predict``, where it has one that names its classes."""
        if "predict" not in self.outputs or self.own is None:
            return None
        places = _places(self.own, _asked(self.model, "predict", columns, table))
        order = np.arange(len(self.own)) if self.order is None else self.order
        return np.append(np.argsort(order), -1)[places]


def _first_wins(p: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The same where a tie goes to the first of the model's own classes, whatever the order of the data's."""
    back = np.argsort(order)
    winner = back[p[:, back].argmax(1)]
    tied = np.flatnonzero(p.argmax(1) != winner)
    p[tied, winner[tied]] += _ODDS
    return p


class _NoOutput(Exception):
    """The model has no such output after all."""


def _checked(predictor: TablePredictor, data: TabularData, way: _Way, asked: bool, name: str) -> TablePredictor:
    """The predictor with its words and accuracy, after the check against its own ``predict``."""
    label = data.label[way.rows]
    out = predictor(data.rows(way.rows))
    won = np.where(np.isnan(out).any(1), -1, out.argmax(1))
    accuracy = float((won == label).mean())
    if way.predicted is not None and not asked:
        score = float((way.predicted == label).mean())
        if accuracy < score - _WORSE:
            raise BadArgument(
                "model", f"decide as its own predict does, which is right on {100 * score:.1f} % of {data.name}",
                Words(f"right on {100 * accuracy:.1f} % by its {predictor.output}"),
                hint="give its threshold, or its method predict alone",
            )  # fmt: skip
    common = float(np.bincount(label, minlength=len(data.classes)).max() / len(label))
    if accuracy < common - _WORSE:
        always = data.classes[int(np.bincount(label).argmax())]
        warnings.warn(
            f"{name} is right on {100 * accuracy:.1f} % of the rows of {data.name}, where always saying {always!r} is "
            f"right on {100 * common:.1f} %: are these its columns, units and classes?", UserWarning, stacklevel=3
        )  # fmt: skip
    facts = [type(predictor.model).__name__, predictor.columns.words]
    if predictor.output == "decision_function":
        facts.append("scores instead of probabilities")
    elif predictor.output == "predict":
        facts.append("hard outputs: probabilities are 0 or 1")
    if way.agreement < 1 and predictor.threshold is None:
        facts.append(f"decides as its predict does on {100 * way.agreement:.1f} %")
    if predictor.threshold is not None:
        facts.append(f"decides at a probability of {predictor.threshold:g}")
    facts.append(f"right on {100 * accuracy:.1f} % of {len(label):,} rows")
    return dataclasses.replace(predictor, words=f"{name} ({', '.join(facts)})", accuracy=accuracy)


def _outputs(
    model: Any, output: str, columns: Columns, table: Mapping[str, Any], count: int, own: list[Any] | None = None
) -> np.ndarray:
    """[N, count] float64 probabilities in the model's order."""
    answer = _asked(model, output, columns, table)
    rows = len(next(iter(table.values())))
    own = getattr(model, "classes_", None) if own is None else own
    if output == "predict" and (own is not None or np.ndim(answer) < 2):
        places = _places(list(range(count)) if own is None else list(own), answer)
        if rows and (places < 0).all():
            raise BadArgument("model", "predict classes", np.asarray(answer).reshape(-1)[0])
        return np.where((places >= 0)[:, None], np.arange(count) == places[:, None], np.nan)
    out = np.asarray(answer, np.float64)
    if out.shape in ((rows,), (rows, 1)) and count == 2:
        yes = expit(out.reshape(-1)) if output == "decision_function" else out.reshape(-1)
        out = np.stack([1 - yes, yes], axis=1)
    elif output == "decision_function" and out.shape == (rows, count):
        out = softmax(out, axis=1) if rows else out
    if out.shape != (rows, count):
        if output == "decision_function":
            raise _NoOutput
        raise BadArgument("model", f"return one probability for each of {count} classes", of_shape(out.shape))
    if ((out < -1e-6) | (out > 1 + 1e-6)).any():
        raise BadArgument("model", "return probabilities in [0, 1]", float(out[(out < 0) | (out > 1)][0]))
    return np.clip(out, 0, 1)


def _asked(model: Any, output: str, columns: Columns, table: Mapping[str, Any]) -> Any:
    """What the model says to a table. Raises BadArgument with its own message where it raises."""
    function: Callable[[Any], Any] = getattr(model, output) if output else model
    try:
        return function(columns(table))
    except Exception as error:
        text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
        said = f"it says: {text[:300]}"
        raise BadArgument("model", f"take the table ({columns.words})", hint=said) from error


def _places(own: list[Any], answer: Any) -> np.ndarray:
    """[N] the positions of predicted values in the model's classes; -1 for others."""
    known = {value: k for k, value in enumerate(own)}
    flat = np.asarray(answer).reshape(-1).tolist()
    return np.array([known.get(value, -1) for value in flat], int)


def _carried(model: Any, own: list[Any] | None) -> float | None:
    """The threshold of scikit-learn's FixedThresholdClassifier or TunedThresholdClassifierCV."""
    found = getattr(model, "best_threshold_", getattr(model, "threshold", None))
    if own is None or len(own) != 2 or not hasattr(model, "estimator_") or not isinstance(found, float):
        return None
    return found if 0 < found < 1 and getattr(model, "pos_label", None) in (None, own[1]) else None


def _owner(model: Any) -> Any:
    """The object whose method ``model`` is, or ``model`` itself."""
    owner = getattr(model, "__self__", None)
    bound = owner is not None and getattr(model, "__name__", "") in OUTPUTS
    return owner if bound else model
