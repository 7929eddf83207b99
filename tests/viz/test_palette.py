"""The palette: contrasts on the light and on the dark page, in grey, and for eyes that lack a kind of cone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from invjax.viz import palette
from invjax.viz.palette import Tone

pytestmark = pytest.mark.fast

MODES = ("light", "dark")
BEHIND = {"page": palette.PAGE, "card": palette.CARD, "well": palette.WELL, "cell": palette.CELL}

# What eyes without red, or without green, cones see of linear RGB (Viénot, Brettel and Mollon, 1999).
DICHROMATS = {
    "protan": np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    "deutan": np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
}


def linear(colour: str | tuple[int, int, int]) -> np.ndarray:
    """Linear RGB in [0, 1] of "#rrggbb" or of pixel values."""
    values = [int(colour[i : i + 2], 16) for i in (1, 3, 5)] if isinstance(colour, str) else colour
    share = np.asarray(values) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def luminance(colour: str | tuple[int, int, int]) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def contrast(a: str | tuple[int, int, int], b: str | tuple[int, int, int]) -> float:
    """WCAG's ratio, 1 to 21."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of linear RGB."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.clip(np.asarray(to_xyz) @ rgb, 0, None) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("mode", MODES)
def test_text_and_marks_stand_out(mode: str) -> None:
    def of(tone: Tone) -> str:
        return getattr(tone, mode)

    for name, behind in BEHIND.items():
        for tone in (palette.INK, palette.SOFT, palette.LINK):
            assert contrast(of(tone), of(behind)) >= 4.5, (name, tone)
    for tone in (*palette.SERIES, palette.LEVEL):
        assert contrast(of(tone), of(palette.CARD)) >= 3, tone
    for shade in palette.SHADES:  # what is drawn over a density
        assert contrast(of(palette.INK), of(shade)) >= 4.5
        for tone in (palette.BLUE, palette.AMBER, palette.LEVEL, palette.SOFT):
            assert contrast(of(tone), of(shade)) >= 2.95, (tone, shade)
    for colour in (palette.RAISED, palette.LOWERED, palette.SUPPORT):
        assert contrast(colour, of(palette.CELL)) >= 3, colour


@pytest.mark.parametrize("mode", MODES)
def test_what_differs_in_meaning_differs_in_grey(mode: str) -> None:
    blue, amber = getattr(palette.BLUE, mode), getattr(palette.AMBER, mode)
    assert luminance(amber) > luminance(blue)
    assert contrast(blue, amber) >= 1.5
    assert luminance(palette.RAISED) > luminance(palette.LOWERED)  # higher is lighter
    assert contrast(palette.RAISED, palette.LOWERED) >= 1.5
    shades = [luminance(getattr(shade, mode)) for shade in (palette.CARD, *palette.SHADES)]
    steps = np.diff(shades)  # a density gets ever darker on white, and ever lighter on black
    assert (steps < 0).all() if mode == "light" else (steps > 0).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("eyes", DICHROMATS)
def test_the_colour_blind_tell_them_apart(eyes: str, mode: str) -> None:
    def seen(colour: str | tuple[int, int, int]) -> np.ndarray:
        return lab(DICHROMATS[eyes] @ linear(colour))

    def apart(colours: list[str | tuple[int, int, int]]) -> float:
        return min(float(np.linalg.norm(seen(a) - seen(b))) for a, b in itertools.combinations(colours, 2))

    assert apart([getattr(tone, mode) for tone in (palette.BLUE, palette.AMBER)]) > 40
    assert apart([palette.RAISED, palette.LOWERED]) > 40
    assert apart([palette.RAISED, palette.LOWERED, palette.SUPPORT]) > 20
    assert apart([getattr(tone, mode) for tone in palette.SERIES]) > 5  # each has a mark of its own as well


def test_every_colour_has_one_partner() -> None:
    """``darkened`` goes by the colour: no two meanings may share one on the light page, unless also on the dark one."""
    tones = {*palette.PAGE_TONES.values(), *palette.SERIES, palette.LEVEL, *palette.SHADES}
    assert len({tone.light for tone in tones}) == len(tones)
    assert palette.darkened("fill: #ffffff; stroke: #123456") == f"fill: {palette.CARD.dark}; stroke: #123456"
