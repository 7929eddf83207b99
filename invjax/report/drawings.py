"""A matplotlib figure as a picture of the page.

Figures of :mod:`invjax.viz` become drawings (SVG) in the colours of the light page, and again in those of the dark one.
Any other figure is shown as pixels, as it is.
"""

from __future__ import annotations

import base64
import io
import math
import re
from typing import Any, NamedTuple

from invjax.report.png import data_uri
from invjax.viz.palette import INK, darkened
from invjax.viz.sheets import OURS

LEAST = 11  # CSS pixels: no text of the page is shown smaller
_POINTS = 72  # to the inch
_NATURAL = 96  # CSS pixels to the inch

# Text as outlines, so that it looks the same whatever fonts there are; names of parts that do not depend on the run.
_SETTINGS: dict[Any, Any] = {"svg.fonttype": "path", "svg.hashsalt": "invjax", "svg.image_inline": True}
_UNSAID = dict.fromkeys(("Date", "Creator", "Format", "Type"))


class Drawing(NamedTuple):
    """What an ``<img>`` needs."""

    light: str  # its source
    dark: str | None  # its source on a dark page; None: the same
    width: int  # CSS pixels at which it is shown if nothing else is said
    height: int
    least: int  # CSS pixels of width below which its text would become too small to read


def drawing(figure: Any) -> Drawing:
    """The figure as one or two sources of an ``<img>``."""
    wide, high = (float(inches) for inches in figure.get_size_inches())
    size = (round(_NATURAL * wide), round(_NATURAL * high), least_width(figure))
    if figure.get_gid() != OURS:
        pixels = io.BytesIO()
        figure.savefig(pixels, format="png", dpi=160)
        return Drawing(data_uri(pixels.getvalue()), None, *size)
    light = _svg(figure)
    return Drawing(_source(light), _source(darkened(light)), *size)


def least_width(figure: Any) -> int:
    """The width in CSS pixels at which the smallest text of the figure is ``LEAST`` pixels high; 0 without text."""
    from matplotlib.text import Text  # a figure is here, so matplotlib is too

    sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    return math.ceil(LEAST * _POINTS * float(figure.get_size_inches()[0]) / min(sizes)) if sizes else 0


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context(_SETTINGS):
        figure.savefig(text, format="svg", metadata=_UNSAID)
    svg = text.getvalue()
    svg = re.sub(r"<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"(?<![\d.])([1-9]\d*\.\d)\d+", r"\1", svg)  # not seen; scales, below 1, keep their digits
    svg = re.sub(r"\s*\n\s*", " ", svg).replace("#000000", INK.light)
    return svg.replace("<svg ", f'<svg fill="{INK.light}" ', 1)  # black is what SVG leaves unsaid


def _source(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")
