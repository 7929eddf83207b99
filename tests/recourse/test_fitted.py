"""Fitted models of tables: asked in raw columns, by name, in their own order, dtypes and classes; or refused."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from invjax import Status
from invjax.constraints import FeatureSpace
from invjax.core.errors import BadArgument
from invjax.data import from_space
from invjax.recourse import classifier, from_predictor, table_predictor

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: E402
from sklearn.linear_model import LogisticRegression, RidgeClassifier  # noqa: E402
from sklearn.model_selection import FixedThresholdClassifier  # noqa: E402
from sklearn.neighbors import NearestCentroid  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler  # noqa: E402
from sklearn.tree import DecisionTreeClassifier  # noqa: E402

COUNT = 120
DRAW = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "income": DRAW.uniform(20, 90, COUNT).round(1),
        "debt": DRAW.uniform(0, 60, COUNT),
        "years": DRAW.integers(0, 30, COUNT),
        "job": np.array(["off", "part", "full"])[DRAW.integers(0, 3, COUNT)],
    },
    index=[f"person {n}" for n in range(COUNT)],
)
YES = (FRAME.income - FRAME.debt + FRAME.years + 10 * (FRAME.job == "full") > 40).to_numpy()
LABEL = np.where(YES, "granted", "denied")
NUMBERS = ["income", "debt", "years"]


def table_of(frame, names=("denied", "granted"), label=YES):
    table = {name: frame[name].to_numpy() for name in frame}
    rows = np.arange(len(frame))
    return from_space("loans", table, label.astype(int), names, FeatureSpace.infer(frame), (rows[:90], rows[90:]))


MIXED, PLAIN = table_of(FRAME), table_of(FRAME[NUMBERS])


def tree():
    return DecisionTreeClassifier(min_samples_leaf=3, random_state=0)


def piped(encoder):
    return make_pipeline(make_column_transformer((encoder, ["job"]), remainder="passthrough"), tree())


def fitted(model, columns, label=LABEL, data=PLAIN):
    return model.fit(columns, label), columns, data


WAYS = {
    "by name": lambda: fitted(tree(), FRAME[NUMBERS]),
    "in another order": lambda: fitted(tree(), FRAME[NUMBERS[::-1]]),
    "some of the columns": lambda: fitted(tree(), FRAME[["debt", "income"]]),
    "an array": lambda: fitted(tree(), FRAME[NUMBERS].to_numpy()),
    "an array of encoded columns": lambda: fitted(LogisticRegression(), PLAIN.x),
    "encoded categories": lambda: fitted(LogisticRegression(), MIXED.x, data=MIXED),
    "one-hot": lambda: fitted(piped(OneHotEncoder()), FRAME, data=MIXED),
    "ordinal": lambda: fitted(piped(OrdinalEncoder()), FRAME, data=MIXED),
    "pandas categories": lambda: fitted(
        HistGradientBoostingClassifier(max_iter=3, categorical_features="from_dtype"),
        FRAME.astype({"job": "category"}),
        data=MIXED,
    ),
    "classes 0 and 1": lambda: fitted(tree(), FRAME[NUMBERS], YES.astype(int)),
    "classes False and True": lambda: fitted(tree(), FRAME[NUMBERS], YES),
    "classes -1 and 1": lambda: fitted(tree(), FRAME[NUMBERS], 2 * YES - 1),
    "values of classes": lambda: fitted(tree(), FRAME[NUMBERS], YES, table_of(FRAME[NUMBERS], ("0", "1"))),
    "classes in another order": lambda: fitted(
        tree(), FRAME[NUMBERS], data=table_of(FRAME[NUMBERS], ("granted", "denied"), ~YES)
    ),
}


@pytest.mark.fast
@pytest.mark.parametrize("way", WAYS)
def test_a_model_is_asked_as_it_was_fitted(way):
    model, columns, data = WAYS[way]()
    predictor = table_predictor(model, data)
    own = model.predict_proba(columns)
    own = own[:, ::-1] if way == "classes in another order" else own
    np.testing.assert_allclose(predictor(data.table), own, atol=3e-6)  # so far apart are the classes of a tie
    names = model.classes_[::-1] if way == "classes in another order" else model.classes_
    assert (names[predictor(data.table).argmax(1)] == model.predict(columns)).all()
    assert predictor.accuracy == np.mean(predictor(data.table).argmax(1) == data.label) > 0.75
    assert f"right on {100 * predictor.accuracy:.1f} % of 120 rows" in predictor.words
    assert ("encoded columns" in predictor.words) == ("encoded" in way)


@pytest.mark.fast
@pytest.mark.parametrize(("model", "words"), [(RidgeClassifier(), "scores"), (NearestCentroid(), "hard outputs")])
def test_a_model_without_probabilities_decides_as_it_does(model, words):
    model.fit(FRAME[NUMBERS].to_numpy(), LABEL)
    if isinstance(model, NearestCentroid):  # newer releases of scikit-learn give it probabilities
        model = types.SimpleNamespace(predict=model.predict, classes_=model.classes_, n_features_in_=3)
    predictor = table_predictor(model, PLAIN)
    assert words in predictor.words
    got = np.array(PLAIN.classes)[predictor(PLAIN.table).argmax(1)]
    assert (got == model.predict(FRAME[NUMBERS].to_numpy())).all()


@pytest.mark.fast
def test_thresholds():
    model = DecisionTreeClassifier(min_samples_leaf=12).fit(FRAME[NUMBERS], YES.astype(int))
    own = model.predict_proba(FRAME[NUMBERS])[:, 1]
    at = float(own[(own > 0) & (own < 0.5)][0])  # a value that occurs: the decision there is yes
    predictor = table_predictor(model, PLAIN, threshold=at)
    assert ((own >= at) != (own > 0.5)).any()
    moved = predictor(PLAIN.table).astype(np.float32)
    assert (moved.argmax(1) == (own >= at)).all()
    for k, target in enumerate((1 - own, own)):
        np.testing.assert_allclose(predictor.own_probability(moved[:, k], np.full(COUNT, k)), target, atol=1e-5)
    np.testing.assert_array_equal(predictor.probabilities(PLAIN.table)[:, 1], own)
    # A model that carries its threshold.
    held = FixedThresholdClassifier(tree(), threshold=0.2).fit(FRAME[NUMBERS], LABEL)
    predictor = table_predictor(held, PLAIN)
    assert predictor.threshold == 0.2
    assert (np.array(PLAIN.classes)[predictor(PLAIN.table).argmax(1)] == held.predict(FRAME[NUMBERS])).all()


class _Broken:
    classes_ = np.array(["denied", "granted"])

    def predict_proba(self, rows):
        raise RuntimeError("no licence\nfor this machine")


class _Swapped:
    """A wrapper that lost the order of its classes."""

    def predict(self, rows):
        return MODEL.predict(rows)

    def predict_proba(self, rows):
        return MODEL.predict_proba(rows)[:, ::-1]

    classes_ = np.array(["denied", "granted"])


DATE = pd.Timestamp("2026-01-01")
MODEL = tree().fit(FRAME[NUMBERS], LABEL)
_Swapped.feature_names_in_ = np.array(NUMBERS)  # type: ignore[attr-defined]
REFUSED = {
    "other columns": (lambda: tree().fit(FRAME[NUMBERS].add_suffix("_z"), LABEL), {}, "model", "'income_z'"),
    "too few columns": (lambda: tree().fit(PLAIN.x[:, :2], LABEL), {}, "model", "fitted on 2"),
    "swapped codes": (lambda: tree().fit(FRAME[NUMBERS], ~YES), {}, "classes", "classes={False: 'granted', True: "),
    "other names": (lambda: tree().fit(FRAME[NUMBERS], np.where(YES, "a", "b")), {}, "classes", "'b': 'granted'"),
    "more classes": (lambda: tree().fit(FRAME[NUMBERS], np.arange(COUNT) % 3), {}, "classes", "has 3 classes"),
    "worse than itself": (_Swapped, {}, "model", "right on"),
    "it raises": (_Broken, {}, "model", "no licence for this machine"),
    "no model": (lambda: 3, {}, "model", "predict_proba"),
    "no such threshold": (lambda: MODEL, {"threshold": 1.5}, "threshold", "1.5"),
    "no such class": (lambda: MODEL, {"classes": {"denied": "no", "granted": "granted"}}, "classes", "'no'"),
}


@pytest.mark.fast
@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case):
    make, given, name, words = REFUSED[case]
    with pytest.raises(BadArgument, match="must") as caught:
        table_predictor(make(), PLAIN, **given)
    assert caught.value.name == name
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.fast
def test_classes_that_the_user_names():
    model = tree().fit(FRAME[NUMBERS], np.where(YES, "a", "b"))
    for said in ({"a": "granted", "b": "denied"}, ["granted", "denied"]):
        predictor = table_predictor(model, PLAIN, classes=said)
        own = model.predict(FRAME[NUMBERS])
        assert (predictor(PLAIN.table).argmax(1) == (own == "a")).all()


@pytest.mark.fast
def test_wrong_units_are_said():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME[NUMBERS] * [1000, 1000, 1], LABEL)
    with pytest.warns(UserWarning, match=r"always saying 'granted' is right on"):
        predictor = table_predictor(model, table_of(FRAME[NUMBERS]), name="bank:model")
    assert predictor.words.startswith("bank:model")


def test_from_a_frame_to_a_frame():
    """Six lines, a Pipeline, columns that the model does not know, its own classes, missing cells, and a threshold."""
    frame = FRAME.astype({"job": "category", "years": "int32"}).assign(note="x", paid=YES.astype(int))
    frame.loc[frame.index[::4], "debt"] = np.nan
    columns = frame[["job", *NUMBERS]]
    model = HistGradientBoostingClassifier(max_iter=8, min_samples_leaf=5, categorical_features="from_dtype")
    model.fit(columns, frame.paid)
    recourse = from_predictor(model, frame, "paid", target=1, immutable=["years"], threshold=0.6, gradient="antithetic")
    yes = model.predict_proba(columns)[:, 1] >= 0.6
    rows = frame[
        (~yes & frame.debt.isna()) | (yes & frame.debt.notna() & (np.arange(COUNT) < 6))
    ]  # they need two tables
    assert 4 <= len(rows) < 30
    explanation = recourse.explain(rows, method="dice-genetic", plausibility=0)
    answers = explanation.to_pandas()
    assert answers.index.equals(rows.index)
    assert answers[columns.columns].dtypes.equals(columns.dtypes)
    found = (answers.status == "FOUND").to_numpy()
    assert found.sum() >= 0.7 * rows.debt.isna().sum() > 3
    assert (model.predict_proba(answers[columns.columns])[found, 1] >= 0.6).all()
    own = model.predict_proba(answers[columns.columns])[:, 1]
    np.testing.assert_allclose([person.after for person in explanation.people], own, atol=1e-5)
    assert (answers.years == rows.years).all()
    assert (explanation.predicted == yes[[frame.index.get_loc(name) for name in rows.index]]).all()
    np.testing.assert_array_equal(np.isnan(explanation.result.x).any(1), rows.debt.isna())
    assert f"of {rows.debt.isna().sum()} rows" in explanation.settings["missing cells"]
    kept = [n for n, person in enumerate(explanation.people) if person.status != Status.FOUND]
    pd.testing.assert_frame_equal(answers[columns.columns].iloc[kept], rows[columns.columns].iloc[kept])


def test_a_function_of_a_frame_and_odd_rows():
    """Names that are numbers, a model without classes, one row as a Series; what needs no answer runs no method."""
    frame = FRAME[NUMBERS].rename(columns={"income": 0})
    recourse = from_predictor(
        lambda rows: MODEL.predict_proba(rows.rename(columns={"0": "income"})), frame, LABEL, gradient="antithetic"
    )
    right = MODEL.predict(FRAME[NUMBERS])
    assert recourse.classifier.accuracy == np.mean(right == LABEL)
    row = frame.iloc[np.flatnonzero(right == "granted")[0]]
    explanation = recourse.explain(row, target="granted", plausibility=0)
    assert [person.status for person in explanation.people] == [Status.ALREADY_TARGET]
    answer = explanation.to_pandas()
    assert list(answer.index) == [row.name]
    assert answer.years.dtype == FRAME.years.dtype
    for rows in (frame.iloc[:0], frame[["debt"]], [500], "x"):
        with pytest.raises(BadArgument) as caught:
            recourse.explain(rows)
        assert caught.value.name == "rows"


@pytest.mark.fast
def test_arguments_of_from_predictor():
    frame = FRAME[NUMBERS].assign(paid=LABEL)
    for given, name in (
        ({"label": "no such"}, "label"), ({"label": LABEL[:5]}, "label"), ({"target": "maybe"}, "target"),
        ({"label": np.where(YES, "a", "b")}, "classes"), ({"immutable": ["age"]}, "immutable"),
        ({"categories": ["age"]}, "categories"), ({"frame": PLAIN.table}, "frame"), ({"label": {"a": 1}}, "label"),
        ({"model": MODEL.predict_proba, "threshold": 2}, "threshold"), ({"gradient": "x"}, "gradient"),
        ({"model": lambda rows: MODEL.predict_proba(rows[NUMBERS]), "frame": frame.assign(on=DATE)}, "frame"),
    ):  # fmt: skip
        with pytest.raises(BadArgument) as caught:
            from_predictor(**{"model": MODEL, "frame": frame, "label": "paid", "gradient": "antithetic", **given})
        assert caught.value.name == name


@pytest.mark.fast
def test_text_becomes_categories_for_a_model_that_wants_them():
    """A CSV file has no categories: a model of libraries that refuse text gets the levels as such."""

    class Strict(DecisionTreeClassifier):
        def predict_proba(self, rows):
            if rows.job.dtype != "category":
                raise ValueError("categories only")
            return super().predict_proba(rows.assign(job=rows.job.cat.codes))

        def predict(self, rows):
            return self.classes_[self.predict_proba(rows).argmax(1)]

    coded = FRAME.assign(job=FRAME.job.astype("category").cat.codes)
    model = Strict(min_samples_leaf=3, random_state=0).fit(coded, LABEL)
    assert table_predictor(model, MIXED).accuracy > 0.8


@pytest.mark.fast
def test_a_model_by_name(monkeypatch):
    """``module:name`` goes the same way, calibrated probabilities included."""
    model = CalibratedClassifierCV(tree(), cv=2).fit(FRAME[NUMBERS[::-1]], LABEL)
    monkeypatch.setitem(sys.modules, "own_model", types.SimpleNamespace(model=model))
    chosen = classifier(PLAIN, "own_model:model", gradient="antithetic")
    assert chosen.predictor is not None
    assert chosen.words.startswith("own_model:model (CalibratedClassifierCV, asked in raw columns, by name, right on ")
    right = model.predict(FRAME[NUMBERS[::-1]]) == LABEL
    assert chosen.accuracy == right[90:].mean()
