"""``explain_rows(certify=True)``: proofs against what can be seen by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.constraints import Feature, FeatureSpace
from invjax.data.tables.table import from_space
from invjax.models import LogitsModel, as_logits
from invjax.models.mlp import MLP
from invjax.recourse import explain_rows
from invjax.types import Status

# z = 2a + b - 2 decides; a can be anything in [0, 1], b too, and c means nothing.
SPACE = FeatureSpace([Feature(name, lower=0, upper=1) for name in "abc"], center=[0, 0, 0], scale=[1, 1, 1])
ROWS = {"a": np.array([0.1, 0.0, 0.9]), "b": np.array([0.1, 0.9, 0.9]), "c": np.array([0.5, 0.5, 0.5])}


def model() -> LogitsModel:
    from flax import nnx

    net = MLP((3, 2), rngs=nnx.Rngs(0))
    net.dense1.kernel[...] = jnp.array([[0.0, 2.0], [0.0, 1.0], [0.0, 0.0]])
    net.dense1.bias[...] = jnp.array([0.0, -2.0])
    return as_logits(net)


def data(rows=ROWS, space=SPACE):
    draw = np.random.default_rng(0)
    table = {name: np.concatenate([rows[name], draw.uniform(size=57)]) for name in "abc"}
    label = (2 * table["a"] + table["b"] > 2).astype(int)
    return from_space("line", table, label, ("no", "yes"), space, (np.arange(3, 60), np.arange(3)))


def test_proofs():
    given = data()
    found = explain_rows(given, model(), max_changes=2, plausibility=0, certify=True, target="yes")
    first, second, third = found.people
    # a + 0.9 is enough for the first row (2 + 0.1 > 2); the second likewise; the third has the class already.
    assert third.status == Status.ALREADY_TARGET
    assert not third.proof
    for person in (first, second):
        assert person.status == Status.FOUND
        if len(person.changes) == 1:
            assert person.proof == "proved: as few changes as there can be"
        else:
            assert person.proof.startswith("enough, if it need not be plausible: a ")
        assert person.proof in found.text()
    single = explain_rows(given, model(), max_changes=1, plausibility=0, certify=True, target="yes")
    assert single.people[0].proof == "proved: as few changes as there can be"


def test_nothing_leads_there():
    space = FeatureSpace(
        [Feature("a", lower=0, upper=1, direction="none"), *SPACE.features[1:]], center=[0, 0, 0], scale=[1, 1, 1]
    )
    found = explain_rows(data(space=space), model(), [0], plausibility=0, certify=True, target="yes")
    assert found.people[0].status == Status.NOT_FOUND
    assert found.people[0].proof == "proved: no allowed change leads there"


def test_a_network_that_cannot_be_certified():
    smooth = LogitsModel(jnp.ones(()), lambda w, x: jnp.stack([0 * x[:, 0], w * jax.nn.sigmoid(x[:, 0]) - 0.6], 1))
    with pytest.raises(ValueError, match="MLP"):
        explain_rows(data(), smooth, [0, 1], plausibility=0, certify=True)
