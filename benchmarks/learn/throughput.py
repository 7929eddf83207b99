"""Counterfactuals of p-CFE per second, and what the engine adds to the time of their gradients."""

from __future__ import annotations

import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import timed_run
from benchmarks.counterfactuals.timing import bare_gradient, timed
from invjax.learn import draw_targets
from invjax.learn.study import Study
from invjax.models import as_logits

CALLS = 5  # bare gradients timed before the run, and as many after it


def throughput(study: Study, images: int = 256) -> dict[str, Any]:
    """p-CFE with the task's constants on training images of one seed, towards other classes.

    ``overhead`` is the run time over that of as many bare batched gradients of γL + ‖x' − x‖² − τ log q at the same
    lanes, timed before and after the run, both without compilation. Images repeat if the task has fewer.
    """
    task, model = study.task, as_logits(study.erm[0])
    rows = np.resize(np.arange(len(study.x)), images)
    x, label = study.x[rows], study.train.y[rows]
    target = draw_targets("other", label, len(study.data.classes), study.key(4))
    config, density, lanes = study.weights(), study.density, min(task.lanes, images)
    few = slice(0, lanes)
    arguments = (
        model, density, jnp.asarray(x[few]) + 1e-2, jnp.asarray(x[few]), jnp.asarray(label[few]),
        jnp.asarray(target[few]), jnp.asarray(config.tau, x.dtype),
    )  # fmt: skip
    jax.block_until_ready(bare_gradient(*arguments))
    bare = [timed(lambda: bare_gradient(*arguments))[1].wall for _ in range(CALLS)]
    run = timed_run(
        model, x, label, target, method=config, lanes=lanes,
        progress=False, density=density, key=study.key(4),
    )  # fmt: skip
    bare += [timed(lambda: bare_gradient(*arguments))[1].wall for _ in range(CALLS)]
    gradient_s = statistics.fmean(bare)
    return {
        "images": images,
        "shape": list(x.shape[1:]),
        "lanes": lanes,
        "density": task.density,
        "evaluations": float(run.result.evaluations.mean()),
        "found": float(np.mean(run.result.found)),
        "images_per_s": images / run.run_s,
        "run_s": run.run_s,
        "compile_s": run.compile_s,
        "gradient_s": gradient_s,
        "overhead": run.run_s / (run.steps * gradient_s),
        "occupancy": run.occupancy,
    }


def line(record: dict[str, Any]) -> str:
    """The record as a sentence."""
    height, width = record["shape"][:2]
    return (
        f"p-CFE at {height} x {width}: {record['images_per_s']:.2f} images/s on {record['images']} images, "
        f"{record['evaluations']:.0f} gradients each, {record['lanes']} lanes; engine overhead "
        f"{record['overhead']:.2f} over the bare gradient of {1e3 * record['gradient_s']:.0f} ms; "
        f"compile {record['compile_s']:.1f} s"
    )
