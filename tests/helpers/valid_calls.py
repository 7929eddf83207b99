"""A valid call of each public function, by keyword: tests/test_bad_calls.py makes one argument of it wrong."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
from flax import nnx

import invjax
from invjax import attacks, densities, learn, models
from invjax.constraints import Feature, FeatureSpace
from invjax.data.tables.table import from_space
from invjax.types import Status

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
N, D, K = 8, 6, 3
SIDE = (8, 8, 1)


@cache
def flat() -> dict[str, Any]:
    """Rows of six numbers and a linear network; their classes are the network's own."""
    task = nets.task(nets.linear((D,), K), (D,), N)
    return {"logits": task.net, "x": task.x, "label": task.label, "target": task.target}


@cache
def pictures() -> dict[str, Any]:
    task = nets.task(nets.linear(SIDE), SIDE, N)
    return {"logits": task.net, "x": task.x, "label": task.label, "target": task.target}


@cache
def cloud() -> dict[str, Any]:
    """Points of two classes, to fit a density."""
    y = np.arange(40) % 2
    return {"x": RNG.normal(size=(40, 3)).astype(np.float32) + y[:, None].astype(np.float32), "y": y}


@cache
def density() -> Any:
    return densities.fit_kde(**cloud(), bandwidth=0.5)


@cache
def table() -> Any:
    """Two numbers and the job of sixty people, and who pays."""
    income, debt = RNG.uniform(0, 100, (2, 60))
    job = np.array(["cook", "clerk"])[np.arange(60) % 2]
    numbers = [Feature(name, lower=0, upper=100) for name in ("income", "debt")]
    space = FeatureSpace(
        [*numbers, Feature("job", "category", levels=("clerk", "cook"))], (), [50, 50, 0], [20.0, 20.0, 1.0]
    )
    columns = {"income": income, "debt": debt, "job": job}
    split = (np.arange(40), np.arange(40, 60))
    return from_space("people", columns, (income > debt).astype(int), ("no", "yes"), space, split)


@cache
def file() -> str:
    """The pictures in an npz."""
    path = Path(tempfile.mkdtemp()) / "pictures.npz"
    np.savez(path, images=pictures()["x"], labels=pictures()["label"])
    return str(path)


LAYERS = [(RNG.normal(size=(D, 4)), RNG.normal(size=4)), (RNG.normal(size=(4, K)), RNG.normal(size=K))]


@cache
def rows() -> dict[str, Any]:
    """Two rows for the exact methods and the graphs."""
    return {name: flat()[name][:2] for name in ("x", "label", "target")}


@cache
def many() -> dict[str, Any]:
    task = nets.task(flat()["logits"], (D,), 60)
    return {"train_x": task.x, "train_y": np.arange(60) % K}


def payers(weight: Any, x: Any) -> Any:
    z = weight * (x[:, 0] - x[:, 1])
    return jnp.stack([-z, z], 1)


PAYERS = invjax.LogitsModel(jnp.float32(1.0), payers)


def proba(x: Any) -> np.ndarray:
    p = 1 / (1 + np.exp(np.asarray(x)[:, 0] - np.asarray(x)[:, 1]))
    return np.stack([p, 1 - p], 1)


def predict(x: Any) -> np.ndarray:
    return np.asarray(x)[:, 0] > 0.5


@cache
def small_net() -> Any:
    return models.MLP((D, 5, K), rngs=nnx.Rngs(0))


@cache
def small_cnn() -> Any:
    return models.SmallCNN(SIDE, 4, (2, 2), 3, rngs=nnx.Rngs(0))


@cache
def resnet() -> Any:
    return models.resnet20_from_torch(nets.NARROW)


@cache
def layer() -> Any:
    return learn.last_layer(small_net(), flat()["x"])


def attempted() -> dict[str, Any]:
    """Changes of pictures, and how they ended."""
    delta = np.zeros((N, *SIDE), np.float32)
    delta[:, 2, 3] = 0.5
    return {"delta": delta, "status": np.full(N, Status.FOUND)}


def labelled() -> dict[str, Any]:
    given = flat()
    return {"x": given["x"], "y": given["label"]}


GROUPS = np.arange(N) % 2


def no_point(rows: Any, target: Any) -> Any:
    return rows


CALLS: dict[str, Any] = {
    "attacks.make": lambda: {"name": "pgd"},
    "attribution.cams": lambda: {"model": resnet(), "x": np.zeros((2, 8, 8, 3), np.float32), "label": [0, 1]},
    "attribution.grad_cams": lambda: {"model": small_cnn(), "x": pictures()["x"], "label": pictures()["label"]},
    "attribution.saliency_maps": lambda: pictures(),
    "attribution.split": lambda: {"model": small_cnn()},
    "campaign.choose": lambda: {"logits": pictures()["logits"], "source": invjax.data.open_images(file())},
    "campaign.classify": lambda: {"logits": pictures()["logits"], "images": pictures()["x"]},
    "campaign.configure": lambda: {"name": "pgd", "constants": {"steps": "3"}},
    "campaign.listed_pairs": lambda: {"label": [0, 1], "targets": [1, 2], "num_classes": 3},
    "campaign.make_pairs": lambda: {"label": [0, 1], "num_classes": 3},
    "campaign.parse_targets": lambda: {"targets": "1,2", "num_classes": 3},
    "counterfactuals.make": lambda: {"name": "s-cfe"},
    "counterfactuals.certify": lambda: {"model": LAYERS, **rows(), "result": rows()["x"]},
    "counterfactuals.face": lambda: {"model": flat()["logits"], **rows(), **many(), "neighbours": 3},
    "counterfactuals.fit_mad": lambda: {"x": cloud()["x"]},
    "counterfactuals.fit_mahalanobis": lambda: {"x": cloud()["x"]},
    "counterfactuals.frontier": lambda: flat() | {"max_changes": [1]},
    "counterfactuals.mip_counterfactuals": lambda: {"model": LAYERS, **rows()},
    "counterfactuals.pcfe": lambda: {
        "model": flat()["logits"],
        **rows(),
        **many(),
        "inner_steps": 5,
        "linearisations": 1,
    },
    "counterfactuals.milp.exact_counterfactual": lambda: {
        "layers": LAYERS,
        "x": rows()["x"][0],
        "target": int(rows()["target"][0]),
    },
    "counterfactuals.milp.lof_model": lambda: {"points": cloud()["x"]},
    "data.load_groups": lambda: {"name": "digits-spurious"},
    "data.load_images": lambda: {"source": file()},
    "data.open_images": lambda: {"source": file()},
    "data.load_tabular": lambda: {"name": "wine"},
    "densities.fit_flow": lambda: cloud() | {"steps": 1, "layers": 2, "hidden": 4},
    "densities.fit_gmm": lambda: cloud() | {"components": 2, "steps": 2, "restarts": 1},
    "densities.fit_kde": lambda: cloud(),
    "densities.fit_knn": lambda: cloud() | {"k": 3},
    "densities.fit_lof": lambda: cloud() | {"k": 3},
    "densities.fit_vae": lambda: cloud() | {"steps": 1, "hidden": 4},
    "densities.hinge": lambda: {"density": density(), **cloud()},
    "densities.quantiles": lambda: {"density": density(), **cloud()},
    "engine.antithetic": lambda: {},
    "engine.prepare": lambda: flat() | {"method": attacks.PGD(steps=1)},
    "engine.solve": lambda: flat() | {"method": attacks.PGD(steps=1)},
    "engine.trace": lambda: flat() | {"method": attacks.PGD(steps=1), "steps": 2},
    "learn.afr": lambda: {"model": small_net(), **labelled(), "max_steps": 2},
    "learn.afr_weights": lambda: {"logits": np.zeros((N, K)), "y": flat()["label"], "gamma": 1.0},
    "learn.dfr": lambda: {
        "model": small_net(),
        **labelled(),
        "groups": GROUPS,
        "key": KEY,
        "retrains": 1,
        "max_steps": 2,
    },
    "learn.draw_targets": lambda: {"policy": "other", "label": flat()["label"], "classes": K, "key": KEY},
    "learn.errors_of": lambda: {"model": flat()["logits"], **labelled()},
    "learn.evaluate": lambda: {"model": flat()["logits"], **labelled(), "groups": GROUPS},
    "learn.fit": lambda: {"model": small_net(), **labelled(), "key": KEY, "steps": 1, "batch": 4},
    "learn.group_dro": lambda: {"groups": GROUPS},
    "learn.jtt": lambda: {"net": small_net(), **labelled(), "key": KEY, "steps": 1, "batch": 4},
    "learn.last_layer": lambda: {"model": small_net(), "example": flat()["x"]},
    "learn.make_perturbed_dataset": lambda: {
        "generator": attacks.PGD(steps=1),
        "target_policy": "other",
        "logits": flat()["logits"],
        **labelled(),
    },
    "learn.penultimate": lambda: {"model": small_net(), "x": flat()["x"], "layer": layer()},
    "learn.predict": lambda: {"model": flat()["logits"], "x": flat()["x"]},
    "learn.preset": lambda: {"name": "ilyas"},
    "learn.resample": lambda: {"groups": GROUPS},
    "learn.reweight": lambda: {"groups": GROUPS},
    "learn.robust_accuracy": lambda: {"model": flat()["logits"], **labelled(), "eps": 0.1, "steps": 1},
    "learn.with_last_layer": lambda: {
        "model": small_net(),
        "layer": layer(),
        "kernel": np.zeros((5, K)),
        "bias": np.zeros(K),
    },
    "metrics.best_average_worst": lambda: {"success": np.ones((2, 2), bool), "measures": {"l2": np.ones((2, 2))}},
    "metrics.bootstrap_worst": lambda: {"correct": [1, 2], "count": [2, 2]},
    "metrics.chance_level": lambda: {},
    "metrics.changed_pixels": lambda: {"delta": attempted()["delta"]},
    "metrics.compare_counterfactuals": lambda: {
        "x": flat()["x"],
        "first": flat()["x"],
        "similar": flat()["x"],
        "second": flat()["x"],
    },
    "metrics.d20": lambda: {"delta": attempted()["delta"]},
    "metrics.density_rank": lambda: {
        "density": density(),
        "points": cloud()["x"],
        "target": cloud()["y"],
        "train": cloud()["x"],
        "classes": cloud()["y"],
    },
    "metrics.diversity": lambda: {"sets": np.zeros((2, 3, D))},
    "metrics.group_accuracies": lambda: {"correct": np.ones(N, bool), "groups": GROUPS},
    "metrics.group_counts": lambda: {"groups": GROUPS},
    "metrics.group_index": lambda: {"label": GROUPS, "attribute": GROUPS},
    "metrics.input_stability": lambda: {"explain": no_point, "x": flat()["x"], "target": 1},
    "metrics.interpretability": lambda: pictures() | attempted(),
    "metrics.l2": lambda: {"delta": attempted()["delta"]},
    "metrics.local_outlier_factor": lambda: {"points": cloud()["x"], "train": cloud()["x"]},
    "metrics.measure": lambda: attempted(),
    "metrics.measure_counterfactuals": lambda: {
        "x": cloud()["x"],
        "counterfactuals": cloud()["x"],
        "target": cloud()["y"],
        "predict": predict,
    },
    "metrics.measure_overlap": lambda: attempted() | {"maps": np.ones((N, *SIDE[:2]), np.float32)},
    "metrics.nearest_accepted_row": lambda: {
        "x": cloud()["x"],
        "target": cloud()["y"],
        "train_x": cloud()["x"],
        "train_y": cloud()["y"],
        "predict": predict,
    },
    "metrics.neighbour_agreement": lambda: {
        "points": cloud()["x"],
        "target": cloud()["y"],
        "train": cloud()["x"],
        "said": cloud()["y"],
    },
    "metrics.num_clusters": lambda: {"delta": attempted()["delta"]},
    "metrics.protected_flips": lambda: {
        "explain": no_point,
        "table": table().table,
        "target": 1,
        "space": table().space,
        "feature": "job",
    },
    "metrics.retrained_validity": lambda: {
        "counterfactuals": cloud()["x"],
        "target": cloud()["y"],
        "predicts": [predict],
    },
    "metrics.wilson_interval": lambda: {"correct": [1, 2], "count": [2, 2]},
    "models.agreement": lambda: {"model": PAYERS, "predict_proba": proba, "x": flat()["x"][:, :2]},
    "models.as_logits": lambda: {"model": small_net()},
    "models.binary": lambda: {"model": lambda x: x[:, 0]},
    "models.black_box": lambda: {"predict_proba": proba, "classes": 2},
    "models.distill": lambda: {
        "predict_proba": proba,
        "x": flat()["x"][:, :2],
        "key": KEY,
        "steps": 1,
        "hidden": (2,),
        "classes": 2,
    },
    "models.efficientnet_lite_from_torch": lambda: {},
    "models.load": lambda: {"name": "mnist_cnn"},
    "models.load_state_dict": lambda: {"path": nets.NARROW},
    "models.resnet20_from_torch": lambda: {"state": nets.NARROW},
    "models.vit_config": lambda: {"size": "s", "patch": 8},
    "models.vit_from_weights": lambda: {"name": "vit", "weights": nets.NARROW_VIT, "image": 24, "heads": 2},
    "models.with_classes": lambda: {"module": resnet(), "num_classes": 4, "rngs": nnx.Rngs(0)},
    "recourse.classifier": lambda: {"data": table(), "name": PAYERS},
    "recourse.explain_rows": lambda: {
        "data": table(),
        "model": PAYERS,
        "rows": slice(0, 2),
        "target": "yes",
        "method": "face",
        "plausibility": 0,
    },
    "recourse.freeze": lambda: {"data": table(), "names": ["debt"]},
    "recourse.make_plan": lambda: {"data": table(), "model": PAYERS, "method": "face", "plausibility": 0},
    "recourse.plausibility_of": lambda: {"data": table()},
    "report.attack_section": lambda: {
        "images": pictures()["x"],
        "labels": pictures()["label"],
        "targets": pictures()["target"][:, None],
        "results": {},
    },
    "solvers.minimize": lambda: {"fun": lambda x: jnp.sum(x * x), "x0": np.ones(2, np.float32), "max_steps": 2},
}
