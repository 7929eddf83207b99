"""Tiny classifiers and problems for the engine's tests: weights are leaves, ``apply`` is a module-level function."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import invjax
from invjax import metrics

Array = jax.Array
SMALL = (8, 8, 1)
COLOUR = (12, 12, 3)
NARROW = Path(__file__).parent.parent / "fixtures" / "resnet20_width4.safetensors"  # random weights
NARROW_VIT = NARROW.parent / "vit" / "torchvision.pth"


def _linear(params: dict, x: Array) -> Array:
    return x.reshape(x.shape[0], -1) @ params["w"] + params["b"]


def _mlp(params: dict, x: Array) -> Array:
    hidden = jnp.tanh(x.reshape(x.shape[0], -1) @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


def _conv2d(x: Array, kernel: Array, stride: int) -> Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=numbers)


def _conv(params: dict, x: Array) -> Array:
    hidden = jax.nn.relu(_conv2d(x, params["k1"], 1))
    hidden = jax.nn.relu(_conv2d(hidden, params["k2"], 2))
    return hidden.reshape(hidden.shape[0], -1) @ params["w"] + params["b"]


def _fragile(params: dict, x: Array) -> Array:
    """The linear net, NaN for an input whose first coordinate is the mark and whose second is not the calm value."""
    flat = x.reshape(x.shape[0], -1)
    broken = (flat[:, 0] == params["mark"]) & (flat[:, 1] != params["calm"])
    return jnp.where(broken[:, None], jnp.nan, _conv(params["net"], x))


def _draw(seed: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Weights with unit gain: each output sums its inputs with standard deviation 1/sqrt(fan in)."""
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1]))) for name, shape in shapes.items()}
    return {name: np.asarray(value, np.float32) for name, value in weights.items()}


def linear(shape: tuple[int, ...] = SMALL, classes: int = 4, seed: int = 0, scale: float = 1.0) -> invjax.LogitsModel:
    params = _draw(seed, w=(int(np.prod(shape)), classes), b=(classes,))
    return invjax.LogitsModel({"w": params["w"] / np.float32(scale), "b": params["b"] * 0}, _linear)


def mlp(shape: tuple[int, ...] = SMALL, classes: int = 4, seed: int = 0, hidden: int = 16) -> invjax.LogitsModel:
    size = int(np.prod(shape))
    params = _draw(seed, w1=(size, hidden), b1=(hidden,), w2=(hidden, classes), b2=(classes,))
    return invjax.LogitsModel({**params, "w1": 2 * params["w1"], "b1": params["b1"] * 0}, _mlp)


def conv(shape: tuple[int, ...] = SMALL, classes: int = 4, seed: int = 0, width: int = 4) -> invjax.LogitsModel:
    height, side, channels = shape
    flat = -(-height // 2) * -(-side // 2) * width
    params = _draw(seed, k1=(3, 3, channels, width), k2=(3, 3, width, width), w=(flat, classes), b=(classes,))
    return invjax.LogitsModel({**params, "w": 2 * params["w"], "b": params["b"] * 0}, _conv)


def fragile(mark: float, calm: float = -1.0, seed: int = 0) -> invjax.LogitsModel:
    """The conv net, NaN for every input that carries ``mark`` first (and not ``calm`` second)."""
    params = {"net": conv(seed=seed).params, "mark": np.float32(mark), "calm": np.float32(calm)}
    return invjax.LogitsModel(params, _fragile)


class Task(NamedTuple):
    """Random inputs strictly inside the box, labelled by the net itself; targets are other classes."""

    net: invjax.LogitsModel
    x: np.ndarray
    label: np.ndarray
    target: np.ndarray


def task(net: invjax.LogitsModel, shape: tuple[int, ...] = SMALL, count: int = 12, seed: int = 1, dtype=np.float32,
         bounds: tuple[float, float] = (0.0, 1.0)) -> Task:  # fmt: skip
    low, high = bounds
    rng = np.random.default_rng(seed)
    x = (low + (high - low) * rng.uniform(0.1, 0.9, size=(count, *shape))).astype(dtype)
    logits = np.asarray(net(jnp.asarray(x)))
    label = logits.argmax(1).astype(np.int32)
    target = (label + 1 + rng.integers(logits.shape[1] - 1, size=count)) % logits.shape[1]
    return Task(net, x, label, target.astype(np.int32))


def same(a: invjax.Result, b: invjax.Result) -> None:
    """Bit for bit equal, field by field."""
    for name, u in vars(a).items():
        u, v = np.asarray(u), np.asarray(getattr(b, name))
        assert u.dtype == v.dtype, (name, u.dtype, v.dtype)
        np.testing.assert_array_equal(u, v, err_msg=name)


def alike(a: invjax.Result, b: invjax.Result, share: float = 0.95) -> None:
    """What holds across numbers of lanes, as docs/engine.md says it: every status, and l0 and d2,0 of nearly all."""
    np.testing.assert_array_equal(np.asarray(a.status), np.asarray(b.status))
    count = len(np.asarray(a.status))
    l0 = [(np.asarray(r.delta).reshape(count, -1) != 0).sum(1) for r in (a, b)]
    assert (l0[0] == l0[1]).mean() >= share, l0
    if np.asarray(a.delta).ndim == 4:
        blocks = [metrics.d20(np.asarray(r.delta), window=4) for r in (a, b)]
        assert (blocks[0] == blocks[1]).mean() >= share, blocks


class _Names(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("Compiling "):
            self.names.append(message.split(" with ")[0].removeprefix("Compiling "))


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """The names of the programs that jax compiles inside the block."""
    handler, logger = _Names(), logging.getLogger("jax")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        with jax.log_compiles():
            yield handler.names
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
