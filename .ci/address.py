#!/usr/bin/env python3
"""The address of the repository: it is decided in pyproject.toml, and this program writes it everywhere else.

    python .ci/address.py                                     says what it is, and which files hold it
    python .ci/address.py https://github.com/OWNER/invjax     writes another one
    python .ci/address.py --unset                             writes the placeholder again

The placeholder leads nowhere, because no host can have a name that ends in ``.invalid``: nobody installs a stranger's
package by it. A new file may hold the placeholder at any time, and the next run replaces it. Badges lead to
pages that only GitHub has or Colab opens. For every other address they stand in comments, which no page shows.
"""

from __future__ import annotations

import argparse
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PLACEHOLDER = "https://address-not-set.invalid/owner/invjax"
ADDRESS = re.compile(r"https://[\w.-]+(?:/[\w.-]+){2,}")
BADGE = r"\[!\[[^\]\n]*\]\[[\w-]+-badge\]\]\[[\w-]+\]"  # [![words][NAME-badge]][NAME], with [NAME]: ... elsewhere
GITHUB = "https://github.com/"
MADE = {"__pycache__", "_build", "build", "dist", "generated", "invjax-demo", "node_modules"}
KEPT = {".ci", ".github"}  # of the folders whose names begin with a dot
ROOT = Path(__file__).resolve().parent.parent


def current(root: Path = ROOT) -> str:
    """The address that pyproject.toml holds."""
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]


def forms(address: str) -> tuple[str, str]:
    """The two ways in which files hold an address: as it is, and as Colab opens it."""
    return address, "https://colab.research.google.com/github/" + address.split("/", 3)[3]


def rewritten(text: str, old: str, new: str) -> str:
    """The text with ``new`` in the place of ``old`` and of the placeholder, its badges shown on GitHub alone."""
    text = re.sub(f"<!-- ({BADGE}) -->", r"\1", text)
    for address in (old, PLACEHOLDER):
        for before, after in zip(forms(address), forms(new), strict=True):
            text = re.sub(re.escape(before) + r"(?![\w-])", after, text)
    return text if new.startswith(GITHUB) else re.sub(BADGE, r"<!-- \g<0> -->", text)


def places(root: Path, *addresses: str) -> Iterator[tuple[Path, str]]:
    """The text files that hold one of the addresses in some form, without this one, which defines the placeholder."""
    wanted = [form.encode() for address in addresses for form in forms(address)]
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if name in KEPT or not (name in MADE or name.startswith(".")))
        for path in (Path(folder, name) for name in sorted(names)):
            if path.is_symlink() or path.samefile(__file__) or path == root / ".ci" / Path(__file__).name:
                continue
            content = path.read_bytes()
            if any(form in content for form in wanted) and b"\0" not in content:
                yield path, content.decode("utf-8")


def write(new: str, root: Path = ROOT) -> list[Path]:
    """Writes the address everywhere below ``root``. Returns the files that changed.

    Raises ValueError: no address, or one that the files hold already for another reason.
    """
    new = new.removesuffix("/").removesuffix(".git")
    if not ADDRESS.fullmatch(new):
        raise ValueError(f"the address must look like {GITHUB}OWNER/invjax, was {new!r}")
    old = current(root)
    strangers = [] if new in (old, PLACEHOLDER) else [path for path, text in places(root, new) if new in text]
    if strangers:
        where = strangers[0].relative_to(root)
        raise ValueError(f"{new} stands in {where} for another reason: it could not be taken back")
    changed = []
    for path, text in list(places(root, old, PLACEHOLDER)):
        if (other := rewritten(text, old, new)) != text:
            path.write_bytes(other.encode("utf-8"))
            changed.append(path.relative_to(root))
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(prog=".ci/address.py", description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", help="the new one; without it, the files that hold the present one")
    parser.add_argument("--unset", action="store_true", help="write the placeholder again")
    options = parser.parse_args()
    if options.address and options.unset:
        parser.error("give an address or --unset, not both")
    if new := PLACEHOLDER if options.unset else options.address:
        try:
            changed = write(new)
        except ValueError as error:
            parser.error(str(error))
        print(*(f"wrote {path}" for path in changed), f"{len(changed)} files changed: {current()}", sep="\n")
    else:
        print(*(path.relative_to(ROOT) for path, _ in places(ROOT, current())), current(), sep="\n")


if __name__ == "__main__":
    main()
