"""S-CFE on Housing: kernel density, three changes, 100 to 100,000 rows."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np

import invjax
from benchmarks.accelerator.log import Log
from benchmarks.accelerator.setting import Missing, Setting
from benchmarks.counterfactuals.protocol import protocol
from benchmarks.counterfactuals.tasks import as_model
from invjax.counterfactuals import SCFE
from invjax.densities import fit_kde

ROWS = (100, 10_000, 100_000)
LANES = (1024, 8192)
NOISE = 0.05  # standard deviations, so that repeated rows differ
CALLS = 3


def run(log: Log, setting: Setting) -> None:
    """Rows per second, NumPy to NumPy, the median of warm calls."""
    try:
        given = protocol("housing")
    except (ImportError, ValueError) as error:
        raise Missing(str(error)) from error
    model, rng = as_model(given.weights), np.random.default_rng(0)
    density = fit_kde(given.train_x, given.train_y, bandwidth=1.0)
    for count in (8,) if setting.tiny else ROWS:
        drawn = np.arange(count) if count <= len(given.test_x) else rng.integers(0, len(given.test_x), count)
        x = given.test_x[drawn]
        if count > len(given.test_x):
            x = np.clip(x + NOISE * rng.normal(size=x.shape).astype(x.dtype), given.lower, given.upper)
        label = np.asarray(model(jnp.asarray(x))).argmax(1).astype(np.int32)
        for lanes in setting.lanes(*LANES) if count > LANES[0] else (count,):
            name = f"{count:,} rows, {lanes} lanes"
            if not log.todo(name):
                continue

            def solve(x: np.ndarray = x, label: np.ndarray = label, lanes: int = lanes) -> tuple[invjax.Result, float]:
                begin = time.perf_counter()
                result = invjax.solve(
                    model, x, label, target=1 - label, bounds=(given.lower, given.upper), density=density,
                    method=SCFE(max_changes=3, tau=10.0), lanes=lanes, progress=False,
                )  # fmt: skip
                jax.block_until_ready(result)
                return result, time.perf_counter() - begin

            result, first_s = solve()
            times = [solve()[1]]
            while len(times) < CALLS and log.left > times[-1]:
                times.append(solve()[1])
            seconds = float(np.median(times))
            log.add(
                name, **{"rows/s": count / seconds}, found=float(np.mean(result.found)),
                evaluations=float(np.mean(result.evaluations)), **{"run s": seconds, "first s": first_s},
            )  # fmt: skip
