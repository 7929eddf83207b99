"""Other attacks on the same pairs, at one number of lanes each."""

from __future__ import annotations

from benchmarks.accelerator.log import Log
from benchmarks.accelerator.setting import Setting
from benchmarks.attacks.settings import CIFAR10, Entry, configuration

LANES = {"sigma-zero": 2048, "pgd": 2048, "strattack": 1024, "fwnucl": 512}
SECONDS = 4.0  # of a row's run


def run(log: Log, setting: Setting) -> None:
    """Pairs per second of each attack."""
    brief = ["steps=2"] if setting.tiny else []
    for name, full in LANES.items():
        (lanes,) = setting.lanes(full)
        if log.todo(f"{name}, {lanes} lanes", SECONDS):
            config = configuration(CIFAR10.get(name, Entry(name, {})), False, brief)
            log.add(
                f"{name}, {lanes} lanes", **setting.timed(setting.resnet20, setting.cifar10, config, lanes, SECONDS)
            )
