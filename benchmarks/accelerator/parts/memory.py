"""Memory of the compiled loop, as the compiler plans it, against lanes."""

from __future__ import annotations

import jax
import numpy as np

from benchmarks.accelerator.log import Log
from benchmarks.accelerator.setting import Setting
from invjax.attacks import GSE
from invjax.engine import prepare, run_batch, white_box

LANES = (64, 1024, 8192)


def run(log: Log, setting: Setting) -> None:
    """MiB of arguments, results and intermediate values of GSE's loop; and the peak that the device has seen so far."""
    for lanes in setting.lanes(*LANES):
        if log.todo(f"gse, {lanes} lanes"):
            pairs = setting.cifar10.first(lanes)
            ready = prepare(setting.resnet20, pairs.x, pairs.label, target=pairs.target, method=GSE())
            compiled = run_batch.lower(*ready.batch(), method=ready.method, evaluator=white_box).compile()
            plan = compiled.memory_analysis()
            assert plan is not None
            sizes = {
                "arguments MiB": plan.argument_size_in_bytes, "results MiB": plan.output_size_in_bytes,
                "intermediate MiB": plan.temp_size_in_bytes,
            }  # fmt: skip
            log.add(f"gse, {lanes} lanes", **{name: size / 2**20 for name, size in sizes.items()})
    stats = jax.devices()[0].memory_stats()
    if stats and log.todo("device"):
        log.add("device", **{"peak MiB": float(np.float64(stats.get("peak_bytes_in_use", 0)) / 2**20)})
