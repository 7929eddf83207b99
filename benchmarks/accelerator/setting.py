"""What all parts share: the scale of the run, the data, and pairs of images and targets."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from benchmarks.common import Timed, bare_gradient, timed_run
from invjax.campaign import choose
from invjax.campaign.pairs import make_pairs
from invjax.data import open_images
from invjax.models import load
from invjax.types import UNTARGETED, Config, LogitsFn

CIFAR10 = "cifar10/test_first_1000.npz"
RESNET20 = "weights/resnet20_cifar10_gse.safetensors"


class Missing(Exception):
    """A file or package that a part needs is not here: the part is left out, and the reason is written down."""


class ImagePairs(NamedTuple):
    """(image, target) pairs, repeated where more are asked for than there are."""

    x: np.ndarray  # [N, H, W, C]
    label: np.ndarray  # [N]
    target: np.ndarray | None  # [N]; None: any other class

    def first(self, count: int) -> ImagePairs:
        rows = np.resize(np.arange(len(self.label)), count)
        return ImagePairs(self.x[rows], self.label[rows], None if self.target is None else self.target[rows])


class Setting:
    """One run of the program."""

    def __init__(self, data: Path, tiny: bool) -> None:
        self.data, self.tiny = data, tiny
        self.peak: float | None = None  # FLOP/s of the largest matrix product, from the first part

    def file(self, name: str) -> Path:
        """A file of the data folder. Raises Missing."""
        path = self.data / name
        if not path.exists():
            raise Missing(f"{path} is not there; --data names the folder, --pack makes one")
        return path

    def lanes(self, *full: int) -> tuple[int, ...]:
        """The numbers of lanes to measure; a tiny run has one."""
        return (2,) if self.tiny else full

    @cached_property
    def resnet20(self) -> LogitsFn:
        """The ResNet20 of GSE's authors."""
        return load("resnet20", self.file(RESNET20), mean=0.5, std=0.5)

    @cached_property
    def cifar10(self) -> ImagePairs:
        """All correctly classified images of the file towards all other classes."""
        chosen = choose(self.resnet20, open_images(str(self.file(CIFAR10))), None, 0, 4 if self.tiny else None)
        pairs = make_pairs(chosen.labels, 10, "all")
        assert pairs.target is not None
        # Neighbours in the list are different images: a prefix of it is a fair sample.
        order = np.random.default_rng(0).permutation(len(pairs.label))
        return ImagePairs(chosen.images[pairs.image[order]], pairs.label[order], pairs.target[order])

    def timed(
        self, logits: LogitsFn, pairs: ImagePairs, method: Config, lanes: int, seconds: float, **problem: Any
    ) -> dict[str, Any]:
        """A row: the method on as many pairs as ``seconds`` take, at least twice the lanes; compilation apart."""
        count = 2 * lanes
        run = self._one(logits, pairs.first(count), method, lanes, **problem)
        more = int(min(seconds / max(run.run_s, 1e-3), 64) * count) // lanes * lanes
        compile_s = run.compile_s
        if more >= 2 * count and not self.tiny:
            count, run = more, self._one(logits, pairs.first(more), method, lanes, **problem)
        return self.row(logits, pairs, run, count, compile_s)

    def _one(self, logits: LogitsFn, pairs: ImagePairs, method: Config, lanes: int, **problem: Any) -> Timed:
        return timed_run(
            logits, pairs.x, pairs.label, pairs.target, method=method, lanes=lanes, progress=False, **problem
        )

    def row(self, logits: LogitsFn, pairs: ImagePairs, run: Timed, count: int, compile_s: float) -> dict[str, Any]:
        """What a timed run says; ``of peak`` is the share of the matrix peak that the gradients alone amount to."""
        flops = gradient_flops(logits, pairs.first(run.lanes))
        done = flops * run.steps / run.run_s if flops else None
        return {
            "lanes": run.lanes, "pairs": count, "pairs/s": count / run.run_s,
            "evaluations": float(np.mean(run.result.evaluations)), "found": float(np.mean(run.result.found)),
            "overhead": run.overhead, "occupancy": run.occupancy, "ms/gradient": 1e3 * run.bare_s / run.lanes,
            "of peak": done / self.peak if done and self.peak else float("nan"), "run s": run.run_s,
            "compile s": compile_s,
        }  # fmt: skip


def gradient_flops(logits: LogitsFn, pairs: ImagePairs) -> float | None:
    """Floating point operations of one batched input gradient as the compiler counts them; None where it does not."""
    target = np.full_like(pairs.label, UNTARGETED) if pairs.target is None else pairs.target
    lowered = bare_gradient.lower(logits, jnp.asarray(pairs.x), jnp.asarray(pairs.label), jnp.asarray(target))
    cost: Any = lowered.compile().cost_analysis()
    found = (cost[0] if isinstance(cost, list) else cost or {}).get("flops")
    return float(found) if found else None
