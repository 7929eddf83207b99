"""GSE, ours and the released one, on CIFAR-10 against the number of lanes."""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks.accelerator.log import Log
from benchmarks.accelerator.setting import Setting
from benchmarks.attacks.settings import CIFAR10, configuration


class Row(NamedTuple):
    """One row: the entry of the comparison, lanes, the list's length in lanes, and the precision of products."""

    entry: str
    lanes: int
    rounds: int = 2
    precision: str = "default"


ROWS = (  # by worth
    Row("gse", 1024),
    Row("gse", 1024, precision="highest"),
    Row("gse-released", 1024, 1),
    Row("gse", 4096),
    Row("gse", 8192),
    Row("gse", 256),
    Row("gse", 64),
    Row("gse-released", 4096, 1),
)
PAIRS_PER_S = {"gse": 1000.0, "gse-released": 150.0}  # of a fast device, until a row has measured them


def run(log: Log, setting: Setting) -> None:
    """Pairs per second by lanes, by precision, and of the released code's form."""
    for entry, lanes, rounds, precision in ROWS[:3] if setting.tiny else ROWS:
        (lanes,) = setting.lanes(lanes)
        name = f"{entry}, {lanes} lanes" + (f", {precision} precision" if precision != "default" else "")
        config = configuration(CIFAR10[entry], False, ["steps=4"] if setting.tiny else [])

        def measure(
            config: Any = config, lanes: int = lanes, rounds: int = rounds, precision: str = precision
        ) -> dict[str, Any]:
            options = {"rounds": rounds, "precision": precision}
            return setting.timed(setting.resnet20, setting.cifar10, config, lanes, **options)

        speeds = [row["pairs/s"] for known, row in log.rows.items() if known.startswith(f"{entry},")]
        log.row(name, rounds * lanes / max(speeds, default=PAIRS_PER_S[entry]), measure)
