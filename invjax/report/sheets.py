"""Pictures in rows and columns as part of the page, which any number of screens can show: no figure, no matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from invjax.report.page import escape, image_tag, inline


class Shown(NamedTuple):
    """One picture, and what it is for those who cannot see it."""

    pixels: np.ndarray  # uint8 [H, W, 1|3|4]
    alt: str
    change: bool = False  # whether they are a change in the colours of the palette


class Step(NamedTuple):
    """One station of a story told in pictures."""

    pictures: Sequence[Shown]
    head: str
    text: str = ""


def sheet(
    rows: Sequence[tuple[str, Sequence[Shown | str]]], heads: Sequence[str] = (), width: int = 84, note: str = ""
) -> str:
    """HTML: a named row of pictures each, or words where there is no picture; heads: above the columns.

    On a narrow screen the rows move sideways under their names, which stay.
    """
    top = "".join(f'<th scope="col"><div style="width:{width}px">{escape(head)}</div></th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(_cell(one, width) for one in row)}</tr>' for name, row in rows
    )
    table = f"<table>{f'<thead><tr><th></th>{top}</tr></thead>' if heads else ''}<tbody>{body}</tbody></table>"
    return f'<div class="strip sheet">{table}</div>' + (f"<figcaption>{inline(note)}</figcaption>" if note else "")


def story(steps: Sequence[Step], width: int) -> str:
    """HTML: a few steps side by side, or one below the other on a narrow screen."""
    told = "".join(
        f'<figure class="step"><div>{"".join(_tag(one, width) for one in step.pictures)}</div>'
        f"<figcaption><b>{inline(step.head)}</b>{f'<br>{inline(step.text)}' if step.text else ''}</figcaption></figure>"
        for step in steps
    )
    return f'<div class="story">{told}</div>'


def _cell(one: Shown | str, width: int) -> str:
    if isinstance(one, str):
        return f'<td><div class="blank" style="width:{width}px;height:{width}px">{escape(one)}</div></td>'
    return f"<td>{_tag(one, width)}</td>"


def _tag(one: Shown, width: int) -> str:
    return image_tag(one.pixels, one.alt, width, one.change)
