"""GSE at 224 pixels on EfficientNet-lite0, whose weights are a package."""

from __future__ import annotations

from benchmarks.accelerator.log import Log, Missing
from benchmarks.accelerator.setting import SECONDS, ImagePairs, Setting
from benchmarks.attacks.settings import IMAGENET, configuration

IMAGES = "imagenet/imagenet_sample_50_224.npz"
LANES = (64, 256, 16)  # by worth
OFFSETS = "857,477,974,591,150,547,261,86,151"


def run(log: Log, setting: Setting) -> None:
    """Pairs per second by lanes. A tiny run leaves the part out: one gradient takes too long on a CPU."""
    if setting.tiny:
        raise Missing("a tiny run leaves out 224 pixels")
    listed: list[ImagePairs] = []  # once it is needed
    for lanes in LANES:

        def measure(lanes: int = lanes) -> dict[str, float]:
            listed[:] = listed or [setting.pairs(setting.efficientnet, IMAGES, 1000, OFFSETS)]
            config = configuration(IMAGENET["gse"], False, [])
            return setting.timed(setting.efficientnet, listed[0], config, lanes, rounds=1 if lanes > 64 else 2)

        log.row(f"gse, {lanes} lanes", SECONDS, measure)
