"""Learning: one epoch of l2 adversarial training, and p-CFE on WaterBirds."""

from __future__ import annotations

import time

import jax
import numpy as np
from flax import nnx

from benchmarks.accelerator.log import Log
from benchmarks.accelerator.setting import CIFAR10, Setting
from benchmarks.learn.throughput import throughput
from invjax.data import open_images
from invjax.learn import Adversary, fit
from invjax.learn.study import Study, load_task
from invjax.models.resnet_cifar import ResNet20

BIRDS = "waterbirds/waterbirds_112.zip"
BATCH = 128
EPOCH = 50_000  # images of CIFAR-10's training set


def run(log: Log, setting: Setting) -> None:
    """Seconds of an epoch on 50,000 images of 32 pixels; counterfactual images per second at 112 pixels."""
    log.row("ResNet20, l2 PGD training, 7 steps", 0.0, lambda: _epoch(setting))
    name = "p-CFE, WaterBirds"
    if setting.tiny:
        log.note(name, "a tiny run leaves it out")
    elif not (setting.data / BIRDS).exists():
        log.note(name, f"{setting.data / BIRDS} is not there")
    else:
        log.row(name, 0.0, lambda: _birds(setting))


def _birds(setting: Setting) -> dict[str, float]:
    task = load_task("waterbirds", source=setting.file(BIRDS), train=300, steps=40)
    found = throughput(Study(task, 0, "other"), 300)
    kept = ("images", "lanes", "evaluations", "found", "overhead", "occupancy")
    row = {name: found[name] for name in kept}
    return {"images/s": found["images_per_s"], **row, "run s": found["run_s"], "compile s": found["compile_s"]}


def _epoch(setting: Setting) -> dict[str, float]:
    """An epoch by its steps: the first run compiles, the difference of two further ones is what steps cost."""
    data = open_images(str(setting.file(CIFAR10))).read(0, 64 if setting.tiny else 1000)
    x, y = np.asarray(data.images), np.asarray(data.labels, np.int32)
    batch = 8 if setting.tiny else BATCH
    short, long = (1, 2) if setting.tiny else (10, 110)

    def seconds(steps: int) -> float:
        begin = time.perf_counter()
        net = ResNet20(rngs=nnx.Rngs(0))
        done = fit(net, x, y, steps=steps, batch=batch, adversary=Adversary(), key=jax.random.key(0))
        jax.block_until_ready(nnx.state(done.model))
        return time.perf_counter() - begin

    first = seconds(short)
    step = max(seconds(long) - seconds(short), 0.0) / (long - short)
    return {"batch": batch, "ms/step": 1e3 * step, "s/epoch": step * EPOCH / batch, "first s": first}
