"""GSE at 224 pixels on EfficientNet-lite0, whose weights are a package."""

from __future__ import annotations

import numpy as np

from benchmarks.accelerator.log import Log
from benchmarks.accelerator.setting import ImagePairs, Missing, Setting
from benchmarks.attacks.settings import IMAGENET, configuration
from invjax.campaign import choose
from invjax.campaign.pairs import make_pairs
from invjax.data import open_images
from invjax.models import load

IMAGES = "imagenet/imagenet_sample_50_224.npz"
LANES = (64, 256, 16)
SECONDS = 8.0  # of a row's run
OFFSETS = "857,477,974,591,150,547,261,86,151"


def run(log: Log, setting: Setting) -> None:
    """Pairs per second by lanes. A tiny run leaves the part out: one gradient takes too long on a CPU."""
    if setting.tiny:
        raise Missing("a tiny run leaves out 224 pixels")
    try:
        network = load("efficientnet_lite0")
    except ImportError as error:
        raise Missing(str(error)) from error
    chosen = choose(network, open_images(str(setting.file(IMAGES))), None, 0, None)
    pairs = make_pairs(chosen.labels, 1000, OFFSETS)
    assert pairs.target is not None
    order = np.random.default_rng(0).permutation(len(pairs.label))
    listed = ImagePairs(chosen.images[pairs.image[order]], pairs.label[order], pairs.target[order])
    for lanes in LANES:
        if log.todo(f"gse, {lanes} lanes", SECONDS):
            config = configuration(IMAGENET["gse"], False, [])
            log.add(f"gse, {lanes} lanes", **setting.timed(network, listed, config, lanes, SECONDS))
