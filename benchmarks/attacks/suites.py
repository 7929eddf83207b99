"""The data sets of the ``attacks`` benchmark: entries, published tables, and defaults of the options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.attacks import published
from benchmarks.attacks.settings import CIFAR10, CIFAR10_FIDELITY, IMAGENET, IMAGENET_FIDELITY, Entry


class Suite(NamedTuple):
    """What one data set brings to the comparison."""

    modes: dict[str, dict[str, Entry]]  # mode -> entries
    published: dict[str, dict[str, published.Table]]  # "targeted", "untargeted" -> title -> table
    defaults: dict[str, Any]  # of the options that are not given
    batch: int  # images at once where no gradient loop runs
    names: Sequence[str] | None = None  # of the classes, for the pictures


SUITES = {
    "cifar10": Suite(
        modes={"default": CIFAR10, "fidelity": CIFAR10_FIDELITY},
        published={"targeted": published.CIFAR10_TARGETED, "untargeted": published.CIFAR10_UNTARGETED},
        defaults={"model": "resnet20", "mean": [0.5], "std": [0.5], "n": 24, "targets": "all", "lanes": 64},
        batch=256,
        names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    # Few images, because a CPU has time for a handful, and few lanes, because each holds some ten images and the
    # network's activations. The target is the first offset of the published comparison; the others are
    # 477,974,591,150,547,261,86,151,610.
    "imagenet": Suite(
        modes={"default": IMAGENET, "fidelity": IMAGENET_FIDELITY},
        published={"targeted": published.IMAGENET_RESNET50_TARGETED},
        defaults={"model": "efficientnet_lite0", "size": 224, "n": 6, "targets": "857", "lanes": 6},
        batch=8,
    ),
}
