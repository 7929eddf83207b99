"""The README and the pages: every Python block runs, the commands are those that are tested, nothing is left out."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from processes import small_environment

import invjax
from invjax import attacks, counterfactuals

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
# tests/test_models.py runs the blocks of models.md, each alone.
PAGES = [path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "models.md"]
BLOCK = re.compile(r"^```(\w+|\{modules\})\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    return [code for name, code in BLOCK.findall(text) if name == language]


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda path: path.stem)
def test_python_blocks_run(path, monkeypatch, tmp_path):
    """The blocks of a page run one after the other, as a reader would type them."""
    found = blocks(path.read_text("utf-8"), "python")
    if path.stem == "portable":
        pytest.importorskip("flatbuffers")
    if not found:
        pytest.skip("no Python on this page")
    if path.stem == "gallery":
        del found[2:]  # a minute for all: test_pictures_were_made_by_the_code_above_them has the others
    monkeypatch.chdir(tmp_path)
    page = types.ModuleType(f"page_{path.stem}")
    monkeypatch.setitem(sys.modules, page.__name__, page)  # dataclasses look for the module of their class
    cache = jax.config.jax_compilation_cache_dir
    try:
        for number, code in enumerate(found, 1):
            exec(compile(code, f"{path.name}, block {number}", "exec", dont_inherit=True), vars(page))
    finally:
        if jax.config.jax_compilation_cache_dir != cache:  # a page shows how programs are kept
            jax.config.update("jax_compilation_cache_dir", cache)
            compilation_cache.reset_cache()


@pytest.mark.fast
def test_first_screen_of_the_readme():
    """One sentence, then two commands of one line that set themselves up, then an example of at most 20 lines."""
    commands = blocks(README, "bash")
    for command, end in zip(
        commands[:2], ("&& .venv/bin/invjax demo\n", "&& .venv/bin/python -m pytest\n"), strict=True
    ):
        assert command.count("\n") == 1
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")
        assert command.endswith(end)
    example = blocks(README, "python")[0]
    assert len(example.splitlines()) <= 20
    assert README.index(example) < 2500
    assert len(README.splitlines()) <= 150  # tables and details live in docs
    script = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    assert commands[1].rstrip("\n") in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.fast
@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda path: path.stem)
def test_commands_have_their_options(path):
    """Every ``invjax ...`` of the pages uses commands and options that exist."""
    from benchmarks import __main__ as bench
    from invjax.cli import options as arguments

    for line in "".join(blocks(path.read_text("utf-8"), "bash")).splitlines():
        found = re.search(r"(?:^| |/)(?:invjax (demo|attack|explain)|python -m benchmarks ([\w-]+))(.*)$", line)
        if not found:
            continue
        command, name, rest = found.groups()
        if command:
            known = {field.replace("_", "-") for field in arguments.COMMANDS[command].__dataclass_fields__}
        else:
            parser = argparse.ArgumentParser()
            importlib.import_module(f"benchmarks.{bench.BENCHMARKS[name].module}").add_arguments(parser)
            known = {option[2:] for action in parser._actions for option in action.option_strings}
        assert set(re.findall(r"--([\w-]+)", rest)) <= known, line


@pytest.mark.fast
def test_forty_lines():
    code = next(
        c for c in blocks((ROOT / "docs" / "own_method.md").read_text("utf-8"), "python") if "# test: forty" in c
    )
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 40, len(lines)


@pytest.mark.fast
@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.fast
def test_pictures_were_made_by_the_code_above_them():
    """make_images.py runs the blocks of the gallery, and notes for each picture a digest of the code that made it."""
    folder = ROOT / "docs" / "images"
    spec = importlib.util.spec_from_file_location("make_images", folder / "make_images.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.shown(script.PAGE.read_text("utf-8"))
    made = json.loads((folder / "made.json").read_text("utf-8"))
    again = "the gallery has changed: python docs/images/make_images.py"
    assert {block.file: block.digest for block in found if block.file} == made, again
    light = {path.name for path in folder.iterdir() if path.suffix in (".svg", ".html") and "_dark" not in path.stem}
    assert light == set(made)
    assert all(path.stat().st_size <= 150_000 for path in folder.iterdir() if path.is_file())
    for block in found:  # what is not run here still names what there is
        imports = [line for line in block.code.splitlines() if re.match(r"(from|import) ", line)]
        exec("\n".join(imports), {})


@pytest.mark.fast
@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *PAGES, *sorted((ROOT / "notebooks").glob("*.py"))], ids=lambda path: path.name
)
def test_pictures_say_what_is_seen(path):
    text = path.read_text("utf-8")
    said = re.findall(r"!\[([^\]]*)\]\((?!http)", text) + re.findall(r'<img [^>]*?alt="([^"]*)"', text)
    assert len(said) == len(re.findall(r"!\[[^\]]*\]\((?!http)|<img ", text))
    assert all(len(words.split()) >= 5 for words in said), said


@pytest.mark.fast
def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f"\nversion: {invjax.__version__}\n" in citation
    assert f'\nversion = "{invjax.__version__}"\n' in project
    assert f"\n## {invjax.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    for pin in (ROOT / ".ci" / "colab.txt").read_text("utf-8").splitlines():
        name, _, pinned = pin.partition("==")
        if name in ("jax", "flax"):
            assert f'"{name}>={pinned}"' in project


def public_names(module) -> dict[str, object]:
    """What the module offers: not what it merely uses (modules of others, typing helpers)."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    values = {name: getattr(module, name) for name in names}
    return {
        name: value
        for name, value in values.items()
        if (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__.startswith("invjax")
    }


def described(value: object) -> bool:
    """A docstring of its own: named tuples and dataclasses get one made of their fields."""
    doc = inspect.getdoc(value) or ""
    return bool(doc.strip()) and not doc.startswith(f"{getattr(value, '__name__', '')}(")


PACKAGES = (
    "", ".types", ".losses", ".prox", ".projections", ".penalties", ".constraints", ".densities", ".solvers",
    ".solvers.search", ".solvers.best", ".engine", ".models", ".attacks", ".counterfactuals", ".counterfactuals.milp",
    ".data", ".attribution", ".metrics", ".campaign", ".recourse", ".learn", ".learn.study", ".viz", ".report",
)  # fmt: skip
MODULES = tuple(f".{info.name.split('.', 1)[1]}" for info in pkgutil.iter_modules(invjax.core.__path__, "invjax.core."))


@pytest.mark.fast
@pytest.mark.parametrize("name", PACKAGES + MODULES, ids=lambda name: f"invjax{name}")
def test_public_names_have_docstrings(name):
    module = importlib.import_module(f"invjax{name}")
    found = public_names(module)
    assert found
    assert [key for key, value in found.items() if not described(value)] == []


def renaming_classes() -> list[type]:
    """Every class of the package that knows constants by their former names."""
    found = set()
    for info in pkgutil.walk_packages(invjax.__path__, "invjax.", onerror=lambda name: None):
        if (
            info.name in ("invjax.explain", "invjax.explaining")
            or ".tfds_builders" in info.name
            or "__main__" in info.name
        ):
            continue
        values = vars(importlib.import_module(info.name)).values()
        found |= {value for value in values if isinstance(value, type) and vars(value).get("RENAMED")}
    return sorted(found, key=lambda cls: cls.__name__)


@pytest.mark.fast
def test_the_page_of_moved_names_has_every_renamed_constant():
    page = (ROOT / "docs" / "migration.md").read_text("utf-8")
    rows = []
    for cls in renaming_classes():
        pairs = (f"`{old}` → {new if ' ' in new else f'`{new}`'}" for old, new in cls.RENAMED.items())
        rows.append(f"| `{cls.__name__}` | {', '.join(pairs)} |")
    missing = [row for row in rows if row not in page]
    assert not missing, "docs/migration.md needs these rows:\n" + "\n".join(missing)


@pytest.mark.fast
def test_the_modules_of_the_page_of_moved_names_exist():
    """``invjax.a.b``, ``.c`` is invjax.a.b and invjax.a.c; what is on the left is gone or says where it went."""
    page = (ROOT / "docs" / "migration.md").read_text("utf-8")
    table = re.search(r"^## Modules$(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    for before, now in re.findall(r"^\| (`invjax.+) \| (`.+) \|$", table[1], re.MULTILINE):
        for name in modules(before):
            if name != "invjax.cli" and name not in ("invjax.bench", "invjax.data.images"):  # these are folders now
                assert not ROOT.joinpath(*name.split(".")).with_suffix(".py").exists() or name in modules(now), name
        for name in modules(now):
            assert importlib.import_module(name)


def modules(cell: str) -> list[str]:
    found: list[str] = []
    for name in re.findall(r"`([\w.]+)`", cell):
        found.append(f"{found[-1].rpartition('.')[0]}{name}" if name.startswith(".") else name)
    return found


@pytest.mark.fast
def test_every_module_says_what_it_is():
    found = pkgutil.walk_packages(invjax.__path__, "invjax.", onerror=lambda name: None)
    names = [info.name for info in found if "__main__" not in info.name]
    undocumented = []
    for name in names:
        path = ROOT.joinpath(*name.split("."))
        source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        if not source.read_text("utf-8").lstrip().startswith(('"""', 'r"""')):
            undocumented.append(name)
    assert undocumented == []


@pytest.mark.fast
def test_reference_pages_name_everything_public():
    public = (ROOT / "docs" / "api" / "public.md").read_text("utf-8")
    listed = set(re.findall(r"^\.\. auto\w+:: (\w+)$", public, re.MULTILINE))
    offered = {name for name in vars(invjax) if not name.startswith("_")}
    offered -= {name for name, value in vars(invjax).items() if inspect.ismodule(value)}
    assert listed == offered


@pytest.mark.fast
def test_reference_has_every_module_on_the_page_of_its_room():
    """Every module stands in one ``{modules}`` block, ``folder.*`` for all of a folder; a new attack needs its line."""
    pages = sorted((ROOT / "docs" / "api").glob("*.md"))
    lines = [line for page in pages for block in blocks(page.read_text("utf-8"), "{modules}") for line in block.split()]
    found = [name for line in lines for name in expand(line)]
    assert sorted(found) == sorted(set(found))
    walked = (info.name for info in pkgutil.walk_packages(invjax.__path__, "invjax.", onerror=lambda name: None))
    builders = "invjax.data.tfds_builders."  # they cannot be imported without tensorflow_datasets
    moved = {"invjax.explain", "invjax.explaining"}
    wanted = {name for name in walked if "__main__" not in name and not name.startswith(builders)} - moved
    assert set(found) == wanted
    index = (ROOT / "docs" / "api" / "index.md").read_text("utf-8")
    assert all(f"]({page.name})" in index and f"\n{page.stem}\n" in index for page in pages if page.stem != "index")


def expand(line: str) -> list[str]:
    folder, star, _ = line.partition(".*")
    if not star:
        return [folder]
    inside = pkgutil.iter_modules(importlib.import_module(folder).__path__)
    return [f"{folder}.{info.name}" for info in inside if not info.ispkg and info.name != "__main__"]


def test_pages_build(tmp_path):
    """Sphinx with warnings as errors reads every page and every docstring. (test_notebooks.py runs the notebooks.)"""
    pytest.importorskip("sphinx")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees"),
         "-t", "short", "docs", str(tmp_path / "html")],
        cwd=ROOT, capture_output=True, text=True, timeout=900, env=small_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert (tmp_path / "html" / "generated" / "notebooks" / "01_quickstart.html").exists()
    reference = (tmp_path / "html" / "api" / "public.html").read_text("utf-8")
    assert 'id="invjax.solve"' in reference
    assert "x minus the clean input" in reference  # the comments behind the fields of Result
    mathematics = (tmp_path / "html" / "api" / "mathematics.html").read_text("utf-8")
    assert 'id="invjax.prox.l_half"' in mathematics
    assert 'id="module-invjax.penalties"' in mathematics
    gallery = (tmp_path / "html" / "gallery.html").read_text("utf-8")
    assert gallery.count('class="only-dark"') == gallery.count('class="only-light"') == 7  # a drawing for each ground
    assert "background: rgba(" in gallery  # what would change for a person
    assert "copybutton.js" in gallery
    assert "min_{x'}" in (tmp_path / "html" / "scfe.html").read_text("utf-8")  # for KaTeX, not as a picture
    for package in (attacks, counterfactuals):
        page = (tmp_path / "html" / "api" / f"{package.__name__.split('.')[-1]}.html").read_text("utf-8")
        assert all(f'id="{method.__module__}.{method.__name__}"' in page for method in package.REGISTRY.values())
