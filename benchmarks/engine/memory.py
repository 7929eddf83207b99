"""``memory``: peak memory of lists that go through the queue. It grows with the lanes, not with the list."""

from __future__ import annotations

import argparse
import resource
import sys

import numpy as np

from benchmarks.common import check_json, write_json
from invjax.attacks import PGD
from invjax.engine import solve
from invjax.models import mnist_cnn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--pairs", type=int, nargs="+", default=[100, 1000, 10000], help="lengths of the lists")
    parser.add_argument("--lanes", type=int, default=64)
    parser.add_argument("--json", help="file for the record")
    parser.add_argument("--no-progress", action="store_true")


def peak_mib() -> float:
    """Peak resident set of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    logits = mnist_cnn()
    generator = np.random.default_rng(0)
    rows = []
    print("pairs   arrays of the list, MiB   peak RSS, MiB   peak less arrays, MiB")
    for count in sorted(options.pairs):
        x = generator.random((count, 28, 28, 1), dtype=np.float32)
        label = generator.integers(0, 10, count).astype(np.int32)
        method = PGD(eps=0.01, step_size=0.005, steps=10)  # too weak to end early: every lane works to the end
        result = solve(
            logits, x, label, target=(label + 1) % 10, method=method, lanes=options.lanes,
            progress=False if options.no_progress else None,
        )  # fmt: skip
        arrays = (x.nbytes + result.x.nbytes + result.delta.nbytes + result.attempt.nbytes) / 2**20
        rows.append({"pairs": count, "arrays_mib": arrays, "peak_mib": peak_mib()})
        print(f"{count:5d}   {arrays:23.1f}   {rows[-1]['peak_mib']:13.1f}   {rows[-1]['peak_mib'] - arrays:21.1f}")
    write_json(options.json, {"lanes": options.lanes, "rows": rows})
    return 0
