"""``regression``: this checkout against another one, measured in turn, and the ratio of every cost.

    python -m benchmarks regression --base 40f3f58          a commit: it gets a git worktree for the time of the run
    python -m benchmarks regression --base ../old --only scfe,import

Every measurement is a fresh process with one of the checkouts on PYTHONPATH and an empty compilation cache. The two
take turns and swap their order each time, so that a change of the machine's load hits both. CPU time (``..._cpu_s``) is
summed over the threads of the process alone, so other processes disturb it less than wall time.

    ratio = median cost here / median cost there                                                                  (1)

The exit code is 1 if a ratio exceeds ``--limit``, if a number that has to be equal (evaluations, tables) differs, or if
a measurement fails. "Noise" is the larger spread of the two sides, (max − min) / median: a ratio within it says
nothing, so repeat the run on an idle machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import check_json, pick, write_json
from invjax.core.errors import BadArgument, check_number, check_whole
from invjax.data import data_folder
from invjax.report.text import text_table

WORKERS = Path(__file__).parent
HERE = WORKERS.parents[1]
IMPORTS = 5  # processes per measurement of the import, of which the fastest counts
WARM_S = 2.0  # seconds of warm calls of S-CFE
SIDES = ("new", "old")  # this checkout, and the base


class Skipped(Exception):
    """A measurement cannot be made here; the message says why."""


class Failed(Exception):
    """A checkout cannot do what is measured; the message says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--base", required=True, help="folder of another checkout, or a commit of this repository")
    parser.add_argument("--only", default="all", help=f"all, or some of {', '.join(MEASURES)}")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each checkout (default: 3)")
    parser.add_argument("--limit", type=float, default=1.05, help="largest ratio that passes (default: 1.05)")
    parser.add_argument("--n", type=int, default=24, help="images of gse, each with nine targets (default: 24)")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of memory (default: 1000)")
    parser.add_argument("--json", help="file for the record")


# --- the two checkouts ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def checkout(base: str) -> Iterator[Path]:
    """The folder of ``base``: itself, or a temporary git worktree of the commit."""
    if Path(base).is_dir():
        if not Path(base, "invjax", "__init__.py").is_file():
            raise BadArgument("base", "be the folder of a checkout, with invjax/ in it", base)
        yield Path(base).resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "base")
        done = _git("worktree", "add", "--detach", str(tree), base)
        if done.returncode:
            hint = f"git says: {' '.join(done.stderr.split())}"
            raise BadArgument("base", "be a folder or a commit of this repository", base, hint=hint)
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    """Run git in this checkout."""
    return subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True)


def _start(tree: Path, *words: str) -> str:
    """What ``python words`` prints with the library of ``tree``."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": folder, "INVJAX_DATA": str(data_folder().resolve())}
        kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        # Started elsewhere: a package in the working folder would come before PYTHONPATH.
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, env=kept | own, cwd=folder, check=False
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Failed(f"{tree}: {lines[-1]}")
    return done.stdout


def _worker(tree: Path, name: str, *words: Any) -> dict[str, Any]:
    """The record of a worker, from the library of ``tree`` and no other."""
    record = json.loads(_start(tree, str(WORKERS / f"measure_{name}.py"), *map(str, words)).splitlines()[-1])
    if not Path(record["where"]).resolve().is_relative_to(tree.resolve()):
        raise Failed(f"{tree} was to be measured, but {record['where']} was imported")
    return record


# --- what is measured -------------------------------------------------------------------------------------------------


def _gse(tree: Path, options: argparse.Namespace, shared: Path) -> dict[str, Any]:
    images = data_folder() / "cifar10" / "test_first_1000.npz"
    weights = data_folder() / "weights" / "resnet20_cifar10_gse.safetensors"
    for path in (images, weights):
        if not path.is_file():
            raise Skipped(f"INVJAX_DATA has no {path.parent.name}/{path.name}")
    return _worker(tree, "gse", images.resolve(), weights.resolve(), options.n, 64)


def _scfe(tree: Path, options: argparse.Namespace, shared: Path) -> dict[str, Any]:
    path = shared / "housing.npz"
    if not path.exists():  # one network for both checkouts
        from benchmarks.counterfactuals.peers.exchange import write_exchange
        from benchmarks.counterfactuals.protocol import protocol

        try:
            write_exchange(path, protocol("housing"))
        except (ValueError, ImportError) as error:
            raise Skipped(str(error)) from error
    return _worker(tree, "scfe", path, WARM_S)


def _import(tree: Path, options: argparse.Namespace, shared: Path) -> dict[str, Any]:
    return min((_worker(tree, "import") for _ in range(IMPORTS)), key=lambda record: record["measured"]["import_s"])


def _demo(tree: Path, options: argparse.Namespace, shared: Path) -> dict[str, Any]:
    """With an empty cache of compiled programs: the first call of a new user, compilation included."""
    begin, before = time.perf_counter(), os.times()
    _start(tree, "-m", "invjax", "demo", "--out", str(shared / "demo"), "--no-progress")
    after = os.times()
    cpu_s = after.children_user - before.children_user + after.children_system - before.children_system
    return {"measured": {"demo_s": time.perf_counter() - begin, "demo_cpu_s": cpu_s}, "exact": {}}


def _memory(tree: Path, options: argparse.Namespace, shared: Path) -> dict[str, Any]:
    return _worker(tree, "memory", options.pairs)


# Each takes a checkout, the options and a folder that all measurements share.
MEASURES: dict[str, Callable[[Path, argparse.Namespace, Path], dict[str, Any]]] = {
    "import": _import,
    "scfe": _scfe,
    "memory": _memory,
    "gse": _gse,
    "demo": _demo,
}


# --- comparing --------------------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """One cost of both checkouts, over the repeats."""

    new: list[float]
    old: list[float]

    @property
    def ratio(self) -> float:
        """Equation (1)."""
        return statistics.median(self.new) / statistics.median(self.old)

    @property
    def least_ratio(self) -> float:
        """The same of the least costs, which other processes disturb least."""
        return min(self.new) / min(self.old)

    @property
    def noise(self) -> float | None:
        """(max − min) / median of the side that spreads more; None for a single measurement, which shows no spread."""
        if len(self.new) == 1:
            return None
        return max((max(side) - min(side)) / statistics.median(side) for side in self)


def compare(new: list[dict[str, Any]], old: list[dict[str, Any]]) -> tuple[dict[str, Cost], dict[str, Any]]:
    """The costs of one measure, and the numbers that differ though they have to be equal: name -> [new, old].

    new, old: the workers' records, one per repeat. A number that changes from repeat to repeat differs, too.
    """
    costs = {
        name: Cost(*([record["measured"][name] for record in side] for side in (new, old)))
        for name in new[0]["measured"]
    }
    names = dict.fromkeys(name for record in (*new, *old) for name in record["exact"])
    values = {name: [[record["exact"].get(name) for record in side] for side in (new, old)] for name in names}
    differing = {
        name: [sides[0][0], sides[1][0]] for name, sides in values.items() if len({*map(repr, sides[0] + sides[1])}) > 1
    }
    return costs, differing


def _row(name: str, what: str, cost: Cost) -> dict[str, str]:
    def numbers(values: list[float]) -> str:
        return " ".join(f"{value:.4g}" for value in values)

    return {
        "measure": name, "cost": what, "ratio": f"{cost.ratio:.3f}", "of the least": f"{cost.least_ratio:.3f}",
        "noise": _percent(cost.noise), "here": numbers(cost.new), "base": numbers(cost.old),
    }  # fmt: skip


def _percent(noise: float | None) -> str:
    return "unknown" if noise is None else f"{noise:.1%}"


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    for name in ("repeat", "n", "pairs"):
        check_whole(name, getattr(options, name))
    check_number("limit", options.limit, lambda value: value > 0, "a ratio > 0")
    names = pick("only", options.only, MEASURES)
    record: dict[str, Any] = {"benchmark": "regression", "base": options.base, "limit": options.limit, "measures": {}}
    rows, wrong = [], []
    with checkout(options.base) as base, tempfile.TemporaryDirectory() as shared:
        trees = dict(zip(SIDES, (HERE, base), strict=True))
        for name in names:
            runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
            try:
                for turn in range(options.repeat):
                    for side in SIDES if turn % 2 else SIDES[::-1]:
                        runs[side].append(MEASURES[name](trees[side], options, Path(shared)))
                        print(f"{name} {turn + 1}/{options.repeat} {side}: {_told(runs[side][-1])}", flush=True)
            except (Skipped, Failed) as reason:
                what = type(reason).__name__.lower()
                print(f"{name} {what}: {reason}", flush=True)
                record["measures"][name] = {what: str(reason)}
                wrong += [f"{name} failed"] if isinstance(reason, Failed) else []
                continue
            costs, differing = compare(runs["new"], runs["old"])
            rows += [_row(name, what, cost) for what, cost in costs.items()]
            wrong += [f"{name}: {what} is {a!r}, in the base {b!r}" for what, (a, b) in differing.items()]
            wrong += [
                f"{name}: {what} is {cost.ratio:.3f} of the base's (noise {_percent(cost.noise)})"
                for what, cost in costs.items()
                if cost.ratio > options.limit
            ]
            ratios = {what: {"ratio": c.ratio, "least": c.least_ratio, "noise": c.noise} for what, c in costs.items()}
            record["measures"][name] = {**runs, "ratios": ratios, "differing": differing}
    if rows:
        print(f"\n{text_table(rows, group='measure')}")
    print("\n" + "\n".join(wrong or [f"no ratio above {options.limit:g}; evaluations and tables are equal"]))
    write_json(options.json, record)
    return 1 if wrong else 0


def _told(record: dict[str, Any]) -> str:
    rate = f", {record['rows_per_s']:.0f} rows per second" if "rows_per_s" in record else ""
    return ", ".join(f"{name} {value:.4g}" for name, value in record["measured"].items()) + rate
