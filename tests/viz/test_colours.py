"""Every figure of invjax.viz goes by the palette, on a light page and on a dark one, and has no small text."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.text import Text

from invjax import viz
from invjax.learn import Perturbed
from invjax.report.drawings import drawing
from invjax.types import Result, Status
from invjax.viz import palette, sheets

X = np.random.default_rng(0).random((2, 6, 6, 1)).astype(np.float32)
DELTA = np.where(X > 0.5, 0.25, 0.0).astype(np.float32) * np.array([1, 0])[:, None, None, None]  # the second: not found
STATUS = np.array([Status.FOUND, Status.NOT_FOUND], np.int32)
RESULT = Result(X + DELTA, DELTA, STATUS, STATUS * 0, STATUS * 0, X + DELTA)
POINTS = np.random.default_rng(1).normal(size=(20, 2))
RECORD = {"accuracy": 0.8, "accuracy_ci": (0.7, 0.9), "wga": 0.5, "wga_ci": (0.4, 0.6)}
MOVED = Perturbed(X, np.zeros(2, int), np.arange(2), np.zeros(2, int), np.ones(2, int), np.ones(2, int), 1)

FIGURES: dict[str, Callable[[], Any]] = {
    "comparison": lambda: viz.comparison(X, {"one": DELTA}, titles=["a", "b"], maps=X[..., 0]),
    "grid": lambda: viz.grid(X, RESULT, titles=["a", "b"]),
    "magnified": lambda: viz.magnified(X, {"m": X + DELTA}),
    "panels": lambda: viz.panels(X, {"m": X[..., 0]}, notes={"m": ["a", "b"]}),
    "perturbed": lambda: viz.perturbed(X, {"m": MOVED}, [0, 1]),
    "plane": lambda: viz.plane(
        POINTS, np.arange(20) % 2, POINTS[:3], {"way": POINTS[3:6]}, margin=lambda p: p.sum(1),
        log_prob=lambda p: -np.square(p).sum(1), level=-1.0, names=("u", "v"),
    ),
    "score_curves": lambda: viz.score_curves({k: [0.7, 0.6] for k in "abcdefgh"}, [50, 60], [0.7, 0.6], {"a": [1, 0]}),
    "show": lambda: viz.show(RESULT),
    "sparsity": lambda: viz.sparsity([1, 2], [[2.0, 1.0], [np.nan, 1.5]], title="t"),
    "trace": lambda: viz.trace([[3, 2], [2, 1]], [[1.0, -0.5], [0.5, -0.1]], total=784, title="t"),
    "ways": lambda: viz.ways(X, {"one": RESULT}, titles=["a", "b"]),
    "worst_groups": lambda: viz.worst_groups({"erm": RECORD, "p-cfe": RECORD}),
}  # fmt: skip


def test_all_are_here() -> None:
    assert set(FIGURES) == {name for name in viz.__all__ if not name.endswith("_pixels")}


@pytest.mark.parametrize("name", FIGURES)
def test_colours_and_sizes(name: str) -> None:
    figure = FIGURES[name]()
    made = drawing(figure)
    tones = {*palette.PAGE_TONES.values(), *palette.SERIES, palette.LEVEL, *palette.SHADES}
    for source, mode in ((made.light, "light"), (made.dark, "dark")):
        assert source is not None
        svg = base64.b64decode(source.split(",")[1]).decode()
        used = set(re.findall(r"#[0-9a-f]{6}\b", svg))
        assert used
        assert used <= {getattr(tone, mode) for tone in tones}
    words = [text for text in figure.findobj(Text) if text.get_text()]
    assert min(text.get_fontsize() for text in words) >= sheets.SMALL
