"""Rows of a table as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def text_table(rows: Sequence[Mapping[str, Any]], group: str | None = None) -> str:
    """The rows as aligned columns: the first to the left, the others to the right.

    Args:
        rows: one mapping per row; columns in order of first appearance, values shown by ``str``.
        group: a column whose values become headings between the rows, as in :class:`invjax.report.Section`.
    """
    if not rows:
        return "(nothing)"
    columns = [c for c in dict.fromkeys(key for row in rows for key in row) if c != group]
    indent = "" if group is None else "  "
    cells = [[str(row.get(c, "")) for c in columns] for row in rows]
    for line in cells:
        line[0] = indent + line[0]
    widths = [max(len(column), *(len(line[n]) for line in cells)) for n, column in enumerate(columns)]

    def join(line: Sequence[str]) -> str:
        rest = (text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))
        return "  ".join([line[0].ljust(widths[0]), *rest]).rstrip()

    lines = [join(columns), "-" * (sum(widths) + 2 * (len(widths) - 1))]
    current: object = object()
    for row, line in zip(rows, cells, strict=True):
        if group is not None and row.get(group) != current:
            current = row.get(group)
            lines.append(str(current))
        lines.append(join(line))
    return "\n".join(lines)
