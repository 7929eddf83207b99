"""The notebooks: their two forms hold the same cells, and they run from top to bottom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from processes import small_environment

jupytext = pytest.importorskip("jupytext")
ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))

PRINTED = {
    "01_quickstart": ("FOUND after", "average"),
    "02_counterfactuals": ("violations: 0", "(optimal)", "the forest agrees: True", "both: 3 of 3 found"),
    "03_learning_from_counterfactuals": ("strip bright", "p-CFE: Perturbed(", "p-cfe "),
}
PICTURES = {"01_quickstart": 2, "02_counterfactuals": 3, "03_learning_from_counterfactuals": 2}
# grid, trace; path of sparsity, plane, ways; perturbed images, worst groups

RUN = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], 4)
NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(book, sys.argv[3])
"""


def test_there_are_some():
    assert NOTEBOOKS


@pytest.mark.fast
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_both_forms_are_the_same(path):
    """``jupytext --to ipynb notebooks/NAME.py`` after editing; outputs do not belong into the repository."""
    text, book = jupytext.read(path), jupytext.read(path.with_suffix(".ipynb"))
    assert [(cell.cell_type, cell.source) for cell in text.cells] == [
        (cell.cell_type, cell.source) for cell in book.cells
    ]
    for cell in book.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_at_tiny_size(path, tmp_path):
    pytest.importorskip("nbclient")
    done = tmp_path / "done.ipynb"
    process = subprocess.run(
        [sys.executable, "-c", RUN, str(path.with_suffix(".ipynb")), str(tmp_path), str(done)],
        capture_output=True, text=True, timeout=900,
        env=small_environment(),
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-4000:]
    outputs = [output for cell in jupytext.read(done).cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    for words in PRINTED[path.stem]:
        assert words in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[path.stem]
