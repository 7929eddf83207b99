"""``scfe-torch``: S-CFE beside its authors' code under torch, in turn on the same rows and network.

Three sides: our S-CFE, our reproduction of the released code, and that code itself. The last two have the same
constants, density and limits, and make the same steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import invjax
from benchmarks.common import check_json, in_turn, note_load, threads, write_json
from benchmarks.counterfactuals.methods import WIDE
from benchmarks.counterfactuals.peer_comparison import SCRIPTS, judge
from benchmarks.counterfactuals.peers import exchange as files
from benchmarks.counterfactuals.peers.exchange import Exchange
from benchmarks.counterfactuals.protocol import protocol
from benchmarks.counterfactuals.tasks import as_model
from benchmarks.peers.environments import Skipped, check_clone, python_with
from benchmarks.peers.worker import Worker
from invjax.core.errors import BadArgument, check_number, check_whole
from invjax.counterfactuals import SCFE, SCFEReleased
from invjax.densities import fit_kde
from invjax.densities.released import fit_released_kde

RELEASED_FILES = ("SCFE.py", "Models.py")
NEEDED = ("torch", "sklearn", "numpy")  # what the authors' code imports
OURS, REPRODUCED, RELEASED = "S-CFE", "as released, ours", "the released code"
CONSTANTS = {"step_size": 0.05, "gamma": 0.1, "steps": 200, "trials": 10}  # of the released method

Call = Callable[[], tuple[float, np.ndarray, np.ndarray, float | None]]  # seconds, answers, found, gradients per row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--released", metavar="DIR", help="a clone of the authors' repository, wagnermoritz/SCFE")
    parser.add_argument("--torch-python", help="the Python of an environment with torch (default: this one)")
    parser.add_argument("--data", choices=("housing", "wine"), default="housing")
    parser.add_argument("--n", type=int, help="only the first N test rows (default: all, 100)")
    parser.add_argument("--max-changes", type=int, default=3, help="features that may change")
    parser.add_argument("--tau", type=float, default=10.0, help="weight of the density")
    parser.add_argument("--repeat", type=int, default=3, help="times that each side is measured")
    parser.add_argument("--timeout", type=float, default=3600.0, help="most seconds of one answer of the peer")
    parser.add_argument("--json", help="file for the record")


def _ours(given: Exchange, config: Any, density: Any, bounds: tuple[Any, Any]) -> Call:
    """:func:`invjax.solve` as a user calls it, all rows at once, NumPy to NumPy."""
    model = as_model(given.weights)

    def call() -> tuple[float, np.ndarray, np.ndarray, float | None]:
        begin = time.perf_counter()
        result = invjax.solve(
            model, given.test_x, given.predicted, target=given.target, method=config, density=density, bounds=bounds,
            lanes=len(given.test_x), progress=False,
        )  # fmt: skip
        x, found = np.asarray(result.x), np.asarray(result.found)
        return time.perf_counter() - begin, x, found, float(result.evaluations.mean())

    return call


def _theirs(worker: Worker, **asked: Any) -> Call:
    def call() -> tuple[float, np.ndarray, np.ndarray, float | None]:
        out = worker.folder / "outcome.npz"
        worker.ask("run", out=str(out), **asked)
        outcome = files.read_outcome(out)
        return outcome.seconds, outcome.x, outcome.found, None

    return call


def our_sides(given: Exchange, m: int, tau: float) -> tuple[dict[str, Call], list[float]]:
    """Our two sides, and the bandwidths [K] of the released density."""
    train, box = (given.train_x, given.train_y), (given.lower, given.upper)
    density = fit_released_kde(*train)
    released = SCFEReleased(max_changes=m, tau=tau, lower=given.lower, upper=given.upper, **CONSTANTS)
    sides = {
        OURS: _ours(given, SCFE(max_changes=m, tau=tau), fit_kde(*train, bandwidth=1.0), box),
        REPRODUCED: _ours(given, released, density, WIDE),
    }
    return sides, np.asarray(density.bandwidth, float).tolist()


def measure(worker: Worker, sides: dict[str, Call], asked: dict[str, Any], repeat: int) -> dict[str, Any]:
    """All sides in turn, each called once before: ours to compile, the peer to choose its number of threads."""
    first = {name: call()[0] for name, call in sides.items()}
    tried = {count: _theirs(worker, threads=count, **asked)()[0] for count in sorted({1, threads()})}
    best = min(tried, key=lambda count: tried[count])  # more threads may slow down a network this small
    sides = sides | {RELEASED: _theirs(worker, threads=best, **asked)}
    answers: dict[str, Any] = {}

    def turn(name: str) -> float:
        answers[name] = sides[name]()
        return answers[name][0]

    times = in_turn({name: partial(turn, name) for name in sides}, repeat)
    return {"first_s": first, "peer_threads": best, "seconds": times, "answers": answers}


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    repeat, m = check_whole("repeat", options.repeat), check_whole("max_changes", options.max_changes)
    tau = check_number("tau", options.tau, lambda value: value >= 0, "a weight >= 0")
    folder = check_clone(options.released, "wagnermoritz/SCFE", RELEASED_FILES)
    python = python_with("torch_python", options.torch_python, NEEDED)
    given = protocol(options.data).first(None if options.n is None else check_whole("n", options.n))
    load = note_load()
    sides, bandwidths = our_sides(given, m, tau)
    constants = {
        "L0": CONSTANTS["step_size"], "lam0": CONSTANTS["gamma"], "iters": CONSTANTS["steps"],
        "lam_steps": CONSTANTS["trials"], "beta": m, "theta": tau, "c": 0.0,
    }  # fmt: skip
    asked = {"bandwidths": bandwidths, "constants": constants}
    write = partial(files.write_exchange, exchange=given)
    try:
        with Worker(python, SCRIPTS / "run_scfe.py", write, folder, timeout=options.timeout) as worker:
            measured = measure(worker, sides, asked, repeat)
    except Skipped as reason:
        raise BadArgument("torch_python", "run the authors' code", str(python), hint=str(reason)) from None
    print(
        f"{options.data}: {len(given.test_x)} rows at once, m = {m}, tau = {tau:g}; {threads()} threads, "
        f"{measured['peer_threads']} for torch, which is faster so"
    )
    rows = {}
    for name, times in measured["seconds"].items():
        _, x, found, evaluations = measured["answers"][name]
        rows[name] = judge(given, x, found) | {
            "run_s": statistics.median(times), "seconds": times, "evaluations": evaluations,
            "rows_per_s": len(found) / statistics.median(times),
        }  # fmt: skip
    _print(rows)
    keep = {name: measured[name] for name in ("first_s", "peer_threads")}
    record = {"data": options.data, "max_changes": m, "tau": tau, "repeat": repeat, "load": load, **keep, "rows": rows}
    write_json(options.json, record)
    return 0


def _print(rows: dict[str, dict[str, Any]]) -> None:
    print(f"\n{'':18s}  seconds  least   most   / S-CFE      valid     l2    l0    LOF  gradients")
    for name, row in rows.items():
        gradients = "" if row["evaluations"] is None else f"{row['evaluations']:9.1f}"
        valid = f"{row['valid']}/{row['rows']}"
        print(
            f"{name:18s}  {row['run_s']:7.3f}  {min(row['seconds']):5.3f}  {max(row['seconds']):5.3f}  "
            f"{row['run_s'] / rows[OURS]['run_s']:8.1f}  {valid:>9s}  {row['l2']:5.3f}  {row['l0']:4.2f}  "
            f"{row['lof']:5.3f}  {gradients}".rstrip()
        )
