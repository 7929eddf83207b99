"""What a notebook or a debugger shows of an object: one line that says what it is and how large, never its numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import invjax
from invjax import attacks, counterfactuals, densities, models, penalties
from invjax.constraints import Feature, FeatureSpace
from invjax.core.identity import digest, digest_of_structure
from invjax.core.logits import titled
from invjax.core.shown import short_repr, shown
from invjax.data import group_data
from invjax.data.images.source import ImageData
from invjax.densities.gmm import GMM
from invjax.learn import Trained
from invjax.metrics import Attempts
from invjax.models.blocks import ConvBN

pytestmark = pytest.mark.fast
ROWS, LABEL = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32), np.arange(60) % 2
SPACE = FeatureSpace([Feature("age", "integer", lower=0, upper=99), Feature("job", "category", levels=("a", "b"))])


class Forest:
    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return np.full((len(x), 2), 0.5)


def mlp() -> models.MLP:
    return models.MLP((3, 8, 2), rngs=nnx.Rngs(0))


def linear(x: jax.Array) -> jax.Array:
    return x


KDE = densities.fit_kde(ROWS, LABEL)
ATTEMPTS = Attempts(*(np.ones((2, 3), bool), np.zeros((2, 3), bool)), *(np.ones((2, 3)) for _ in range(4)))
SHOWN: dict[str, Any] = {
    "LogitsModel(mnist_cnn, 28x28x1 -> 10 classes, normalised, 114,314 parameters)": models.mnist_cnn(),
    "LogitsModel(MLP, 50 parameters)": models.as_logits(mlp()),
    "LogitsModel(MLP, normalised, 50 parameters)": models.as_logits(mlp(), 0.5, 0.5),
    "LogitsModel(linear)": models.as_logits(linear),
    "LogitsModel(binary linear)": models.binary(linear),
    "LogitsModel(black box Forest -> 2 classes)": models.black_box(Forest().predict_proba, 2),
    "MLP(3 -> 2 classes, 50 parameters)": mlp(),
    "Normalised(MLP(3 -> 2 classes, 50 parameters))": models.Normalised(mlp(), 0.5, 0.5),
    "SmallCNN(HxWx1 -> 10 classes, 114,314 parameters)": models.SmallCNN(rngs=nnx.Rngs(0)),
    "ViT(8x8x1 -> 3 classes, 819 parameters)": models.ViT(
        models.ViTConfig(patch=4, image=(8, 8), channels=1, width=8, depth=1, heads=2, hidden=16), 3, rngs=nnx.Rngs(0)
    ),
    "ConvBN(3 -> 4 channels, 116 parameters)": ConvBN(3, 4, rngs=nnx.Rngs(0)),
    "KDE(60 points of 3 features in 2 classes)": KDE,
    "KNN(k=5: 60 points of 3 features in 2 classes)": densities.fit_knn(ROWS, LABEL, 5),
    "Hinge(KDE(60 points of 3 features in 2 classes))": densities.Hinge(KDE, jnp.zeros(2)),
    "GMM(4 components in each of 2 classes, 3 features)": GMM(
        jnp.zeros((2, 4)), jnp.zeros((2, 4, 3)), jnp.zeros((2, 4, 3)), jnp.zeros(3)
    ),
    "FeatureSpace(2 features, 0 relations, 3 columns)": SPACE,
    "Constraints(2 features in 3 columns)": SPACE.compile(),
    "Feature(name='job', kind='category', levels=('a', 'b'))": SPACE.features[1],
    "ImageData(9 images 4x4x1 in [0.0, 1.0], 2 classes)": ImageData(
        np.zeros((9, 4, 4, 1), np.float32), None, invjax.Bounds(0.0, 1.0), ("cat", "dog")
    ),
    "GroupData('birds': 2 examples; 4 groups; train 1/0/0/1)": group_data(
        "birds", np.zeros((2, 4, 4, 1), np.uint8), [0, 1], [0, 1], [0, 0], ["a", "b"], ["c", "d"]
    ),
    "GSE()": attacks.GSE(),
    "PGD(eps=0.3, norm='l2')": attacks.PGD(eps=0.3, norm="l2"),
    "PGD(eps=float32[3])": attacks.PGD(eps=jnp.ones(3)),  # type: ignore[arg-type]
    "SCFE(tau=2.0)": counterfactuals.SCFE(tau=2.0),
    "Method('pgd')": attacks.PGD.method,
    "MadL1(mad=float64[3])": counterfactuals.MadL1(np.ones(3)),
    "Penalty(weight=2.0, kind=l1)": penalties.l1(2.0),
    "Attempts(2x3: 6 of 6 reached the target)": ATTEMPTS,
    "Trained(model=MLP, history=[9 entries])": Trained(mlp(), [{"step": 0, "loss": 0.5}] * 9),
}


@pytest.mark.parametrize("text", SHOWN)
def test_one_line(text: str) -> None:
    assert repr(SHOWN[text]) == text


def test_traced_arrays_show_their_shape() -> None:
    said = []

    @jax.jit
    def look(config: Any, density: Any, model: Any) -> Any:
        said.extend(map(repr, (config, density, model, model.params)))
        return model(jnp.zeros((1, 3)))

    look(attacks.PGD(eps=0.3), KDE, titled(models.as_logits(mlp()), "tiny, 3 -> 2 classes"))
    assert said[0].startswith("PGD(eps=float32[], ")
    assert said[1] == "KDE(60 points of 3 features in 2 classes)"
    assert said[2] == "LogitsModel(tiny, 3 -> 2 classes, 50 parameters)"
    assert "KDE(" in repr(jax.tree.map(lambda leaf: None, KDE))  # leaves that are no arrays


def test_a_title_is_no_part_of_what_a_model_is() -> None:
    plain = models.as_logits(mlp(), 0.5, 0.5)
    named = titled(plain, "tiny")
    assert repr(named) == "LogitsModel(tiny, normalised, 50 parameters)"
    assert jax.tree.structure(named) == jax.tree.structure(plain)
    assert hash(named.apply) == hash(plain.apply)
    assert digest_of_structure(named) == digest_of_structure(plain)
    assert digest(named.apply) == digest(plain.apply)


def test_values_in_few_characters() -> None:
    for value, text in (
        (np.float32(0.5), "0.5"),
        (jnp.float32(0.5), "0.5"),
        (jnp.int32(3), "3"),
        (jax.random.key(0), "key<fry>[]"),
        (np.zeros((2, 3)), "float64[2, 3]"),
        ({"a": np.zeros(3)}, "{'a': float64[3]}"),
        (list(range(9)), "[9 entries]"),
        ((1,), "(1,)"),
        (linear, "linear"),
        ("x" * 500, "'" + "x" * 68 + "…"),
        (attacks.PGD, "PGD"),
    ):
        assert shown(value) == text


def test_the_whole_of_a_module_is_in_what_flax_shows() -> None:
    assert hasattr(mlp(), "__treescope_repr__")  # of which ``nnx.display`` makes its tree


def test_a_default_that_is_made_anew() -> None:
    @dataclasses.dataclass
    class Box:
        entries: list[int] = dataclasses.field(default_factory=list)
        size: int = 3
        secret: str = dataclasses.field(default="x", repr=False)

        __repr__ = short_repr

    assert repr(Box()) == "Box()"
    assert repr(Box([1], 4)) == "Box(entries=[1], size=4)"
