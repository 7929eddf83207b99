"""A short way to put modules on a page of the reference.

    ```{modules}
    invjax.attacks.gse
    invjax.attacks.parts.*
    ```

becomes a heading and an ``automodule`` for each line; ``folder.*`` stands for every module of that folder. One page
holds a whole folder: a page per module made the navigation, which is written into every page, most of the build.

It also lets the short public names be linked: ``invjax.attacks.PGD`` leads to ``invjax.attacks.pgd.PGD``.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Any

from sphinx.util.nodes import make_refnode

BLOCK = re.compile(r"^```\{modules\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MODULE = "{hashes} `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n   :ignore-module-all:\n```\n"


def names(lines: str) -> list[str]:
    """The modules that the lines of a block stand for."""
    found = []
    for line in lines.split():
        folder, star, _ = line.partition(".*")
        inside = pkgutil.iter_modules(importlib.import_module(folder).__path__) if star else []
        found += [f"{folder}.{info.name}" for info in inside if not info.ispkg and info.name != "__main__"]
        found += [] if star else [folder]
    return found


def expand(app: Any, docname: str, source: list[str]) -> None:
    """Headings one level below the page's own: ``##``, or ``###`` where the page has parts."""
    hashes = "###" if "\n## " in source[0] else "##"
    source[0] = BLOCK.sub(
        lambda block: "\n".join(MODULE.format(hashes=hashes, name=name) for name in names(block[1])), source[0]
    )


def full_name(target: str) -> str | None:
    """``invjax.learn.study.study.Study`` for ``invjax.learn.study.Study``: where the object was defined."""
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
        return f"{found.__module__}.{found.__qualname__}"
    except (ImportError, AttributeError, ValueError):
        return None


def resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    """The link of a re-exported name."""
    target = node.get("reftarget", "")
    full = full_name(target) if node.get("refdomain") == "py" and target.startswith("invjax.") else None
    entry = env.get_domain("py").objects.get(full)
    if entry is None:
        return None
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, full)


def setup(app: Any) -> dict[str, Any]:
    app.connect("source-read", expand)
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
