"""``learn-angle``: the angle between adversarial perturbations and counterfactuals, on ever more robust networks.

    python -m benchmarks learn-angle --data digits --eps 0,0.25,0.5,1 --seeds 3 --json angle.json

Small networks are trained adversarially in l2 balls of several radii. On the same test images and targets for all of
them, the targeted PGD perturbation is compared with the plausible counterfactual (:mod:`invjax.learn.angle`). Null
pairs in the same table show what chance gives. Differences between radii are taken over the same pairs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from benchmarks.common import check_json, write_json
from invjax.attacks import PGD
from invjax.core.errors import BadArgument, check_number, check_whole
from invjax.counterfactuals import FixedWeights
from invjax.data.images.fashion_mnist import fashion_mnist
from invjax.data.images.mnist import mnist_digits
from invjax.learn import Adversary, Optimiser, draw_targets, errors_of, robust_accuracy, train_at
from invjax.learn.angle import COSINES, SHARES, Angles, class_means, directions, measure_angles, tangent_basis
from invjax.learn.study import DENSITIES, first_step
from invjax.metrics.mean import Mean, bootstrap_mean
from invjax.models import MLP, SmallCNN
from invjax.report.text import text_table

REFERENCES = 300  # points of a class that the density is fitted to
QUANTITIES = {"cosine": COSINES, "share in the tangent space": SHARES}
NETWORKS = ("accuracy", "robust", "adversarial", "plausible")


class Examples(NamedTuple):
    """The images of a seed."""

    x: np.ndarray  # [M, H, W, 1] float32 in [0, 1]
    y: np.ndarray  # [M] int32, ten classes
    test_x: np.ndarray  # [N, H, W, 1]
    test_y: np.ndarray


class Setting(NamedTuple):
    """The protocol of a data set; lengths are data units."""

    load: Callable[[int, int | None], Examples]  # (seed, training images or None)
    build: Callable[[jax.Array], nnx.Module]
    steps: int  # steps of each training
    attack: float  # radius of the attack
    gamma: float  # weights of p-CFE: validity,
    tau: float  # plausibility,
    beta: float  # and sparsity
    neighbours: int  # neighbours in the local PCA
    dims: int  # dimensions of the tangent space


def _split(x: np.ndarray, y: np.ndarray, train: int, seed: int) -> Examples:
    """The first ``train`` images of a permutation for training, the others for testing."""
    check_whole("train", train, 10, len(y) - 1)
    order = np.random.default_rng(seed).permutation(len(y))
    first, rest = order[:train], order[train:]
    return Examples(x[first], y[first], x[rest], y[rest])


def _digits(seed: int, train: int | None) -> Examples:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install 'invjax[data]'") from error
    pixels, y = load_digits(return_X_y=True)
    images = (np.asarray(pixels) / 16).reshape(-1, 8, 8, 1).astype(np.float32)
    return _split(images, np.asarray(y, np.int32), train or 1297, seed)


def _mnist(seed: int, train: int | None) -> Examples:
    data = mnist_digits()
    assert data.labels is not None
    return _split(data.images, data.labels, train or 4000, seed)


def _fashion(seed: int, train: int | None) -> Examples:
    data, test = fashion_mnist(), fashion_mnist(split="test")
    assert data.labels is not None
    assert test.labels is not None
    own = _split(data.images, data.labels, train or 10000, seed)
    order = np.random.default_rng(seed).permutation(len(test.labels))
    return own._replace(test_x=test.images[order], test_y=test.labels[order])


def _mlp(key: jax.Array) -> nnx.Module:
    return MLP((64, 128, 128, 10), rngs=nnx.Rngs(key))


def _cnn(key: jax.Array) -> nnx.Module:
    return SmallCNN(widths=(8, 16), rngs=nnx.Rngs(key))


SETTINGS = {
    "digits": Setting(_digits, _mlp, 800, 1.5, 5.0, 1.0, 0.005, 40, 10),
    "mnist": Setting(_mnist, _cnn, 600, 2.0, 10.0, 1.0, 0.002, 40, 20),
    "fashion-mnist": Setting(_fashion, _cnn, 1000, 1.5, 10.0, 1.0, 0.002, 40, 20),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--data", choices=tuple(SETTINGS), default="digits")
    parser.add_argument("--eps", default="0,0.25,0.5,1", help="radii of the adversarial training, data units")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (each draws split, weights, targets)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=200, help="test images that are measured, each with one target")
    parser.add_argument("--density", choices=("pixel-knn", "pixel-gmm"), default="pixel-knn", help="density of p-CFE")
    parser.add_argument("--train", type=int, help="training images (default: by data)")
    parser.add_argument("--steps", type=int, help="steps of each training (default: by data)")
    parser.add_argument("--iterations", type=int, default=40, help="gradients per perturbation")
    parser.add_argument("--attack-eps", type=float, help="radius of the attack, data units (default: by data)")
    parser.add_argument("--json", help="file for the record")


class Cell(NamedTuple):
    """The measures of one network."""

    network: dict[str, float]  # ``NETWORKS`` -> share
    angles: Angles


def study(
    setting: Setting,
    seed: int,
    radii: Sequence[float],
    *,
    pairs: int = 200,
    density: str = "pixel-knn",
    train: int | None = None,
    iterations: int = 40,
) -> dict[float, Cell]:
    """One seed: a network per radius, all measured on the same pairs of image and target."""
    data = setting.load(seed, train)
    keys = jax.random.split(jax.random.key(seed), 3)
    networks = train_at(
        lambda: setting.build(keys[0]), data.x, data.y, eps=radii, adversary=Adversary(norm="l2"), key=keys[1],
        steps=setting.steps, batch=min(128, len(data.y)), optimiser=Optimiser(rule="adam", rate=1e-3),
    )  # fmt: skip
    x, y = data.test_x[:pairs], data.test_y[:pairs]
    target = draw_targets("other", y, 10, keys[2])
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.permutation(np.flatnonzero(data.y == k))[:REFERENCES] for k in range(10)])
    kind = DENSITIES[density]
    gravity = kind.fit(data.x[rows], data.y[rows], networks[radii[0]].model)
    basis = tangent_basis(x, data.x, setting.neighbours, setting.dims)
    cells = {}
    for radius, one in networks.items():
        moves = directions(
            one.model, x, y, target,
            attack=PGD(eps=setting.attack, step_size=setting.attack / 8, steps=iterations, norm="l2", stop_early=False),
            counterfactual=FixedWeights(
                gamma=setting.gamma, tau=setting.tau * kind.weight, beta=setting.beta, steps=iterations,
                step_size=first_step(setting.gamma, setting.tau * kind.curvature),
            ),
            density=gravity, means=class_means(data.x, data.y, 10), seed=seed,
        )  # fmt: skip
        right = ~errors_of(one.model, data.test_x, data.test_y)
        robust = robust_accuracy(one.model, x, y, eps=setting.attack).robust
        cells[radius] = Cell(
            {"accuracy": float(right.mean()), "robust": robust, **moves.reached}, measure_angles(moves, basis)
        )
    return cells


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    radii = _radii(options.eps)
    for name, least in (("seeds", 1), ("iterations", 1), ("pairs", 2)):
        check_whole(name, getattr(options, name), least)
    setting = SETTINGS[options.data]
    if options.steps is not None:
        setting = setting._replace(steps=check_whole("steps", options.steps))
    if options.attack_eps is not None:
        radius = check_number("attack_eps", options.attack_eps, lambda value: value > 0, "a radius > 0")
        setting = setting._replace(attack=radius)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    how = {name: getattr(options, name) for name in ("pairs", "density", "train", "iterations")}
    cells, begin = [], time.perf_counter()
    for seed in seeds:
        cells.append(study(setting, seed, radii, **how))
        told = ", ".join(f"{r:g}: {_brief(cell)}" for r, cell in cells[-1].items())
        print(f"seed {seed}  {time.perf_counter() - begin:.0f} s  cosine by radius {told}", flush=True)
    record = summary(cells, radii)
    print(f"\n{text_table(_network_rows(record, radii))}\n\n{text_table(_angle_rows(record, radii), 'what')}")
    print(f"\n{_reading(setting, options, record)}")
    write_json(
        options.json,
        {
            "benchmark": "learn-angle", "data": options.data, "eps": radii, "seeds": list(seeds), **how,
            "settings": {name: value for name, value in setting._asdict().items() if not callable(value)},
            "seconds": time.perf_counter() - begin, **_plain(record),
        },
    )  # fmt: skip
    return 0


def _brief(cell: Cell) -> str:
    means = [np.nanmean(cell.angles.cosines[name]) for name in ("adversarial, p-CFE", "null: p-CFE of another example")]
    return "{:.3f} (null {:.3f})".format(*means)


def summary(cells: Sequence[dict[float, Cell]], radii: Sequence[float]) -> dict[str, Any]:
    """All seeds together.

    ``networks``: radius -> means over the seeds. ``cosine`` and ``share in the tangent space``: name -> radius ->
    :class:`Mean`, and "rise", the last radius less the first over the same pairs. ``chance``: m / D.
    """
    record: dict[str, Any] = {
        "networks": {
            r: {key: float(np.mean([one[r].network[key] for one in cells])) for key in NETWORKS} for r in radii
        },
        "chance": cells[0][radii[0]].angles.chance,
    }
    for what, field in zip(QUANTITIES, ("cosines", "shares"), strict=True):
        record[what] = {}
        for name in QUANTITIES[what]:
            values = {r: [getattr(one[r].angles, field)[name] for one in cells] for r in radii}
            row: dict[Any, Mean] = {r: bootstrap_mean(arrays) for r, arrays in values.items()}
            pairs = zip(values[radii[-1]], values[radii[0]], strict=True)
            row["rise"] = bootstrap_mean([last - first for last, first in pairs])
            record[what][name] = row
    return record


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """The record for JSON, with radii as text."""
    out = {"networks": {f"{r:g}": row for r, row in record["networks"].items()}, "chance": record["chance"]}
    for what in QUANTITIES:
        out[what] = {
            name: {key if isinstance(key, str) else f"{key:g}": mean.to_dict() for key, mean in row.items()}
            for name, row in record[what].items()
        }
    return out


def _network_rows(record: dict[str, Any], radii: Sequence[float]) -> list[dict[str, str]]:
    words = ("accuracy %", "robust %", "attack reaches %", "p-CFE reaches %")
    return [
        {"ε of training": f"{r:g}"}
        | {word: f"{100 * record['networks'][r][key]:.1f}" for word, key in zip(words, NETWORKS, strict=True)}
        for r in radii
    ]


def _angle_rows(record: dict[str, Any], radii: Sequence[float]) -> list[dict[str, str]]:
    return [
        {"what": what, "pair": name}
        | {f"ε {r:g}": str(row[r]) for r in radii}
        | {f"ε {radii[-1]:g} less {radii[0]:g}": str(row["rise"])}
        for what in QUANTITIES
        for name, row in record[what].items()
    ]


def _radii(text: str) -> list[float]:
    try:
        radii = [float(word) for word in text.split(",") if word.strip()]
    except ValueError:
        radii = []
    if not radii or min(radii) < 0 or not np.all(np.isfinite(radii)) or len(set(radii)) < len(radii):
        raise BadArgument("eps", "be different radii >= 0, like '0,0.25,0.5,1'", text)
    return radii


def _reading(setting: Setting, options: argparse.Namespace, record: dict[str, Any]) -> str:
    """How to read the tables."""
    return (
        f"Means [95 % bootstrap intervals over seeds and examples]; all attempts count, whether or not they reach the "
        f"target. Attack: PGD-l2, radius {setting.attack:g}; robust: right under an untargeted attack of that "
        f"radius. p-CFE: γ {setting.gamma:g}, τ {setting.tau:g}, β {setting.beta:g}, {options.density}. Tangent space: "
        f"{setting.dims} directions of {setting.neighbours} neighbours; a random direction has the share "
        f"{record['chance']:.3f}."
    )
