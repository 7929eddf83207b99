"""The figures, the PNG encoder, the page (self-contained, escaped, whole or not at all) and the attack cards."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from invjax import metrics, viz
from invjax.report import Picture, Section, attack_section, write_report
from invjax.report import page as page_module
from invjax.report.png import data_uri, encode_png
from invjax.types import UNTARGETED, Result, Status

VOID = {"meta", "link", "img", "br", "source"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str]] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.count: dict[str, int] = {}
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "img":
            self.images.append({name: value or "" for name, value in attrs})
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read_png(data: bytes) -> np.ndarray:
    image = pytest.importorskip("PIL.Image")
    return np.asarray(image.open(io.BytesIO(data)))


def results(n: int = 2, targets: int = 3, side: int = 28, channels: int = 1) -> tuple[np.ndarray, Result]:
    generator = np.random.default_rng(0)
    x = generator.random((n, side, side, channels)).astype(np.float32)
    delta = np.zeros((n, targets, side, side, channels), np.float32)
    delta[:, :, 4:7, 5:9] = 0.25
    status = np.full((n, targets), Status.FOUND, np.int32)
    return x, Result(x[:, None] + delta, delta, status, status, status, x[:, None] + delta)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (3, 2, 3), (4, 9, 4), (1, 1)])
def test_png_reads_back(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(read_png(encode_png(pixels)).reshape(shape), pixels)
    assert base64.b64decode(data_uri(encode_png(pixels)).split(",")[1]) == encode_png(pixels)


def test_a_grey_picture_is_written_as_grey() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (8, 8, 1), np.uint8)
    assert encode_png(np.repeat(grey, 3, axis=2)) == encode_png(grey)


@pytest.mark.parametrize("pixels", [np.zeros((2, 2)), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2), np.uint8)])
def test_png_refuses(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pixels must be uint8"):
        encode_png(pixels)


def test_pixels_of_images_and_perturbations() -> None:
    x = np.array([[[0.0], [1.0], [0.5], [2.0], [np.nan]]])
    np.testing.assert_array_equal(viz.picture_pixels(x)[0, :, 0], [0, 255, 128, 255, 0])
    np.testing.assert_array_equal(viz.picture_pixels(x * 10, (-10, 10))[0, :2, 1], [128, 255])
    colour = np.arange(6.0).reshape(1, 2, 3) / 5
    np.testing.assert_array_equal(viz.picture_pixels(colour)[0], np.round(colour[0] * 255))

    drawn = viz.perturbation_pixels(np.array([[[0.0], [0.5], [-0.5], [1e-9]]]))[0]
    assert drawn[0, 3] == 0  # unchanged: transparent
    assert drawn[1, 0] > drawn[1, 2]  # raised: red
    assert drawn[2, 2] > drawn[2, 0]  # lowered: blue
    assert drawn[1, 3] == drawn[2, 3] == 255
    assert 60 <= drawn[3, 3] < 255  # tiny, yet visible
    channels = viz.perturbation_pixels(np.array([[[0.2, 0.0, -0.1], [0.0, 0.0, 0.0]]]), scale=0.2)[0]
    np.testing.assert_array_equal(channels[0], [255, 128, 64, 255])
    assert channels[1, 3] == 0
    assert viz.perturbation_pixels(np.zeros((2, 2, 1))).sum(axis=(0, 1))[3] == 0
    support = viz.support_pixels(np.array([[[0.1, -0.1], [0.0, 0.0]]]))[0]  # a sum over channels would miss it
    assert (support[0, 3], support[1, 3]) == (255, 0)
    with pytest.raises(ValueError, match="x must be one image"):
        viz.picture_pixels(np.zeros((2, 2)))
    pixels = np.arange(4, dtype=np.uint8).reshape(2, 2, 1) * 80
    np.testing.assert_array_equal(viz.picture_pixels(pixels)[..., :1], pixels)  # 0 … 255 whatever the bounds
    np.testing.assert_array_equal(viz.picture_pixels(pixels, (-1, 1))[..., :1], pixels)
    with pytest.raises(ValueError, match=r"x must lie in the bounds \(0.0, 1.0\) .*, was 80 at index \(0, 1, 0\)"):
        viz.picture_pixels(pixels.astype(np.int32))


def test_grid_draws_four_rows_and_says_what_failed() -> None:
    pytest.importorskip("matplotlib")
    x, result = results(n=3, targets=1)
    result = result[:, 0]
    status = result.status.copy()
    status[1] = Status.NOT_FOUND
    figure = viz.grid(x, replace(result, status=status), titles=["a", "b", "c"])
    assert len(figure.axes) == 12
    assert [axis.get_title() for axis in figure.axes[:3]] == ["a", "b\nnot found", "c"]
    assert [figure.axes[3 * row].get_ylabel() for row in range(4)] == [
        "original",
        "adversarial",
        "perturbation",
        "mask",
    ]
    mask = np.asarray(figure.axes[9].images[0].get_array())
    assert (mask[..., 3] > 0).sum() == 12
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert read_png(buffer.getvalue()).std() > 1
    with pytest.raises(ValueError, match="result must have x and delta"):
        viz.grid(x[:2], result)
    with pytest.raises(ValueError, match="titles must be 3"):
        viz.grid(x, result, titles=["a"])


def test_trace_of_one_and_of_many_with_early_ends() -> None:
    pytest.importorskip("matplotlib")
    single = viz.trace([3, 2, 1], [1.0, 0.5, -0.1], steps=[0, 10, 20], total=784, title="one")
    np.testing.assert_array_equal(single.axes[1].lines[0].get_xdata(), [0, 10, 20])
    many = viz.trace([[1, 2, np.nan], [3, np.nan, np.nan]], [[1, -1, np.nan], [-1, np.nan, np.nan]])
    np.testing.assert_array_equal(many.axes[0].lines[-1].get_ydata(), [2, 2, np.nan])  # median of those still going
    many.savefig(io.BytesIO())
    for bad in [([1, 2], [1]), ([], []), (np.zeros((2, 2, 2)), np.zeros((2, 2, 2)))]:
        with pytest.raises(ValueError, match="margin must have the shape of support"):
            viz.trace(*bad)
    with pytest.raises(ValueError, match="steps must be"):
        viz.trace([1, 2], [1, 2], steps=[1])


def test_page_is_self_contained_and_well_formed(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    x, result = results()
    figure = viz.trace([1, 2], [1, -1])
    sections = [
        Section("One & only", "First `code`.\n\nSecond <b>.", facts={"images": 2, "seconds": 1.23456}),
        Section("Table", table=[{"a": "x", "b": 1.5}, {"a": "<y>", "b": float("nan")}], note="small"),
        Section("Pictures", figures=[Picture(x[0, ..., 0].astype(np.uint8), "tiny"), Picture(figure, width=300)]),
        attack_section(x, [1, 2], np.array([[2, 3, 4], [3, 4, 5]]), {"GSE": result}),
    ]
    path = write_report(tmp_path / "deep" / "er" / "report.html", sections, title="A <title>", footer="v`1`")
    text = path.read_text(encoding="utf-8")
    parsed = Page(text)
    for name, value in parsed.attributes:
        if name in ("src", "href"):
            assert value.startswith(("data:", "#")), value[:60]
    assert "script" not in parsed.count
    assert "url(" not in text
    assert "@import" not in text
    assert parsed.count["section"] == 4
    assert parsed.count["p"] == 2
    assert parsed.count["code"] == 2
    assert parsed.count["b"] == 2  # the labels of the two cards
    assert "Second <b>." in parsed.text  # what the text holds is text
    assert "A <title>" in parsed.text
    assert "<y>" in parsed.text
    assert "1.235" in parsed.text
    assert "–" in parsed.text  # NaN
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    assert "image-rendering: pixelated" in text


def test_small_pictures_are_enlarged_by_whole_multiples_and_read_back() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (28, 28, 3), np.uint8)
    image = Page(page_module.render([Section("s", figures=[Picture(pixels, "cap")])])).images[0]
    assert image["class"] == "pixels"
    assert int(image["width"]) % 28 == 0
    assert int(image["width"]) > 100
    assert image["alt"] == "cap"
    np.testing.assert_array_equal(read_png(base64.b64decode(image["src"].split(",")[1])), pixels)
    large = Page(page_module.render([Section("s", figures=[Picture(np.zeros((100, 300), np.uint8))])])).images[0]
    assert "class" not in large
    assert abs(int(large["width"]) - 3 * int(large["height"])) <= 2
    assert 100 < int(large["width"]) <= 300


def test_table_groups_rows_and_aligns_by_kind() -> None:
    rows = [
        {"case": "best", "attack": "GSE", "ACP": "1.0"},
        {"case": "best", "attack": "GSE (published)", "ACP": "–"},
        {"case": "worst", "attack": "GSE", "ACP": "41.2 s"},
    ]
    text = page_module.render([Section("t", table=rows, group="case")])
    assert re.findall(r'scope="rowgroup">(\w+)<', text) == ["best", "worst"]
    assert '<th scope="col" class="text">attack</th><th scope="col">ACP</th>' in text
    assert text.count('<tr class="quiet">') == 1
    Page(text)


def test_a_failed_write_leaves_the_old_report_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write_report(path, [Section("old")])
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        with pytest.raises(KeyboardInterrupt):
            write_report(path, [Section("new")])
    with pytest.raises(ValueError, match="pixels must be uint8"):
        write_report(path, [Section("new", figures=[Picture(np.zeros((2, 2)))])])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    write_report(str(path), [Section("new")])
    assert "new" in path.read_text()


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path must name a file"):
        write_report(tmp_path, [])
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"path must be a file that can be written, .*file/report.html"):
        write_report(tmp_path / "file" / "report.html", [])


def test_attack_cards_show_every_target_and_every_way_to_fail() -> None:
    x, result = results(n=3, targets=4)
    status, delta, answers = result.status.copy(), result.delta.copy(), result.x.copy()
    for n, t, state in [(0, 1, Status.NOT_FOUND), (0, 2, Status.ALREADY_TARGET), (1, 0, Status.NONFINITE)]:
        status[n, t], delta[n, t], answers[n, t] = state, 0, x[n]
    result = replace(result, status=status, delta=delta, x=answers)
    targets = (np.arange(3)[:, None] + np.arange(1, 5)) % 10
    names = [f"class<{k}>" for k in range(10)]
    rows = metrics.attack_rows({"GSE": metrics.summarize(metrics.measure(delta, status))["all_attempts"]})
    section = attack_section(
        x, np.arange(3), targets, {"GSE": result, "PGD": result}, rows, class_names=names, max_images=2, note="n"
    )
    parsed = Page(page_module.render([section]))
    drawn = 2 * ((2 + 3) * 3) + 2  # attacks × (found targets of the two images shown) × pictures, and the originals
    assert len(parsed.images) == drawn
    assert all(image["alt"] for image in parsed.images)
    for words in ("not found", "already class<3>", "network not finite", "2 of 3 targets reached", "12 px", "l2 1.73"):
        assert words in parsed.text, words
    assert "2 of 3 images shown" in parsed.text
    assert "ASR %" in parsed.text
    mask = next(i for i in parsed.images if i["alt"].endswith("mask"))
    pixels = read_png(base64.b64decode(mask["src"].split(",")[1]))
    np.testing.assert_array_equal(pixels[..., 3] > 0, delta[0, 0].any(-1))


def test_attack_section_of_colour_images_untargeted_all_failed_and_empty() -> None:
    x, result = results(n=1, targets=1, side=32, channels=3)
    section = attack_section(x, [3], [[UNTARGETED]], {"PGD": result})
    assert "→ any" in Page(page_module.render([section])).text
    data = attack_section(x, [3], [[UNTARGETED]], {"PGD": result}, unit="data")
    assert "l2 3.00" in Page(page_module.render([section])).text
    assert "l2 1.50" in Page(page_module.render([data])).text
    failed = replace(result, status=np.full((1, 1), Status.NOT_FOUND), delta=result.delta * 0)
    parsed = Page(page_module.render([attack_section(x, [3], [[5]], {"PGD": failed})]))
    assert len(parsed.images) == 1  # the original alone
    assert "mask" not in parsed.text.replace("(mask)", "")
    empty = attack_section(x[:0], np.zeros(0, int), np.zeros((0, 1), int), {})
    assert empty.markup == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((2, 28, 28))}, r"images must be \[n, H, W, C\]"),
        ({"labels": [1]}, "labels must be"),
        ({"targets": np.zeros((3, 3), int)}, "targets must be"),
        ({"targets": np.zeros((2, 2), int)}, r"results\['GSE'\].delta must be"),
    ],
)
def test_attack_section_refuses(change: dict[str, object], message: str) -> None:
    x, result = results()
    good = {"images": x, "labels": [1, 2], "targets": np.zeros((2, 3), int), "results": {"GSE": result}}
    with pytest.raises(ValueError, match=message):
        attack_section(**{**good, **change})


def test_nothing_loads_matplotlib_before_the_first_figure_and_its_absence_names_the_extra() -> None:
    code = (
        "import sys; import invjax.viz, invjax.report, invjax.metrics\n"
        "assert not {'matplotlib', 'flax', 'sklearn', 'PIL'} & set(sys.modules)\n"
        "sys.modules['matplotlib'] = None\n"
        "try: invjax.viz.trace([1], [1])\n"
        "except ImportError as e: assert \"pip install 'invjax[demo]'\" in str(e)\n"
        "else: raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parent.parent.parent)
