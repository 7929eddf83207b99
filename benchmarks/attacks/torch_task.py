"""The images, the network and the options that ours and torch's attacks share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax.campaign import ChosenImages, choose
from invjax.campaign.pairs import Pairs, make_pairs
from invjax.core.errors import BadArgument, check_whole
from invjax.core.logits import num_classes
from invjax.data import open_images
from invjax.models import load
from invjax.models.torch_import import read_state
from invjax.types import LogitsFn


class Task(NamedTuple):
    """N images with T targets each, and the network: what both sides get."""

    logits: LogitsFn
    weights: dict[str, np.ndarray]  # the network's state dict, under torch's names
    chosen: ChosenImages
    pairs: Pairs
    x: np.ndarray  # [N·T, H, W, C] in [0, 1], the image of each pair
    target: np.ndarray  # [N·T]

    def write(self, path: Path) -> None:
        """The npz that the scripts read: ``x``, ``label``, ``target``, ``logits`` and ``weight NAME``."""
        logits = np.asarray(jax.jit(lambda f, x: f(x))(self.logits, jnp.asarray(self.x)))
        arrays: dict[str, Any] = {f"weight {name}": value for name, value in self.weights.items()}
        np.savez(path, x=self.x, label=self.pairs.label, target=self.target, logits=logits, **arrays)


def add_task_arguments(parser: argparse.ArgumentParser, targets: str = "1,4,7") -> None:
    """The options of the task and of the peer's process."""
    parser.add_argument("--images", required=True, help="npz with images [N,32,32,3] uint8 and labels [N]")
    parser.add_argument("--weights", required=True, help="torch weights of ResNet20 (.safetensors or .pth)")
    parser.add_argument("--start", type=int, default=0, help="index of the first image considered")
    parser.add_argument("--n", type=int, default=24, help="number of correctly classified images")
    parser.add_argument("--targets", default=targets, help="all, or offsets added to the label")
    parser.add_argument("--torch-python", help="the Python of an environment with torch (default: this one)")
    parser.add_argument("--timeout", type=float, default=3600.0, help="most seconds of one answer of the peer")
    parser.add_argument("--json", help="file for the record")


def task_of(options: argparse.Namespace) -> Task:
    """What the options name. Raises BadArgument for what cannot be read."""
    logits = load("resnet20", options.weights, mean=0.5, std=0.5)
    chosen = choose(logits, open_images(options.images), None, options.start, check_whole("n", options.n))
    classes = num_classes(logits, chosen.images.shape[1:], chosen.images.dtype)
    pairs = make_pairs(chosen.labels, classes, options.targets)
    if pairs.target is None:
        raise BadArgument("targets", "be all, or offsets like 1,4,7", options.targets)
    return Task(logits, read_state(options.weights), chosen, pairs, chosen.images[pairs.image], pairs.target)
