"""The page itself: sections of text, facts, a table and pictures, written whole or not at all."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from invjax.core.errors import BadArgument
from invjax.core.files import write_atomic, writing
from invjax.core.meant import explained
from invjax.report.drawings import drawing
from invjax.report.png import data_uri, encode_png
from invjax.viz.palette import GAIN, PAGE_TONES


def _colours(mode: str) -> str:
    return (
        ":root { "
        + " ".join(f"--{name}: {getattr(tone, mode)};" for name, tone in PAGE_TONES.items())
        + (f" --gain: {1 if mode == 'light' else GAIN}; }}")
    )


_CSS = f"{_colours('light')}\n@media (prefers-color-scheme: dark) {{ {_colours('dark')} }}\n" + files(
    "invjax.report"
).joinpath("style.css").read_text("utf-8")
_LONG = 200  # characters: small print from here on is folded
_SMALL = 64  # pixels: up to here an image is drawn enlarged with hard pixel edges

# The page may use nothing but itself; a browser enforces it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Picture:
    """One picture of a section."""

    image: Any  # uint8 [H, W], [H, W, 1|3|4]; the bytes of a PNG file; or a matplotlib Figure
    caption: str = ""
    width: int | None = None  # CSS pixels on the page; None: small images enlarged to about 160, others as they are
    alt: str = ""  # what it shows, for those who cannot see it; the caption by default


@dataclass(frozen=True)
class Section:
    """One section, shown in this order. Everything but the title is optional."""

    title: str
    text: str = ""  # plain text; a blank line starts a paragraph, `backticks` set code
    facts: Mapping[str, Any] = field(default_factory=dict)  # headline numbers: name -> value
    table: Sequence[Mapping[str, Any]] = ()  # one mapping per row; columns in order of first appearance
    group: str | None = None  # a column of the table whose values become headings between the rows
    note: str = ""  # small print under the table; folded if it is long
    figures: Sequence[Picture] = ()
    markup: str = ""  # trusted HTML, inserted as it is
    short: str = ""  # its name in the line of contents; the title by default


@explained
def write_report(
    path: str | os.PathLike[str],
    sections: Iterable[Section],
    *,
    title: str = "invjax report",
    subtitle: str = "",
    footer: str = "",
    lead: str = "",
) -> Path:
    """Write one HTML file that needs nothing else: style and pictures are inside; no script, no network.

    The folder is created if needed. The file appears whole under its name, so that an interrupted or failed call leaves
    an older report as it was.

    Args:
        path: the file, usually ``….html``.
        sections: in order of appearance.
        title: heading and window title.
        subtitle: one or two sentences under it.
        footer: small print at the end, for instance versions and device.
        lead: trusted HTML above the sections, for instance :func:`invjax.report.sheets.story`.

    Returns:
        The path written.

    Raises:
        ValueError: ``path`` is a folder or cannot be written, or a picture is not of an accepted kind.
    """
    page = render(sections, title=title, subtitle=subtitle, footer=footer, lead=lead)
    target = Path(path)
    if os.path.isdir(target):
        raise BadArgument("path", "name a file", hint=f"{str(target)!r} is a folder")
    with writing(target, "path", "file"):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, page.encode())
    return target


def render(
    sections: Iterable[Section], *, title: str = "invjax report", subtitle: str = "", footer: str = "", lead: str = ""
) -> str:
    """The page as text. Arguments as in :func:`write_report`."""
    parts = list(sections)
    anchors = [f"s{n}" for n in range(1, len(parts) + 1)]
    links = "".join(f'<a href="#{a}">{escape(s.short or s.title)}</a>' for a, s in zip(anchors, parts, strict=True))
    body = "\n".join(_section(section, anchor) for section, anchor in zip(parts, anchors, strict=True))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{_CSS}</style>\n</head>\n'
        f"<body>\n<main>\n<header>\n<h1>{escape(title)}</h1>\n"
        + (f"<p>{inline(subtitle)}</p>\n" if subtitle else "")
        + (f'<nav aria-label="contents">{links}</nav>\n' if len(parts) > 1 else "")
        + f"</header>\n{lead}\n{body}\n"
        + (f"<footer>{inline(footer)}</footer>\n" if footer else "")
        + "</main>\n</body>\n</html>\n"
    )


def escape(text: Any) -> str:
    """Text with every character that could become markup escaped."""
    return html.escape(str(text), quote=True)


def inline(text: str) -> str:
    """Escaped text with `backticks` set as code."""
    return re.sub(r"`([^`\n]+)`", r"<code>\1</code>", escape(text))


def image_tag(image: Any, alt: str = "", width: int | None = None, change: bool = False) -> str:
    """An ``<img>`` with its pixels inside. ``image`` and ``width`` as in :class:`Picture`.

    change: the pixels are a change in the colours of the palette, which a dark page shows brighter.
    """
    if hasattr(image, "savefig"):
        return _drawn(image, alt, width)
    if isinstance(image, bytes):
        png, shape = image, None
    else:
        png, shape = encode_png(np.asarray(image)), np.shape(image)
    size = ""
    if shape is not None:
        small = max(shape[:2]) <= _SMALL
        across = width if width is not None else shown_width(shape[0], shape[1], 160)
        kinds = " ".join(["pixels"] * small + ["change"] * change)
        size = f' class="{kinds}"' if kinds else ""
        size += f' width="{across}" height="{round(across * shape[0] / shape[1])}"'
    elif width is not None:
        size += f' width="{width}"'
    return f'<img src="{data_uri(png)}" alt="{escape(alt)}"{size}>'


def _drawn(figure: Any, alt: str, width: int | None) -> str:
    """A figure, which is never shown so small that its text cannot be read: a narrow screen moves it sideways."""
    made = drawing(figure)
    across = made.width if width is None else width
    size = f' width="{across}" height="{round(across * made.height / made.width)}"'
    least = f' style="min-width:{min(made.least, across)}px"' if made.least else ""
    tag = f'<img src="{made.light}" alt="{escape(alt)}"{size}{least}>'
    if made.dark is not None:
        tag = f'<picture><source media="(prefers-color-scheme: dark)" srcset="{made.dark}">{tag}</picture>'
    return f'<div class="drawing">{tag}</div>'


def shown_width(height: int, width: int, wanted: int) -> int:
    """The width in CSS pixels at which an image is drawn; for a small image a whole multiple of its own width."""
    longest = max(height, width)
    if longest <= _SMALL:
        return width * max(1, round(wanted / longest))
    return min(width, max(1, round(wanted * 1.4 * width / longest)))


def _section(section: Section, anchor: str) -> str:
    parts = [f'<section id="{anchor}">', f"<h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{inline(p.strip())}</p>" for p in re.split(r"\n\s*\n", section.text) if p.strip()]
    if section.facts:
        facts = "".join(
            f'<div class="fact"><dt>{escape(k)}</dt><dd>{escape(_cell(v))}</dd></div>' for k, v in section.facts.items()
        )
        parts.append(f'<dl class="facts">{facts}</dl>')
    if section.table:
        parts.append(table_markup(section.table, section.group))
    if section.note:
        parts.append(small_print(section.note))
    if section.figures:
        drawn = "".join(_figure(picture, section.title) for picture in section.figures)
        parts.append(f'<div class="figures">{drawn}</div>')
    parts += [section.markup] if section.markup else []
    return "\n".join([*parts, "</section>"])


def _figure(picture: Picture, title: str) -> str:
    caption = f"<figcaption>{inline(picture.caption)}</figcaption>" if picture.caption else ""
    alt = picture.alt or picture.caption or title
    return f"<figure>{image_tag(picture.image, alt, picture.width)}{caption}</figure>"


def small_print(text: str) -> str:
    """A caption; where it is long, folded under a line that says what it is."""
    words = inline(text)
    if len(text) <= _LONG:
        return f"<figcaption>{words}</figcaption>"
    return f'<details class="note"><summary>What the words and columns mean</summary><p>{words}</p></details>'


def folded(line: str, content: str) -> str:
    """Trusted HTML folded under a line of trusted HTML."""
    return f'<details class="fold"><summary>{line}</summary>{content}</details>'


def table_markup(rows: Sequence[Mapping[str, Any]], group: str | None = None) -> str:
    """The rows as an HTML table; text to the left, numbers to the right. group: as in :class:`Section`."""
    columns = [c for c in dict.fromkeys(key for row in rows for key in row) if c != group]
    kind = {c: "" if all(_is_number(row.get(c)) for row in rows) else ' class="text"' for c in columns}
    head = "".join(f'<th scope="col"{kind[c]}>{escape(c)}</th>' for c in columns)
    body, current = [], object()
    for row in rows:
        if group is not None and row.get(group) != current:
            current = row.get(group)
            body.append(f'<tr><th colspan="{len(columns)}" scope="rowgroup">{escape(current)}</th></tr>')
        quiet = ' class="quiet"' if any("(published)" in str(row.get(c, "")) for c in columns) else ""
        cells = "".join(f"<td{kind[c]}>{escape(_cell(row.get(c, '')))}</td>" for c in columns)
        body.append(f"<tr{quiet}>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _cell(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return "–" if np.isnan(value) else f"{value:.4g}"
    return str(value)


def _is_number(value: Any) -> bool:
    """Whether this is a number, a text that begins with one ("41.2 s", "98 %"), or a sign for "nothing here"."""
    return (
        value is None
        or re.fullmatch(r"[–-]?|[-−+±<≤≥~]?\s?\d[\d.,]*(e[-+]?\d+)?(\s?\S{1,3})?", str(_cell(value))) is not None
    )
