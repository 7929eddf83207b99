"""S-CFE on the rows of an exchange file: ``python measure_scfe.py EXCHANGE.npz SECONDS``.

The file is that of the peers (``benchmarks/counterfactuals/peers/exchange.py``): both checkouts get the same rows, the
same network and the same limits, whatever they train themselves.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import invjax
from invjax.counterfactuals import SCFE
from invjax.densities import fit_kde

CHANGED = 1e-4  # a feature that moved by less has not changed


def network(weights: Any, x: jax.Array) -> jax.Array:
    """Logits (0, z) of the rectifier network with output z, [B, D] -> [B, 2]."""
    for i, (kernel, bias) in enumerate(weights):
        x = (jax.nn.relu(x) if i else x) @ kernel + bias
    return jnp.concatenate([jnp.zeros_like(x), x], axis=-1)


def main(path: str, seconds: float) -> dict[str, Any]:
    """Time calls from NumPy to NumPy, all rows in one batch: the first compiles, the median of the others counts."""
    with np.load(path) as file:
        given = dict(file)
    layers = sum(name.startswith("W") for name in given)
    weights = tuple((given[f"W{i}"], given[f"b{i}"]) for i in range(1, layers + 1))
    model = invjax.LogitsModel(jax.tree.map(jnp.asarray, weights), network)
    density = fit_kde(given["train_x"], given["train_y"], bandwidth=1.0)
    x, label, target = given["test_x"], given["predicted"], given["target"]

    def solve() -> tuple[Any, float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        result = invjax.solve(
            model, x, label, target=target, bounds=(given["lower"], given["upper"]), density=density,
            method=SCFE(max_changes=3, tau=10.0), lanes=max(256, len(x)), progress=False,
        )  # fmt: skip
        jax.block_until_ready(result)
        return result, time.perf_counter() - wall, time.process_time() - cpu

    result, first_s, first_cpu_s = solve()
    times: list[tuple[float, float]] = []
    while len(times) < 5 or (sum(wall for wall, _ in times) < seconds and len(times) < 500):
        times.append(solve()[1:])
    run_s, run_cpu_s = (statistics.median(column) for column in zip(*times, strict=True))
    found, delta = np.asarray(result.found), np.asarray(result.delta, np.float64)
    size = np.linalg.norm(delta, axis=1), (np.abs(delta) > CHANGED).sum(1)
    exact = {"rows": len(x), "found": int(found.sum())}
    exact |= {name: float(values[found].mean()) for name, values in zip(("l2", "l0"), size, strict=True)}
    exact |= {name: int(np.asarray(getattr(result, name)).sum()) for name in ("evaluations", "forwards")}
    return {
        "measured": {
            "run_s": run_s,
            "compile_s": first_s - run_s,
            "run_cpu_s": run_cpu_s,
            "compile_cpu_s": first_cpu_s - run_cpu_s,
        },
        "exact": exact,
        "rows_per_s": len(x) / run_s,
    }


if __name__ == "__main__":
    print(json.dumps({"where": invjax.__file__, **main(sys.argv[1], float(sys.argv[2]))}))
