"""GSE, ours and the released one, on CIFAR-10 against the number of lanes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from benchmarks.accelerator.log import Log
from benchmarks.accelerator.setting import Setting
from benchmarks.attacks.settings import CIFAR10, configuration


class Row(NamedTuple):
    """One row: the entry of the comparison, lanes, the list's length in lanes, and the precision of products."""

    entry: str
    lanes: int | Literal["auto"]
    rounds: int = 2
    precision: str = "default"
    pairs: int | None = None  # in the place of rounds


ROWS = (  # by worth
    Row("gse", "auto", pairs=8192),
    Row("gse", 1024),
    Row("gse", 1024, precision="highest"),
    Row("gse-released", 1024, 1),
    Row("gse", "auto", pairs=300),
    Row("gse", 4096),
    Row("gse", 8192),
    Row("gse", 256),
    Row("gse", 64),
    Row("gse-released", 4096, 1),
)
PAIRS_PER_S = {"gse": 1000.0, "gse-released": 150.0}  # of a fast device, until a row has measured them


def run(log: Log, setting: Setting) -> None:
    """Pairs per second by lanes, by precision, and of the released code's form."""
    for row in ROWS[:4] if setting.tiny else ROWS:
        lanes = row.lanes if row.lanes == "auto" else setting.lanes(row.lanes)[0]
        pairs = 4 if row.pairs is not None and setting.tiny else row.pairs
        special = [f"{pairs:,} pairs"] if pairs else []
        special += [f"{row.precision} precision"] if row.precision != "default" else []
        name = ", ".join([row.entry, f"{lanes} lanes", *special])
        config = configuration(CIFAR10[row.entry], False, ["steps=4"] if setting.tiny else [])
        options = {"rounds": row.rounds, "count": pairs, "precision": row.precision}

        def measure(config: Any = config, lanes: Any = lanes, options: dict[str, Any] = options) -> dict[str, Any]:
            return setting.timed(setting.resnet20, setting.cifar10, config, lanes, **options)

        speeds = [known["pairs/s"] for other, known in log.rows.items() if other.startswith(f"{row.entry},")]
        count = pairs if isinstance(lanes, str) else row.rounds * lanes
        log.row(name, (count or 0) / max(speeds, default=PAIRS_PER_S[row.entry]), measure)
