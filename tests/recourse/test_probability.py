"""One meaning of "there": the method, the judge, the status and the measures ask for the same probability."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from invjax import LogitsModel, Status
from invjax.constraints import Feature, FeatureSpace
from invjax.data import from_space
from invjax.recourse import explain_rows

MODEL = LogitsModel(jnp.asarray([[2.0, -1.0, 0.0], [0.0, 1.0, -2.0]]), lambda w, x: x @ w)
SPACE = FeatureSpace([Feature("a", lower=-1.0, upper=1.0), Feature("b", lower=-1.0, upper=1.0)])


def shares(table):
    """[N] softmax probability of class 2, in float64."""
    z = np.stack([table["a"], table["b"]], 1) @ np.asarray(MODEL.params, float)
    return np.exp(z[:, 2]) / np.exp(z).sum(1), z.argmax(1)


@pytest.fixture(scope="module")
def three():
    draw = np.random.default_rng(0)
    table = {name: draw.uniform(-1, 1, 200) for name in SPACE.names}
    return from_space("three", table, shares(table)[1], ("0", "1", "2"), SPACE, (np.arange(140), np.arange(140, 200)))


@pytest.mark.parametrize("method", ["s-cfe", "face", "dice-genetic"])
def test_one_meaning_of_there(three, method):
    rows, found = np.arange(140, 172), {}
    for p in (0.35, None, 0.6):
        got = explain_rows(three, MODEL, rows, target="2", method=method, probability=p, plausibility=0.0)
        before, said = shares(got.factual)
        after, now = shares(got.table)
        status = np.array([person.status for person in got.people])
        there = said == 2 if p is None else before >= p
        assert ((status == Status.ALREADY_TARGET) == there).all()
        answered = status == Status.FOUND
        assert (now[answered] == 2).all() if p is None else (after[answered] >= p - 1e-5).all()
        assert got.summary["validity"] == pytest.approx(answered.sum() / (~there).sum())
        assert got.summary["validity"] > (0.9 if method == "s-cfe" else 0.3)
        assert ("probability" in got.settings) == (p is not None)
        found[p] = answered | there
    # A smaller probability is never harder. Below 1/2 an answer need not win.
    assert found[0.35].sum() >= found[None].sum() >= found[0.6].sum()
    if method == "s-cfe":
        assert found[0.35].all()


def test_refused(three):
    for words, options in {
        "probability must be None or in \\(0, 1\\), was 1": {"probability": 1},
        "probability must be left out for the method 'pcfe'": {"probability": 0.4, "method": "pcfe"},
        "certify must be left out with this probability": {"probability": 0.4, "certify": True},
    }.items():
        with pytest.raises(ValueError, match=words):
            explain_rows(three, MODEL, [0], **options)
