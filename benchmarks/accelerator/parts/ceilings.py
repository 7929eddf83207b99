"""The two ceilings of a device: a matrix product, and a copy of memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.accelerator.log import Log
from benchmarks.accelerator.setting import Setting
from invjax.types import Array

REPEAT = 8  # products or copies per call, so that dispatch does not count
CALLS = 5
PRODUCTS = {
    "product bfloat16": ("bfloat16", "default"),
    "product float32": ("float32", "default"),  # TF32 on newer GPUs, bfloat16 on TPUs
    "product float32 highest": ("float32", "highest"),
}


@partial(jax.jit, static_argnames=("precision",))
def _products(a: Array, b: Array, precision: str) -> Array:
    return jax.lax.fori_loop(0, REPEAT, lambda _, a: jnp.matmul(a, b, precision=precision), a)


@jax.jit
def _copies(a: Array) -> Array:
    return jax.lax.fori_loop(0, REPEAT, lambda _, a: a + 1, a)


def _seconds(call: Callable[[], Any]) -> float:
    """Median seconds of one of the ``REPEAT`` operations of a call."""
    jax.block_until_ready(call())
    times = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        times.append((time.perf_counter() - begin) / REPEAT)
    return statistics.median(times)


def run(log: Log, setting: Setting) -> None:
    """TFLOP/s of products and GB/s of copies."""
    size = 256 if setting.tiny else 8192
    for name, (dtype, precision) in PRODUCTS.items():

        def product(dtype: str = dtype, precision: str = precision) -> dict[str, float]:
            a = jnp.eye(size, dtype=dtype)
            seconds = _seconds(lambda: _products(a, a, precision))
            return {"side": size, "TFLOP/s": 2 * size**3 / seconds / 1e12}

        log.row(name, 0.0, product)

    def copy() -> dict[str, float]:
        numbers = 2**16 if setting.tiny else 2**26  # 256 MiB: more than any cache holds
        a = jnp.zeros(numbers, jnp.float32)
        seconds = _seconds(lambda: _copies(a))
        return {"MiB": numbers * 4 / 2**20, "GB/s": 8 * numbers / seconds / 1e9}

    log.row("copy", 0.0, copy)
