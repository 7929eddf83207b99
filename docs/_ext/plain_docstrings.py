"""Docstrings as they are written here, made into reStructuredText.

Our docstrings read well in an editor: shapes as ``[N, *S]``, norms as ``|r|``, formulas in indented lines. To
reStructuredText ``*``, ``|`` and a trailing ``_`` are markup and an indented line is a quotation. This extension
escapes the former outside of literals and makes the latter literal blocks, before napoleon sees the text. It also
collects what the comments behind the fields of a class say (``lower: Array  # [*S] the box``): autodoc shows only
their names.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
from pathlib import Path
from typing import Any

# ``code``, roles, links, and *one* stressed word.
LITERAL = re.compile(r"(``.+?``|:\w+(?::\w+)?:`[^`]+`|`[^`]+`__?|(?<![\w\[*])\*\w+\*(?![\w*]))")
SECTION = re.compile(r"^\s*(Args|Returns|Raises|Fields|Yields|Example|Examples|Note|Notes|Source|Attributes):\s*$")
ITEM = re.compile(r"^\s*(\* |- |\d+\. |\.\. )")
ENTRY = re.compile(r"^\s+[\w*, ./]+(\(.+\))?: ")
FIELD = re.compile(r"^ {4}(?P<name>[a-z]\w*|[A-Z][A-Z_]*)\s*[:=](?P<code>[^#]*)#\s*(?P<text>.+)$")
MORE = re.compile(r"^ {4,}#\s*(?P<text>.+)$")


def escape(line: str) -> str:
    """``*``, ``|`` and a trailing ``_`` as themselves, outside of literals and roles."""
    bullet = re.match(r"^(\s*)\* ", line)
    head, rest = (line[: bullet.end()], line[bullet.end() :]) if bullet else ("", line)
    parts = LITERAL.split(rest)
    for i in range(0, len(parts), 2):
        text = re.sub(r"(?<!\\)([*|])", r"\\\1", parts[i])
        parts[i] = re.sub(r"(?<=\w)_(?!\w)", r"\\_", text)
    return head + "".join(parts)


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def is_formula(lines: list[str], n: int) -> bool:
    """True where line n, after a blank one, is indented more deeply than the paragraph above, which is prose."""
    above = next((line for line in reversed(lines[:n]) if line.strip()), None)
    if above is None or n == 0 or lines[n - 1].strip() or above.rstrip().endswith("::"):
        return False
    if SECTION.match(above) or ENTRY.match(above) or ITEM.match(above) or ITEM.match(lines[n]):
        return False
    return indent(lines[n]) >= indent(above) + 2


def convert(lines: list[str]) -> list[str]:
    """The lines of one docstring as reStructuredText."""
    out: list[str] = []
    literal: int | None = None  # the indentation that a literal block must exceed
    for n, line in enumerate(lines):
        if literal is not None and line.strip() and indent(line) <= literal:
            literal = None
            if out[-1].strip():
                out.append("")
        if literal is not None:
            out.append(line)
        elif line.strip() and is_formula(lines, n):
            above = next(other for other in reversed(lines[:n]) if other.strip())
            literal = indent(above)
            out += [" " * literal + ".. code-block:: text", "", line]
        else:
            out.append(escape(line))
            if line.rstrip().endswith("::"):
                literal = indent(line)
    return out


def returns_as_field(lines: list[str]) -> list[str]:
    """The section "Returns:" as a field: napoleon would take "Failure is data: ..." for a type and a text."""
    out: list[str] = []
    at: int | None = None  # indentation of the section while inside
    for line in lines:
        if at is not None and line.strip() and indent(line) <= at:
            at = None
            out += [""] * bool(out[-1].strip())
        if line.strip() == "Returns:":
            at = indent(line)
            out += ["", " " * at + ":returns:"]
        else:
            out.append("  " + line if at is not None and line.strip() else line)
    return out


@functools.cache
def class_sources(module: str) -> dict[str, list[str]]:
    """Name -> lines of each class of a module: ``inspect.getsource`` would parse the file anew for every class."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or not file.endswith(".py"):
        return {}
    text = Path(file).read_text("utf-8")
    classes = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    lines = text.splitlines()
    return {node.name: lines[node.lineno - 1 : node.end_lineno] for node in classes}


def field_notes(cls: type) -> dict[str, str]:
    """The comments behind (or below) the annotated fields and the members of a class."""
    notes: dict[str, str] = {}
    last = None
    for line in class_sources(cls.__module__).get(cls.__qualname__, []):
        if found := FIELD.match(line):
            last = found["name"]
            notes[last] = found["text"].strip()
        elif last and (more := MORE.match(line)):
            notes[last] += " " + more["text"].strip()
        else:
            last = None
    return notes


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if what == "attribute" and inspect.isdatadescriptor(obj) and not isinstance(obj, property):
        lines[:] = []  # "Alias for field number 0"
        return
    converted = convert(returns_as_field(lines))
    has_fields = any(line.strip() == "Fields:" for line in lines)
    if what == "class" and isinstance(obj, type) and not has_fields:
        notes = field_notes(obj)
        converted += ["", "Fields:"] * bool(notes)
        converted += [f"  {field}: {escape(text)}" for field, text in notes.items()] + [""]
    lines[:] = converted


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out what says nothing: the fields of named tuples, which the class itself lists."""
    return True if type(obj).__name__ == "_tuplegetter" or name == "__new__" else None


def plain_aliases(app: Any, what: str, name: str, obj: Any, options: Any, signature: Any, returns: Any) -> Any:
    """``TypeAliasForwardRef('Array') | None`` (what sphinx makes of an alias within a union) as ``Array | None``."""

    def plain(text: Any) -> Any:
        return re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text) if isinstance(text, str) else text

    return plain(signature), plain(returns)


def setup(app: Any) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process, priority=100)
    app.connect("autodoc-process-signature", plain_aliases)
    app.connect("autodoc-skip-member", skip)
    return {"version": "1", "parallel_read_safe": True}
