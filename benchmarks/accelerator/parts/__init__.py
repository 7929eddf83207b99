"""The parts of the program, a file each with one function ``run(log, setting)``.

A run has two rounds: the first rows of every part, which are those of most worth, and then all others. A new part is
one more file and one more line here. Memory comes early because a device reports the most that it has ever held.
"""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """One part: its module below this package, its first rows, the seconds of a fast device, and what it measures."""

    module: str
    first: int  # rows of the first round
    seconds: tuple[float, float]  # of the first round and of the second: the shares that it gets of the minutes
    line: str


PARTS = {
    "ceilings": Part("ceilings", 4, (15, 0), "a matrix product and a copy: what the device can do at most"),
    "memory": Part("memory", 3, (21, 0), "memory of the compiled loop against lanes"),
    "gse": Part("gse", 4, (45, 50), "GSE and the released GSE on CIFAR-10 at 64 to 8,192 lanes"),
    "tables": Part("tables", 1, (10, 35), "S-CFE on 100 to 100,000 rows of Housing"),
    "torch": Part(
        "torch_floor", 3, (30, 20), "the same network in torch: bare gradients, and adv-lib's attacks beside ours"
    ),
    "attacks": Part("attacks", 2, (16, 20), "sigma-zero, PGD, StrAttack and FWnucl on CIFAR-10"),
    "imagenet": Part("imagenet", 1, (50, 40), "GSE on EfficientNet-lite0 at 224 pixels"),
    "learning": Part("learning", 2, (40, 5), "an epoch of adversarial training, and counterfactuals of WaterBirds"),
}
