"""The address of the repository: one program writes it into every file that holds it, and takes it back."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / ".ci" / "address.py"
HUB = "https://github.com/" + "someone/inverse"  # in two pieces: files that hold the new address are refused
LAB = "https://gitlab.com/" + "someone/inverse"

spec = importlib.util.spec_from_file_location("address", SCRIPT)
assert spec is not None
assert spec.loader is not None
address = importlib.util.module_from_spec(spec)
spec.loader.exec_module(address)
LEFT = shutil.ignore_patterns(".git", ".venv*", "*_cache", ".hypothesis", "__pycache__", "_build", "generated", "build")


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository without what is made from it, with the placeholder."""
    root = tmp_path_factory.mktemp("copy") / "repository"
    shutil.copytree(ROOT, root, ignore=LEFT)
    address.write(address.PLACEHOLDER, root)
    return root


@pytest.mark.fast
def test_the_address_is_everywhere_the_one_of_the_project():
    """No file holds the placeholder beside another address: writing the address that stands there changes nothing."""
    found = address.current()
    for path, text in address.places(ROOT, found, address.PLACEHOLDER):
        assert address.rewritten(text, found, found) == text, f"{path}: run .ci/address.py {found}"


@pytest.mark.fast
def test_written_everywhere_and_taken_back(copy):
    before = contents(copy)
    assert address.write(address.PLACEHOLDER, copy) == []
    changed = {str(path) for path in address.write(f"{HUB}.git", copy)}
    after = contents(copy)
    placeholder = [form.encode() for form in address.forms(address.PLACEHOLDER)]
    assert [name for name, content in after.items() if any(form in content for form in placeholder)] == [
        ".ci/address.py"
    ]
    assert changed == {name for name in before if before[name] != after[name]}
    assert changed >= {"README.md", "CITATION.cff", "CONTRIBUTING.md", "pyproject.toml", "docs/install.md"}
    assert f"git clone {HUB} invjax" in after["README.md"].decode()
    assert address.write(address.PLACEHOLDER, copy)
    assert contents(copy) == before


@pytest.mark.fast
def test_badges_are_shown_where_they_lead_somewhere(copy):
    """On GitHub, and on no other host: Colab opens notebooks from there alone."""
    books = sorted(copy.glob("notebooks/*.ipynb"))
    assert len(books) >= 3
    for new, shown in ((HUB, True), (LAB, False), (address.PLACEHOLDER, False)):
        address.write(new, copy)
        texts = {copy / "README.md": (copy / "README.md").read_text("utf-8")}
        for book in books:
            texts[book] = "".join(json.loads(book.read_bytes())["cells"][0]["source"])
            commented = "".join(f"# {line}".rstrip() + "\n" for line in texts[book].splitlines())
            assert commented in book.with_suffix(".py").read_text("utf-8")
        for path, text in texts.items():
            leads = f"[colab]: {address.forms(new)[1]}/blob/main/notebooks/"
            assert f"\n{leads}{path.name if path in books else books[0].name}\n" in text + "\n"
            badges = [line for line in text.splitlines() if "[colab-badge]][colab]" in line]
            assert len(badges) == 1
            assert badges[0].startswith("[![" if shown else "<!-- [![")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("github.com/someone/it", "must look like https://github.com/OWNER/invjax, was 'github.com/someone/it'"),
        ("https://github.com/someone", "must look like https://github.com/OWNER/invjax"),
        ("https://github.com/google/jaxopt", "stands in docs/coming_from_jaxopt.md for another reason"),
    ],
)  # fmt: skip
def test_wrong_addresses(wrong, words):
    """Also one that could not be told from what stands in the files already: it could not be taken back."""
    done = subprocess.run([sys.executable, str(SCRIPT), wrong], capture_output=True, text=True)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]


@pytest.mark.fast
def test_what_github_reads():
    """The workflow calls .ci/run, the forms of issues ask for something, and both papers can be cited."""
    yaml = pytest.importorskip("yaml")
    folder = ROOT / ".github"
    if not folder.exists():
        pytest.skip("an unpacked sdist has no .github")
    steps = yaml.safe_load((folder / "workflows" / "tests.yml").read_text("utf-8"))["jobs"]["tests"]["steps"]
    assert steps[-1]["run"] == ".ci/run"
    for path in folder.glob("ISSUE_TEMPLATE/*.yml"):
        form = yaml.safe_load(path.read_text("utf-8"))
        if path.stem != "config":
            assert {"name", "description", "body"} <= set(form)
            assert all({"label"} <= set(part["attributes"]) for part in form["body"])
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["repository-code"] == address.current()
    assert [paper["title"].split(":")[0] for paper in cited["references"]] == ["GSE", "S-CFE"]
    assert all(paper["year"] == 2025 and len(paper["authors"]) >= 3 for paper in cited["references"])
