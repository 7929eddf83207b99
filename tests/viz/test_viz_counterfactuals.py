"""Figures of counterfactuals: what is drawn where, and which arguments they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from invjax import viz
from invjax.types import Result, Status

pytest.importorskip("matplotlib", reason="figures need matplotlib (extra demo)")


def _answers(x, delta, status):
    counts = np.zeros(len(x), np.int32)
    return Result(x + delta, delta, np.asarray(status, np.int32), counts, counts, x + delta)


def _drawn(axis):
    """The pixels of the one image in a panel."""
    (image,) = axis.get_images()
    return np.asarray(image.get_array())


def test_ways_draws_answers_and_changes():
    x = np.full((2, 4, 5, 1), 0.5)
    raised, nothing = np.zeros_like(x), np.zeros_like(x)
    raised[0, 1, 2], raised[1, 3, 4] = 0.5, -0.25
    results = {
        "first": _answers(x, raised, [Status.FOUND, Status.FOUND]),
        "second": _answers(x, nothing, [Status.FOUND, Status.NOT_FOUND]),
    }
    figure = viz.ways(x, results, titles=["a", "b"])
    axes = np.array(figure.axes).reshape(5, 2)
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["original", "first", "its change", "second", "its change"]
    assert [axis.get_title() for axis in axes[0]] == ["a", "b"]
    np.testing.assert_array_equal(_drawn(axes[0, 0])[..., 0], 128)
    np.testing.assert_array_equal(_drawn(axes[1, 0])[1, 2], [255, 255, 255])
    assert (_drawn(axes[2, 0])[..., 3] > 0).sum() == (_drawn(axes[2, 1])[..., 3] > 0).sum() == 1
    # One scale for all: half the change is drawn fainter.
    assert _drawn(axes[2, 0])[1, 2, 3] > _drawn(axes[2, 1])[3, 4, 3] > 0
    assert not _drawn(axes[4, 0])[..., 3].any()
    said = [[text.get_text() for text in axis.texts] for axis in axes[4]]
    assert said == [[], ["not found"]]
    figure.canvas.draw()


def test_ways_refuses():
    x = np.zeros((2, 4, 4, 1))
    good = _answers(x, x, [1, 1])
    for arguments, options, message in (
        ((x[0], {"a": good}), {}, r"originals must be \[N, H, W, C\]"),
        ((x, {}), {}, "results must name at least one way"),
        ((x[:1], {"a": good}), {}, r"results\['a'\] must have x and delta of shape \(1, 4, 4, 1\)"),
        ((x, {"a": good}), {"titles": ["one"]}, "titles must be 2 strings, was 1"),
    ):
        with pytest.raises(ValueError, match=message):
            viz.ways(*arguments, **options)


def _plane(**options):
    generator = np.random.default_rng(0)
    points = np.concatenate([generator.normal(-2, 0.5, (30, 2)), generator.normal(2, 0.5, (30, 2))])
    label = np.repeat([0, 1], 30)
    x = points[:4]
    answers = {"near": x * 0.0, "far": np.where(np.arange(4)[:, None] == 3, np.nan, 2.0) * np.ones((4, 2))}
    return points, label, x, answers, {"margin": lambda p: p.sum(1), **options}


def test_plane_draws_boundary_arrows_and_dense_region():
    points, label, x, answers, options = _plane(
        log_prob=lambda p: -0.5 * np.square(p - 2).sum(1), level=-1.0, names=("u", "v"), class_names=("no", "yes")
    )
    figure = viz.plane(points, label, x, answers, **options)
    near, far = figure.axes
    assert (near.get_title(), far.get_title()) == ("near", "far")
    assert (near.get_xlabel(), near.get_ylabel(), far.get_ylabel()) == ("u", "v", "")
    assert [text.get_text() for text in near.get_legend().get_texts()] == ["no", "yes", "counterfactual"]
    assert len(near.texts) == 4  # an arrow each
    assert len(far.texts) == 3  # none where there is no answer
    shades, dense, boundary = near.collections[:3]
    assert len(shades.get_facecolor()) == 4
    # The boundary lies where the margin is 0, and is dashed; the dense region is a circle of radius √2 around (2, 2).
    line = np.concatenate([path.vertices for path in boundary.get_paths()])
    np.testing.assert_allclose(line.sum(1), 0, atol=1e-6)
    assert boundary.get_linestyle()[0][1] is not None
    assert dense.get_linestyle()[0][1] is None
    ring = np.concatenate([path.vertices for path in dense.get_paths()])
    np.testing.assert_allclose(np.linalg.norm(ring - 2, axis=1), np.sqrt(2), atol=0.01)
    figure.canvas.draw()


def test_plane_without_density_or_boundary_in_sight():
    points, label, x, answers, options = _plane(margin=lambda p: np.ones(len(p)))
    figure = viz.plane(points, label, x, answers, **options)
    assert len(figure.axes[0].collections) == 3  # the two classes and the answers
    figure.canvas.draw()


def test_plane_refuses():
    points, label, x, answers, options = _plane()
    for arguments, message in (
        ((points, label, x, {}), "answers must name at least one way"),
        ((points, label[:3], x, answers), r"points must be \[M, 2\], with classes \[M\]"),
        ((points[:, :1], label, x, answers), "points must be"),
        ((points, label, x[:3], answers), r"answers\['near'\] must be of shape \(3, 2\), was of shape \(4, 2\)"),
        ((points, label, x[:, :1], answers), r"x must be of shape \(4, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            viz.plane(*arguments, **options)


def test_sparsity_draws_median_and_shares():
    values = np.array([[3.0, 2.0, 1.0], [np.nan, 4.0, 3.0], [np.nan, np.nan, 2.0]])
    figure = viz.sparsity([1, 2, 3], values, ylabel="l2", title="path")
    (axis,) = figure.axes
    np.testing.assert_array_equal(axis.lines[-1].get_ydata(), [3.0, 3.0, 2.0])
    assert [text.get_text() for text in axis.texts] == ["33 %", "67 %", "100 %"]
    assert axis.get_ylabel() == "l2"
    assert figure.get_suptitle() == "path"
    figure.canvas.draw()
    for bad in (([1, 2], values), ([[1, 2, 3]], values), ([1, 2, 3], values[0]), ([], np.zeros((2, 0)))):
        with pytest.raises(ValueError, match="values must be"):
            viz.sparsity(*bad)
