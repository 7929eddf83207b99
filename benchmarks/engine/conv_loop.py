"""``conv-loop``: an input gradient inside a compiled loop over the same gradient outside, for NHWC and NCHW."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.common import check_json, in_turn, write_json
from invjax.engine import install_canonical_convolutions, uninstall_canonical_convolutions
from invjax.types import Array

STEPS = 4  # gradients per call of the loop


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=32, help="side of the image in pixels")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument(
        "--depth", type=int, default=6, help="3x3 convolutions of the network, every second one of stride 2"
    )
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--json", help="file for the record")


def network(layout: str) -> Callable[[list[Array], Array], Array]:
    """A stack of 3x3 convolutions in the layout "NHWC" or "NCHW", ending in a number per image."""
    kernel = "HWIO" if layout == "NHWC" else "OIHW"

    def apply(weights: list[Array], x: Array) -> Array:
        for i, w in enumerate(weights):
            strides = (2, 2) if i % 2 else (1, 1)
            x = jax.nn.relu(
                lax.conv_general_dilated(x, w, strides, ((1, 1), (1, 1)), dimension_numbers=(layout, kernel, layout))
            )
        return x.sum((1, 2, 3))

    return apply


def _timed(function: Callable[..., Array], *arguments: Any) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - begin


def measure(layout: str, options: argparse.Namespace) -> dict[str, float]:
    """Seconds per gradient outside of a loop and inside, and their ratio."""
    key, channels, apply = jax.random.key(0), options.channels, network(layout)
    shape = (options.batch, options.size, options.size, channels)
    window = (3, 3, channels, channels)
    if layout == "NCHW":
        shape, window = (shape[0], shape[3], *shape[1:3]), (channels, channels, 3, 3)
    x = jax.random.normal(key, shape)
    weights = [0.1 * jax.random.normal(jax.random.fold_in(key, i), window) for i in range(options.depth)]

    def gradient(weights: list[Array], x: Array) -> Array:
        return jax.grad(lambda x: apply(weights, x).sum())(x)

    def loop(weights: list[Array], x: Array) -> Array:
        return lax.fori_loop(0, STEPS, lambda _, x: x - 1e-3 * gradient(weights, x), x)

    outside, inside = jax.jit(gradient), jax.jit(loop)
    jax.block_until_ready((outside(weights, x), inside(weights, x)))
    sides = {name: partial(_timed, call, weights, x) for name, call in (("once", outside), ("looped", inside))}
    once, looped = map(statistics.median, in_turn(sides, options.repeat).values())
    return {"outside_s": once, "inside_s": looped / STEPS, "ratio": looped / STEPS / once}


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    jnp.zeros(())  # starts the backend before anything is timed
    record: dict[str, dict[str, float]] = {}
    print("layout  remedy  outside, ms  inside, ms  inside/outside")
    for remedy, switch in (("off", uninstall_canonical_convolutions), ("on", install_canonical_convolutions)):
        switch()
        for layout in ("NHWC", "NCHW"):
            row = record[f"{layout} {remedy}"] = measure(layout, options)
            times = f"{1e3 * row['outside_s']:11.2f}  {1e3 * row['inside_s']:10.2f}  {row['ratio']:14.2f}"
            print(f"{layout:6s}  {remedy:6s}  {times}")
    write_json(options.json, {"batch": options.batch, "size": options.size, "rows": record})
    return 0
