"""The data sets of the ``learn`` benchmark: which examples, which network, how long, and the generators' constants.

Constants are data units ([0, 1] pixels). None of them was tuned on test groups; where a value was chosen by looking, it
was at how many examples reach their target.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from invjax.core.errors import BadArgument, Words
from invjax.data.grouped.digits_spurious import digits_spurious
from invjax.data.grouped.group_data import GroupData
from invjax.data.grouped.spuco_mnist import spuco_mnist
from invjax.data.grouped.synthbirds import synthbirds
from invjax.data.grouped.waterbirds import waterbirds
from invjax.densities import fit_features, fit_gmm, fit_knn, fit_vae
from invjax.learn import Optimiser, feature_network, last_layer
from invjax.models import MLP, ResNet20, SmallCNN, as_logits, with_classes

NAMES = ("digits-spurious", "spuco-mnist", "synthbirds", "waterbirds")
MODELS = ("resnet20", "efficientnet_lite0", "resnet50")  # of waterbirds
NEAREST = 5  # points that pull, in the density gravity
FEW = ("erm", "pgd-l2", "pgd-linf", "cfe-l2", "p-cfe", "dfr", "groupdro")  # where a network of ImageNet's size learns


class Moves(NamedTuple):
    """Constants of the generators."""

    eps_l2: float  # radius of PGD-l2
    eps_linf: float  # of PGD-linf
    gamma: float  # γ, weight of the classifier's loss in CFE-l2 and p-CFE
    tau: float  # τ, weight of the log density
    beta: float  # β of the l0 penalty
    gammas: tuple[float, ...]  # of the grid
    taus: tuple[float, ...]
    iterations: int = 40  # gradients per example


@dataclass(frozen=True)
class Task:
    """One data set with its protocol."""

    name: str
    load: Callable[[int], GroupData]  # by seed
    build: Callable[[jax.Array, GroupData], nnx.Module]  # a network that has not seen the data, by key
    steps: int  # of every training
    batch: int
    optimiser: Optimiser
    moves: Moves
    density: str  # one of DENSITIES, that of p-CFE
    warmup: int  # steps of the first training of JTT
    upweight: float  # of its errors in the second
    references: int = 1000  # points of each class that a density knows; with 300 digits less is learnt from it
    lanes: int = 128
    batch_norm: str = "train"
    train: int | None = None  # training images, where others than the task's own were asked for
    methods: tuple[str, ...] = ()  # what "all" stands for; empty: all there are
    size: int | None = None  # side of the images, where the files are resized
    weights: Path | None = None  # file of the network's first weights


def _fit_pixels(fit: Callable[..., Any], x: np.ndarray, y: np.ndarray, network: nnx.Module, **options: Any) -> Any:
    del network
    return fit(x, y, **options)


def _fit_features(fit: Callable[..., Any], x: np.ndarray, y: np.ndarray, network: nnx.Module, **options: Any) -> Any:
    seen = as_logits(feature_network(network, last_layer(network, x[:4])))
    return fit_features(seen, fit, x, y, batch=64, **options)


class Kind(NamedTuple):
    """A density, and what τ = 1 of the density gravity, −‖x − g‖², becomes in it."""

    fit: Callable[[np.ndarray, np.ndarray, nnx.Module], Any]  # x [M, *S], y [M], the attacked network
    weight: float
    curvature: float = 2.0  # of weight · log q, about: a step of the search stays below 1 / (τ · this)


_MIXTURE = {"components": 5, "covariance": "diag", "floor": 0.1, "restarts": 1}
DENSITIES = {
    "pixel-knn": Kind(partial(_fit_pixels, fit_knn, k=NEAREST), 1.0),
    "pixel-gmm": Kind(partial(_fit_pixels, fit_gmm, **_MIXTURE), 0.1, 10.0),
    "pixel-vae": Kind(partial(_fit_pixels, fit_vae, conv=True, steps=600), 0.1, 5.0),
    "feature-knn": Kind(partial(_fit_features, fit_knn, k=NEAREST), 5.0, 5.0),
    "feature-gmm": Kind(partial(_fit_features, fit_gmm, **_MIXTURE), 0.02, 5.0),
}


def _mlp(key: jax.Array, data: GroupData) -> nnx.Module:
    size = int(np.prod(data.x.shape[1:]))
    return MLP((size, 128, 128, len(data.classes)), rngs=nnx.Rngs(key))


def _cnn(key: jax.Array, data: GroupData) -> nnx.Module:
    return SmallCNN(tuple(data.x.shape[1:]), len(data.classes), widths=(8, 16), hidden=64, rngs=nnx.Rngs(key))


def _resnet20(key: jax.Array, data: GroupData) -> nnx.Module:
    """Of half the usual width: at 112 pixels it costs three times what the usual one does at 32."""
    return ResNet20(len(data.classes), width=8, rngs=nnx.Rngs(key))


def _efficientnet(key: jax.Array, data: GroupData) -> nnx.Module:
    """ImageNet's weights and a fresh last layer: what "not seen the data" means in the published protocol."""
    from invjax.models import efficientnet_lite as family
    from invjax.models.normalised import Normalised

    net = with_classes(family.efficientnet_lite_from_torch("efficientnet_lite0"), len(data.classes), rngs=nnx.Rngs(key))
    return Normalised(net, family.MEAN, family.STD)


def _resnet50(key: jax.Array, data: GroupData, weights: Path) -> nnx.Module:
    """The published protocol's network: torchvision's or timm's weights and a fresh last layer."""
    from invjax.models import resnet
    from invjax.models.normalised import Normalised

    net = with_classes(resnet.resnet_from_torch("resnet50", weights), len(data.classes), rngs=nnx.Rngs(key))
    return Normalised(net, np.asarray(resnet.MEAN), np.asarray(resnet.STD))


def _digits(seed: int, count: int | None) -> GroupData:
    data = digits_spurious(seed=seed)
    return data if count is None else data.subset(count, seed=seed)


def _spuco(seed: int, count: int) -> GroupData:
    """``count`` images to train on, a quarter as many for validation, 60 of each group for the test.

    Colours on 2 × 2 pixels that agree with the class 95 times of 100: coloured all over, or at the usual 99.5, so few
    images teach nothing but the colour, and every method is at 0 in the worst group.
    """
    data = spuco_mnist("magnitude_small", strength=0.95, count=count + count // 4, seed=seed)
    tests = min(60 * len(data.groups), int((data.part == 2).sum()))
    return data.subset(tests, "test", seed=seed, equal=True)


def _birds(seed: int, count: int) -> GroupData:
    """Large silhouettes on faint backgrounds: from a thousand images a small network learns something of the object."""
    return synthbirds(count, size=32, held_out=150, contrast=0.3, scale=0.9, foreground="silhouettes", seed=seed)


def _waterbirds(seed: int, count: int | None, source: Path | None, size: int | None = None) -> GroupData:
    return waterbirds(source, size=size, count=count, seed=seed).decode()


def _published(task: Task, train: int | None, source: Path | None, size: int | None, weights: Path) -> Task:
    """Network, training and budgets of arXiv 2505.16583's public code, for an accelerator; γ, τ and density: ours."""
    size = size or 224
    return dataclasses.replace(
        task, load=partial(_waterbirds, count=train, source=source, size=size), size=size,
        build=partial(_resnet50, weights=weights), weights=weights, steps=5085, batch=108, batch_norm="train",
        optimiser=Optimiser(rule="sgd", rate=1e-3, momentum=0.9, weight_decay=1e-4, clip=1.0),
        moves=task.moves._replace(iterations=100), warmup=300, references=1000, lanes=64,
    )  # fmt: skip


def load_task(
    name: str,
    *,
    source: str | Path | None = None,
    model: str = "resnet20",
    train: int | None = None,
    steps: int | None = None,
    iterations: int | None = None,
    density: str | None = None,
    weights: str | Path | None = None,
    size: int | None = None,
) -> Task:
    """The protocol of a data set.

    Args:
      source: zip or folder of waterbirds; None: where ``INVJAX_DATA`` says. model: its network, one of ``MODELS``.
      weights: of resnet50, ImageNet's in a file of torchvision's or timm's names; its images are of ``size`` px (224
        for None), its training and budgets the published ones.
      train: training images; steps: of each training; iterations: gradients per example; density: one of ``DENSITIES``.
        None: the task's own.

    Raises ValueError: an unknown name, or a number that is not positive.
    """
    for argument, value in (("train", train), ("steps", steps), ("iterations", iterations), ("size", size)):
        if value is not None and value < 1:
            raise BadArgument(argument, "be at least 1", Words(value))
    tables = {"data": (name, NAMES), "model": (model, MODELS), "density": (density or "pixel-knn", tuple(DENSITIES))}
    for argument, (value, known) in tables.items():
        if value not in known:
            raise BadArgument(argument, f"be one of {', '.join(known)}", value)
    if source is not None and name != "waterbirds":
        raise BadArgument("zip", "be left out but for waterbirds", Words(f"{str(source)!r} with {name}"))
    large = name == "waterbirds" and model == "resnet50"
    if large != (weights is not None):
        wanted = "the file of ImageNet's weights" if large else "left out but for waterbirds with resnet50"
        raise BadArgument("weights", f"be {wanted}", None if weights is None else str(weights))
    if weights is not None and not Path(weights).is_file():
        raise BadArgument("weights", f"be a file, there is none at {str(weights)!r}")
    if size is not None and not large:
        raise BadArgument("size", "be left out but for waterbirds with resnet50", Words(size))
    adam = Optimiser(rule="adam", rate=1e-3)
    if name == "digits-spurious":
        task = Task(
            name, partial(_digits, count=train), _mlp, 500, 128, adam,
            Moves(2.0, 0.2, 5.0, 8.0, 0.02, (1.0, 5.0), (0.0, 0.5, 2.0, 8.0)),
            "pixel-knn", warmup=60, upweight=10.0, lanes=256,
        )  # fmt: skip
    elif name == "spuco-mnist":
        task = Task(
            name, partial(_spuco, count=train or 2000), _cnn, 500, 64, adam,
            Moves(3.0, 0.1, 10.0, 4.0, 0.005, (10.0,), (0.0, 1.0, 16.0), 20),
            "pixel-gmm", warmup=60, upweight=10.0,
        )  # fmt: skip
    elif name == "synthbirds":
        task = Task(
            name, partial(_birds, count=train or 1200), _cnn, 500, 64, adam,
            Moves(1.5, 0.05, 10.0, 4.0, 0.005, (10.0,), (0.0, 1.0, 16.0), 20),
            "pixel-gmm", warmup=60, upweight=10.0,
        )  # fmt: skip
    else:
        pretrained = model == "efficientnet_lite0"
        path = None if source is None else Path(source)
        task = Task(
            f"{name}/{model}", partial(_waterbirds, count=train or 960, source=path),
            _efficientnet if pretrained else _resnet20, 300, 32,
            # One rate for a few hundred steps; the published runs take thousands of 1e-3 with momentum.
            Optimiser(rule="adam", rate=2e-4 if pretrained else 1e-3, weight_decay=1e-4, clip=1.0),
            Moves(3.0, 0.03, 100.0, 20.0, 0.001, (100.0,), (0.0, 5.0, 80.0), 20),
            "feature-knn", warmup=60, upweight=20.0, references=100, lanes=32,
            batch_norm="frozen" if pretrained else "train", methods=FEW,
        )  # fmt: skip
        if weights is not None:
            task = _published(task, train, path, size, Path(weights))
    changed: dict[str, Any] = {"train": train}
    if steps is not None:
        changed |= {"steps": steps, "warmup": max(1, min(task.warmup, steps // 2))}
    if iterations is not None:
        changed["moves"] = task.moves._replace(iterations=iterations)
    if density is not None:
        changed["density"] = density
    return dataclasses.replace(task, **changed)
