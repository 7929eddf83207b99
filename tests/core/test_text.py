"""Cells that a spreadsheet would run: neutral in what is written, themselves again in what is read."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from invjax.constraints import Feature, FeatureSpace
from invjax.constraints.notation import readings
from invjax.core.text import as_names, inert, restored
from invjax.data.tables.cells import read_cells
from invjax.recourse import csv_text
from invjax.recourse.answers import Explanation, Person
from invjax.recourse.frames import _classes
from invjax.types import Status

pytestmark = pytest.mark.fast
RUN = ("=cmd|' /C calc'!A0", "+49 170", "-none", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-x", "＝1+1", "-1-1", "=1")
LEFT = ("", "-", "--", "+", "-3.5", "+5", "-1e-3", "a=b", "'-5", "'quoted'", "<=50K", "'", "- - -")


@pytest.mark.parametrize("cell", [*RUN, *LEFT])
def test_every_cell_comes_back(cell):
    assert restored(inert(cell)) == cell
    assert (inert(cell) == f"'{cell}") == (cell in RUN)
    assert inert(cell)[:1] not in tuple("=@\t\r＝")


def test_names():
    assert as_names([b"a", "b", np.str_("c"), 1]) == ("a", "b", "c", "1")


def test_labels_of_bytes_as_arff_has_them():
    values = np.array([b"good", b"bad", b"good"])
    for own in ([b"bad", b"good"], ["bad", "good"]):
        names, _, index = _classes(SimpleNamespace(classes_=own), values, None)
        assert names == ("bad", "good")
        assert index.tolist() == [1, 0, 1]


def explained(cells, name="job"):
    """An answer for each cell of a category, whose number is written as a German file writes it."""
    space = FeatureSpace(
        [Feature(name, "category", levels=tuple(cells)), Feature("sum", notation=readings(["-1.234,5"])[0])],
        (), [0.0, 0.0], [1.0, 1.0],
    )  # fmt: skip
    people = tuple(
        Person(f"={n}", Status.FOUND, "", "-no", "yes", (), 0.1, 0.9, 1.0, "@proof") for n in range(len(cells))
    )
    table = {name: np.array(cells), "sum": np.full(len(cells), -1234.5)}
    nothing: Any = None
    none = np.zeros(0)
    return Explanation("t", people, table, table, nothing, none, none, nothing, {}, {}, space=space)


def test_text_of_answers_is_inert_and_numbers_are_numbers(tmp_path):
    cells = ["=1+1", "@now", "-none", "+more", "plain"]
    rows = list(csv.DictReader(io.StringIO(csv_text(explained(cells, "=job")))))
    for row, cell in zip(rows, cells, strict=True):
        assert row["'=job (to)"] == row["'=job (from)"] == ("plain" if cell == "plain" else f"'{cell}")
        assert row["sum (to)"] == "-1.234,5"
        assert (row["id"], row["predicted"], row["proof"]) == (f"'={row['id'][2:]}", "'-no", "'@proof")
    of_bytes = list(csv.DictReader(io.StringIO(csv_text(explained([b"=1+1", b"b"])))))
    assert [row["job (to)"] for row in of_bytes] == ["'=1+1", "b"]
    as_it_is = list(csv.DictReader(io.StringIO(csv_text(explained(cells), formulas=True))))
    assert [row["job (to)"] for row in as_it_is] == cells
    (tmp_path / "a.csv").write_text(csv_text(explained(cells)))
    again = read_cells(tmp_path / "a.csv")
    assert again.columns["job (to)"] == cells
    assert again.columns["proof"] == ["@proof"] * len(cells)
