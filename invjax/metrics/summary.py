"""Numbers of attacks as tables: rows of text, a block for a terminal, and what a notebook shows of them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args, overload

import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.core.meant import explained

Case = Literal["best", "average", "worst"]
Convention = Literal["all_attempts", "successes_only"]
Count = Literal["attempts", "failed", "already_target", "undefined"]
Table = dict[str, dict[str, float]]

CASES: tuple[Case, ...] = get_args(Case)
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


class Summary(dict[str, Any]):
    """What :func:`invjax.metrics.summarize` says of a list of attempts: a dict, shown as the table that it holds."""

    @overload
    def __getitem__(self, key: Convention) -> Table: ...
    @overload
    def __getitem__(self, key: Count) -> int: ...
    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(key)

    @property
    def words(self) -> str:
        """The counts in one line: ``27 of 29 attempts succeeded, 2 failed``."""
        said = f"{self['attempts'] - self['failed']} of {self['attempts']} attempts succeeded, {self['failed']} failed"
        more = ((self["already_target"], "had the class already"), (self["undefined"], "without a length"))
        return ", ".join([said, *(f"{count} {what}" for count, what in more if count)])

    def __repr__(self) -> str:
        return f"{self.words}\n{attack_table(self._tables())}"

    def _repr_html_(self) -> str:
        """In a notebook: success and cost for the best, the average and the worst target."""
        rows = [{"mean over": row.pop("attack"), **row} for row in attack_rows(self._tables())]
        return f"<div>{html.escape(self.words)}{as_html(rows)}</div>"

    def _tables(self) -> dict[str, Table]:
        """The tables by what their averages are of, one where both are the same."""
        same = repr(self["all_attempts"]) == repr(self["successes_only"])
        return {"all attempts": self["all_attempts"]} | ({} if same else {"successes": self["successes_only"]})


class TableText(str):
    """Text in columns, which a notebook shows as a table."""

    rows: list[dict[str, str]]

    def __new__(cls, text: str, rows: list[dict[str, str]]) -> TableText:
        made = super().__new__(cls, text)
        made.rows = rows
        return made

    def __reduce__(self) -> Any:
        return TableText, (str(self), self.rows)

    def _repr_html_(self) -> str:
        return as_html(self.rows)


def as_html(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows of text as a table of HTML, in the colours of the page around it."""
    if not rows:
        return "<p>(no rows)</p>"
    heads = "".join(f"<th>{html.escape(key)}</th>" for key in rows[0])
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row.values()) for row in rows)
    return f"<table><tr>{heads}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


@explained
def attack_rows(
    tables: Mapping[str, Table],
    published: Mapping[str, Table] | None = None,
    cases: Sequence[Case] = CASES,
) -> list[dict[str, str]]:
    """The tables as rows of formatted text, one per case and attack, published numbers below ours.

    Args:
        tables: attack name -> a table of :func:`best_average_worst`; the columns are those of all tables together.
        published: likewise, for numbers taken from a publication; missing entries show as "–".
        cases: which blocks, in order. For an untargeted run, with one target per image, ``("average",)`` is enough.

    Returns:
        Rows with the keys "case" and "attack", and "ASR %", "ACP", "ANC", "l2", "d2,0" as far as the tables have them.
    """
    both = [*tables.items()]
    both += [(f"{name} (published)", table) for name, table in (published or {}).items()]
    columns = list(dict.fromkeys(column for _, table in both for column in table))
    return [
        {
            "case": case,
            "attack": name,
            **{_TITLE.get(c, c): _format(c, table.get(c, {}).get(case, float("nan"))) for c in columns},
        }
        for case in cases
        for name, table in both
    ]


@explained
def attack_table(
    tables: Mapping[str, Table],
    published: Mapping[str, Table] | None = None,
    cases: Sequence[Case] = CASES,
) -> TableText:
    """:func:`attack_rows` as text for a terminal, a block per case, and a table in a notebook. Arguments as there."""
    if not isinstance(tables, Mapping) or "all_attempts" in tables:
        was, hint = Words(type(tables).__name__), 'attack_table({"GSE": summarize(attempts)["all_attempts"]})'
        raise BadArgument("tables", "be a dict of tables by the names of attacks", was, hint=hint)
    rows = attack_rows(tables, published, cases)
    if not rows:
        return TableText("(no attacks)", rows)
    columns = [key for key in rows[0] if key not in ("case", "attack")]
    first = max(len("attack"), *(len(row["attack"]) + 2 for row in rows))
    widths = {c: max(len(c), *(len(row[c]) for row in rows)) for c in columns}

    def line(head: str, cells: Iterable[tuple[str, str]]) -> str:
        return head.ljust(first) + "".join("  " + text.rjust(widths[c]) for c, text in cells)

    lines = [line("attack", ((c, c) for c in columns))]
    lines.append("-" * len(lines[0]))
    for case in cases:
        lines.append(case)
        lines += [line("  " + row["attack"], ((c, row[c]) for c in columns)) for row in rows if row["case"] == case]
    return TableText("\n".join(lines), rows)


_TITLE = {"asr": "ASR %", "acp": "ACP", "anc": "ANC", "l2": "l2", "d20": "d2,0"}


def _format(column: str, value: float) -> str:
    if np.isnan(value):
        return "–"
    if column == "asr":
        return f"{100 * value:.1f}"
    if column in ("acp", "d20"):  # counts of pixels: 34.2, 305.2, 12014
        return f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.2f}"
