"""The pictures of the documentation: python docs/images/make_images.py

docs/gallery.md is the source. Its blocks of Python run one after the other, and what the last line of a block gives
becomes the picture that stands below the block. So the code on the page is the code that made the picture:
``made.json`` keeps a digest of it for the tests. The partner of a picture on a dark page is made with the pages
(_ext/dark_pictures.py), that of the README here.

Needs the extra ``demo`` and the file of German credit in ``INVJAX_DATA``; about two minutes on two CPU cores.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "gallery.md"
README = "nine_to_four.svg"  # is shown there, too: with a partner of its own
PART = re.compile(
    r"^```python\n(.*?)^```|^!\[[^\]]+\]\(images/([\w.]+)\)|^:file: images/([\w.]+)", re.MULTILINE | re.DOTALL
)


class Shown(NamedTuple):
    """A block of Python, and the file of the picture below it ("" if there is none)."""

    code: str
    file: str
    digest: str  # of this block and those before it


def shown(text: str) -> list[Shown]:
    """The blocks of a page with their pictures."""
    found: list[Shown] = []
    digest = hashlib.sha256()
    for code, picture, table in PART.findall(text):
        if code:
            digest.update(code.encode())
            found.append(Shown(code, "", digest.hexdigest()[:16]))
        elif found and not found[-1].file:
            found[-1] = found[-1]._replace(file=picture or table)
    return found


def value_of(code: str, names: dict[str, Any]) -> Any:
    """Run a block as a notebook would: what its last line gives."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(PAGE), "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), str(PAGE), "eval"), names)


def save(value: Any, file: str) -> None:
    """A figure as a drawing in the colours of a light page, anything else as the table that it is in a notebook."""
    from invjax.report.drawings import drawing

    path = HERE / file
    if path.suffix == ".html":
        path.write_text(value._repr_html_() + "\n", "utf-8")
        return
    drawn = drawing(value)
    path.write_bytes(_content(drawn.light))
    if file == README and drawn.dark is not None:
        path.with_stem(f"{path.stem}_dark").write_bytes(_content(drawn.dark))


def _content(source: str) -> bytes:
    """What the ``src`` of an image holds."""
    return base64.b64decode(source.partition(",")[2]) + b"\n"


def main() -> None:
    """Run the page, write its pictures."""
    names: dict[str, Any] = {"__name__": "gallery"}
    blocks = shown(PAGE.read_text("utf-8"))
    for block in blocks:
        value = value_of(block.code, names)
        if block.file:
            save(value, block.file)
            print(block.file, flush=True)
    made = {block.file: block.digest for block in blocks if block.file}
    (HERE / "made.json").write_text(json.dumps(made, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent.parent))
    main()
