"""Superpixels: labels that follow the image, on any range, and that ``solve(groups=…)`` takes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from invjax.attacks.parts.superpixels import superpixels

pytest.importorskip("skimage")


def picture(height: int = 24, width: int = 20, channels: int = 3) -> np.ndarray:
    """A dark half and a bright one, the border at column 7, with a little noise. In [0, 1]."""
    rng = np.random.default_rng(0)
    x = np.full((height, width, channels), 0.2)
    x[:, 7:] = 0.8
    return x + 0.02 * rng.normal(size=x.shape)


def connected(region: np.ndarray) -> bool:
    """Whether the True pixels hang together by their four neighbours: grown from one of them."""
    grown = np.zeros_like(region)
    grown[tuple(np.argwhere(region)[0])] = True
    while True:
        padded = np.pad(grown, 1)
        more = region & (
            padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        )
        if (more == grown).all():
            return bool((grown == region).all())
        grown = more


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_regions_follow_the_image(channels: int) -> None:
    """Labels 0 … S − 1, each used, one per pixel; regions hang together, and none crosses the border of the halves."""
    labels = superpixels(picture(channels=channels), 24)
    assert labels.shape == (24, 20, channels)
    assert labels.dtype == np.int32
    assert (labels == labels[:, :, :1]).all()
    plane = labels[:, :, 0]
    found = np.unique(plane)
    np.testing.assert_array_equal(found, np.arange(len(found)))
    assert 12 <= len(found) <= 48
    assert not set(plane[:, :7].ravel()) & set(plane[:, 7:].ravel())
    assert all(connected(plane == one) for one in found)


def test_any_range() -> None:
    """The image's own range: [0, 1], [-1, 1] and bytes give the same regions, and so does a second call."""
    x = np.clip(np.round(255 * picture()), 0, 255)
    labels = superpixels(x / 255, 24)
    for other in (x.astype(np.uint8), (x / 127.5 - 1).astype(np.float32), x / 255, 3 * x + 100):
        np.testing.assert_array_equal(superpixels(other, 24), labels)


def test_each_image_alone() -> None:
    """An image's regions do not depend on the others of the list."""
    x = np.stack([picture(), picture()[::-1], np.random.default_rng(1).uniform(size=(24, 20, 3))])
    labels = superpixels(x, 30)
    assert labels.shape == x.shape
    for image, own in zip(x, labels, strict=True):
        np.testing.assert_array_equal(superpixels(image, 30), own)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 2), (3, 2, 3), (5, 7, 1)])
def test_tiny_and_even_images(shape: tuple[int, int, int]) -> None:
    """Up to one region per pixel; an image of one colour; never a label that ``groups`` would not take."""
    for x in (np.random.default_rng(2).uniform(size=shape), np.full(shape, 7.0)):
        for segments in {1, shape[0] * shape[1]}:
            labels = superpixels(x, segments)
            assert labels.shape == shape
            assert labels.min() >= 0
            assert labels.max() < x.size


def test_bad_input() -> None:
    x = picture()
    for arguments, message in (
        ((x[0],), r"x must be images .*, was of shape \(20, 3\)"),
        ((x[:0],), r"x must be images .*, was of shape \(0, 20, 3\)"),
        ((x * 1j,), "x must be real numbers, was complex128"),
        ((x + np.inf,), "x must be finite"),
        ((x, 0), r"segments must be a whole number from 1 to 480, was 0"),
        ((x, 481), r"segments must be a whole number from 1 to 480, was 481"),
        ((x, 2.5), "segments must be a whole number from 1 to 480, was 2.5"),
        ((x, 10, 0.0), "compactness must be a number above 0, was 0.0"),
        ((x, 10, None), "compactness must be a number above 0, was None"),
    ):
        with pytest.raises(ValueError, match=message):
            superpixels(*arguments)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match=r"pip install 'invjax\[images\]'"):
        superpixels(picture())
