"""What ``import invjax`` loads, and that imports point upward only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import invjax

pytestmark = pytest.mark.fast
PACKAGE = Path(__file__).resolve().parent.parent / "invjax"

# A room may import those before it, never those after it: docs/architecture and the order of the mathematics.
ORDER = [
    "types",
    "core",
    "losses",
    "prox",
    "projections",
    "penalties",
    "cpu",
    "constraints",
    "densities",
    "solvers",
    "engine",
    "models",
    "attacks",
    "counterfactuals",
    "data",
    "attribution",
    "metrics",
    "campaign",
    "recourse",
    "learn",
    "viz",
    "report",
    "cli",
    "__main__",
]
MOVED = {"explain", "explaining"}  # stubs that name the new place and import nothing
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
    "invjax.constraints",  # of our own, what most programs do without
    "invjax.densities",
    "invjax.data",
    "invjax.metrics",
)


def test_import_is_light() -> None:
    code = f"import sys, invjax; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"


def _imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import statement: those inside functions and those for the type checker alone, too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def _parts(path: Path) -> list[str]:
    """The parts of the module's name after ``invjax``."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def _imported(source: str, package: list[str]) -> set[tuple[str, ...]]:
    """The names below ``invjax`` that a module imports, in parts. package: those of its package after ``invjax``."""
    paths: list[list[str]] = []
    for node in _imports(ast.parse(source)):
        if isinstance(node, ast.Import):
            paths += [alias.name.split(".") for alias in node.names]
        else:
            base = ["invjax", *package][: len(package) + 2 - node.level] if node.level else []
            paths += [[*base, *(node.module or "").split("."), alias.name] for alias in node.names]
    kept = [[part for part in path if part] for path in paths]
    return {tuple(path[1:]) for path in kept if path[0] == "invjax" and len(path) > 1}


def test_parts_are_loaded_when_asked_for() -> None:
    """``import invjax`` is enough, and all packages of a user are there: in ``dir``, and as attributes."""
    program = (
        "import sys, invjax; assert 'invjax.metrics' not in sys.modules; invjax.metrics.d20; invjax.learn.fit;"
        "assert {'viz', 'data', 'solve'} <= set(dir(invjax)); invjax.metric"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "module 'invjax' has no attribute 'metric'; did you mean 'metrics'?" in done.stderr, done.stderr
    private = {"core", "cli", "cpu", "__main__"}
    assert set(ORDER) - private <= set(dir(invjax))


def test_reader_of_imports() -> None:
    """The tests below must see what they are to forbid."""
    source = (
        "import invjax.engine\nfrom invjax import cli, prox\nfrom invjax.types import Array\nfrom ..models import zoo\n"
        "from . import gse\nif TYPE_CHECKING:\n    import invjax.learn\ndef f():\n    import invjax.data\n"
        "try:\n    from invjax.viz import grid\nexcept ImportError:\n    pass\n"
    )
    rooms = {path[0] for path in _imported(source, ["attacks"])}
    assert rooms == {"engine", "cli", "prox", "types", "models", "attacks", "learn", "data", "viz"}


def _modules() -> Iterator[tuple[tuple[str, ...], set[tuple[str, ...]]]]:
    """(parts of its name, what it imports) of every module of the package but its face."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = _parts(path)
        if parts != ["__init__"] and parts[0] not in MOVED:
            package = _parts(path.parent / "__init__.py") if path.parent != PACKAGE else []
            yield tuple(parts), _imported(path.read_text("utf-8"), package)


def test_rooms() -> None:
    """The folders and modules of the root are those of ORDER, and no others."""
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found - {"__init__"} == {*ORDER, *MOVED}


def test_imports_point_upward() -> None:
    wrong = []
    for parts, imported in _modules():
        for path in imported:
            if path[0] != parts[0] and LEVEL.get(path[0], len(ORDER)) >= LEVEL[parts[0]]:
                wrong.append(f"{'.'.join(parts)} imports {'.'.join(path)}")
    assert not wrong, wrong


def test_no_circles() -> None:
    """Module by module, no import leads back to where it came from, wherever the import stands."""
    names = {parts for parts, _ in _modules()}

    def module(path: tuple[str, ...]) -> tuple[str, ...] | None:
        return next((path[:n] for n in range(len(path), 0, -1) if path[:n] in names), None)

    graph = {parts: {found for path in imported if (found := module(path)) not in (None, parts)}
             for parts, imported in _modules()}  # fmt: skip
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(".".join(name) for name in error.args[1])) from None


def test_benchmarks_are_never_imported() -> None:
    """They are not in the wheel."""
    for path in PACKAGE.rglob("*.py"):
        for node in _imports(ast.parse(path.read_text("utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any(name.split(".")[0] == "benchmarks" for name in names), path
