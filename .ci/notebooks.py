#!/usr/bin/env python3
"""The notebooks with their outputs: runs notebooks/NAME.py from top to bottom, and writes what it showed to NAME.ipynb.

    .venv-colab/bin/python .ci/notebooks.py [NAME ...]      by default all of them; two to four minutes

``.ci/run`` makes this environment, which has Colab's versions. Each notebook runs in an empty folder, as a newcomer
would have it. What differs from run to run is left out: progress bars, times, the kernel's version. A warning or an
error ends the program, and the notebook stays as it was. After a change of the text between the cells alone,
``jupytext --update --to ipynb notebooks/NAME.py`` keeps the outputs.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
BAR = re.compile(r"\s*(?:\S[^\r\n]*: +)?\d+%\|[^\r\n]*|\s*")  # a line of tqdm


def digest(book: Any) -> str:
    """Of the code that the outputs belong to: without the first cell, which installs, and holds the address."""
    code = [cell.source for cell in book.cells if cell.cell_type == "code"][1:]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()[:16]


def outputs(cell: Any) -> list[Any]:
    """What a cell has shown, without its bars. Raises ValueError for anything else on stderr."""
    kept: list[Any] = []
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stderr":
            said = [line for line in re.split(r"[\r\n]", output.text) if not BAR.fullmatch(line)]
            if said:
                raise ValueError("\n".join(said))
        elif output.output_type == "stream" and kept and kept[-1].output_type == "stream":
            kept[-1].text += output.text
        elif "application/vnd.jupyter.widget-view+json" not in output.get("data", {}):
            kept.append(output)
    return kept


def make(path: Path) -> Path:
    """Runs a notebook in its text form. Returns where the other form was written."""
    import jupytext
    import nbformat
    from nbclient import NotebookClient

    book = jupytext.read(path)
    with tempfile.TemporaryDirectory() as empty:
        NotebookClient(book, timeout=900, kernel_name="python3", resources={"metadata": {"path": empty}}).execute()
    for number, cell in enumerate(book.cells, 1):
        cell.id = f"cell-{number}"
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = outputs(cell)
    book.metadata.pop("language_info", None)
    book.metadata["jupytext"] = {"formats": "ipynb,py:percent"}
    book.metadata["invjax"] = {"sources": digest(book), "jax": version("jax")}
    written = path.with_suffix(".ipynb")
    nbformat.write(book, written)
    return written


def main() -> None:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH")]))
    names = sys.argv[1:] or [path.stem for path in sorted(FOLDER.glob("*.py"))]
    for name in names:
        path = FOLDER / f"{name}.py"
        if not path.exists():
            sys.exit(f".ci/notebooks.py: no notebook {name}: {', '.join(p.stem for p in sorted(FOLDER.glob('*.py')))}")
        written = make(path)
        print(f"wrote {written.relative_to(FOLDER.parent)}, {written.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
