"""``on-disk``: runs whose list and answers are files. Memory, seconds and bytes, each per example."""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.common import check_json, write_json
from benchmarks.engine.memory import peak_mib
from invjax import LogitsModel
from invjax.attacks import FGSM, GSE
from invjax.campaign import choose
from invjax.core.errors import check_whole
from invjax.core.identity import digest
from invjax.data import open_images
from invjax.engine import prepare, run_saved
from invjax.engine.parts import packed
from invjax.models import load
from invjax.types import Config, LogitsFn

WIDTH = 64  # numbers of a random row
COLUMNS = {
    "list_mib": ".1f", "memory_mib": ".1f", "check_s": ".2f", "hash_s": ".2f", "run_s": ".1f", "write_ms": ".3f",
    "disk_bytes": ".0f", "statuses_s": ".3f",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--pairs", type=int, nargs="+", default=[100_000, 1_000_000, 3_000_000], help="list lengths")
    parser.add_argument("--lanes", type=int, default=4096)
    parser.add_argument("--images", help="npz with images and labels: GSE on these, not FGSM on random rows")
    parser.add_argument("--weights", help="torch weights of ResNet20, with --images")
    parser.add_argument("--json", help="file for the record")
    parser.add_argument("--no-progress", action="store_true")


def anonymous_mib() -> float:
    """Memory of this process that no file backs, MiB; where the system does not say, the peak of the whole process.

    Pages of a memory map are not in it: the system takes them back when it needs to.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("RssAnon:"))
    except (OSError, StopIteration):
        return peak_mib()


@contextmanager
def watched() -> Iterator[list[float]]:
    """The most :func:`anonymous_mib` inside the block, looked at every hundredth of a second."""
    most, ended = [anonymous_mib()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            most[0] = max(most[0], anonymous_mib())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def _linear(weights: dict[str, Any], x: Any) -> Any:
    return x @ weights["w"]


def random_rows(count: int, file: Path) -> tuple[LogitsFn, np.ndarray, np.ndarray, Config]:
    """A linear network, a memory map of uniform rows [N, WIDTH], and their classes."""
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(WIDTH, 4)).astype(np.float32)
    block = generator.random((min(count, 10_000), WIDTH), dtype=np.float32)
    x = np.lib.format.open_memmap(file, "w+", np.float32, (count, WIDTH))
    for begin in range(0, count, len(block)):
        x[begin : begin + len(block)] = block[: count - begin]
    x.flush()
    label = np.resize((block @ weights).argmax(1).astype(np.int32), count)
    return LogitsModel({"w": jnp.asarray(weights)}, _linear), np.load(file, mmap_mode="r"), label, FGSM(eps=0.1)


def images(options: argparse.Namespace, count: int, file: Path) -> tuple[LogitsFn, np.ndarray, np.ndarray, Config]:
    """ResNet20 and a memory map of images that it gets right, repeated where the file has too few."""
    logits = load("resnet20", options.weights, mean=np.full(1, 0.5), std=np.full(1, 0.5))
    some = choose(logits, open_images(options.images), None, 0, count)
    x = np.lib.format.open_memmap(file, "w+", np.float32, (count, *some.images.shape[1:]))
    for begin in range(0, count, len(some.images)):
        x[begin : begin + len(some.images)] = some.images[: count - begin]
    x.flush()
    return logits, np.load(file, mmap_mode="r"), np.resize(some.labels, count), GSE()


def measure(options: argparse.Namespace, count: int) -> dict[str, float]:
    """One run of ``count`` examples."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.images is None:
            logits, x, label, method = random_rows(count, folder / "list.npy")
        else:
            logits, x, label, method = images(options, count, folder / "list.npy")
        target = None if options.images is None else (label + 1) % 10
        with watched() as most:
            begin = time.perf_counter()
            prepared = prepare(logits, x, label, target=target, method=method)
            checked = time.perf_counter()
            run = run_saved(
                prepared, out=folder / "run", lanes=min(options.lanes, count),
                progress=False if options.no_progress else None,
            )  # fmt: skip
            ended = time.perf_counter()
        digest(prepared.problems)
        hashed = time.perf_counter()
        found = sum(int(part.found.sum()) for _, part in run.parts("status"))
        read = time.perf_counter()
        index, answers = next(run.parts())
        before = time.perf_counter()
        packed({"index": index, **vars(answers)})
        return {
            "pairs": count, "found": found, "list_mib": x.nbytes / 2**20, "memory_mib": most[0],
            "check_s": checked - begin, "run_s": ended - checked, "hash_s": hashed - ended, "statuses_s": read - hashed,
            "disk_bytes": sum(path.stat().st_size for path in (folder / "run").rglob("*.npz")) / count,
            "write_ms": 1e3 * (time.perf_counter() - before) / len(index),
        }  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    for count in options.pairs:
        check_whole("pairs", count)
    check_whole("lanes", options.lanes)
    rows = []
    measure(options, min(options.lanes, *options.pairs))  # compiled
    print(f"{'pairs':>9}  {'  '.join(f'{name:>{len(form) + 8}}' for name, form in COLUMNS.items())}")
    for count in sorted(options.pairs):
        rows.append(measure(options, count))
        cells = (f"{rows[-1][name]:{len(form) + 8}{form}}" for name, form in COLUMNS.items())
        print(f"{count:9d}  {'  '.join(cells)}", flush=True)
    write_json(options.json, {"lanes": options.lanes, "rows": rows})
    return 0
