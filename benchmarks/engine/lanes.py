"""``lanes``: the number of lanes that ``lanes="auto"`` chooses beside fixed numbers, on this device.

Three lists: GSE on digits with the shipped network, S-CFE on rows of Housing, and GSE on CIFAR-10 where images and
weights are given. Every round runs all numbers of lanes once, in turn; a list's time is the median of its rounds, warm.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import invjax
from benchmarks.common import check_json, write_json
from benchmarks.counterfactuals.protocol import protocol
from benchmarks.counterfactuals.tasks import as_model
from invjax.attacks import GSE
from invjax.campaign import choose
from invjax.campaign.pairs import make_pairs
from invjax.core.errors import BadArgument, check_whole
from invjax.counterfactuals import SCFE
from invjax.data import mnist_digits, open_images
from invjax.densities import fit_kde
from invjax.engine import choosing, prepare
from invjax.engine.programs import Programs
from invjax.models import load, mnist_cnn
from invjax.report.text import text_table


class Listed(NamedTuple):
    """A list: its name, and what ``invjax.solve`` is called with."""

    name: str
    network: Any
    x: np.ndarray
    label: np.ndarray
    problem: dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--images", help="npz with images [N,32,32,3] uint8 and labels [N], for the third list")
    parser.add_argument("--weights", help="torch weights of ResNet20, for the third list")
    parser.add_argument("--lanes", default="8,16,32,64,256", help="numbers to compare with")
    parser.add_argument("--n", type=int, default=72, help="images of a list; rows of Housing are ten times as many")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--json", help="file for the record")


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    check_whole("n", options.n)
    check_whole("repeat", options.repeat)
    words = [word for word in options.lanes.split(",") if word.strip()]
    if not words or not all(word.strip().isdigit() and int(word) for word in words):
        raise BadArgument("lanes", "be whole numbers >= 1, separated by commas", options.lanes)
    if (options.images is None) != (options.weights is None):
        raise BadArgument("weights", "be given together with --images")
    rows = []
    for make in (_digits, _housing) if options.images is None else (_digits, _housing, _cifar10):
        rows += _measure(make(options), [int(word) for word in words], options.repeat)
        print(text_table([{key: _short(value) for key, value in row.items()} for row in rows]), "\n", flush=True)
    write_json(options.json, {"benchmark": "lanes", "rows": rows})
    return 0


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _measure(listed: Listed, numbers: list[int], repeat: int) -> list[dict[str, Any]]:
    """A row for each number of lanes, and one for the choice."""
    name, network, x, label, problem = listed
    made = prepare(network, x, label, **problem)
    programs = Programs(made.ctx, made.config, made.key, made.method)
    chosen = choosing.choose(programs, made.problems, "auto").lanes

    def seconds(lanes: Any) -> tuple[float, invjax.Result]:
        begin = time.perf_counter()
        result = invjax.solve(network, x, label, lanes=lanes, progress=False, **problem)
        jax.block_until_ready(result)
        return time.perf_counter() - begin, result

    which: list[Any] = [*(lanes for lanes in numbers if lanes <= len(x)), "auto"]
    firsts = {lanes: seconds(lanes) for lanes in which}
    times: dict[Any, list[float]] = {lanes: [] for lanes in which}
    for _ in range(repeat):
        for lanes in which:
            times[lanes].append(seconds(lanes)[0])
    medians = {lanes: statistics.median(taken) for lanes, taken in times.items()}
    return [
        {
            "list": f"{name}, {len(x)}", "lanes": f"auto: {chosen}" if lanes == "auto" else str(lanes),
            "ms/example": 1e3 * medians[lanes] / len(x), "of the best": medians[lanes] / min(medians.values()),
            "found": float(np.mean(result.found)), "evaluations": float(np.mean(result.evaluations)), "first s": first,
        }
        for lanes, (first, result) in firsts.items()
    ]  # fmt: skip


def _digits(options: argparse.Namespace) -> Listed:
    digits, network = mnist_digits(), mnist_cnn()
    says = np.asarray(network(jnp.asarray(digits.images[: 4 * options.n]))).argmax(1)
    x = digits.images[: 4 * options.n]
    return Listed("GSE, digits", network, x, says, {"target": (says + 1) % 10, "method": GSE()})


def _housing(options: argparse.Namespace) -> Listed:
    given = protocol("housing")
    model, rng = as_model(given.weights), np.random.default_rng(0)
    x = given.test_x[rng.integers(0, len(given.test_x), 10 * options.n)]
    x = np.clip(x + 0.05 * rng.normal(size=x.shape).astype(x.dtype), given.lower, given.upper)
    label = np.asarray(model(jnp.asarray(x))).argmax(1).astype(np.int32)
    density = fit_kde(given.train_x, given.train_y, bandwidth=1.0)
    method = SCFE(max_changes=3, tau=10.0)
    problem = {"target": 1 - label, "bounds": (given.lower, given.upper), "density": density, "method": method}
    return Listed("S-CFE, Housing", model, x, label, problem)


def _cifar10(options: argparse.Namespace) -> Listed:
    network = load("resnet20", options.weights, mean=0.5, std=0.5)
    chosen = choose(network, open_images(options.images), None, 0, -(-options.n // 9))
    pairs = make_pairs(chosen.labels, 10, "all")
    assert pairs.target is not None
    keep = slice(0, options.n)
    problem = {"target": pairs.target[keep], "method": GSE()}
    return Listed("GSE, CIFAR-10", network, chosen.images[pairs.image[keep]], pairs.label[keep], problem)
