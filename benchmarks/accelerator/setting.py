"""What all parts share: the scale of the run, the data, and the row of a timed attack."""

from __future__ import annotations

import warnings
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from benchmarks.accelerator.flops import forward_flops, gradient_flops
from benchmarks.accelerator.log import Log, Missing
from benchmarks.common import Timed, timed_run
from invjax.campaign.pairs import make_pairs
from invjax.core.mixing import ROWS, look
from invjax.data import open_images
from invjax.models import load
from invjax.types import Config, LogitsFn

CIFAR10 = "cifar10/test_first_1000.npz"
RESNET20 = "weights/resnet20_cifar10_gse.safetensors"
SECONDS = 2.5  # of a row's run
LONG_ENOUGH = 1.0  # seconds of a run that is not repeated with more pairs
PEAKS = {"default": "product float32", "highest": "product float32 highest"}  # rows of the first part, by precision


class ImagePairs(NamedTuple):
    """(image, target) pairs, repeated where more are asked for than there are."""

    x: np.ndarray  # [N, H, W, C]
    label: np.ndarray  # [N]
    target: np.ndarray | None  # [N]; None: any other class

    def first(self, count: int) -> ImagePairs:
        rows = np.resize(np.arange(len(self.label)), count)
        return ImagePairs(self.x[rows], self.label[rows], None if self.target is None else self.target[rows])


class Setting:
    """One run of the program. data: folder. tiny: a few pairs and steps. ceilings: log of the part of that name."""

    def __init__(self, data: Path, tiny: bool, ceilings: Log) -> None:
        self.data, self.tiny, self._ceilings = data, tiny, ceilings

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
        return self.pairs(self.resnet20, CIFAR10, 10, "all")

    @cached_property
    def efficientnet(self) -> LogitsFn:
        """EfficientNet-lite0. Raises Missing."""
        try:
            return load("efficientnet_lite0")
        except ImportError as error:
            raise Missing(str(error)) from error

    def pairs(self, logits: LogitsFn, file: str, classes: int, targets: str) -> ImagePairs:
        """The correctly classified images of a file towards ``targets``, in an order that mixes images and targets.

        They are chosen by the program that the engine checks networks with, so that no further one is compiled.
        """
        source = open_images(str(self.file(file)))
        given = source.read(0, min(source.count, 16) if self.tiny else source.count)
        images, labels = given.images, given.labels
        assert labels is not None
        rows = np.resize(np.arange(len(labels)), -(-len(labels) // ROWS) * ROWS).reshape(-1, ROWS)
        says = np.concatenate([np.asarray(look(logits, images[some])) for some in rows]).argmax(1)[: len(labels)]
        right = says == labels
        images, labels = images[right], labels[right]
        pairs = make_pairs(labels, classes, targets)
        assert pairs.target is not None
        order = np.random.default_rng(0).permutation(len(pairs.label))  # so that a prefix of the list is a fair sample
        return ImagePairs(images[pairs.image[order]], pairs.label[order], pairs.target[order])

    def timed(
        self,
        logits: LogitsFn,
        pairs: ImagePairs,
        method: Config,
        lanes: int | Literal["auto"],
        *,
        rounds: int = 2,
        count: int | None = None,
        precision: str = "default",
        **problem: Any,
    ) -> dict[str, Any]:
        """A row: the method on ``count`` pairs, compilation apart.

        Without a count, on ``rounds`` x lanes pairs. Then a run that ends within ``LONG_ENOUGH`` seconds says little,
        and is followed by one of about ``SECONDS``.
        """
        given = count
        if count is None:
            assert lanes != "auto"
            count = rounds * lanes
        with jax.default_matmul_precision(precision):
            run = _run(logits, pairs.first(count), method, lanes, **problem)
            compile_s = run.compile_s
            more = int(min(SECONDS / max(run.run_s, 1e-3), 64) * count) // run.lanes * run.lanes
            if given is None and run.run_s < LONG_ENOUGH and more > count and not self.tiny:
                count, run = more, _run(logits, pairs.first(more), method, lanes, **problem)
        evaluations, forwards = np.asarray(run.result.evaluations), np.asarray(run.result.forwards)
        few = pairs.first(1)
        flops = gradient_flops(logits, *few) * evaluations.sum() + forward_flops(logits, few.x) * forwards.sum()
        peak = 1e12 * self._ceilings.rows.get(PEAKS[precision], {}).get("TFLOP/s", float("nan"))
        return {
            "lanes": run.lanes, "pairs": count, "pairs/s": count / run.run_s, "evaluations": float(evaluations.mean()),
            "found": float(np.mean(run.result.found)), "refused": run.refused, "overhead": run.overhead,
            "occupancy": run.occupancy, "ms/gradient": 1e3 * run.bare_s / run.lanes,
            "of peak": float(flops / run.run_s / peak), "run s": run.run_s, "loop s": run.loop_s,
            "second look s": run.second_look_s, "again s": run.again_s, "compile s": compile_s,
        }  # fmt: skip


def _run(logits: LogitsFn, pairs: ImagePairs, method: Config, lanes: int | Literal["auto"], **problem: Any) -> Timed:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*do not hold in another batch")  # they are counted as refused
        return timed_run(
            logits, pairs.x, pairs.label, pairs.target, method=method, lanes=lanes, progress=False, **problem
        )
