"""GSE, ours and the released one, on CIFAR-10 against the number of lanes."""

from __future__ import annotations

import jax

from benchmarks.accelerator.log import Log
from benchmarks.accelerator.setting import Setting
from benchmarks.attacks.settings import CIFAR10, configuration

LANES = (1024, 4096, 256, 8192, 64)  # by worth
SECONDS = 6.0  # of a row's run


def run(log: Log, setting: Setting) -> None:
    """Pairs per second by lanes; one row at full precision, one for the released code's form."""
    brief = ["steps=4"] if setting.tiny else []
    ours = configuration(CIFAR10["gse"], False, brief)
    released = configuration(CIFAR10["gse-released"], False, brief)
    network, pairs = setting.resnet20, setting.cifar10
    for n, lanes in enumerate(setting.lanes(*LANES)):
        if log.todo(f"gse, {lanes} lanes", SECONDS):
            log.add(f"gse, {lanes} lanes", **setting.timed(network, pairs, ours, lanes, SECONDS))
        if n == 0 and log.todo(f"gse, {lanes} lanes, highest precision", SECONDS):
            with jax.default_matmul_precision("highest"):
                row = setting.timed(network, pairs, ours, lanes, SECONDS)
            log.add(f"gse, {lanes} lanes, highest precision", **row)
    for lanes in setting.lanes(1024, 4096):
        if log.todo(f"gse-released, {lanes} lanes", SECONDS):
            log.add(f"gse-released, {lanes} lanes", **setting.timed(network, pairs, released, lanes, SECONDS))
