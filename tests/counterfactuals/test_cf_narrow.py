"""Tables of one, two and three features of every kind: no method has a shape that only wider tables fit."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax import LogitsModel, Status, engine
from invjax.constraints import Feature, FeatureSpace
from invjax.counterfactuals import REGISTRY, certify, face, make, pcfe
from invjax.densities import GMM, fit_kde

KINDS: dict[str, dict[str, Any]] = {
    "number": {"lower": -3.0, "upper": 3.0},
    "whole": {"kind": "integer", "lower": -3, "upper": 3},
    "rising": {"kind": "integer", "lower": -3, "upper": 3, "direction": "up"},
    "fixed": {"lower": -3.0, "upper": 3.0, "direction": "none"},
    "order": {"kind": "ordinal", "levels": (0, 1, 2)},
    "one": {"kind": "category", "levels": ("p",)},
    "two": {"kind": "category", "levels": ("p", "q")},
}
# Few of them: a layout with other widths, grids or categories is traced anew.
SPACES = (
    ("number",), ("whole",), ("rising",), ("order",), ("two",), ("number", "whole"), ("whole", "whole"),
    ("fixed", "whole"), ("number", "order"), ("one", "rising"), ("one", "number", "two"),
)  # fmt: skip
every = pytest.mark.parametrize("kinds", SPACES, ids="-".join)


def space_of(kinds: tuple[str, ...]) -> FeatureSpace:
    return FeatureSpace([Feature(f"{kind}{i}", **KINDS[kind]) for i, kind in enumerate(kinds)])


def rows(kinds: tuple[str, ...], count: int = 8) -> tuple[FeatureSpace, np.ndarray, LogitsModel, np.ndarray]:
    """A space, rows in it, a linear model whose two classes meet between them, and the rows' classes."""
    space, draw = space_of(kinds), np.random.default_rng(0)
    table = {
        f.name: np.array(f.levels)[draw.integers(0, len(f.levels), count)]
        if f.levelled
        else draw.integers(-3, 4, count).astype(float)
        for f in space.features
    }
    x = space.encode(table)
    slope = np.where(np.arange(space.width) % 2, 1.4, 1.3).astype(np.float32)
    middle = np.float32(np.median(x @ slope) + 0.05)
    model = LogitsModel({"w": jnp.asarray(slope), "b": middle}, line)
    return space, x, model, (x @ slope > middle).astype(np.int32)


def line(params: Any, x: Any) -> Any:
    z = x @ params["w"] - params["b"]
    return jnp.stack([-z / 2, z / 2], 1)


@every
def test_every_method_takes_it(kinds):
    """Traced, not run: what fails in a narrow table is a shape."""
    space, x, model, label = rows(kinds)
    for name in REGISTRY:
        plain = {"tau": 0.0} if name == "dcfe" else {}  # else it wants a density
        made = engine.prepare(model, x, label, method=make(name, **plain), target=1 - label, space=space)
        run = partial(engine.run_batch, method=made.method)
        assert jax.eval_shape(run, *made.batch()).x.shape[-1] == space.width, name


def test_plain_functions_and_an_answer_for_everybody():
    """Whole numbers on one axis: the step beyond the boundary is an answer, however near the boundary x is."""
    space, x, model, label = rows(("whole",))
    result = invjax.solve(model, x, label, target=1 - label, method=make("s-cfe"), space=space, progress=False)
    assert (np.asarray(result.status) == Status.FOUND).all()
    assert (np.abs(np.asarray(result.delta)) >= 1).all()
    layers = [(np.array([[-0.65, 0.65]]), np.array([model.params["b"] / 2, -model.params["b"] / 2]))]
    proof = certify(layers, x, label, 1 - label, result, space=space)
    assert (proof.status == "optimal").all()
    space, x, model, label = rows(("fixed", "whole"))
    mean = jnp.zeros((2, 1, space.width), jnp.float32)
    gmm = GMM(jnp.zeros((2, 1)), mean, 0.2 * jnp.eye(space.width)[None, None] + 0 * mean[..., None], mean[0, 0])
    ellipsoid = pcfe(model, x, label, 1 - label, gmm=gmm, threshold=np.full(2, -9.0), space=space, inner_steps=50)
    assert (np.asarray(ellipsoid.status) == Status.FOUND).any()
    known = face(model, x, label, 1 - label, train_x=x, train_y=label, density=fit_kde(x, label, 1.0), space=space)
    assert np.isin(known.result.status, [Status.FOUND, Status.NOT_FOUND]).all()
