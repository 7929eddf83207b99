"""The notebooks: their two forms hold the same cells, outputs that belong to them, and they run from top to bottom."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from processes import small_environment

jupytext = pytest.importorskip("jupytext")
ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
MAKE = ".venv-colab/bin/python .ci/notebooks.py"

spec = importlib.util.spec_from_file_location("make_notebooks", ROOT / ".ci" / "notebooks.py")
assert spec is not None
assert spec.loader is not None
make_notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_notebooks)

PRINTED = {
    "01_quickstart": ("of 784 pixels changed", "average", "of 9 other digits"),
    "02_counterfactuals": ("violations: 0", "(optimal)", "the forest agrees: True", "both: 8 of 8 nines"),
    "03_learning_from_counterfactuals": ("strip bright", "p-CFE: Perturbed(", "p-cfe "),
}
PICTURES = {"01_quickstart": 5, "02_counterfactuals": 3, "03_learning_from_counterfactuals": 3}
SMALL = {"03_learning_from_counterfactuals": "STEPS, GRADIENTS, SEEDS = 8, 2, (0, 1)"}  # in the place of "parameters"
LARGEST = 400_000  # bytes of a notebook with its outputs
FOREIGN = re.compile(r"/(?:tmp|home|root|Users|work|usr)/|site-packages|Warning|Traceback|\x1b\[")

RUN = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], 4)
NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(book, sys.argv[3])
"""
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_some():
    assert NOTEBOOKS


def shown(book) -> tuple[str, int]:
    """What the cells of a notebook have printed, and how many pictures they hold."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    return printed, sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.fast
@each
def test_both_forms_are_the_same(path):
    text, book = jupytext.read(path), jupytext.read(path.with_suffix(".ipynb"))
    assert [(cell.cell_type, cell.source) for cell in text.cells] == [
        (cell.cell_type, cell.source) for cell in book.cells
    ], f"after editing the .py: {MAKE} {path.stem}"


@pytest.mark.fast
@each
def test_the_outputs_are_those_of_the_cells(path):
    """Made by the code that stands there, with Colab's jax, in one run without an error or a warning."""
    book = jupytext.read(path.with_suffix(".ipynb"))
    pins = dict(
        line.split("==") for line in (ROOT / ".ci" / "colab.txt").read_text("utf-8").splitlines() if "==" in line
    )
    made = {"sources": make_notebooks.digest(book), "jax": pins["jax"]}
    assert book.metadata.get("invjax") == made, f"the outputs are not those of this code: {MAKE} {path.stem}"
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    for output in outputs:
        words = {kind: data for kind, data in output.get("data", {}).items() if kind != "image/png"}
        assert not FOREIGN.search(json.dumps(words) + output.get("text", ""))
    printed, pictures = shown(book)
    assert pictures == PICTURES[path.stem]
    drawn = [cell for cell in cells if any("image/png" in output.get("data", {}) for output in cell.outputs)]
    assert all(len(cell.metadata["mystnb"]["image"]["alt"].split()) >= 5 for cell in drawn)  # what is seen
    assert all(words in printed for words in PRINTED[path.stem])
    assert path.with_suffix(".ipynb").stat().st_size <= LARGEST


def install_cell(path: Path) -> str:
    return next(cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code")


@pytest.mark.fast
def test_the_first_cell_is_the_same_everywhere():
    assert len({install_cell(path) for path in NOTEBOOKS}) == 1


@pytest.mark.fast
@pytest.mark.parametrize("beside", ["nothing", "wheel", "clone", "around"])
def test_the_first_cell_installs_what_is_there(beside, tmp_path):
    """The newest wheel beside the notebook, else a clone beside or around it, else the repository. No pip is run."""
    here = tmp_path / "notebooks"
    here.mkdir()
    if beside == "wheel":
        for number in ("0.1.0", "0.1.1"):
            zipfile.ZipFile(here / f"invjax-{number}-py3-none-any.whl", "w").close()
    clone = {"clone": here / "invjax", "around": tmp_path}.get(beside)
    if clone is not None:
        (clone / "invjax").mkdir(parents=True)
        (clone / "invjax" / "__init__.py").touch()
    pip = "import subprocess\nclass Done: returncode = 1\nsubprocess.run = lambda words, **how: print(*words) or Done\n"
    run = [sys.executable, "-S", "-c", pip + install_cell(NOTEBOOKS[0])]  # -S: without what is installed
    done = subprocess.run(run, cwd=here, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    source = {
        "nothing": f"invjax[demo] @ git+{address_in(install_cell(NOTEBOOKS[0]))}",
        "wheel": f"{here.resolve()}/invjax-0.1.1-py3-none-any.whl[demo]",
        "clone": f"{here.resolve()}/invjax[demo]",
        "around": f"{tmp_path.resolve()}[demo]",
    }[beside]
    assert done.stdout == f"Installing {source}\n{sys.executable} -m pip install --quiet --no-input {source}\n"
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1  # what to do, in one line
    assert done.stderr.startswith(f"pip found no {source}: upload the wheel")


def address_in(source: str) -> str:
    found = re.search(r'git\+([^"]+)"', source)
    assert found is not None
    return found[1]


@pytest.mark.fast
def test_the_first_cell_leaves_alone_what_is_installed(tmp_path):
    code = "import subprocess\nsubprocess.run = None\n" + install_cell(NOTEBOOKS[0])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment)


@each
def test_runs_from_top_to_bottom(path, tmp_path):
    """In an empty folder, without what the stored outputs are kept for: the same words and pictures."""
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    book = jupytext.read(path)
    sizes = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    for cell in sizes:
        cell.source = SMALL[path.stem]
    assert len(sizes) == (path.stem in SMALL)
    nbformat.write(book, tmp_path / "book.ipynb")
    (empty := tmp_path / "empty").mkdir()
    done = tmp_path / "done.ipynb"
    process = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "book.ipynb"), str(empty), str(done)],
        capture_output=True, text=True, timeout=900,
        env=small_environment(),
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-4000:]
    printed, pictures = shown(jupytext.read(done))
    for words in PRINTED[path.stem]:
        assert words in printed
    assert pictures == PICTURES[path.stem]
