"""Memory of GSE's compiled loop against lanes: as the compiler plans it, and as the device sees it."""

from __future__ import annotations

import jax

from benchmarks.accelerator.log import Log
from benchmarks.accelerator.setting import Setting
from benchmarks.common import brief
from invjax.attacks import GSE
from invjax.engine import prepare, run_batch, white_box

LANES = (64, 1024, 8192)  # the smallest first: what a device reports is the most that it has ever held


def run(log: Log, setting: Setting) -> None:
    """MiB of arguments, results and intermediate values; and the device's peak before and after one short run."""
    for lanes in setting.lanes(*LANES):
        log.row(f"gse, {lanes} lanes", 0.0, lambda lanes=lanes: _row(setting, lanes))


def _row(setting: Setting, lanes: int) -> dict[str, float]:
    pairs = setting.cifar10.first(lanes)
    ready = prepare(setting.resnet20, pairs.x, pairs.label, target=pairs.target, method=brief(GSE()))
    arguments = ready.batch()
    compiled = run_batch.lower(*arguments, method=ready.method, evaluator=white_box).compile()
    plan = compiled.memory_analysis()
    assert plan is not None
    before = _peak()
    jax.block_until_ready(compiled(*arguments))
    after = _peak()
    sizes = {
        "arguments MiB": plan.argument_size_in_bytes, "results MiB": plan.output_size_in_bytes,
        "intermediate MiB": plan.temp_size_in_bytes,
    }  # fmt: skip
    if before is not None and after is not None:
        sizes |= {"device's peak before MiB": before, "and after MiB": after}
    return {"lanes": lanes, **{name: size / 2**20 for name, size in sizes.items()}}


def _peak() -> int | None:
    """Bytes that the device has held at most so far; None where it does not say."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
