"""Explanations of rows: what is reported is true in raw units, bad rows stay alone, the command's files and errors."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from invjax import LogitsModel, Status
from invjax.constraints import Feature, FeatureSpace, Relation
from invjax.counterfactuals import make
from invjax.data.tables.table import TabularData, from_space
from invjax.recourse import csv_text, explain_rows, freeze, methods, plausibility_of, wording
from invjax.recourse.judging import Requirements, judge_claims
from invjax.report.counterfactuals import counterfactual_section, frontier_rows
from invjax.report.page import render

FEATURES = (
    Feature("income", lower=0.0, upper=100.0),
    Feature("debt", lower=0.0, upper=100.0),
    Feature("age", "integer", 18, 80, direction="up"),
    Feature("job", "category", levels=("off", "part", "full")),
)
SCORE = {"off": -2.0, "part": 0.0, "full": 1.0}


def score(params, x):
    """(0, z): z = 3 (income - debt) in standard deviations + 0.3 age + the job; NaN at incomes of 99 and more."""
    job = x[:, 3:] @ jnp.asarray(list(SCORE.values()), x.dtype)
    z = params["w"] * (x[:, 0] - x[:, 1]) + 0.3 * x[:, 2] + job
    z = jnp.where(x[:, 0] > params["edge"], jnp.nan, z)
    return jnp.stack([jnp.zeros_like(z), z], 1)


def people(count=60, seed=0):
    draw = np.random.default_rng(seed)
    return {
        "income": draw.uniform(20, 90, count),
        "debt": draw.uniform(0, 19, count),
        "age": draw.integers(18, 70, count),
        "job": np.asarray(list(SCORE))[draw.integers(0, 3, count)],
    }


RELATIONS = (Relation.at_most("debt", "income"),)


def task(features=FEATURES, relations=RELATIONS) -> tuple[TabularData, LogitsModel]:
    table = people()
    space = FeatureSpace(features, relations, [50, 20, 40, 0], [20.0, 10.0, 12.0, 1.0])
    model = LogitsModel({"w": jnp.float32(1.5), "edge": jnp.float32((99 - 50) / 20)}, score)
    label = raw_score(table) > 0
    return from_space("loans", table, label, ("no", "yes"), space, (np.arange(50), np.arange(50, 60))), model


def raw_score(table):
    """The same from raw units, in float64."""
    income, debt, age = (np.asarray(table[name], float) for name in ("income", "debt", "age"))
    job = np.asarray([SCORE[str(level)] for level in table["job"]])
    return 1.5 * ((income - 50) / 20 - (debt - 20) / 10) + 0.3 * (age - 40) / 12 + job


@pytest.fixture(scope="module")
def loans():
    return task()


@pytest.fixture(scope="module")
def plain():
    """Two numbers and no more: the same methods compile in a fraction of the time."""
    data, _ = task()
    table = {name: data.table[name] for name in ("income", "debt")}
    space = FeatureSpace(FEATURES[:2], (), [50, 20], [20.0, 10.0])
    data = from_space("plain", table, table["income"] > 55, ("no", "yes"), space, (data.train, data.test))
    return data, LogitsModel(jnp.float32(3.0), lambda w, x: jnp.stack([0 * x[:, 0], w * (x[:, 0] - x[:, 1] - 1)], 1))


@pytest.fixture(scope="module")
def explained(loans):
    """Eight rows to be answered (all lists of at most so many share one program), four that need none."""
    data, model = loans
    rows = np.concatenate([np.flatnonzero(data.label == 1)[:8], np.flatnonzero(data.label == 0)[:4]])
    return explain_rows(data, model, rows, target="no")


def test_found_is_true_in_raw_units(loans, explained):
    data, _ = loans
    found = [n for n, person in enumerate(explained.people) if person.status == Status.FOUND]
    assert len(found) >= 6
    new = raw_score(explained.table)
    violations = data.space.violations(explained.factual, explained.table)
    for n, person in enumerate(explained.people):
        assert (person.status == Status.ALREADY_TARGET) == (raw_score(explained.factual)[n] < 0)
        changed = {
            name: (explained.factual[name][n], explained.table[name][n])
            for name in data.space.names
            if explained.factual[name][n] != explained.table[name][n]
        }
        assert {change.feature: (change.old, change.new) for change in person.changes} == changed
        assert violations[n] == []
        if n in found:
            assert new[n] < 0
            assert 1 <= len(changed) <= 3
            np.testing.assert_allclose(person.after, 1 / (1 + np.exp(new[n])), rtol=1e-4)
            units = {"income": 20, "debt": 10, "age": 12}
            cost = sum(abs(b - a) / units[k] if k in units else 1.0 for k, (a, b) in changed.items())
            np.testing.assert_allclose(person.cost, cost, rtol=1e-4)
            assert person.reason == ""
            assert all(change.text in person.text for change in person.changes)
        else:
            assert not changed
            assert np.isnan(person.cost)
    # ALREADY_TARGET is no success.
    assert explained.summary["trivial"] == explained.count(Status.ALREADY_TARGET) > 0
    assert explained.summary["nontrivial"] == 8
    assert explained.summary["validity"] == len(found) / explained.summary["nontrivial"]


def test_bad_rows_stay_alone(loans):
    data, model = loans
    good = {name: column[:6].copy() for name, column in people(seed=3).items()}
    cells = {"income": [np.nan, 50.0, 120.0, 10.0, 99.5, 60.0], "debt": [1.0, 1.0, 1.0, 15.0, 1.0, "?"]}
    bad = {
        "income": np.asarray(cells["income"]),
        "debt": np.asarray(cells["debt"], object),
        "age": np.full(6, 30),
        "job": np.asarray(["full", "astronaut", "full", "full", "full", "full"]),
    }
    both = {name: np.concatenate([good[name].astype(object), bad[name].astype(object)]) for name in good}
    alone = explain_rows(data, model, good, target="no")
    mixed = explain_rows(data, model, both, target="no", ids=[f"p{n}" for n in range(12)])
    for a, b in zip(alone.people, mixed.people[:6], strict=True):
        assert (a.status, a.changes, a.reason) == (b.status, b.changes, b.reason)
    np.testing.assert_array_equal(alone.result.x, mixed.result.x[:6])
    reasons = [(person.status, person.reason) for person in mixed.people[6:]]
    impossible, strange = Status.INFEASIBLE, Status.NONFINITE
    assert [status for status, _ in reasons] == [impossible, impossible, impossible, impossible, strange, impossible]
    for (_, reason), named in zip(
        reasons, ("income is 'nan'", "job is 'astronaut'", "income is 120", "debt <= income", "finite", "debt is '?'"),
        strict=True,
    ):  # fmt: skip
        assert named in reason
    assert mixed.people[6].id == "p6"
    assert mixed.people[6].predicted == ""
    assert np.isnan(mixed.people[6].before)
    assert mixed.table["debt"][11] == "?"
    assert mixed.summary["rows"] == 12


def test_constraints_that_cannot_be_met(loans):
    data, model = loans
    frozen = freeze(data, data.space.names)
    rows = np.flatnonzero(data.label[:20] == 1)[:3]
    all_bound = explain_rows(frozen, model, rows, target="no")
    assert {person.status for person in all_bound.people} == {Status.INFEASIBLE}
    assert "no feature of this row may change" in all_bound.people[0].reason
    against = Relation({"income": 1.0, "debt": 1.0}, -1.0)
    contradiction = task(relations=(against,))
    result = explain_rows(*contradiction, rows, target="no")
    assert {person.status for person in result.people} == {Status.INFEASIBLE}
    assert "relation 1 income + 1 debt <= -1" in result.people[0].reason
    assert "cannot hold for any row" in result.people[0].reason
    with pytest.raises(ValueError, match=r"immutable must name features .*, was 'shoe'"):
        freeze(data, ["shoe"])


def test_not_found_says_what_was_tried(loans):
    data, model = loans
    rows = [int(np.argmax(raw_score(data.table)))]
    only_job = explain_rows(freeze(data, ["income", "debt", "age"]), model, rows, target="no", max_changes=1)
    person = only_job.people[0]
    assert person.status == Status.NOT_FOUND
    assert "none found: s-cfe gave no answer of class 'no' with at most 1 feature changed" in person.reason
    assert "tried: job" in person.reason
    assert "only probability 0." in person.reason
    assert not person.changes
    np.testing.assert_array_equal(only_job.result.delta, 0)
    assert only_job.summary["coverage"] == 0


def test_judge_rejects_what_rounding_breaks(loans):
    """An age of 40.4 would do for a classifier at 40.2; written down it is 40. And other claims that are not true."""
    data, _ = loans

    def edge(params, x):
        z = 100 * (x[:, 2] - params)
        return jnp.stack([jnp.zeros_like(z), z], 1)

    model = LogitsModel(jnp.float32(0.2 / 12), edge)
    rows = {"income": [50.0] * 6, "debt": [20.0] * 6, "age": [40] * 6, "job": ["part"] * 6}
    table = {name: np.asarray(column) for name, column in rows.items()}
    x = data.space.encode(table)
    claims = np.repeat(x[:, None], 2, 1)
    claims[0, 0, 2] = 0.4 / 12  # rounds back to 40: nothing changes
    claims[1, 0, 2] = 1 / 12  # true
    claims[1, 1, 2] = 2 / 12  # true as well, but costlier
    claims[2, 0, 2], claims[2, 0, 0] = 1 / 12, -5  # out of range: decoded onto it, which breaks debt <= income
    claims[3, 0, 2] = -1 / 12  # age falls, and another class
    claims[4, 0, [0, 2]] = 0.5, 0.4 / 12  # valid in columns alone
    claims[5, 0, :3] = 0.5, 0.5, 1 / 12  # three changes of two allowed
    claimed = np.zeros((6, 2), bool)
    claimed[:, 0] = claimed[1, 1] = True
    question = Requirements(x, table, np.ones(6, int), 2)
    judged = judge_claims(data.space, model, question, claims, claimed)
    assert judged.accepted.tolist() == [False, True, False, False, False, False]
    assert judged.table["age"].tolist() == [40, 41, 40, 40, 40, 40]
    np.testing.assert_allclose(judged.cost[1], 1 / 12, rtol=1e-5)
    for n, words in enumerate(
        ("nothing changes", "", "debt <= income", "may only rise", "only probability", "it changes 3 features")
    ):
        assert words in judged.why[n]
    assert judged.why[1] == ""
    sure = judge_claims(data.space, model, question._replace(probability=0.9999999), claims, claimed)
    assert "has only probability" in sure.why[1] or sure.accepted[1]


def test_a_method_that_lies(loans, monkeypatch):
    """Claims of FOUND are worth nothing by themselves."""
    data, model = loans
    honest = methods.solve

    def lying(*args, **options):
        result = honest(*args, **options)
        x = np.asarray(result.x).copy()
        x[0] = np.asarray(args[1])[0]
        x[0, 0] += 1e-3  # a change, but not enough of one
        return replace(result, x=x, attempt=x, status=np.full(len(x), Status.FOUND, np.int32))

    rows = np.flatnonzero(data.label[:20] == 1)[:4]
    truth = explain_rows(data, model, rows, target="no")
    monkeypatch.setattr(methods, "solve", lying)
    lie = explain_rows(data, model, rows, target="no")
    assert lie.people[0].status == Status.NOT_FOUND
    assert "an answer was rejected: income" in lie.people[0].reason
    assert lie.summary["validity"] == 0.75
    assert lie.people[1:] == truth.people[1:]


@pytest.mark.parametrize("method", ["wachter", "dice-genetic", "face"])
def test_other_methods(loans, method):
    data, model = loans
    rows = np.flatnonzero(data.label == 1)[:8]
    result = explain_rows(data, model, rows, target="no", method=method)
    found = np.asarray([person.status == Status.FOUND for person in result.people])
    assert found.mean() >= 0.5
    assert (raw_score(result.table)[found] < 0).all()
    assert result.settings["method"] == method
    assert not any(data.space.violations(result.factual, result.table))


def test_targets_and_arguments(plain):
    data, model = plain
    runner_up = explain_rows(data, model, [0, 1, 2, 3], plausibility=0)
    assert runner_up.target.tolist() == (1 - runner_up.predicted).tolist()
    assert runner_up.settings["plausibility"] == "not asked for"
    assert np.isnan(runner_up.summary["plausible"])
    config = make("s-cfe", max_changes=1, probability=0.8)
    sure = explain_rows(data, model, [0, 1, 2, 3], method=config)
    for person in sure.people:
        if person.status == Status.FOUND:
            assert len(person.changes) == 1
            assert person.after >= 0.8 - 1e-4
    for words, options in {
        "target must be one of the classes no, yes, was 'maybe'": {"target": "maybe"},
        r"target must be one class or one for each of the 2 rows": {"target": [0, 1, 0]},
        "method must be one of 's-cfe', .*, was 'x'": {"method": "x"},
        "max_changes must be left out for the method 'wachter'": {"method": "wachter", "max_changes": 2},
        "tau must be left out for the method 'face'": {"method": "face", "tau": 1.0},
        "max_changes must be a whole number >= 1, was 0": {"max_changes": 0},
        "max_changes must be set in the configuration": {"method": config, "max_changes": 2},
        "plausibility must be a share": {"plausibility": 1.0},
        "tau must be a weight >= 0": {"tau": -1.0},
        "frontier must be left out": {"method": "wachter", "frontier": 2},
        "ids must name each of the 2 rows": {"ids": ["a"]},
    }.items():
        with pytest.raises(ValueError, match=words):
            explain_rows(data, model, [0, 1], **options)
    with pytest.raises(ValueError, match="rows must be rows of the 60 of the table"):
        explain_rows(data, model, [60])
    with pytest.raises(ValueError, match="table must have the column 'debt'"):
        explain_rows(data, model, {"income": np.ones(1)})


def test_classes_by_number(plain):
    """A number is the class of that name first, and a position only where no class has a number for a name."""
    data, _ = plain

    def found(classes, *given):
        return [data._replace(classes=classes).class_of(one) for one in given]

    assert found(("1", "2"), 1, 2, "1", np.int64(2), 1.0) == [0, 1, 0, 1, 0]
    assert found(("0.0", "1.0"), 1, "0", 0.0) == [1, 0, 0]
    assert found(("no", "yes"), 1, "no", np.int32(0)) == [1, 0, 0]
    for classes, given in ((("1", "2"), 0), (("no", "yes"), 2), (("no", "yes"), -1), (("no", "yes"), "1")):
        with pytest.raises(ValueError, match=f"target must be one of the classes {', '.join(classes)}, was"):
            found(classes, given)


def test_several_answers(plain):
    """Each further answer is judged like the first, and does without what the ones before it moved most."""
    data, model = plain
    told = explain_rows(data, model, [0, 1, 2, 3], undesired="yes", plausibility=0, answers=3, max_changes=1)
    assert {person.target for person in told.people} == {"no"}
    shown = dict(zip(("found", "already_target"), (Status.FOUND, Status.ALREADY_TARGET), strict=True))
    lines = list(csv.DictReader(csv_text(told).splitlines()))
    twice = 0
    for n, person in enumerate(told.people):
        answers = told.answers(n)
        assert [number for number, _, _ in answers] == list(range(1, len(answers) + 1))
        assert (person.status == Status.FOUND) == (told.predicted[n] == 1)
        moved = [change.feature for _, one, _ in answers for change in one.changes]
        assert len(set(moved)) == len(moved)  # with one change each, no feature twice
        twice += len(answers) == 2
        for number, one, table in answers:
            row = next(line for line in lines if (line["id"], line["answer"]) == (person.id, str(number)))
            assert shown[row["status"]] == one.status
            for change in one.changes:
                assert table[change.feature][n] == change.new == float(row[f"{change.feature} (to)"])
                assert change.text in told.text()
            x = data.space.encode({name: column[n : n + 1] for name, column in table.items()})
            assert int(np.asarray(model(x)).argmax()) == 0
    assert twice >= 1
    assert len(lines) == len(told.to_pandas()) == 4 + sum(p is not None for one in told.further for p in one.people)
    assert told.to_pandas()["answer"].max() == 2
    assert "(2)" in render([counterfactual_section(told)], title="t")


def test_wishes(plain):
    """Nobody is talked out of the class that the data declare as desired; without one it is the runner-up."""
    data, model = plain
    asked = explain_rows(data._replace(desired="yes"), model, [0, 1, 2, 3], plausibility=0)
    assert {person.target for person in asked.people} == {"yes"}
    with pytest.raises(ValueError, match="undesired must be left out where a target is given"):
        explain_rows(data, model, [0], target="no", undesired="yes")
    with pytest.raises(ValueError, match="answers must be 1 for the method 'face', was 2"):
        explain_rows(data, model, [0], method="face", answers=2)


def test_plausibility(loans):
    """The bandwidth does not collapse on near copies; τ = 8 h²; a class of one row is an error."""
    data, _ = loans
    plain = plausibility_of(data)
    h = np.asarray(plain.kde.bandwidth, float)
    np.testing.assert_allclose(plain.tau, 8 * np.mean(h**2), rtol=1e-6)
    copies = np.concatenate([data.x, data.x + 1e-4 * np.sin(np.arange(data.x.size)).reshape(data.x.shape)])
    doubled = data._replace(
        x=copies.astype(np.float32), label=np.tile(data.label, 2), train=np.concatenate([data.train, data.train + 60])
    )
    assert (np.asarray(plausibility_of(doubled).kde.bandwidth) > 0.1 * h).all()
    lonely = data._replace(label=np.where(np.arange(60) == 3, 0, 1).astype(np.int32))
    with pytest.raises(ValueError, match="at least two training rows of every class; 'no' has 1"):
        plausibility_of(lonely)


@pytest.mark.fast
def test_numbers_in_words():
    rooms, tax = Feature("rooms"), Feature("tax", "integer", 0, 1000)
    half = Feature("half", lower=0.0, upper=10.0, step=0.25)
    for feature, old, new, text in (
        (rooms, 5.9, 6.4, ("5.9", "6.4")),
        (tax, 330, 300, ("330", "300")),
        (rooms, 5.885, 6.402, ("5.88", "6.4")),
        (rooms, 12034.25, 12034.75, ("12034.25", "12034.75")),
        (rooms, 1234.5, 2345.6, ("1234", "2346")),
        (rooms, 0.0, 1.5e-7, ("0", "1.5e-07")),
        (rooms, 1.0, 1.0 + 1e-15, ("1", "1.000000000000001")),
        (rooms, -3.0, 0.0, ("-3", "0")),
        (half, 2.25, 2.5, ("2.25", "2.5")),
        (Feature("job", "category", levels=("a", "b")), "a", "b", ("a", "b")),
        (Feature("rank", "ordinal", levels=(1, 2, 3)), 1, 3, ("1", "3")),
    ):
        assert wording.pair(feature, old, new) == text, (old, new)
    assert wording.probability(0.999) == ">0.99"
    assert wording.probability(0.001) == "<0.01"
    assert wording.number(1234.5) == "1234"


def test_frontier_and_section(plain):
    explained = explain_rows(*plain, slice(0, 20), target="no", frontier=100_000)  # no more than there are features
    assert explained.count(Status.ALREADY_TARGET) > 0
    assert [step.most for step in explained.frontier] == [1, 2]
    counts = [sum(person.status == Status.FOUND for person in step.people) for step in explained.frontier]
    assert counts[0] <= counts[1]
    for step in explained.frontier:
        assert all(len(person.changes) <= step.most for person in step.people)
    rows = frontier_rows(explained)
    assert rows[1]["answers"] == f"{counts[1]} of {int(explained.summary['nontrivial'])}"
    page = render([counterfactual_section(explained)])
    assert page.count('<tr class="found">') == explained.count(Status.FOUND)
    assert page.count('<tr class="none">') == explained.count(Status.ALREADY_TARGET)
    assert "How many changes it takes" in page
    assert "rows that already had it are not counted anywhere" in page
    table = explained.to_pandas()
    assert table["status"].tolist() == [person.status.name for person in explained.people]
    assert table["income"].tolist() == explained.table["income"].tolist()


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A table, its schema, people with faults, and a module with a classifier."""
    folder = tmp_path_factory.mktemp("loans")
    data, _ = task()
    names = data.space.names
    with open(folder / "loans.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "paid"])
        writer.writerows(
            [*(data.table[name][n] for name in names), data.classes[data.label[n]]] for n in range(len(data.label))
        )
    with open(folder / "plain.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["income", "debt", "paid"])
        writer.writerows(
            [data.table["income"][n], data.table["debt"][n], data.classes[data.label[n]]] for n in range(60)
        )
    data.space.to_json(folder / "schema.json")
    (folder / "people.csv").write_text(
        "id,income,debt,age,job,shoe\nAnna,80,5,30,full,36\nBert,,5,30,full,44\n<b>,70,3,40,cook,40\nDora,30,19,20,off,38\n"
    )
    (folder / "own_loans_model.py").write_text(
        "import jax.numpy as jnp\n\n"
        "def logits(x):\n    z = 2 * (x[:, 0] - x[:, 1])\n    return jnp.stack([0 * z, z], 1)\n"
    )
    return folder


def run(*words):
    from invjax.cli import main as cli

    return cli.main([str(word) for word in ("explain", "--no-progress", *words)])


def table_in(out):
    with open(out / "counterfactuals.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_command_on_a_table_with_people(files, tmp_path, capsys):
    own = ("--csv", files / "loans.csv", "--label", "paid", "--schema", files / "schema.json")
    common = (*own, "--people", files / "people.csv", "--target", "no")
    assert run(*common, "--out", tmp_path / "a", "--max-changes", "2", "--immutable", "job,age") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "Anna: yes → no (probability" in said.out
    assert "not possible: income is ''" in said.out
    rows = table_in(tmp_path / "a")
    assert [row["id"] for row in rows] == ["Anna", "Bert", "<b>", "Dora"]
    assert [row["status"] for row in rows] == ["found", "infeasible", "infeasible", "already_target"]
    assert "job is 'cook'" in rows[2]["reason"]
    anna = rows[0]
    assert anna["job (to)"] == "full"
    assert 1 <= int(anna["changed"]) <= 2
    assert float(anna["probability_after"]) > 0.5 > float(anna["probability"])
    assert rows[1]["income (from)"] == rows[1]["income (to)"] == rows[1]["probability"] == ""
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["statuses"]["infeasible"] == 2
    assert summary["measures"]["coverage"] == pytest.approx(1 / 3)
    page = (tmp_path / "a" / "report.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b></td>" not in page

    # The model that was trained, read again, gives the same answers.
    again = (*common, "--model", tmp_path / "a" / "model.npz", "--max-changes", "2", "--immutable", "job,age")
    assert run(*again, "--out", tmp_path / "b") == 0
    assert table_in(tmp_path / "b") == rows
    assert not (tmp_path / "b" / "model.npz").exists()


def test_command_infers_and_saves_a_schema(files, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors="strict")  # of Windows, redirected
    monkeypatch.setattr(sys, "stdout", console)
    own = ("--csv", files / "plain.csv", "--label", "paid", "--out", tmp_path, "--model", "own_loans_model:logits")
    assert (
        run(*own, "--rows", "0:6", "--save-schema", tmp_path / "draft.json", "--immutable", "debt", "--target", "no")
        == 0
    )
    assert [row["id"] for row in table_in(tmp_path)] == [str(n) for n in range(6)]
    draft = FeatureSpace.from_json(tmp_path / "draft.json")
    assert {feature.name: feature.direction for feature in draft.features} == {"income": "both", "debt": "none"}
    console.flush()
    said = console.buffer.getvalue().decode("cp1252")
    assert "own_loans_model:logits; right on" in said
    assert " yes -> no (probability 0." in said


def test_command_on_a_file_as_people_write_it(files, tmp_path, monkeypatch, capsys):
    """A missing cell, money with thousands: ids are the file's rows, answers have its notation, all of it is said."""
    monkeypatch.chdir(files)
    draw = np.random.default_rng(2)
    income, debt = (draw.uniform(*ends, 60).round(2) for ends in ((900, 1800), (0, 900)))
    money = [f"${value:,.2f}" if n != 2 else "" for n, value in enumerate(income)]
    lines = zip(money, debt, np.where(income - debt > 900, "yes", "no"), [f"case {n}" for n in range(60)], strict=True)
    with open(tmp_path / "money.csv", "w", newline="") as file:
        csv.writer(file).writerows([("income", "debt", "paid", "case"), *lines])
    own = ("--csv", tmp_path / "money.csv", "--label", "paid", "--model", "own_loans_model:logits", "--target", "no")
    own = (*own, "--plausibility", "0", "--out", tmp_path / "out")
    assert run(*own, "--missing", "drop") == 2
    assert "column 'case' of money.csv must hold numbers, dates or names that repeat" in capsys.readouterr().err
    own = (*own, "--drop", "case")
    assert run(*own) == 2
    assert "--missing drop" in capsys.readouterr().err
    assert run(*own, "--missing", "drop", "--rows", "1,2") == 2
    assert "--rows must name rows that are complete, was 2" in capsys.readouterr().err
    assert run(*own, "--missing", "drop", "--rows", "0:9") == 0
    said = capsys.readouterr().out
    for line in (
        "1 of 60 rows are left out",
        "1 column is left out: case",
        f"written like {money[0]!r}",
        "--immutable",
    ):
        assert line in said
    rows = table_in(tmp_path / "out")
    assert [row["id"] for row in rows if row["answer"] == "1"] == ["0", "1", *map(str, range(3, 9))]
    changed = [row for row in rows if row["status"] == "found" and row["income (to)"] != row["income (from)"]]
    assert changed
    assert {row["income (from)"] for row in rows} <= set(money)
    assert all(row["income (to)"].startswith("$") for row in changed)
    assert f"income {changed[0]['income (from)']} → $" in said
    notes = json.loads((tmp_path / "out" / "summary.json").read_text())["notes"]
    assert "1 column is left out: case" in notes


@pytest.mark.parametrize("gradient", ["surrogate", "antithetic"])
def test_command_with_a_forest(files, tmp_path, gradient):
    pytest.importorskip("sklearn", reason="the forest needs scikit-learn (extra data)")
    own = ("--csv", files / "plain.csv", "--label", "paid", "--gradient", gradient)
    assert run(*own, "--out", tmp_path, "--model", "forest", "--rows", "0:16", "--undesired", "yes") == 0
    rows = table_in(tmp_path)
    assert sum(row["status"] == "found" for row in rows) >= 6
    for row in rows:
        if row["status"] == "found":
            assert float(row["probability_after"]) >= 0.5


_OWN = ("--csv", "LOANS", "--label", "paid", "--target", "no")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--data must be given, or --csv, but not both"),
        (("--data", "moon"), "--data must be one of 'housing'"),
        (("--csv", "nowhere.csv", "--label", "y"), "--csv must be an existing CSV file"),
        (("--csv", "LOANS"), "--label must name the column"),
        (("--csv", "LOANS", "--label", "x"), "--label must name columns of loans.csv"),
        (("--csv", "LOANS", "--label", "paid", "--schema", "no.json"), "--schema must be"),
        (("--csv", "LOANS", "--label", "paid", "--rows", "x"), "--rows must be a range like 0:10"),
        (("--csv", "LOANS", "--label", "paid", "--rows", "70"), "--rows must be row numbers below 60"),
        (("--csv", "LOANS", "--label", "paid", "--people", "no.csv"), "--people must be an existing CSV file"),
        (("--csv", "LOANS", "--label", "paid", "--people", "LOANS", "--rows", "0:1"), "--rows must be left out"),
        (("--csv", "LOANS", "--label", "paid", "--immutable", "shoe"), "--immutable must name features"),
        ((*_OWN, "--model", "tree"), "--model must be mlp, logistic, forest"),
        ((*_OWN, "--model", "no.npz"), "--model must be the npz"),
        ((*_OWN, "--model", "no_such:thing"), "--model must be module:name"),
        ((*_OWN, "--classes", "0:yes"), "--classes must be pairs like 0=bad,1=good, was '0:yes'"),
        ((*_OWN, "--threshold", "0.4"), "--threshold must be left out for a model that is no fitted predictor"),
        ((*_OWN, "--gradient", "x"), "--gradient must be one of"),
        (("--csv", "LOANS", "--label", "paid", "--lanes", "0"), "--lanes must be a whole number >= 1"),
        (("--csv", "LOANS", "--label", "paid", "--model", "logistic", "--target", "x"), "--target must be one of"),
        (("--csv", "LOANS", "--label", "paid", "--max-changes", "two"), "--max-changes must be"),
        (("--csv", "LOANS", "--label", "paid"), "its classes are no, yes: --target yes, or --undesired no"),
        ((*_OWN, "--undesired", "no"), "--undesired must be left out where a target is given"),
        ((*_OWN[:-2], "--undesired", "maybe"), "--undesired must be one of the classes no, yes"),
        ((*_OWN, "--answers", "0"), "--answers must be a whole number >= 1"),
        ((*_OWN, "--answers", "2", "--method", "face"), "--answers must be 1 for the method 'face'"),
        ((*_OWN, "--drop", "shoe"), "--drop must name columns of loans.csv"),
        ((*_OWN, "--delimiter", "ab"), "--delimiter must be one character"),
        ((*_OWN, "--decimal", "x"), "--decimal must be one of '.', ','"),
        (("--data", "wine", "--drop", "hue"), "--drop must be left out with --data"),
    ],
)
def test_command_says_what_is_wrong(files, tmp_path, capsys, words, said):
    words = [files / "loans.csv" if word == "LOANS" else word for word in words]
    assert run(*words, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_known_data(data_dir, tmp_path, monkeypatch):
    """Adult, with categories and immutable features, from its files."""
    monkeypatch.setenv("INVJAX_DATA", str(data_dir))
    own = ("--data", "adult", "--out", tmp_path, "--model", "logistic", "--method", "wachter", "--plausibility", "0")
    assert run(*own, "--rows", "0:12", "--target", ">50K") == 0
    rows = table_in(tmp_path)
    statuses = [row["status"] for row in rows]
    assert statuses.count("found") >= 6
    assert statuses.count("found") + statuses.count("already_target") == 12
    for row in rows:
        if row["status"] == "found":
            assert row["sex (from)"] == row["sex (to)"]
            assert int(row["age (from)"]) <= int(row["age (to)"])
