"""FeatureSpace: declarations, tables in and out, the judge, JSON, and what bad input says."""

from __future__ import annotations

import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from invjax.constraints import Feature, FeatureSpace, Relation

pytestmark = pytest.mark.fast
WORK = ("none", "part", "full")
COLOURS = ("red", "green", "blue")


def space() -> FeatureSpace:
    """Every kind once, a relation, and scales that are not powers of two."""
    return FeatureSpace(
        [
            Feature("age", "integer", 18, 99, direction="up"),
            Feature("income", lower=0.0, cost=2.0),
            Feature("rate", lower=0.1, upper=1.0, step=0.1),
            Feature("work", "ordinal", levels=WORK),
            Feature("colour", "category", levels=COLOURS, transitions={("red", "blue"): None, ("red", "green"): 3.0}),
            Feature("debt", lower=0.0, upper=500.0, direction="down"),
            Feature("sex", "category", levels=(0, 1), direction="none"),
        ],
        [Relation.at_most("debt", "income"), Relation({"age": -1.0, "work": 20.0}, 10.0)],
        center={"age": 40.3, "income": 210.7, "rate": 0.33, "debt": 77.7},
        scale={"age": 11.1, "income": 97.3, "rate": 0.21, "debt": 31.4},
    )


def table(count: int = 50, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows that obey the schema."""
    rng = np.random.default_rng(seed)
    age, income = rng.integers(30, 99, count), rng.uniform(1, 400, count)
    return {
        "age": age,
        "income": income,
        "rate": np.round(rng.integers(1, 11, count) * 0.1, 10),
        "work": np.array(WORK)[rng.integers(0, 3, count)],
        "colour": np.array(COLOURS)[rng.integers(0, 3, count)],
        "debt": np.minimum(rng.uniform(0, 500, count), income),
        "sex": rng.integers(0, 2, count),
    }


def test_encode_is_the_formula() -> None:
    own, rows = space(), table()
    x = own.encode(rows)
    assert x.dtype == np.float32
    assert x.shape == (50, own.width)
    assert own.width == 1 + 1 + 1 + 1 + 3 + 1 + 2
    np.testing.assert_allclose(x[:, 0], (rows["age"] - 40.3) / 11.1, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(x[:, 3], [WORK.index(level) for level in rows["work"]])
    np.testing.assert_array_equal(x[:, 4:7], rows["colour"][:, None] == np.array(COLOURS))
    np.testing.assert_array_equal(own.column_features, [0, 1, 2, 3, 4, 4, 4, 5, 6, 6])
    assert own.encode(rows, np.float64).dtype == np.float64


def test_round_trip_is_bit_for_bit_with_the_factual_and_close_without() -> None:
    own, rows = space(), table()
    x = own.encode(rows)
    exact, close = own.decode(x, rows), own.decode(x)
    for name, column in rows.items():
        np.testing.assert_array_equal(exact[name], column)
        assert exact[name].dtype.kind == column.dtype.kind
    for name in ("age", "work", "colour", "sex"):
        np.testing.assert_array_equal(close[name], rows[name])
    np.testing.assert_allclose(close["rate"], rows["rate"], rtol=1e-14)  # a grid point, not 0.30000001
    np.testing.assert_allclose(close["income"], rows["income"], rtol=1e-5)
    assert own.reasons(rows) == [""] * 50
    assert own.violations(rows, exact) == [[]] * 50


def test_decode_snaps_to_range_and_grid_and_hides_no_real_move() -> None:
    own, rows = space(), table(1)
    x = own.encode(rows).repeat(2, 0)
    two = {name: column.repeat(2) for name, column in rows.items()}
    x[0, 2] += 0.26  # half a step and more: 0.26 * 0.21 = 0.0546
    x[1, 0] -= 1.0  # eleven years younger: forbidden, and not to be hidden
    answer = own.decode(x, two)
    assert answer["rate"][0] == pytest.approx(min(rows["rate"][0] + 0.1, 1.0), abs=1e-12)
    assert answer["age"][1] == rows["age"][0] - 11
    assert any("may only rise" in said for said in own.violations(two, answer)[1])


def test_rounding_in_the_forbidden_direction_is_no_move() -> None:
    own, rows = space(), table(50)
    x = own.encode(rows)
    for toward in (-np.inf, np.inf):
        moved = np.nextafter(x, np.float32(toward))
        moved[:, 4:7], moved[:, 8:] = x[:, 4:7], x[:, 8:]
        answer = own.decode(moved, rows)
        assert not any("rise" in said or "fall" in said for row in own.violations(rows, answer) for said in row)


def test_tables_of_every_form_agree() -> None:
    pandas = pytest.importorskip("pandas")
    own, rows = space(), table()
    frame = pandas.DataFrame(rows)[list(reversed(list(rows)))]  # by name, in another order, with a further column
    frame["more"] = 1
    cells = np.empty((50, len(rows)), object)
    for i, column in enumerate(rows.values()):
        cells[:, i] = column
    want = own.encode(rows)
    for same in (frame, cells, cells.astype(str), frame.astype({"colour": "category", "age": "Int64"})):
        np.testing.assert_allclose(own.encode(same), want, rtol=1e-6, atol=1e-7)
    frame["age"] = frame["age"].astype("Int64")
    frame.loc[3, "age"] = pandas.NA
    assert np.flatnonzero(np.isnan(own.encode(frame)).any(1)).tolist() == [3]


def test_bad_cells_are_named_and_leave_other_rows_alone() -> None:
    own, rows = space(), table(8)
    good = own.encode(rows)
    rows = {name: column.astype(object) for name, column in rows.items()}
    rows["income"][1] = float("nan")
    rows["colour"][2] = "pink"
    rows["debt"][3] = 501.0
    rows["rate"][4] = 0.25
    rows["debt"][5], rows["income"][5] = 5.0, 4.0
    rows["work"][6] = "never"
    rows["age"][7] = "old"
    said = own.reasons(rows)
    for row, what in enumerate(["", "income", "pink", "outside", "grid", "debt <= income", "never", "age"]):
        assert what in said[row]
        assert (said[row] == "") == (row == 0)
    x = own.encode(rows)
    np.testing.assert_array_equal(x[0], good[0])
    assert not x[2, 4:7].any()
    permitted = [bool(own.compile().permits(row)) for row in x]
    assert permitted == [True] + [False] * 7
    back = own.decode(x, rows)
    assert back["colour"][2] == "pink"
    assert math.isnan(back["income"][1])


def test_judge_names_every_kind_of_violation() -> None:
    own = space()
    old = {name: column[:1].repeat(7) for name, column in table(1).items()}
    old["age"], old["debt"], old["income"] = np.full(7, 50), np.full(7, 100.0), np.full(7, 200.0)
    old["colour"], old["sex"] = np.full(7, "red"), np.zeros(7, int)
    new = {name: column.copy() for name, column in old.items()}
    new["age"][0] = 49
    new["debt"][1] = 101.0
    new["colour"] = np.array(["red", "red", "blue", "green", "red", "red", "red"])
    new["sex"][4] = 1
    new["income"][5] = 99.0
    said = own.violations(old, new)
    for row, what in enumerate(
        ["may only rise", "may only fall", "forbidden", None, "immutable", "debt <= income", None]
    ):
        assert (len(said[row]) == 0) if what is None else (len(said[row]) == 1 and what in said[row][0])


def test_contradictory_constraints_are_named() -> None:
    own = FeatureSpace([Feature("a", lower=5, upper=9), Feature("b", lower=0, upper=3)], [Relation.at_most("a", "b")])
    said = own.reasons({"a": [5.0, 2.0], "b": [3.0, 2.5]})
    assert "a <= b" in said[0]
    assert "cannot hold for any row" in said[0]
    assert "outside" in said[1]
    assert not any(bool(own.compile().permits(row)) for row in own.encode({"a": [5.0, 2.0], "b": [3.0, 2.5]}))


def test_json_round_trip(tmp_path: Path) -> None:
    own = space()
    own.to_json(tmp_path / "space.json")
    again = FeatureSpace.from_json(tmp_path / "space.json")
    assert again == own
    assert again != FeatureSpace(own.features)
    json.loads((tmp_path / "space.json").read_text(), parse_constant=pytest.fail)  # no Infinity, which is not JSON
    np.testing.assert_array_equal(again.encode(table()), own.encode(table()))
    content = json.loads((tmp_path / "space.json").read_text())
    first = {"invjax_feature_space": 1, "center": own.center.tolist(), "scale": own.scale.tolist()}
    bare = [{k: v for k, v in entry.items() if k not in ("center", "scale")} for entry in content["features"]]
    (tmp_path / "first.json").write_text(json.dumps(content | first | {"features": bare}))
    assert FeatureSpace.from_json(tmp_path / "first.json") == own  # the form of before
    left = [entry for entry in content["features"] if entry["name"] != own.names[0]]  # as a hand deletes one
    (tmp_path / "less.json").write_text(json.dumps(content | {"features": left, "relations": []}))
    less = FeatureSpace.from_json(tmp_path / "less.json")
    assert less == FeatureSpace(own.features[1:], (), own.center[1:], own.scale[1:])
    for text in ("no json", "[]", '{"features": [{"nom": 1}]}', "{}"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json"):
            FeatureSpace.from_json(tmp_path / "bad.json")


def test_a_schema_that_json_cannot_hold_is_not_written(tmp_path: Path) -> None:
    transitions = {("x", "y"): np.float32(2)}
    features = [Feature("a", "category", levels=("x", "y"), transitions=transitions), Feature("b", upper=np.float64(3))]
    FeatureSpace(features).to_json(tmp_path / "numpy.json")
    assert FeatureSpace.from_json(tmp_path / "numpy.json") == FeatureSpace(features)
    for levels in ((date(2020, 1, 2), "x"), ((1, 2), (3, 4))):
        with pytest.raises(ValueError, match=r"space must (hold what JSON can hold|be read back as it is)"):
            FeatureSpace([Feature("a", "category", levels=levels)]).to_json(tmp_path / "bad.json")
    assert [path.name for path in tmp_path.iterdir()] == ["numpy.json"]


def test_infer() -> None:
    rows = table()
    rows["constant"] = np.full(50, 7.0)
    own = FeatureSpace.infer(rows, age={"direction": "up"}, work={"kind": "ordinal", "levels": WORK}, sex={"cost": 3})
    kinds = {feature.name: feature.kind for feature in own.features}
    assert kinds == {
        "age": "integer", "income": "continuous", "rate": "continuous", "work": "ordinal", "colour": "category",
        "debt": "continuous", "sex": "integer", "constant": "continuous",
    }  # fmt: skip
    assert own.features[0].direction == "up"
    assert own.features[4].levels == tuple(sorted(COLOURS))
    assert own.features[1].range == (rows["income"].min(), rows["income"].max())
    assert own.center[1] == pytest.approx(rows["income"].mean())
    assert own.scale[-1] == 1
    assert own.reasons(rows) == [""] * 50
    x = own.encode(rows)
    assert np.abs(x[:, 1].mean()) < 1e-5
    assert x[:, 1].std() == pytest.approx(1, rel=1e-5)
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows)
    frame["size"] = pandas.Categorical(["S", "L"] * 25, categories=["S", "M", "L"], ordered=True)
    framed = FeatureSpace.infer(frame).features[-1]
    assert (framed.kind, framed.levels) == ("ordinal", ("S", "M", "L"))
    plain = FeatureSpace.infer(np.stack([rows["income"], rows["debt"]], 1))
    assert plain.names == ("x0", "x1")


def test_ranges_lie_on_the_grid() -> None:
    assert Feature("a", lower=0.1, upper=1.0, step=0.3).range == pytest.approx((0.1, 1.0))
    assert Feature("a", lower=0.1, upper=0.99, step=0.3).range == pytest.approx((0.1, 0.7))
    assert Feature("a", "integer", upper=5.5, step=2).range == (-math.inf, 4)
    assert Feature("a", "ordinal", levels=WORK, upper=1).range == (0, 1)


BAD: list[tuple[Any, str]] = [
    (lambda: Feature(""), "name"),
    (lambda: Feature("a", "number"), "'a': kind"),
    (lambda: Feature("a", direction="sideways"), "'a': direction"),
    (lambda: Feature("a", lower=2, upper=1), "'a': lower must be at most upper"),
    (lambda: Feature("a", lower=math.nan), "'a': lower"),
    (lambda: Feature("a", step=0), "'a': step"),
    (lambda: Feature("a", cost=0), "'a': cost"),
    (lambda: Feature("a", "integer", lower=0.5), "'a': lower"),
    (lambda: Feature("a", "integer", upper=-0.5, lower=-math.inf, step=0.5), "whole"),
    (lambda: Feature("a", levels=(1, 2)), "'a': levels"),
    (lambda: Feature("a", "category"), "'a': levels"),
    (lambda: Feature("a", "category", levels=("b", "b")), "'a': levels"),
    (lambda: Feature("a", "category", levels=("b", "c"), direction="up"), "'a': direction"),
    (
        lambda: Feature("a", "category", levels=("b", "c"), transitions={("b", "d"): 1.0}),
        "levels, one of b, c, was 'd'",
    ),
    (lambda: Feature("a", "category", levels=("b", "c"), transitions={("b", "c"): -1.0}), "cost"),
    (lambda: Feature("a", transitions={("b", "c"): 1.0}), "'a': transitions"),
    (lambda: Relation({"a": 0.0}), "coefficient"),
    (lambda: Relation({"a": math.inf}), "'a'"),
    (lambda: Relation({"a": 1.0}, math.nan), "upper"),
    (lambda: Relation.at_most("a", "a"), "'a' twice"),
    (lambda: FeatureSpace([]), "features"),
    (lambda: FeatureSpace([Feature("a"), Feature("a")]), "'a' is declared twice"),
    (
        lambda: FeatureSpace([Feature("a")], [Relation.at_most("a", "b")]),
        "between features of a, was 'b'",
    ),
    (lambda: FeatureSpace([Feature("a"), Feature("c", "category", levels=(1,))], [Relation({"c": 1.0})]), "category"),
    (lambda: FeatureSpace([Feature("a")], scale=[-1.0]), "scale of 'a'"),
    (lambda: FeatureSpace([Feature("a")], center=[0.0, 1.0]), "center"),
    (lambda: FeatureSpace([Feature("a")], center={"b": 1.0}), "'b'"),
    (lambda: FeatureSpace([Feature("a")], center=[math.nan]), "center of 'a'"),
    (lambda: FeatureSpace([Feature("a")]).encode({"b": [1.0]}), "column 'a'"),
    (lambda: FeatureSpace([Feature("a")]).encode(np.zeros((2, 3))), "1 columns"),
    (lambda: FeatureSpace([Feature("a"), Feature("b")]).encode({"a": [1.0], "b": [1.0, 2.0]}), "one length"),
    (lambda: FeatureSpace([Feature("a")]).decode(np.zeros((2, 3))), "x must be of shape"),
    (lambda: FeatureSpace([Feature("a")]).decode(np.zeros((2, 1)), {"a": [1.0]}), "factual"),
    (
        lambda: FeatureSpace.infer({"a": [1.0]}, b={"cost": 2.0}),
        "overrides must name columns .*was 'b'",
    ),
    (lambda: FeatureSpace.infer({"a": [1.0]}, a={"price": 2.0}), "override of 'a'"),
    (lambda: FeatureSpace.infer({"a": [math.nan]}), "column 'a'"),
]


@pytest.mark.parametrize(("make", "said"), BAD, ids=[said for _, said in BAD])
def test_bad_declarations_are_named(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_a_grid_too_fine_for_float32_is_refused_in_a_relation_only() -> None:
    fine = Feature("a", "integer", 0, 10**8)
    assert bool(FeatureSpace([fine]).compile().permits(np.array([12345678.0], np.float32)))
    with pytest.raises(ValueError, match="grid of 'a' is too fine"):
        FeatureSpace([fine, Feature("b")], [Relation.at_most("a", "b")]).compile()
