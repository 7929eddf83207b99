"""What ``import invjax`` loads, and that imports point upward only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast
PACKAGE = Path(__file__).resolve().parent.parent / "invjax"

# A module may import those before it, never those after it.
ORDER = [
    "types",
    "config",
    "numerics",
    "ranks",
    "images",
    "superpixels",
    "losses",
    "best",
    "groups",
    "prox",
    "projections",
    "penalties",
    "constraints",
    "densities",
    "solvers",
    "search",
    "engine",
    "attacks",
    "counterfactuals",
    "explain",
    "metrics",
    "models",
    "data",
    "targets",
    "learn",
    "viz",
    "report",
    "bulk",
    "explaining",
    "bench",
    "demo_counterfactuals",
    "demo_digits",
    "demo_learn",
    "demo",
    "job",
    "arguments",
    "cli",
    "__main__",
]
LEVEL = {name: level for level, name in enumerate(ORDER)}
HEAVY = (
    "flax",
    "orbax",
    "tensorflow_datasets",
    "tensorflow",
    "sklearn",
    "skimage",
    "matplotlib",
    "torch",
    "pandas",
    "safetensors",
    "tyro",
)


def test_import_is_light() -> None:
    code = f"import sys, invjax; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"


def _at_import(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports executed when the module is: not those inside functions, nor those for the type checker alone."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _at_import(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
            for part in ("body", "orelse", "finalbody"):
                yield from _at_import(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _at_import(handler.body)


def _parts(path: Path) -> list[str]:
    """The parts of the module's name after ``invjax``."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def _imported(source: str, package: list[str]) -> set[str]:
    """First-level names of invjax that a module imports. package: the parts of its package after ``invjax``."""
    names = set()
    for node in _at_import(ast.parse(source).body):
        if isinstance(node, ast.Import):
            paths = [alias.name.split(".") for alias in node.names]
        elif node.level:
            base = ["invjax", *package][: len(package) + 2 - node.level]
            paths = [[*base, *(node.module or "").split("."), alias.name] for alias in node.names]
            paths = [[part for part in path if part] for path in paths]
        else:
            paths = [[*(node.module or "").split("."), alias.name] for alias in node.names]
        names |= {path[1] for path in paths if path[0] == "invjax" and len(path) > 1}
    return names


def test_reader_of_imports() -> None:
    """The test above must see what it is to forbid."""
    source = (
        "import invjax.engine\nfrom invjax import cli, prox\nfrom invjax.types import Array\nfrom ..models import api\n"
        "from . import gse\nif TYPE_CHECKING:\n    import invjax.bench\ndef f():\n    import invjax.data\n"
        "try:\n    from invjax.viz import grid\nexcept ImportError:\n    pass\n"
    )
    assert _imported(source, ["attacks"]) == {"engine", "cli", "prox", "types", "models", "attacks", "viz"}


def test_imports_point_upward() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = _parts(path)
        if parts == ["__init__"]:
            continue
        own = parts[0]
        assert own in LEVEL, f"{path.relative_to(PACKAGE)}: give the module its place in ORDER"
        package = _parts(path.parent / "__init__.py") if path.parent != PACKAGE else []
        for name in _imported(path.read_text(), package):
            if name != own and LEVEL.get(name, len(ORDER)) >= LEVEL[own]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports invjax.{name}")
    assert not wrong, wrong
