"""The parts of the program, a file each with one function ``run(log, setting)``, ordered by worth."""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """One part: its module below this package, its share of the minutes, and what it measures."""

    module: str
    share: float
    line: str


PARTS = {
    "ceilings": Part("ceilings", 0.03, "a matrix product and a copy: what the device can do at most"),
    "gse": Part("gse", 0.33, "GSE and the released GSE on CIFAR-10 at 64 to 8,192 lanes"),
    "tables": Part("tables", 0.13, "S-CFE on 100 to 100,000 rows of Housing"),
    "torch": Part("torch_floor", 0.15, "the same images and network in torch: bare gradients, and adv-lib's attacks"),
    "attacks": Part("attacks", 0.14, "sigma-zero, PGD, StrAttack and FWnucl on CIFAR-10"),
    "imagenet": Part("imagenet", 0.10, "GSE on EfficientNet-lite0 at 224 pixels"),
    "learning": Part("learning", 0.08, "an epoch of adversarial training, and counterfactuals of WaterBirds"),
    "memory": Part("memory", 0.04, "memory of the compiled loop against lanes"),
}
