"""GSE on N CIFAR-10 images towards all nine other classes: ``python measure_gse.py IMAGES.npz WEIGHTS N LANES``."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import jax
import numpy as np

import invjax
from invjax.attacks import GSE
from invjax.data import open_images
from invjax.metrics import measure, summarize
from invjax.models import load

BLOCK = 256  # images per call when the network's classes are asked for


def main(images: str, weights: str, count: int, lanes: int) -> dict[str, Any]:
    """Compile on pairs that end at once, then time all pairs."""
    logits = load("resnet20", weights)
    data = open_images(images).read(0, BLOCK)
    says = np.asarray(jax.jit(lambda logits, x: logits(x).argmax(-1))(logits, data.images)).astype(np.int32)
    right = np.flatnonzero(says == data.labels)[:count]
    x, label = np.repeat(data.images[right], 9, axis=0), np.repeat(says[right], 9)
    target = (label + np.tile(np.arange(1, 10, dtype=np.int32), len(right))) % 10

    def solve(rows: slice, label: np.ndarray, target: np.ndarray) -> tuple[Any, float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        result = invjax.solve(
            logits, x[rows], label[rows], target=target[rows], method=GSE(), lanes=lanes, progress=False
        )
        jax.block_until_ready(result)
        return result, time.perf_counter() - wall, time.process_time() - cpu

    # Asked for the class it has, an example is done after one evaluation. One pair more than the lanes, so that
    # refilling is compiled too.
    _, compile_s, compile_cpu_s = solve(slice(lanes + 1), target, label)
    result, run_s, run_cpu_s = solve(slice(None), label, target)
    shape = (len(right), 9)
    delta = np.asarray(result.delta).reshape(*shape, *x.shape[1:])
    table = summarize(measure(delta, np.asarray(result.status).reshape(shape)))["all_attempts"]
    exact = {f"{name} {case}": value for name, row in table.items() for case, value in row.items()}
    spent = {name: int(np.asarray(getattr(result, name)).sum()) for name in ("evaluations", "forwards")}
    wall, cpu = {"run_s": run_s, "compile_s": compile_s}, {"run_cpu_s": run_cpu_s, "compile_cpu_s": compile_cpu_s}
    return {"measured": wall | cpu, "exact": spent | exact}


if __name__ == "__main__":
    found = main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    print(json.dumps({"where": invjax.__file__, **found}, default=float))
