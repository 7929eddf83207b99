"""Other attacks on the same pairs, at one number of lanes each."""

from __future__ import annotations

from benchmarks.accelerator.log import Log
from benchmarks.accelerator.setting import SECONDS, Setting
from benchmarks.attacks.settings import CIFAR10, Entry, configuration

LANES = {"sigma-zero": 2048, "strattack": 1024, "pgd": 2048, "fwnucl": 256}  # by worth


def run(log: Log, setting: Setting) -> None:
    """Pairs per second of each attack."""
    brief = ["steps=2"] if setting.tiny else []
    for name, full in LANES.items():
        (lanes,) = setting.lanes(full)
        config = configuration(CIFAR10.get(name, Entry(name, {})), False, brief)
        log.row(
            f"{name}, {lanes} lanes", SECONDS,
            lambda config=config, lanes=lanes: setting.timed(
                setting.resnet20, setting.cifar10, config, lanes, rounds=1
            ),
        )  # fmt: skip
