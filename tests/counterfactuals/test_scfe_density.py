"""S-CFE and DCFE with densities: the pull, its limit without the classifier, the hinge, the gravity of neighbours."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
from test_scfe import check, solve, squares

import invjax
from invjax import Status
from invjax.counterfactuals import DCFE, SCFE
from invjax.densities import fit_gmm, fit_knn, hinge
from invjax.densities.hinge import Hinge


@cache
def cloud() -> tuple[nets.Task, np.ndarray, np.ndarray, Any]:
    """Rows, reference points [M, 2] in three blobs with their classes by a network that knows them, and a mixture."""
    rng = np.random.default_rng(4)
    centers = np.array([[-1.0, -1.0], [1.0, -0.6], [0.0, 1.1]])
    y = np.repeat(np.arange(3), 40).astype(np.int32)
    points = np.clip(centers[y] + 0.25 * rng.normal(size=(120, 2)), -1.9, 1.9).astype(np.float32)
    net = invjax.LogitsModel(
        {"w": np.float32(4 * centers.T), "b": np.float32(-2 * np.square(centers).sum(1))}, nets._linear
    )
    rows = points[::8]
    label = np.asarray(net(jnp.asarray(rows))).argmax(1).astype(np.int32)
    task = nets.Task(net, rows, label, (label + 1) % 3)
    return task, points, y, fit_gmm(points, y, components=1)


def log_prob(density: Any, x: Any, label: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(density.log_prob))(jnp.asarray(x), jnp.asarray(label)))


PULLED = SCFE(max_changes=2, steps=30)


def pulled(**constants: Any) -> SCFE:
    return dataclasses.replace(PULLED, **constants)


def test_density_pulls() -> None:
    """The answers' log density rises with τ, the distance too; all are valid."""
    task, *_, gmm = cloud()
    gmm = Hinge(gmm, jnp.full(3, 50.0, jnp.float32))  # the threshold is never reached: log p less a constant
    dense, far = [], []
    for tau in (0.0, 0.02, 0.1, 0.5):
        result = solve(task, pulled(tau=tau), density=gmm)
        assert check(task, result, 2).all()
        dense.append(log_prob(gmm, result.x, task.target).mean())
        far.append(squares(result).mean())
    assert np.all(np.diff(dense) > 0.1), dense
    assert np.all(np.diff(far) > 0), far


def test_without_the_classifier_the_mode() -> None:
    """gamma_max=0: proximity against density alone, whose minimum is known; FOUND only where it is valid as well."""
    task, *_, gmm = cloud()
    gmm = Hinge(gmm, jnp.full(3, 50.0, jnp.float32))  # the threshold is never reached: log p less a constant
    result = solve(task, pulled(gamma_max=0.0, tau=30.0, steps=120, step_size=0.02), density=gmm)
    mean = np.asarray(cloud()[3].mean)[task.target, 0] + np.asarray(cloud()[3].center)
    assert check(task, result, 2).all()
    assert np.abs(np.asarray(result.x) - mean).max() < 0.05
    nothing = solve(task, pulled(gamma_max=0.0, tau=0.0), density=gmm)  # nothing pulls: it stays, and says so
    assert (np.asarray(nothing.status) == Status.NOT_FOUND).all()
    np.testing.assert_array_equal(nothing.x, task.x)
    np.testing.assert_array_equal(nothing.attempt, task.x)


def test_hinge_density() -> None:
    """Beyond the quantile the density costs nothing: nearer answers than with the whole density, dense enough."""
    task, points, y, gmm = cloud()
    cut = hinge(gmm, points, y, 0.25)
    uncut = Hinge(gmm, jnp.full(3, 50.0, jnp.float32))
    whole, hinged = (solve(task, pulled(tau=5.0), density=density) for density in (uncut, cut))
    assert check(task, whole, 2).all()
    assert check(task, hinged, 2).all()
    assert log_prob(cut, hinged.x, task.target).min() > -0.1
    assert squares(hinged).mean() < 0.9 * squares(whole).mean()


def test_dcfe_reaches_its_targets() -> None:
    """With the gravity of neighbours: valid, and nearer to the class's points than without."""
    task, points, y, _ = cloud()
    knn = fit_knn(points, y, 8)
    with_, without = (solve(task, DCFE(tau=tau, steps=30), density=knn) for tau in (5.0, 0.0))
    assert check(task, with_, 2).all()
    assert check(task, without, 2).all()
    assert log_prob(knn, with_.x, task.target).mean() > log_prob(knn, without.x, task.target).mean() + 0.05
