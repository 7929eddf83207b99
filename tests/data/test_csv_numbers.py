"""CSV files as people write them: numbers in their notation, dates, missing cells, names; what was read is said."""

from __future__ import annotations

import pytest

from invjax.constraints import Feature, FeatureSpace
from invjax.constraints.notation import Notation, dates, readings
from invjax.data.tables.csv_file import load_csv
from invjax.data.tables.draft import unknowns

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["4,867.90", "12.00"], [4867.9, 12]),
        (["$5,125.73", "-$3.00"], [5125.73, -3]),
        (["$1,234", "$12"], [1234, 12]),
        (["12,5", "3,25"], [12.5, 3.25]),
        (["12.5 %", "3 %"], [12.5, 3]),
        (["1.234,50", "3,00"], [1234.5, 3]),
        (["1,234,567", "12"], [1234567, 12]),
        (["1 234,5", "12"], [1234.5, 12]),
        (["0,125", "1,250"], [0.125, 1.25]),
        (["EUR 12", "EUR 14"], [12, 14]),
        (["2020-01-31", "1969-12-31"], [18292, -1]),
        (["31.01.2020", "01.02.2020"], [18292, 18293]),
        (["30/04/2020", "05/06/2020"], [18382, 18418]),
    ],
)
def test_a_notation_reads_and_writes(cells, values):
    (notation,) = readings(cells) or dates(cells)
    assert [notation.read(cell) for cell in cells] == values
    assert [notation.write(value) for value in values] == cells


def test_what_may_mean_two_numbers():
    for cells in (["1,234", "45"], ["1,234", "5678"], ["1.234", "2.345"], ["€1,234"]):
        assert len({notation.read(cells[0]) for notation in readings(cells)}) == 2
    assert len(dates(["03/04/2020", "05/06/2020"])) == 2
    for cells in (["$3", "12"], ["a", "1"], ["1,23,456"], ["12 %", "13"], ["A11", "A12"]):
        assert readings(cells) == []
    assert Notation("$", thousands=",").read("1,200") == 1200  # people leave a sign out, but not that of per cent
    assert Notation(suffix=" %").read("0.5") is None
    with pytest.raises(ValueError, match="notation must be None for a feature with levels"):
        Feature("job", "category", levels=("a", "b"), notation=Notation("$"))


def made(tmp_path, header, rows, name="t.csv"):
    path = tmp_path / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_numbers_of_a_file(tmp_path):
    """One column decides for another; the schema takes the notation along; the answers' notation is the file's."""
    rows = [f"{1000 + 7 * i},{i % 9}5;1.{200 + i};{i % 28 + 1:02d}.01.2020;{'ny'[i % 2]}" for i in range(40)]
    data = load_csv(made(tmp_path, "income;km;since;paid", rows), "paid")
    assert [feature.kind for feature in data.space.features] == ["continuous", "integer", "integer"]
    assert data.table["income"][:2].tolist() == [1000.05, 1007.15]
    assert data.table["km"][:2].tolist() == [1200, 1201]  # a decimal comma elsewhere: the point groups thousands
    assert data.table["since"][0] == 18262
    data.space.to_json(tmp_path / "s.json")
    again = load_csv(tmp_path / "t.csv", "paid", tmp_path / "s.json")
    assert again.space == data.space
    assert data.space.features[2].describe().startswith("[01.01.2020, 28.01.2020]")
    assert any("income: numbers, written like '1000,05'" in note for note in data.notes)
    rows = [f'"1,{200 + i}",{i % 2}' for i in range(40)]
    path = made(tmp_path, "km,paid", rows)
    with pytest.raises(ValueError, match=r"column 'km' in line 2 of t\.csv must be one number, not 1200 or 1\.2, was"):
        load_csv(path, "paid")
    assert load_csv(path, "paid", decimal=".").table["km"][1] == 1201
    assert load_csv(path, "paid", decimal=",").table["km"][1] == 1.201
    assert load_csv(path, "paid", categories=["km"]).space.width == 40


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["$3", "12", "€4", "5"], "column 'c' of t.csv must have one sign, was '\\$3' beside '12'"),
        (["1/2/2020", "3/4/2020"], "must be a date of which day and month can be told apart, was '1/2/2020'"),
        (["2020-01-01", "2020-01-02", "soon", "2020-01-03"], "line 4 .* must be a date like the others, was 'soon'"),
        (["2020-01-01 10:00", "2020-01-02 11:30"], "must be a date that is read .* was '2020-01-01 10:00'"),
        (["01/02/20", "02/02/20"], "must be a date that is read .* was '01/02/20'"),
        (["1,5", "2,5", "x", "3,5"], "line 4 .* must be a finite number, was 'x'; --categories c"),
        (["1e200", "2e200"], "must be at most 1e.100 in size, was '1e200'"),
        (
            [f"N{i}" for i in range(12)],
            "repeat, was 12 different texts in 12 rows; --categories c .* --drop",
        ),
    ],
)
def test_columns_that_are_refused(tmp_path, cells, message):
    path = made(tmp_path, "c;d;y", [f"{cell};{i};{i % 2}" for i, cell in enumerate(cells)])
    with pytest.raises(ValueError, match=message):
        load_csv(path, "y")
    assert load_csv(path, "y", drop=["c"]).space.names == ("d",)


def test_missing_cells_are_those_of_numbers(tmp_path):
    """ "none" is a level of a category and a missing cell of numbers; the rows that are left keep their numbers."""
    rows = [f"{i if i not in (3, 5) else 'NA'},{'none' if i % 2 else 'yes'},{'ab'[i // 2 % 2]}" for i in range(20)]
    path = made(tmp_path, "n,other,y", rows)
    with pytest.raises(ValueError, match=r"column 'n' in line 5 of t\.csv must have a value, was 'NA'; --missing drop"):
        load_csv(path, "y")
    data = load_csv(path, "y", missing="drop")
    assert data.ids.tolist() == [0, 1, 2, 4, *range(6, 20)]
    assert data.table["n"].tolist() == data.ids.tolist()
    assert data.notes[0] == "2 of 20 rows are left out, because a cell is missing: n 2"
    assert "'none' is read as a level, in 8 rows" in " ".join(data.notes)
    fewer = load_csv(path, "y", missing="drop", missing_values=["none"])
    assert fewer.ids.tolist() == list(range(0, 20, 2))
    assert fewer.notes[0].endswith("n 2, other 10")
    with pytest.raises(ValueError, match="must have a row without missing cells; column 'e' is empty, --drop e"):
        load_csv(made(tmp_path, "e,n,y", [f",{i},{i % 2}" for i in range(9)]), "y")


def test_what_a_draft_does_not_know(tmp_path):
    rows = [f"{i},{20 + i % 7 * 5},{'fm'[i // 5 % 2]},{i % 2 * 10 + i % 3},{'ab'[i % 2]},7" for i in range(80)]
    data = load_csv(made(tmp_path, "no,age,sex,grade,y,always", rows), "y")
    said = " ".join(unknowns(data))
    assert "grade alone tells the class of 100 % of the rows" in said
    assert 'age may fall: set its direction to "up"' in said
    assert "sex may change: if it cannot, --immutable sex" in said
    assert "every feature may move both ways" in said
    assert "no alone" not in said
    assert "no: counts the rows" in " ".join(data.notes)
    assert "always: the same value in every row" in " ".join(data.notes)
    data.space.to_json(tmp_path / "s.json", unknowns(data))
    assert FeatureSpace.from_json(tmp_path / "s.json") == data.space
