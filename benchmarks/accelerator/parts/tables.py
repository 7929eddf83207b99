"""S-CFE on Housing: kernel density, three changes, 100 to 100,000 rows."""

from __future__ import annotations

import time
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import invjax
from benchmarks.accelerator.log import Log, Missing
from benchmarks.accelerator.setting import SECONDS, Setting
from benchmarks.counterfactuals.peers.exchange import Exchange
from benchmarks.counterfactuals.protocol import protocol
from benchmarks.counterfactuals.tasks import as_model
from invjax.counterfactuals import SCFE
from invjax.densities import fit_kde

ROWS = ((100_000, 8192), (100, 100), (10_000, 8192), (10_000, 1024), (100_000, 1024))  # and lanes, by worth
NOISE = 0.05  # standard deviations, so that repeated rows differ
CALLS = 3
PER_S = 50_000  # rows of a fast device, until some have been measured at these lanes


def run(log: Log, setting: Setting) -> None:
    """Rows per second, NumPy to NumPy: the median of warm calls, as many as fit into the seconds of a row."""
    task = cache(partial(_task, setting))
    for count, lanes in ((8, 8),) if setting.tiny else ROWS:
        speeds = [row["rows/s"] for row in log.rows.values() if row["lanes"] == lanes]
        needs = 2 * count / min(speeds, default=PER_S)
        log.row(f"{count:,} rows, {lanes} lanes", needs, lambda count=count, lanes=lanes: _row(task, count, lanes))


def _task(setting: Setting) -> tuple[Exchange, Any, Any]:
    """Rows, network and density."""
    folder = setting.data / "tabular"
    try:
        given = protocol("housing", root=folder if folder.is_dir() else None)
    except (ImportError, ValueError) as error:
        raise Missing(str(error)) from error
    return given, as_model(given.weights), fit_kde(given.train_x, given.train_y, bandwidth=1.0)


def _row(task: Any, count: int, lanes: int) -> dict[str, float]:
    given, model, density = task()
    rng = np.random.default_rng(0)
    drawn = np.arange(count) if count <= len(given.test_x) else rng.integers(0, len(given.test_x), count)
    x = given.test_x[drawn]
    if count > len(given.test_x):
        x = np.clip(x + NOISE * rng.normal(size=x.shape).astype(x.dtype), given.lower, given.upper)
    label = np.asarray(model(jnp.asarray(x))).argmax(1).astype(np.int32)

    def solve() -> tuple[invjax.Result, float]:
        begin = time.perf_counter()
        result = invjax.solve(
            model, x, label, target=1 - label, bounds=(given.lower, given.upper), density=density,
            method=SCFE(max_changes=3, tau=10.0), lanes=lanes, progress=False,
        )  # fmt: skip
        jax.block_until_ready(result)
        return result, time.perf_counter() - begin

    result, first_s = solve()
    times = [solve()[1]]
    while len(times) < CALLS and sum(times) + times[-1] < SECONDS:
        times.append(solve()[1])
    seconds = float(np.median(times))
    return {
        "lanes": lanes, "rows/s": count / seconds, "found": float(np.mean(result.found)),
        "evaluations": float(np.mean(result.evaluations)), "run s": seconds, "first s": first_s,
    }  # fmt: skip
