"""Black boxes of raw rows: what they are asked, and that what is written and printed about them holds."""

from __future__ import annotations

import csv
import io
import logging
import warnings

import jax
import numpy as np
import pytest

import invjax
from invjax import Status
from invjax.attacks import PGD
from invjax.constraints import Feature, FeatureSpace
from invjax.core.errors import BadArgument
from invjax.core.rows import map_rows
from invjax.data import from_space
from invjax.engine import antithetic
from invjax.metrics import measure_counterfactuals
from invjax.models import black_box, distill, with_surrogate
from invjax.recourse import explain_rows
from invjax.recourse.files import csv_text
from invjax.recourse.judging import Requirements, judge_claims, tell
from invjax.recourse.raw import difference_steps, knowing, logits_of, logits_of_table, model_of_table, table_of

COUNT = 160
DRAW = np.random.default_rng(0)
TABLE = {
    "income": DRAW.uniform(1e4, 9e4, COUNT),  # 17 digits
    "rate": DRAW.uniform(0, 9, COUNT).round(2),
    "years": DRAW.integers(0, 40, COUNT),
    "job": np.array(["off", "part", "full"])[DRAW.integers(0, 3, COUNT)],
    "rank": np.array(["low", "mid", "top"])[DRAW.integers(0, 3, COUNT)],
}
YES = TABLE["income"] / 1e3 + 3 * TABLE["years"] - 4 * TABLE["rate"] + 20 * (TABLE["job"] == "full") > 95
SPACE = FeatureSpace.infer(TABLE, rank=Feature("rank", "ordinal", levels=("low", "mid", "top")))
ROWS = np.arange(COUNT)
DATA = from_space("loans", TABLE, YES.astype(int), ("no", "yes"), SPACE, (ROWS[:120], ROWS[120:]))
NUMBERS = ("income", "rate", "years")


def take(table, rows):
    return {name: np.asarray(column)[rows] for name, column in table.items()}


def columns(table):
    """An array for a model; raises for what is no row, as a pipeline with a OneHotEncoder does."""
    for name in ("job", "rank"):
        unknown = set(np.asarray(table[name]).tolist()) - set(TABLE[name].tolist())
        if unknown:
            raise KeyError(f"Found unknown categories {unknown} in column {name}")
    numbers = [np.asarray(table[name], np.float64) for name in NUMBERS]
    return np.column_stack([*numbers, *(np.asarray(table["job"]) == level for level in ("off", "part", "full"))])


def at_threshold(table):
    """Yes from the income of row 7 on, compared in float64 with that very cell."""
    columns(table)
    yes = np.where(np.asarray(table["income"]) >= TABLE["income"][7], 0.9, 0.2)
    return np.stack([1 - yes, yes], axis=1)


def test_known_cells_come_back_bit_for_bit_with_their_types() -> None:
    asked = []
    model = model_of_table(lambda table: asked.append(table) or at_threshold(table), SPACE, TABLE, 2)
    model(DATA.x)
    for name, column in TABLE.items():
        assert asked[0][name].dtype == column.dtype, name
        np.testing.assert_array_equal(asked[0][name], column)
    assert SPACE.decode(DATA.x)["income"][0] != TABLE["income"][0]  # which the coordinate alone does not hold
    levels = {**TABLE, "rank": TABLE["years"] % 3}
    space = FeatureSpace.infer(TABLE, rank=Feature("rank", "ordinal", levels=("0", "1", "2")))
    back = table_of(model_of_table(at_threshold, space, levels, 2), space, space.encode(levels))
    np.testing.assert_array_equal(back["rank"], levels["rank"])
    assert back["rank"].dtype.kind == "i"  # as the table has it, not as the schema


def test_equal_models_share_their_programs() -> None:
    first, second = (model_of_table(at_threshold, SPACE, TABLE, 2) for _ in range(2))
    assert first.apply == second.apply
    assert hash(first.apply) == hash(second.apply)
    assert first.apply != model_of_table(at_threshold, SPACE, take(TABLE, ROWS[:99]), 2).apply
    assert first.apply != model_of_table(lambda table: at_threshold(table), SPACE, TABLE, 2).apply
    assert knowing(first, SPACE, take(TABLE, ROWS[:9])) is first
    other = {**take(TABLE, ROWS[:2]), "income": np.array([12345.678901234567, 50000.0]), "rate": np.array([1.5, 7.03])}
    more = knowing(with_surrogate(first, first), SPACE, other)
    assert more.model.apply != first.apply
    assert more.model.apply == knowing(first, SPACE, other).apply
    np.testing.assert_array_equal(table_of(more, SPACE, SPACE.encode(other))["income"], other["income"])


def test_what_was_typed_comes_back_as_it_was_typed() -> None:
    """Decimals of a few digits need no known table, and no written number has digits that its coordinate lacks."""
    space = FeatureSpace(
        [Feature("a", "continuous", 0, 1e6), Feature("b", "continuous", 0, 9, step=0.1)], (), [55, 0.3]
    )
    typed = {"a": np.array([5.1, 0.07, 123456.7, 999999.0]), "b": np.array([0.3, 0.7, 1.1, 8.9])}
    for name, column in space.decode(space.encode(typed)).items():
        np.testing.assert_array_equal(column, typed[name])
    x = DRAW.normal(size=(50, 2)).astype(np.float32) * [100, 1] + [500, 3]
    written = space.decode(x.astype(np.float32))
    np.testing.assert_array_equal(space.encode(written)[:, 0], x[:, 0].astype(np.float32))
    assert max(len(repr(value)) for value in written["a"].tolist()) <= 12


def answers_of(model, count=40):
    """Random rows as claimed answers to the rows that are refused, judged, with their changes in words."""
    refused = np.flatnonzero(logits_of_table(model, SPACE, TABLE).argmax(1) == 0)[:count]
    question = Requirements(DATA.x[refused], take(TABLE, refused), np.ones(len(refused), int))
    x = DATA.x[refused] + DRAW.normal(size=(6, *DATA.x[refused].shape)).astype(np.float32) * 0.7
    claims = np.concatenate([SPACE.encode(SPACE.decode(x.reshape(-1, x.shape[-1]))).reshape(x.shape), x])
    x = np.swapaxes(claims, 0, 1)
    judged = judge_claims(SPACE, model, question, x, np.ones(x.shape[:2], bool))
    told = tell(SPACE, model, Requirements(*take_all(question, judged.accepted)), take(judged.table, judged.accepted))
    return question, judged, told


def take_all(question, rows):
    return question.x[rows], take(question.table, rows), question.target[rows]


def as_printed(question, judged, told):
    """The accepted answers as a reader of the sentences gets them."""
    table = {name: column.astype(object) for name, column in take(question.table, judged.accepted).items()}
    for n, changes in enumerate(told):
        for change in changes:
            new = change.text.rsplit(" → ", 1)[1]
            table[change.feature][n] = float(new) if change.feature in NUMBERS else new
    return table


@pytest.mark.parametrize("kind", ["threshold", "boosting", "tree"])
def test_an_answer_holds_as_it_is_written_and_as_it_is_printed(kind: str) -> None:
    if kind == "threshold":
        predict = at_threshold
    else:
        ensemble = pytest.importorskip("sklearn.ensemble")
        tree = pytest.importorskip("sklearn.tree")
        chosen = tree.DecisionTreeClassifier if kind == "tree" else ensemble.HistGradientBoostingClassifier
        fitted = chosen(random_state=0, **({} if kind == "tree" else {"max_iter": 10})).fit(columns(TABLE), YES)
        predict = lambda table: fitted.predict_proba(columns(table))  # noqa: E731
    question, judged, told = answers_of(model_of_table(predict, SPACE, TABLE, 2))
    assert judged.accepted.sum() >= 12
    written, shown = take(judged.table, judged.accepted), as_printed(question, judged, told)
    factual = take(question.table, judged.accepted)
    for form in (written, shown):
        assert (predict(form).argmax(1) == 1).all()
        assert not any(SPACE.violations(factual, form))
    for name in SPACE.names:  # what did not change is the person's own cell
        said = np.array([any(change.feature == name for change in changes) for changes in told])
        np.testing.assert_array_equal(np.asarray(written[name])[~said], np.asarray(factual[name])[~said])


def test_xgboost_says_of_the_written_row_what_is_claimed() -> None:
    xgboost = pytest.importorskip("xgboost")
    fitted = xgboost.XGBClassifier(n_estimators=30, n_jobs=1).fit(columns(TABLE), YES)
    question, judged, told = answers_of(
        model_of_table(lambda table: fitted.predict_proba(columns(table)), SPACE, TABLE, 2)
    )
    assert judged.accepted.sum() >= 12
    for table in (take(judged.table, judged.accepted), as_printed(question, judged, told)):
        assert (fitted.predict(columns(table)) == 1).all()


def test_printed_numbers_have_the_digits_that_they_need_and_no_more() -> None:
    """An answer at the edge is told with the digits that keep its class, one that is far from it is rounded."""

    def predict(table):
        yes = np.where(np.asarray(table["income"]) >= 54321.1305, 0.9, 0.2)
        return np.stack([1 - yes, yes], axis=1)

    factual = {**take(TABLE, [0, 0, 0]), "income": np.array([20000.0] * 3)}
    answer = {**factual, "income": np.array([54321.1305, 54321.1316, 70000.4])}
    question = Requirements(SPACE.encode(factual), factual, np.ones(3, int))
    told = tell(SPACE, model_of_table(predict, SPACE, TABLE, 2), question, answer)
    assert [change.text for (change,) in told] == [
        "income 20000 → 54321.1305", "income 20000 → 54321.132", "income 20000 → 70000",
    ]  # fmt: skip


def test_missing_cells_reach_a_model_that_takes_them() -> None:
    def takes(table):
        missing = np.isnan(np.asarray(table["rate"], float))
        return np.stack([1 - 0.8 * missing, 0.8 * missing], axis=1)

    table = {**take(TABLE, ROWS[:4]), "rate": np.array([1.0, np.nan, 2.0, np.nan])}
    logits = logits_of_table(model_of_table(takes, SPACE, TABLE, 2), SPACE, table)
    np.testing.assert_array_equal(logits.argmax(1), [0, 1, 0, 1])
    table["job"] = np.array(["off", "pilot", "off", "off"])  # unknown
    logits = logits_of_table(model_of_table(at_threshold, SPACE, TABLE, 2), SPACE, table)
    np.testing.assert_array_equal(np.isnan(logits).any(1), [False, True, False, True])


# ---------------------------------------------------------------------------------------------------------------------
# Filler and errors
# ---------------------------------------------------------------------------------------------------------------------
def spy(seen):
    """A network on coordinates that keeps the rows that it is asked about."""

    def predict(x):
        seen.append(np.array(x))
        return np.tile([0.4, 0.6], (len(x), 1))

    return predict


def test_filler_is_a_row() -> None:
    """No zeros, no repeated corner: every row that reaches a black box is one of those that were asked about."""
    seen: list[np.ndarray] = []
    box = black_box(spy(seen), 2)
    x = DATA.x[:11].copy()
    x[3, 0] = x[7, 1] = np.nan
    logits = logits_of(box, x)
    np.testing.assert_array_equal(np.isnan(logits).any(1), ~np.isfinite(x).all(1))
    measure_counterfactuals(x, x + np.float32(0.5), 1, predict=lambda rows: logits_of(box, rows), lof_neighbours=None)
    rows = np.concatenate(seen)
    whole = x[np.isfinite(x).all(1)]
    known = np.concatenate([whole, whole + np.float32(0.5)])
    assert (rows[:, None] == known[None]).all(2).any(1).all()
    seen.clear()
    assert np.isnan(logits_of(box, np.full((3, SPACE.width), np.nan, np.float32))).all()
    assert logits_of(box, x[:0]).shape == (0, 2)
    assert not seen


def test_a_surrogate_learns_from_rows() -> None:
    seen: list[np.ndarray] = []
    distill(spy(seen), DATA.x, key=jax.random.key(0), classes=2, hidden=(4,), steps=2, copies=2, space=SPACE)
    rows = np.concatenate(seen)
    assert len(rows) == 3 * COUNT
    np.testing.assert_array_equal(SPACE.encode(SPACE.decode(rows)), rows)
    assert not any(SPACE.reasons(SPACE.decode(rows)))
    job = slice(3, 6)
    swapped = (rows[COUNT:, job] != np.tile(DATA.x[:, job], (2, 1))).any(1).mean()
    assert 0.02 < swapped < 0.3


def test_differences_ask_about_rows() -> None:
    """A step on the 0/1 columns of a category, and even all of them at 0, is some level of it."""
    asked = []
    model = model_of_table(lambda table: asked.append(table) or at_threshold(table), SPACE, TABLE, 2)
    near = np.argsort(np.abs(TABLE["income"] - TABLE["income"][7]))
    near = near[TABLE["income"][near] < TABLE["income"][7]][:4]
    result = invjax.solve(
        model, DATA.x[near], np.zeros(4, int), target=np.ones(4, int), space=SPACE,
        method=PGD(eps=1.6, steps=2, step_size=0.8), evaluator=antithetic(scale=1.0, coordinates=True),
    )  # fmt: skip
    assert (np.asarray(result.status) == Status.FOUND).any()
    for table in asked:
        columns(table)  # refuses what is no row
        assert all(len(column) == len(table["job"]) for column in table.values())


def test_differences_reach_the_next_grid_point_and_level() -> None:
    features = [Feature("a"), Feature("n", "integer", 0, 9), Feature("c", "category", levels=("x", "y"))]
    assert difference_steps(FeatureSpace(features, (), None, [2.0, 0.5, 1.0])) == (0.3, 2.0, 1.0, 1.0)


def refuses(table):
    raise KeyError("Found unknown categories ['x']\nin column 3")


def test_a_predictor_that_raises_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    model, x = model_of_table(refuses, SPACE, TABLE, 2), DATA.x[:4]
    ways = {
        "solve": lambda: invjax.solve(
            model, x, np.zeros(4, int), target=np.ones(4, int), space=SPACE,
            method=PGD(eps=1.6, steps=2, step_size=0.8), evaluator=antithetic(scale=1.0, coordinates=True),
        ),
        "alone": lambda: model(x),
        "a list": lambda: map_rows(_call, model, x, batch=4),
        "explain": lambda: explain_rows(DATA, model, ROWS[:4], target="yes", evaluator=antithetic()),
    }  # fmt: skip
    with caplog.at_level(logging.ERROR):
        for way, call in ways.items():
            with pytest.raises(BadArgument, match=r"it raised KeyError: .*unknown categories") as caught:
                call()
            assert isinstance(caught.value.__cause__, KeyError), way
            assert len(str(caught.value)) < 200, way
            assert "\n" not in str(caught.value), way
    assert not caplog.records


def _call(model, x):
    return model(x)


# ---------------------------------------------------------------------------------------------------------------------
# The whole way
# ---------------------------------------------------------------------------------------------------------------------
def test_explained_rows_hold_in_every_form_that_a_person_gets() -> None:
    """The table, the CSV file as csv and pandas read it, the DataFrame: one answer, and the model's own class."""
    pd = pytest.importorskip("pandas")
    model = model_of_table(at_threshold, SPACE, TABLE, 2)
    refused = ROWS[TABLE["income"] < TABLE["income"][7]][:12]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        got = explain_rows(DATA, model, refused, target="yes", method="face", evaluator=antithetic())
    found = np.array([person.status == Status.FOUND for person in got.people])
    assert found.sum() >= 6
    rows = list(csv.DictReader(io.StringIO(csv_text(got))))
    by_csv = {name: np.array([row[f"{name} (to)"] for row in rows])[found] for name in SPACE.names}
    by_pandas = pd.read_csv(io.StringIO(csv_text(got)))
    forms = {
        "table": take(got.table, found),
        "frame": {name: got.to_pandas()[name].to_numpy()[found] for name in SPACE.names},
        "csv": {name: cells.astype(float) if name in NUMBERS else cells for name, cells in by_csv.items()},
        "pandas": {name: by_pandas[f"{name} (to)"].to_numpy()[found] for name in SPACE.names},
    }
    for form, table in forms.items():
        assert (at_threshold(table).argmax(1) == 1).all(), form
    assert set(forms["table"]["income"]) <= set(TABLE["income"])  # FACE answers with rows of the table, cell by cell
    assert (got.record.valid == found).all()
