"""Shares on an object, angles and tangent spaces where the answer is known; means and their intervals."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.attacks import PGD
from invjax.attribution import Split
from invjax.counterfactuals import FixedWeights
from invjax.densities import fit_knn
from invjax.learn.angle import (
    Directions,
    class_means,
    cosine,
    directions,
    measure_angles,
    other_targets,
    tangent_basis,
    tangent_share,
)
from invjax.learn.evidence import cam_evidence, mass_evidence
from invjax.metrics.mean import bootstrap_mean
from invjax.models import LogitsModel

RNG = np.random.default_rng(0)
MASK = np.zeros((3, 8, 8), bool)
MASK[:, :, 4:] = True  # the object: the right half


def test_cosines_of_known_vectors() -> None:
    a = np.array([[1.0, 0], [1, 1], [0, 0], [2, 0]])
    b = np.array([[0.0, 3], [1, 0], [1, 0], [-5, 0]])
    np.testing.assert_allclose(cosine(a, b), [0, np.sqrt(0.5), np.nan, -1], atol=1e-15)
    np.testing.assert_allclose(cosine(1e-30 * a[:1], 1e-30 * a[:1]), 1)
    with pytest.raises(ValueError, match=r"b must be of the shape of a, \(4, 2\), was of shape \(3, 2\)"):
        cosine(a, b[:3])


def test_tangent_share_on_a_plane() -> None:
    """Points of a plane in five dimensions, away from the origin: all of a direction in it, none of one across it."""
    plane = np.linalg.qr(RNG.standard_normal((5, 5)))[0].T
    points = 10 + RNG.standard_normal((60, 2)) @ plane[:2]
    basis = tangent_basis(points[:3], points, neighbours=12, dims=4)
    assert basis.shape == (3, 4, 5)
    inside, across = plane[:2].sum(0), plane[3]
    np.testing.assert_allclose(
        tangent_share(np.stack([inside, across, inside + across]), basis), [1, 0, 2 / 3], atol=1e-9
    )
    gram = np.einsum("nmd,nkd->nmk", basis, basis)
    np.testing.assert_allclose(gram, np.broadcast_to(np.diag([1.0, 1, 0, 0]), (3, 4, 4)), atol=1e-9)
    assert np.isnan(tangent_share(np.zeros((3, 5)), basis)).all()


def test_tangent_space_is_local() -> None:
    """On a circle the direction is that of the tangent at the point; a share that knows nothing is m / D."""
    turn = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    basis = tangent_basis(circle[:100:10], circle, neighbours=9, dims=1)
    tangent = np.stack([-np.sin(turn), np.cos(turn)], 1)[:100:10]
    np.testing.assert_allclose(np.abs((basis[:, 0] * tangent).sum(1)), 1, atol=1e-6)
    cloud = RNG.standard_normal((500, 10))
    noise = tangent_share(RNG.standard_normal((400, 10)), tangent_basis(cloud[:400], cloud, 50, 3))
    assert abs(noise.mean() - 0.3) < 4 * noise.std() / np.sqrt(400)
    given: dict[str, Any] = {"x": cloud[:2], "reference": cloud, "neighbours": 9, "dims": 3}
    for wrong, message in (
        ({"dims": 0}, "dims must be from 1 to 10, the coordinates, was 0"),
        ({"neighbours": 3}, "neighbours must be from 4 to 500, the reference points, was 3"),
        ({"x": cloud[:, :4]}, "reference must be points of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            tangent_basis(**(given | wrong))


def test_other_targets_are_neither() -> None:
    y = np.repeat(np.arange(4), 300)
    t = (y + np.tile([1, 2, 3], 400)) % 4
    other = other_targets(y, t, 4)
    assert np.all((other != y) & (other != t) & (other >= 0) & (other < 4))
    counts = np.bincount(other[(y == 1) & (t == 3)], minlength=4)
    assert counts[[1, 3]].sum() == 0
    assert counts[[0, 2]].min() > 25  # a fair coin, 100 times
    with pytest.raises(ValueError, match="classes must be at least 3"):
        other_targets(y % 2, 1 - y % 2, 2)
    with pytest.raises(ValueError, match="target must differ from label, was 1 at index 2"):
        other_targets([0, 1, 1], [1, 0, 1], 3)


def _linear(params: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    weights, center = params
    return (x - center) @ weights


def test_directions_of_a_linear_network() -> None:
    """Three corners of a triangle: PGD goes along the difference of the weights, the density towards the class."""
    corners = np.array([[0.3, 0.3, 0.5], [0.7, 0.3, 0.5], [0.5, 0.7, 0.5]])
    y = np.repeat(np.arange(3), 20)
    x = (corners[y] + 0.02 * RNG.standard_normal((60, 3))).astype(np.float32)
    center = corners.mean(0)
    model = LogitsModel(
        (jnp.asarray(20 * (corners - center).T, jnp.float32), jnp.asarray(center, jnp.float32)), _linear
    )
    rows, target = np.arange(0, 60, 5), (y[::5] + 1) % 3
    moves = directions(
        model, x[rows], y[rows], target,
        attack=PGD(eps=0.5, step_size=0.1, steps=12, norm="l2", stop_early=False),
        counterfactual=FixedWeights(gamma=0.2, tau=2.0, steps=12, step_size=0.1, penalty="none"),
        density=fit_knn(x, y, 5), means=class_means(x, y, 3),
    )  # fmt: skip
    assert moves.reached["adversarial"] == 1.0
    between = corners[target] - corners[y[rows]]
    assert cosine(moves.means, between).min() > 0.99
    assert cosine(moves.adversarial, between).min() > 0.8  # the third class is in its way
    assert np.abs(moves.adversarial[:, 2]).max() < 0.05  # no weight says anything of the third coordinate
    assert cosine(moves.density, between).min() > 0.97
    assert np.linalg.norm(moves.noise, axis=1).max() < 0.5 + 1e-6
    assert sorted(map(tuple, moves.shuffled)) == sorted(map(tuple, moves.plausible))
    assert not np.any(np.all(moves.shuffled == moves.plausible, axis=1))
    away = corners[other_targets(y[rows], target, 3)] - corners[y[rows]]
    assert cosine(moves.other_target, away).min() > 0.9

    angles = measure_angles(moves, tangent_basis(x[rows], x, 12, 2))
    assert angles.chance == pytest.approx(2 / 3)
    np.testing.assert_array_equal(angles.cosines["adversarial, p-CFE"], cosine(moves.adversarial, moves.plausible))
    assert angles.cosines["adversarial, p-CFE"].mean() > angles.cosines["null: p-CFE for another target"].mean() + 0.2
    for attack, message in ((PGD(norm="linf"), "attack must be in the l2 norm"), (PGD(norm="l2"), "at least 2")):
        with pytest.raises(ValueError, match=message):
            directions(
                model, x[:1], y[:1], target[:1], attack=attack, counterfactual=FixedWeights(), density=None,
                means=corners,
            )  # fmt: skip
    with pytest.raises(ValueError, match=r"y must have points of each of the 4 classes, was none of \[3\]"):
        class_means(x, y, 4)


def test_measure_angles_keeps_what_is_undefined() -> None:
    one, zero = np.ones((2, 3)), np.zeros((2, 3))
    moves = Directions(one, one, one, zero, one, one, one, {})
    angles = measure_angles(moves, np.broadcast_to(np.eye(3)[:1], (2, 1, 3)))
    assert np.isnan(angles.cosines["adversarial, density alone"]).all()
    np.testing.assert_allclose(angles.shares["p-CFE"], 1 / 3)
    assert np.isnan(angles.shares["density alone"]).all()


def _planes(params: Any, x: jax.Array) -> jax.Array:
    return x


def _sum(params: jax.Array, features: jax.Array) -> jax.Array:
    return jnp.einsum("bhwf,fk->bk", features, params)


def test_cam_on_the_object() -> None:
    """A network whose map is its input's first channel (class 0) or the second (class 1), at the image's size."""
    model = Split(jnp.eye(2), _planes, _sum)
    x = np.zeros((3, 8, 8, 2), np.float32)
    x[0, :, 6:, 0], x[1, :, :2, 0], x[2, :, :, 1] = 1.0, 1.0, 0.5
    found = cam_evidence({"net": model}, x, MASK, [0, 0, 0], batch=2)["net"]
    assert found.maps.shape == (3, 8, 8)
    assert (found.energy.mean, found.energy.n, found.undefined) == (pytest.approx(0.5), 2, 1)  # 1, 0, no map
    assert found.pointing.mean == pytest.approx(0.5)
    assert 0 < found.pointing.low < 0.5 < found.pointing.high < 1
    assert found.iou.mean == pytest.approx(0.25)  # 16 of 32 pixels, none
    assert (found.chance, found.above.mean) == (0.5, pytest.approx(0.0))
    record = found.to_dict()
    assert set(record) == {"energy", "pointing", "iou", "above", "chance", "undefined"}
    nothing = cam_evidence({"net": model}, x[2:], MASK[2:], [0])["net"].to_dict()
    assert nothing["energy"] == {"mean": None, "interval": [None, None], "n": 0}
    assert (nothing["chance"], nothing["undefined"]) == (None, 1)
    with pytest.raises(ValueError, match=r"mask must be bool of shape \(3, 8, 8\), was bool \(2, 8, 8\)"):
        cam_evidence({"net": model}, x, MASK[:2])


def test_mass_on_the_object() -> None:
    r = np.zeros((3, 8, 8, 2), np.float32)
    r[0, 2, 5], r[1, 2, 5, 0], r[1, 2, 1, 1] = 1.0, 3.0, 4.0
    found = mass_evidence({"whole": r, "some": (r[:2], [0, 2]), "none": (r[:0], [])}, MASK)
    assert found["whole"].mass.mean == pytest.approx((1 + 9 / 25) / 2)
    assert (found["whole"].mass.n, found["whole"].unmoved, found["whole"].chance) == (2, 1, 0.5)
    assert found["some"].above.mean == pytest.approx((1 + 9 / 25) / 2 - 0.5)
    assert found["none"].to_dict()["mass"]["n"] == 0
    with pytest.raises(ValueError, match=r"changes\['m'\] must be \[n, H, W, C\]"):
        mass_evidence({"m": (r, [0])}, MASK)
    with pytest.raises(ValueError, match=r"changes\['m'\] must have rows of mask, 0 to 2, was 3"):
        mass_evidence({"m": (r[:1], [3])}, MASK)


def test_bootstrap_mean() -> None:
    """The interval of one sample covers as often as it says; of several it is as wide as they scatter."""
    one = RNG.standard_normal(400)
    found = bootstrap_mean(np.append(one, np.nan))
    assert (found.mean, found.n) == (pytest.approx(one.mean()), 400)
    half = 1.96 * one.std() / 20
    assert found.low == pytest.approx(one.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(one.mean() + half, abs=0.15 * half)
    hits = sum(low <= 0 <= high for _, low, high, _ in (
        bootstrap_mean(RNG.standard_normal(50), resamples=300, seed=k) for k in range(200)
    ))  # fmt: skip
    assert 175 <= hits <= 199
    apart = bootstrap_mean([np.zeros(50), np.ones(50), np.ones(50)])
    assert (apart.low, apart.mean, apart.high) == (0.0, pytest.approx(2 / 3), 1.0)
    assert bootstrap_mean([[1.0, 3.0], [np.nan]]).mean == 2.0
    assert str(bootstrap_mean([])) == "–"
    assert bootstrap_mean([1.0]).to_dict() == {"mean": 1.0, "interval": [1.0, 1.0], "n": 1}
    refused: tuple[dict[str, Any], ...] = ({"confidence": 1.0}, {"resamples": 0})
    for wrong in refused:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            bootstrap_mean(one, **wrong)
