"""``learn-kumano``: what a network learns from adversarial perturbations alone, on MNIST.

    python -m benchmarks learn-kumano --runs runs/kumano --json kumano.json       6,000 images, 10 epochs, two cores
    python -m benchmarks learn-kumano --full --json kumano.json                   60,000, 100 epochs, an accelerator

The natural protocol of Kumano, Kera, Yamasaki 2024. A network is trained on MNIST. Each training image is moved in an
l2 ball of radius 2 towards a class drawn from the others (R-l2) or towards the next class (D-l2), and labelled with it.
Fresh networks learn from these sets, in which no label is right, and are tested on clean images. R-l2 can be learnt
from the perturbations alone; in D-l2 the remains of the original class point to a wrong label.

The published numbers were read off their released figures, ±.02. Their "best" is the epoch that is best on the test
set, so it has seen the test. Deviations: a constant rate (theirs falls when the training loss stalls for ten epochs),
float32, no batch dropped. The default for two CPU cores also has fewer images, epochs and steps of the attack, a
quarter of the width, and Adam, because SGD would hardly have started.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from benchmarks.common import check_json, pick, write_json
from invjax.core.errors import check_number, check_whole
from invjax.core.files import check_folder
from invjax.data.grouped.spuco_mnist import mnist_source
from invjax.learn import Optimiser, Trained, evaluate, fit, make_perturbed_dataset, preset
from invjax.metrics.group import wilson_interval
from invjax.report.text import text_table
from invjax.types import Array

PUBLISHED = {  # final, best
    ("rand", "l2"): (0.93, 0.93),
    ("rand", "linf"): (0.89, 0.89),
    ("det", "l2"): (0.39, 0.45),
    ("det", "linf"): (0.11, 0.16),
}
NORMS, TARGETS, RULES = ("l2", "linf"), ("rand", "det"), ("sgd", "adam")
BATCH = 128


class Scale(NamedTuple):
    """The size of the protocol."""

    train: int  # training images
    epochs: int  # epochs of each training
    attack_steps: int  # steps of PGD
    width: float  # factor of the network's channels
    rule: str  # "sgd" as published, or "adam", which learns within a few hundred steps


CPU, FULL = Scale(6000, 10, 20, 0.25, "adam"), Scale(60000, 100, 100, 1.0, "sgd")


class ConvNet(nnx.Module):
    """Five 3x3 convolutions, two of them residual, and global average pooling: [B, 28, 28, 1] -> [B, 10].

    width: factor of the published channels 16, 128, 128, 256, 256.
    """

    def __init__(self, width: float = 1.0, *, rngs: nnx.Rngs) -> None:
        few, some, many = (max(1, round(channels * width)) for channels in (16, 128, 256))

        def conv(inputs: int, outputs: int, stride: int = 1, padding: str = "VALID") -> nnx.Conv:
            return nnx.Conv(inputs, outputs, (3, 3), strides=(stride, stride), padding=padding, rngs=rngs)

        self.conv1, self.conv2 = conv(1, few, stride=2), conv(few, some)
        self.conv3 = conv(some, some, padding="SAME")
        self.conv4 = conv(some, many)
        self.conv5 = conv(many, many, padding="SAME")
        self.linear = nnx.Linear(many, 10, rngs=rngs)

    def features(self, x: Array) -> Array:
        """[B, 28, 28, 1] -> [B, 9, 9, F]."""
        x = jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(x))))
        x = x + jax.nn.relu(self.conv3(x))
        x = jax.nn.relu(self.conv4(x))
        return x + jax.nn.relu(self.conv5(x))

    def head(self, features: Array) -> Array:
        return self.linear(features.mean((1, 2)))

    def __call__(self, x: Array) -> Array:
        return self.head(self.features(x))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--full", action="store_true", help="the published sizes instead of those for two CPU cores")
    sizes = {"train": "training images", "epochs": "epochs of each training", "attack-steps": "steps of PGD"}
    for name, what in sizes.items():
        key = name.replace("-", "_")
        usual = f"{getattr(CPU, key)}, full: {getattr(FULL, key)}"
        parser.add_argument(f"--{name}", type=int, help=f"{what} (default: {usual})")
    parser.add_argument(
        "--width", type=float, help=f"factor of the network's channels (default: {CPU.width}, full: {FULL.width})"
    )
    parser.add_argument("--rule", choices=RULES, help=f"optimiser (default: {CPU.rule}, full: {FULL.rule})")
    parser.add_argument("--norms", default="l2", help="all, or some of l2, linf")
    parser.add_argument("--targets", default="rand,det", help="all, or some of rand, det")
    parser.add_argument("--test", type=int, help="test images (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=BATCH, help="examples attacked at once")
    parser.add_argument("--runs", help="folder that keeps what has ended; the same command resumes there")
    parser.add_argument("--json", help="file for the record")


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    runs = None if options.runs is None else check_folder(options.runs, "runs")
    scale = _scale(options)
    norms, targets = pick("norms", options.norms, NORMS), pick("targets", options.targets, TARGETS)
    x, y, test_x, test_y = _mnist(scale.train, options.test, options.seed)
    keys = jax.random.split(jax.random.key(options.seed), 5)

    def train(name: str, images: Any, labels: np.ndarray, rate: float, weights: Array, order: Array) -> Trained:
        return fit(
            ConvNet(scale.width, rngs=nnx.Rngs(weights)), images, labels, key=order, epochs=scale.epochs,
            batch=min(BATCH, len(labels)), optimiser=_optimiser(scale.rule, rate),
            measure=lambda net: {"test": evaluate(net, test_x, test_y).average},
            checkpoint=None if runs is None else runs / name / "training",
        )  # fmt: skip

    rows: dict[str, dict[str, Any]] = {}

    def tell(name: str, trained: Trained, begin: float, **more: Any) -> None:
        rows[name] = _record(trained, len(test_y)) | {"seconds": time.perf_counter() - begin} | more
        row = rows[name]
        print(f"{name:9s} final {row['final']:.3f}  best {row['best']:.3f}  {row['seconds']:.0f} s", flush=True)

    begin = time.perf_counter()
    standard = train("standard", x, y, 0.1, keys[0], keys[1])
    tell("standard", standard, begin)
    for norm in norms:
        for policy in targets:
            begin, name = time.perf_counter(), f"{policy[0].upper()}-{norm}"
            recipe = preset("kumano", norm=norm, targets=policy, data="mnist")
            made = make_perturbed_dataset(
                dataclasses.replace(recipe.generator, steps=scale.attack_steps), recipe.target_policy, standard.model,
                x, y, failures=recipe.failures, key=keys[4], out=None if runs is None else runs / name / "perturbed",
                lanes=min(options.lanes, len(x)), progress=False,
            )  # fmt: skip
            perturb_s = time.perf_counter() - begin
            fresh = train(name, made.x, made.y, 0.01, keys[2], keys[3])
            final, best = PUBLISHED[policy, norm]
            more = {"reached": made.reached, "perturb_s": perturb_s, "published": {"final": final, "best": best}}
            tell(name, fresh, begin, **more)
    print(f"\n{text_table([_row(name, row) for name, row in rows.items()])}\n\n{_reading(scale, len(test_y))}")
    settings = scale._asdict() | {"seed": options.seed, "tests": len(test_y), "batch": BATCH}
    write_json(options.json, {"benchmark": "learn-kumano", "settings": settings, "networks": rows})
    return 0


def _mnist(train: int, test: int | None, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels for training, then those for testing: a fifth of a source that has no test set."""
    source = mnist_source()
    order = np.random.default_rng(seed).permutation(len(source.labels))
    if source.train is None:
        rest, own = np.split(order, [len(order) // 5])
    else:
        rest, own = np.arange(source.train, len(source.labels)), order[order < source.train]
    for name, value, pool in (("train", train, own), ("test", len(rest) if test is None else test, rest)):
        check_whole(name, value, 2, len(pool))
    own, rest = own[:train], rest[:test]
    images = source.images[..., None]
    return images[own], source.labels[own], images[rest], source.labels[rest]


def _optimiser(rule: str, rate: float) -> Optimiser:
    """rate: that of the published SGD; Adam has its own."""
    if rule == "sgd":
        return Optimiser(rate=rate, weight_decay=5e-4, nesterov=True)
    return Optimiser(rule="adam", rate=2e-3)


def _scale(options: argparse.Namespace) -> Scale:
    given = {name: getattr(options, name) for name in Scale._fields}
    scale = (FULL if options.full else CPU)._replace(**{k: v for k, v in given.items() if v is not None})
    for name in ("train", "epochs", "attack_steps"):
        check_whole(name, getattr(scale, name))
    check_number("width", scale.width, lambda value: value > 0, "a factor > 0")
    check_whole("lanes", options.lanes)
    return scale


def _record(trained: Trained, count: int) -> dict[str, Any]:
    """Accuracies on the clean test set: after the last epoch, with Wilson's interval, and of the best one."""
    curve = [record["test"] for record in trained.history]
    low, high = wilson_interval(round(curve[-1] * count), count)
    return {"final": curve[-1], "interval": [float(low), float(high)], "best": max(curve), "curve": curve}


def _row(name: str, row: dict[str, Any]) -> dict[str, str]:
    low, high = row["interval"]
    published = row.get("published")
    return {
        "trained on": name,
        "test %": f"{100 * row['final']:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
        "best": f"{100 * row['best']:.1f}",
        "published": "" if published is None else f"{100 * published['final']:.0f} / {100 * published['best']:.0f}",
        "reached": "" if "reached" not in row else f"{100 * row['reached']:.0f} %",
        "seconds": f"{row['seconds']:.0f}",
    }


def _reading(scale: Scale, tests: int) -> str:
    less = (
        ""
        if scale == FULL
        else f" Published: {FULL.train} images, {FULL.epochs} epochs, {FULL.attack_steps} steps, sgd."
    )
    return (
        f"Accuracy on {tests} clean test images, with Wilson's interval; chance is 10 %. {scale.train} training "
        f"images, {scale.epochs} epochs, {scale.attack_steps} steps of PGD, layers of {scale.width:g} of the published "
        f"width, {scale.rule}.{less} Reached: perturbed examples that the attacked network gives their target. Best: "
        "of all epochs, chosen on the test set as in the published figures."
    )
