"""Files exchanged between the benchmark and the scripts that run another library. Imports NumPy and nothing else.

Every peer gets the same rectifier network with one output z, the logit of class 1:

    z(x) = W_L relu(... relu(x W_1 + b_1) ...) + b_L,        class 1 where z > 0                                    (1)
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Exchange(NamedTuple):
    """The task of a peer: M reference rows, N rows to explain, D columns, all in model coordinates."""

    train_x: np.ndarray  # [M, D] float32
    train_y: np.ndarray  # [M] int32, 0 or 1
    test_x: np.ndarray  # [N, D] float32
    predicted: np.ndarray  # [N] int32, the network's classes
    target: np.ndarray  # [N] int32, the classes to reach
    lower: np.ndarray  # [D] float32, least permitted values
    upper: np.ndarray  # [D] float32, greatest permitted values
    weights: tuple[tuple[np.ndarray, np.ndarray], ...]  # (W [in, out], b [out]) of each layer, float32

    def first(self, count: int | None) -> Exchange:
        """The same with only the first ``count`` rows to explain; None for all."""
        rows = slice(count)
        return self._replace(test_x=self.test_x[rows], predicted=self.predicted[rows], target=self.target[rows])


class Outcome(NamedTuple):
    """The answers of a peer."""

    x: np.ndarray  # [N, D] float64 counterfactuals; the row itself where nothing was found
    found: np.ndarray  # [N] bool: whether the library returned an answer
    seconds: float  # for all rows, warm
    first_s: float  # for the first call, compilation included but not imports; 0 where nothing is compiled
    versions: dict[str, str]


def network(weights: Sequence[tuple[np.ndarray, np.ndarray]], x: np.ndarray) -> np.ndarray:
    """The logit (1) in float64: [..., D] -> [...]."""
    y = np.asarray(x, np.float64)
    for i, (kernel, bias) in enumerate(weights):
        y = (np.maximum(y, 0) if i else y) @ kernel.astype(np.float64) + bias.astype(np.float64)
    return y[..., 0]


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * z))


def write_exchange(path: str | Path, exchange: Exchange) -> None:
    """Write one npz: the fields of Exchange, and W1, b1, W2, b2, ... for the weights."""
    arrays = {name: value for name, value in exchange._asdict().items() if name != "weights"}
    for i, (kernel, bias) in enumerate(exchange.weights, 1):
        arrays |= {f"W{i}": kernel, f"b{i}": bias}
    np.savez(path, **arrays)


def read_exchange(path: str | Path) -> Exchange:
    """Read a file of :func:`write_exchange`.

    Raises ValueError, which names the array, if one is missing or does not fit the others.
    """
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    missing = [name for name in (*Exchange._fields[:-1], "W1", "b1") if name not in arrays]
    if missing:
        raise ValueError(f"exchange must hold {', '.join(missing)}, was {path} with {', '.join(sorted(arrays))}")
    weights, width = [], arrays["test_x"].shape[-1]
    while f"W{len(weights) + 1}" in arrays:
        kernel, bias = arrays[f"W{len(weights) + 1}"], arrays[f"b{len(weights) + 1}"]
        if kernel.shape != (width, len(bias)):
            raise ValueError(f"W{len(weights) + 1} must have shape ({width}, {len(bias)}), was of shape {kernel.shape}")
        weights.append((kernel, bias))
        width = len(bias)
    if width != 1:
        raise ValueError(f"the last layer must have one output, the logit of class 1, was of {width}")
    exchange = Exchange(**{name: arrays[name] for name in Exchange._fields[:-1]}, weights=tuple(weights))
    rows, reference = exchange.test_x.shape, exchange.train_x.shape
    shapes = {"predicted": rows[:1], "target": rows[:1], "train_y": reference[:1], "lower": rows[1:], "upper": rows[1:]}
    for name, shape in {**shapes, "train_x": (reference[0], rows[1])}.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} must have shape {shape}, was of shape {arrays[name].shape}")
    return exchange


def write_outcome(path: str | Path, outcome: Outcome) -> None:
    """Write one npz: the fields of Outcome, with the versions as JSON."""
    np.savez(path, **{**outcome._asdict(), "versions": json.dumps(outcome.versions)})


def read_outcome(path: str | Path) -> Outcome:
    """Read a file of :func:`write_outcome`."""
    with np.load(path) as file:
        versions = json.loads(str(file["versions"]))
        return Outcome(file["x"], file["found"], float(file["seconds"]), float(file["first_s"]), versions)


def versions_of(*names: str) -> dict[str, str]:
    """Versions of Python and of the named distributions."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def arguments(description: str | None, methods: Sequence[str]) -> Any:
    """The command line of every script: EXCHANGE OUT --method --seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("exchange", help="npz written by write_exchange")
    parser.add_argument("out", help="npz to write, for read_outcome")
    parser.add_argument("--method", choices=methods, default=methods[0])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()
