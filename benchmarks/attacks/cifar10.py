"""``attacks-cifar10``: every attack on CIFAR-10 images, beside the published table."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.attacks import comparison as attacks
from benchmarks.attacks import published
from benchmarks.attacks.settings import CIFAR10, CIFAR10_FIDELITY
from invjax.data import open_images
from invjax.models import load

DESCRIPTION = "All attacks on CIFAR-10 images: best/average/worst over targets, interpretability, evaluations, seconds."


def _load(options: argparse.Namespace) -> Any:
    return load("resnet20", options.weights, mean=options.mean, std=options.std)


SUITE = attacks.Suite(
    name="attacks-cifar10",
    modes={"default": CIFAR10, "fidelity": CIFAR10_FIDELITY},
    published={"targeted": published.CIFAR10_TARGETED, "untargeted": published.CIFAR10_UNTARGETED},
    load=_load,
    open=lambda options: open_images(options.images),
    batch=256,
    names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    attacks.add_arguments(parser, SUITE)
    parser.add_argument("--weights", required=True, help="torch weights of ResNet20 (.safetensors or .pth)")
    parser.add_argument("--mean", type=float, nargs="+", default=[0.5], help="the network's input normalisation")
    parser.add_argument("--std", type=float, nargs="+", default=[0.5])


def run(options: argparse.Namespace) -> int:
    return attacks.run(options, SUITE)
