"""The colours of all figures and of the page, each with its partner on a dark page.

Text stands out from what is behind it by 4.5 : 1 and more, lines and marks by 3 : 1, on both pages. Colours that mean
different things in one picture differ in lightness too, so that they can be told apart in print without colour and by
the colour-blind. ``tests/viz/test_palette.py`` measures all of this.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Tone(NamedTuple):
    """One colour on a light page, and the one that stands for it on a dark page."""

    light: str
    dark: str


INK = Tone("#16181d", "#e8eaee")  # text, and marks that matter most
SOFT = Tone("#565d6b", "#a3abb9")  # small print
LINE = Tone("#dfe3e8", "#2f353f")  # frames, grids of axes
PAGE = Tone("#f6f7f9", "#101216")
CARD = Tone("#ffffff", "#181b21")  # behind figures, tables and facts
WELL = Tone("#eef0f3", "#23272f")  # behind code and single changes
CELL = Tone("#fafbfc", "#0b0d11")  # behind the pixels of a change
LINK = Tone("#1b5bc7", "#8ab2f8")

BLUE = Tone("#1c5cc8", "#5f94f0")
AMBER = Tone("#c9640a", "#ffc46b")
LEVEL = Tone("#8f4300", "#ffe2b0")  # a line on the shades
SHADES = (
    Tone("#fff8ea", "#211d15"),
    Tone("#fef0d6", "#2c2417"),
    Tone("#fde6bc", "#392c18"),
    Tone("#fbdea6", "#483619"),
)  # a density, from thin to dense
SERIES = (
    BLUE,
    AMBER,
    Tone("#0b7a5e", "#34b893"),
    Tone("#93328a", "#e3a2dc"),
    Tone("#8c6d31", "#c9a968"),
    Tone("#2a8fc4", "#79cdf5"),
    Tone("#4b5563", "#c5ccd6"),
    Tone("#c0304f", "#f0788f"),
)  # lines of a figure, in the order of use; each also has a mark of its own

# Pixels are drawn once for both pages, on CELL; colours as (red, green, blue).
RAISED = (217, 114, 0)  # orange: the value goes up
LOWERED = (29, 92, 198)  # a darker blue: it goes down
SUPPORT = (15, 138, 126)  # green: changed at all
GAIN = 1.7  # what the page multiplies them by on a dark page, where faint changes would drown

PAGE_TONES = {
    "page": PAGE, "card": CARD, "ink": INK, "soft": SOFT, "line": LINE, "well": WELL, "cell": CELL, "accent": LINK,
}  # fmt: skip
_ALL = {tone.light: tone.dark for tone in (*PAGE_TONES.values(), *SERIES, LEVEL, *SHADES)}


def darkened(svg: str) -> str:
    """A drawing for the light page in the colours of the dark one; colours that are not of the palette stay."""
    return re.sub(r"#[0-9a-f]{6}", lambda found: _ALL.get(found[0], found[0]), svg)
