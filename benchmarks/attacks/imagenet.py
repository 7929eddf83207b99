"""``attacks-imagenet``: GSE and its rivals at 224 pixels, on networks with ImageNet weights.

EfficientNet-lite0, 1 and 2 bring their weights as packages (extra ``imagenet``); other networks take a file. On a CPU a
handful of images is what there is time for: give few lanes, each holds some ten images and the network's activations.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import numpy as np

from benchmarks.attacks import comparison as attacks
from benchmarks.attacks import published
from benchmarks.attacks.settings import IMAGENET, IMAGENET_FIDELITY
from invjax.core.errors import BadArgument, Words
from invjax.data import ImageSource, open_images
from invjax.models import load

DESCRIPTION = "Attacks on ImageNet pictures: the table, Grad-CAM overlap and the picture grid."
# Offsets added to the label, as in the published comparison.
OFFSETS = "857,477,974,591,150,547,261,86,151,610"


def _load(options: argparse.Namespace) -> Any:
    return load(options.model, options.weights, mean=options.mean, std=options.std)


def _open(options: argparse.Namespace) -> ImageSource:
    """The images, resized (bilinear, antialiased) where their side is not ``--size``."""
    source = open_images(options.images)

    def read(start: int, stop: int) -> Any:
        part = source.read(start, stop)
        shape = (len(part.images), options.size, options.size, part.images.shape[3])
        if part.images.shape == shape:
            return part
        images = np.asarray(jax.image.resize(part.images, shape, "bilinear", antialias=True))
        return part._replace(images=np.clip(images, *part.bounds))

    if options.size < 1:
        raise BadArgument("size", "be a number of pixels >= 1", Words(options.size))
    return ImageSource(source.count, read)


SUITE = attacks.Suite(
    name="attacks-imagenet",
    modes={"default": IMAGENET, "fidelity": IMAGENET_FIDELITY},
    published={"targeted": published.IMAGENET_RESNET50_TARGETED},
    load=_load,
    open=_open,
    batch=8,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    attacks.add_arguments(parser, SUITE)
    parser.set_defaults(n=6, targets=OFFSETS.partition(",")[0], lanes=6)
    parser.add_argument("--model", default="efficientnet_lite0", help="of the registry: efficientnet_lite0, resnet50 …")
    parser.add_argument("--weights", help="a file, for networks that bring none")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels; others are resized")
    parser.add_argument("--mean", type=float, nargs="+", help="the network's input normalisation; its own by default")
    parser.add_argument("--std", type=float, nargs="+")


def run(options: argparse.Namespace) -> int:
    return attacks.run(options, SUITE)
