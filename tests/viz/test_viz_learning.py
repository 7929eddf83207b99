"""Figures of learning from counterfactuals: what is drawn where, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from invjax.learn import Perturbed
from invjax.viz.learning import magnified, panels, perturbed, worst_groups

IMAGES = np.linspace(0, 1, 2 * 4 * 6 * 3).reshape(2, 4, 6, 3)


def pixels(axis: Any, layer: int = 0) -> np.ndarray:
    return np.asarray(axis.images[layer].get_array())


def test_panels() -> None:
    from matplotlib import colormaps

    maps = {"standard": np.zeros((2, 4, 6)), "p-CFE": np.full((2, 4, 6), 2.0)}
    figure = panels(IMAGES, maps, ["a", "b"], notes={"p-CFE": ["one", "two"]})
    axes = np.array(figure.axes).reshape(2, 3)
    assert [axis.get_title() for axis in axes[0]] == ["original", "standard", "p-CFE"]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["a", "b"]
    assert [axis.get_xlabel() for axis in axes[:, 2]] == ["one", "two"]
    for n in range(2):
        np.testing.assert_array_equal(pixels(axes[n, 0]), np.round(255 * IMAGES[n]).astype(np.uint8))
        for column, value in ((1, 0.0), (2, 1.0)):  # half of the image, half of the map, which is cut to [0, 1]
            blended = 0.5 * pixels(axes[n, 0]) + 0.5 * 255 * np.array(colormaps["inferno"](value)[:3])
            np.testing.assert_array_equal(pixels(axes[n, column]), np.round(blended).astype(np.uint8))
            assert len(axes[n, column].images) == 1  # no opacity, which an SVG would apply twice
    assert figure.get_size_inches()[0] > figure.get_size_inches()[1]


def test_magnified() -> None:
    """middle + factor · change, clipped, one scale for all methods."""
    up = IMAGES.copy()
    up[0, 0, 0, 0] += 0.005
    up[1, 1, 2] -= 0.5
    figure = magnified(IMAGES, {"PGD-l2": up, "none": IMAGES}, 40, titles=["a", "b"])
    axes = np.array(figure.axes).reshape(2, 3)
    assert [axis.get_title() for axis in axes[0]] == ["original", "PGD-l2", "none"]
    first = pixels(axes[0, 1])
    assert first[0, 0].tolist() == [round(255 * 0.7), 128, 128]
    assert np.all(pixels(axes[0, 2]) == 128)
    assert np.all(pixels(axes[1, 1])[1, 2] == 0)
    assert "× 40" in figure.get_supxlabel()
    wide = magnified(2 * IMAGES - 1, {"m": 2 * up - 1}, 40, bounds=(-1, 1))
    # Twice the change in a box twice as wide: the same picture, but for the last bit.
    np.testing.assert_allclose(pixels(wide.axes[1]).astype(int), first, atol=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: panels(IMAGES[0], {"m": np.zeros((4, 6))}), r"images must be \[N, H, W, C\] with N >= 1"),
        (lambda: panels(IMAGES, {}), "maps must name at least one"),
        (lambda: panels(IMAGES, {"m": np.zeros((2, 4, 5))}), r"maps\['m'\] must be of shape \(2, 4, 6\), was"),
        (lambda: panels(IMAGES, {"m": np.zeros((2, 4, 6))}, ["a"]), "titles must be 2 strings, was 1"),
        (lambda: panels(IMAGES, {"m": np.zeros((2, 4, 6))}, notes={"m": ["a"]}), r"notes\['m'\] must be 2 strings"),
        (lambda: magnified(IMAGES, {"m": IMAGES[:1]}), r"perturbed\['m'\] must be of shape \(2, 4, 6, 3\)"),
        (lambda: magnified(IMAGES, {"m": IMAGES}, 0), "factor must be above 0, was 0"),
        (lambda: worst_groups({"m": {"error": "no"}}), "records must hold at least one method"),
    ],
)
def test_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_perturbed_finds_the_rows() -> None:
    """A set that dropped rows: the picture is that of the original asked for."""
    source = np.array([1])
    made = Perturbed(IMAGES[:1], np.zeros(1, int), source, np.zeros(1, int), np.ones(1, int), np.ones(1, int), 1)
    figure = perturbed(IMAGES, {"m": made}, [1])
    np.testing.assert_array_equal(pixels(figure.axes[1]), np.round(255 * IMAGES[0]).astype(np.uint8))
    with pytest.raises(ValueError, match=r"'m' dropped \[0\]"):
        perturbed(IMAGES, {"m": made}, [0])


def test_worst_groups() -> None:
    records = {
        "erm": {"accuracy": 0.8, "accuracy_ci": [0.7, 0.9], "wga": 0.5, "wga_ci": None},
        "broken": {"error": "nothing"},
        "p-cfe": {"accuracy": 0.9, "accuracy_ci": None, "wga": 0.6, "wga_ci": [0.5, 0.7]},
    }
    (axis,) = worst_groups(records).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["erm", "p-cfe"]
    points = {line.get_label(): line.get_xdata() for line in axis.lines if line.get_marker() in ("o", "s")}
    np.testing.assert_allclose(np.asarray(points["all test images"]), [80, 90])
    np.testing.assert_allclose(np.asarray(points["worst group"]), [50, 60])
    bars = [line for line in axis.lines if line.get_marker() == "None" and len(set(line.get_ydata())) == 1]
    assert len(bars) == 2  # one of each method, where there is an interval
