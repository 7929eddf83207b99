"""Densities, spaces, evaluators and meshes of another kind: one error that names the argument, before any work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax import BadArgument, metrics
from invjax.constraints import Feature, FeatureSpace
from invjax.core.logits import LogitsModel
from invjax.counterfactuals import CEM, DCFE, SCFE, FixedWeights, certify, face, frontier, pcfe
from invjax.densities import Hinge, fit_features, fit_gmm, fit_kde, fit_knn, fit_lof, hinge
from invjax.densities.released import fit_released_kde
from invjax.engine import trace


def linear(params: jax.Array, x: jax.Array) -> jax.Array:
    return x @ params


NET = LogitsModel(jnp.eye(3), linear)
X = np.array([[0.9, 0.1, 0.2], [0.2, 0.8, 0.1], [0.8, 0.3, 0.1]], np.float32)
LABEL, TARGET = np.array([0, 1, 0]), np.array([1, 2, 2])
DRAW = np.random.default_rng(0)


def fitted(fit: Callable[..., Any], width: int, classes: int = 3, **options: Any) -> Any:
    return fit(DRAW.random((90, width)).astype(np.float32), np.arange(90) % classes, **options)


class Grid:
    """No pytree, and no log_prob of one point."""

    def log_prob(self, x: Any, label: Any) -> Any:
        return x


@jax.tree_util.register_static
class Vector(Grid):
    pass


ROWS = {"train_x": DRAW.random((60, 3)).astype(np.float32), "train_y": np.arange(60) % 3}
LACKING = {"train_x": ROWS["train_x"], "train_y": np.arange(60) % 2}
SPACE = FeatureSpace([Feature(name, lower=0, upper=1) for name in "abc"])
COUNTS = [(np.eye(3), np.zeros(3))]


def solve(**given: Any) -> Any:
    return invjax.solve(NET, X, LABEL, **{"target": TARGET, "method": SCFE(tau=0.1, steps=2), **given})


CASES: dict[str, tuple[Callable[[], object], str]] = {
    "another width": (lambda: solve(density=fitted(fit_kde, 2)), r"density must take points of shape \(3,\)"),
    "knn of another width": (lambda: solve(density=fitted(fit_knn, 4)), r"density must take points of shape \(3,\)"),
    "one column": (lambda: solve(density=fitted(fit_lof, 1)), r"density must take points of shape \(3,\)"),
    "hinge of another width": (
        lambda: solve(density=Hinge(fitted(fit_gmm, 2), jnp.zeros(3))), r"density must take points of shape \(3,\)",
    ),
    "no row of the class": (
        lambda: solve(density=fitted(fit_kde, 3, 2)), "density must know the class 2, .* fitted to the classes 0 to 1",
    ),
    "gmm without the class": (lambda: solve(density=fitted(fit_gmm, 3, 2)), "density must know the class 2"),
    "features without the class": (
        lambda: solve(density=fit_features(NET, fit_knn, ROWS["train_x"], np.arange(60) % 2, k=3)),
        "density must know the class 2",
    ),
    "released without the class": (
        lambda: solve(density=fitted(fit_released_kde, 3, 2, bandwidth=1.0)), "density must know the class 2",
    ),
    "untargeted": (lambda: solve(target=None, density=fitted(fit_kde, 3, 2)), "density must know the class 2"),
    "none with tau": (lambda: solve(), "density must be given where tau > 0, was None"),
    "none for DCFE": (lambda: solve(method=DCFE()), "density must be given where tau > 0"),
    "none for fixed weights": (lambda: solve(method=FixedWeights(tau=1.0)), "density must be given where tau > 0"),
    "a number": (lambda: solve(density=3.0), "density must be a density with log_prob.*, was of type float"),
    "a name": (lambda: solve(density="kde"), "density must be a density with log_prob.*, was of type str"),
    "the function": (lambda: solve(density=fit_kde), "density must be a density with log_prob.*, was fit_kde"),
    "the class": (lambda: solve(density=Hinge), "density must be a density with log_prob.*, was Hinge"),
    "points": (lambda: solve(density=X), "density must be a density with log_prob.*, was of type ndarray"),
    "no pytree": (lambda: solve(density=Grid()), "density must be a pytree of arrays, was of type Grid"),
    "no number": (lambda: solve(density=Vector()), r"density must take .*; it gave \(3,\) instead of one number"),
    "face": (lambda: face(NET, X, LABEL, TARGET, **ROWS, density=fitted(fit_kde, 2)), "density must take points"),
    "face without rows": (
        lambda: face(NET, X, LABEL, TARGET, **LACKING), "train_y must have rows of each .*, was without any of class 2",
    ),
    "pcfe without rows": (lambda: pcfe(NET, X, LABEL, TARGET, **LACKING), "train_y must have rows of each target's"),
    "pcfe with a density": (
        lambda: pcfe(NET, X, LABEL, TARGET, gmm=fitted(fit_kde, 3), threshold=[0, 0, 0]), "gmm must be a mixture",
    ),
    "pcfe with one threshold": (
        lambda: pcfe(NET, X, LABEL, TARGET, gmm=fitted(fit_gmm, 3), threshold=0.0), r"threshold must be .* class \[3\]",
    ),
    "frontier": (lambda: frontier(NET, X, LABEL, target=TARGET, density=fitted(fit_kde, 2)), "density must take"),
    "hinge": (lambda: hinge(fitted(fit_kde, 2), X, LABEL), "density must take points"),
    "held out": (lambda: fitted(fit_kde, 2).held_out_log_prob(X, LABEL), "x must be points of 2 numbers"),
    "measures": (
        lambda: metrics.measure_counterfactuals(X, X + 1, TARGET, predict=lambda x: x, density=fitted(fit_kde, 2)),
        "density must take points",
    ),
    "a list of features": (
        lambda: solve(space=[Feature("a")], method=SCFE()), r"space must be a FeatureSpace.*list; FeatureSpace\(feat",
    ),
    "a file": (lambda: solve(space="schema.json", method=SCFE()), "space must be .* type str; FeatureSpace.from_json"),
    "face in a list": (lambda: face(NET, X, LABEL, TARGET, **ROWS, space=[1]), "space must be a FeatureSpace"),
    "certify in a file": (lambda: certify(COUNTS, X, LABEL, TARGET, X, space="s.json"), "space must be a FeatureSpace"),
    "measures in a list": (
        lambda: metrics.measure_counterfactuals(X, X, TARGET, predict=lambda x: x, space=[Feature("a")]),
        "space must be a FeatureSpace",
    ),
    "measures in the compiled form": (
        lambda: metrics.compare_counterfactuals(X, X, X, X, space=SPACE.compile()), "space must be a FeatureSpace, was",
    ),
    "flips in a file": (
        lambda: metrics.protected_flips(linear, {}, 1, space="s.json", feature="a"), "space must be a FeatureSpace",
    ),
    "evaluator by name": (lambda: solve(evaluator="white_box", method=SCFE()), "evaluator must be .*white_box"),
    "evaluator without arguments": (
        lambda: solve(evaluator=lambda: 0, method=SCFE()), "evaluator must be .*; too many positional arguments",
    ),
    "evaluator of a trace": (lambda: trace(NET, X, LABEL, method=SCFE(), steps=1, evaluator=3), "evaluator must be"),
    "mesh by name": (lambda: solve(mesh="cpu", method=SCFE()), "mesh must be a jax.sharding.Mesh"),
    "devices as a mesh": (lambda: solve(mesh=jax.devices(), method=SCFE()), "mesh must be a jax.sharding.Mesh"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(CASES))
def test_named_in_one_line(case: str) -> None:
    call, message = CASES[case]
    with pytest.raises(BadArgument, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_what_was_fine_stays_fine() -> None:
    """Methods whose constants say what they do without a density, targets that it knows, and traced densities."""
    two = fitted(fit_kde, 3, 2)
    assert solve(method=CEM(steps=2), target=np.array([1, 0, 1]), density=two).status.shape == (3,)
    assert solve(method=CEM(steps=2), target=np.array([1, 0, 1])).status.shape == (3,)
