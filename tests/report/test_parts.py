"""What the page is made of: folded cards, drawings of figures for both modes, sheets, and sentences about numbers."""

from __future__ import annotations

import base64
import math
import re

import numpy as np
import pytest

from invjax import viz
from invjax.report import Picture, Section, attack_section
from invjax.report.drawings import LEAST, drawing
from invjax.report.page import render
from invjax.report.sheets import Shown, Step, sheet, story
from invjax.report.verdict import compared, judged, share_of
from invjax.types import Result, Status
from invjax.viz import palette

pytestmark = pytest.mark.fast

EVIL = '<script>"&'


def attacked(n: int) -> tuple[np.ndarray, Result]:
    x = np.random.default_rng(0).random((n, 8, 8, 1)).astype(np.float32)
    delta = np.zeros((n, 2, 8, 8, 1), np.float32)
    delta[:, :, 2, 3] = 0.25
    status = np.full((n, 2), Status.FOUND, np.int32)
    return x, Result(x[:, None] + delta, delta, status, status, status, x[:, None] + delta)


@pytest.mark.parametrize(
    ("n", "opened", "folds", "line"), [(3, 3, 0, ""), (4, 3, 2, "1 more image<"), (5, 0, 6, "5 more")]
)
def test_cards_beyond_the_first_are_folded(n: int, opened: int, folds: int, line: str) -> None:
    x, result = attacked(n)
    names = [EVIL] * 10
    page = render([attack_section(x, range(n), [[1, 2]] * n, {EVIL: result}, class_names=names, open_images=opened)])
    assert page.count('<details class="fold">') == page.count("</details>") == folds
    assert page.count('class="example"') == n
    assert page.split("<details", 1)[0].count('class="example"') == opened
    assert line in page
    assert EVIL not in page
    assert folds == 0 or f"&lt;script&gt;&quot;&amp; {2} of 2" in page


def test_a_figure_is_drawn_for_both_modes_and_never_too_small_to_read() -> None:
    pytest.importorskip("matplotlib")
    figure, again = (viz.trace([3, 2, 1], [1.0, 0.5, -0.1]) for _ in range(2))
    made = drawing(figure)
    light, dark = (base64.b64decode(source.split(",")[1]).decode() for source in (made.light, made.dark or ","))
    assert palette.INK.light in light
    assert palette.BLUE.light in light
    assert palette.INK.dark in dark
    assert palette.CARD.dark in dark
    for colour in (palette.INK.light, palette.BLUE.light, palette.CARD.light, "#000000"):
        assert colour not in dark
    assert drawing(again) == made  # the same bytes again: no date, no random names
    # The smallest text, in CSS pixels, at the least width.
    smallest = min(text.get_fontsize() for axis in figure.axes for text in axis.texts)
    assert smallest * made.least / (72 * figure.get_size_inches()[0]) >= LEAST
    page = render([Section("s", figures=[Picture(figure, width=900, alt=EVIL), Picture(figure)])])
    assert page.count('prefers-color-scheme: dark)" srcset=') == 2
    assert f"min-width:{made.least}px" in page
    assert 'alt="&lt;script&gt;&quot;&amp;"' in page
    assert 'alt="s"' in page  # without any words of its own it has the section's title


def test_a_figure_of_someone_else_stays_as_it_is() -> None:
    matplotlib = pytest.importorskip("matplotlib.figure")
    figure = matplotlib.Figure()
    figure.subplots().plot([1, 2])
    made = drawing(figure)
    assert made.dark is None
    assert made.light.startswith("data:image/png")


def test_sheets_and_stories() -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    made = sheet([("one", [Shown(pixels, EVIL), "not found"]), (EVIL, ["", Shown(pixels, "b", True)])], ["→ 1", EVIL])
    assert made.count("<tr>") == 3
    assert made.count("<img") == 2
    assert made.count('class="pixels change"') == 1
    assert EVIL not in made
    told = story([Step([Shown(pixels, "a")], "head `code`", EVIL)], 80)
    assert "<b>head <code>code</code></b>" in told
    assert EVIL not in told


def test_contents_lead_and_folded_notes() -> None:
    page = render([Section("A long title", short="A", note="x" * 300), Section("B", note="short")], lead="<p>lead</p>")
    assert re.findall(r'<a href="#(s\d)">(\w+)</a>', page) == [("s1", "A"), ("s2", "B")]
    assert page.index("<nav") < page.index("<p>lead</p>") < page.index("<section")
    assert page.count('<details class="note">') == 1
    assert "<figcaption>short</figcaption>" in page
    assert "<nav" not in render([Section("alone")])
    for name in palette.PAGE_TONES:  # each colour of the style is declared, for both modes
        assert page.count(f"--{name}: #") == 2
    assert set(re.findall(r"var\(--(\w+)\)", page)) <= {*palette.PAGE_TONES, "gain"}


def test_no_text_of_the_style_is_too_small() -> None:
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)rem", render([]))]
    assert sizes
    assert min(sizes) * 16 >= LEAST


@pytest.mark.parametrize(
    ("found", "total", "said"),
    [
        (8, 8, "all 8 rows"), (0, 8, "none of the 8 rows"), (3, 8, "only 3 of 8 rows"), (4, 8, "4 of 8 rows"),
        (1, 1, "the one row"), (0, 1, "not the one row"),
    ],
)  # fmt: skip
def test_shares(found: int, total: int, said: str) -> None:
    assert share_of(found, total, "row") == said
    assert share_of(found, total, "row", " to change") == f"{said} to change"


def test_compared() -> None:
    assert [compared(a, 100) for a in (50, 100.5, 150)] == ["fewer", "as many", "more"]


@pytest.mark.parametrize(
    ("plausible", "said", "never"),
    [
        (0.12, "Only 1 of 8 answers is as plausible as was asked; the other 7 lie where", None),
        (0.12, "valid but not plausible", None),
        (0.0, "None of the 8 answers are as plausible as was asked; they lie", None),
        (0.75, "6 of 8 answers are as plausible as was asked; the other 2 lie", "valid but not plausible"),
        (0.875, "the other lies where", "valid but not plausible"),
        (1.0, "All 8 answers are as plausible as was asked.", "rarer"),
        (math.nan, "All 8 rows to change have an answer that holds as it is printed.", "plausible"),
    ],
)
def test_plausibility_is_not_praised_where_it_is_low(plausible: float, said: str, never: str | None) -> None:
    words = judged({"validity": 1.0, "plausible": plausible, "ynn": math.nan, "redundancy": 0.0}, 8)
    assert said in words
    assert never is None or never not in words


def test_judged() -> None:
    for share, words in ((0.9, "well inside"), (0.6, "near its border"), (0.28, "just across the model's border")):
        assert words in judged({"validity": 1.0, "ynn": share}, 8)
    assert "0.3 on average could be undone" in judged({"validity": 1.0, "redundancy": 0.3}, 8)
    assert judged({"validity": 0.0}, 3) == "None of the 3 rows to change have an answer that holds as it is printed."
    assert judged({"validity": 0.5, "plausible": 0.0}, 2).startswith("1 of 2 rows to change has an answer")
    assert "nothing to find" in judged({"validity": math.nan}, 0)
