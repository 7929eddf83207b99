"""``attacks-peers``: our attacks beside those of adv-lib and Foolbox, with equal steps on the same images.

All codes do the same number of steps of the same length from the same start, none ends early, and each works on as many
examples at once. So what differs is what a step costs, and what the code makes of it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.attacks.side_by_side import Answer, Side, compare, ours, theirs
from benchmarks.attacks.torch_task import add_task_arguments, task_of
from benchmarks.common import check_json, note_load, pick, threads, write_json
from benchmarks.peers.environments import Skipped, python_with
from benchmarks.peers.worker import Worker
from invjax.attacks import EAD, FMN, PGD, SigmaZero
from invjax.core.errors import BadArgument, check_whole
from invjax.types import Config

LIBRARIES = ("adv-lib", "Foolbox")
NEEDED = ("torch", "numpy")  # a library that is missing is left out
TRIALS = 4  # values of c that EAD tries


class Entry(NamedTuple):
    """One attack of the comparison."""

    libraries: tuple[str, ...]  # those that have it
    norm: str  # what its answers are compared by
    constants: dict[str, Any]  # beside the steps, as the peers are told
    ours: Callable[[int], Config]  # steps -> the same constants of ours
    targeted: bool = True


LINF, L2 = 8 / 255, 0.5
WEIGHT, BETA, RATE = 0.01, 0.01, 0.01  # of EAD: the first c, beta, the first step

ENTRIES = {
    "sigma-zero": Entry(("adv-lib",), "l0", {}, lambda n: SigmaZero(steps=n, prune=0), targeted=False),
    "fmn": Entry(("adv-lib", "Foolbox"), "l0", {}, lambda n: FMN(steps=n, prune=0)),
    "pgd-linf": Entry(("adv-lib", "Foolbox"), "linf", {"eps": LINF}, lambda n: PGD(LINF, steps=n, stop_early=False)),
    "pgd-l2": Entry(("Foolbox",), "l2", {"eps": L2}, lambda n: PGD(L2, steps=n, norm="l2", stop_early=False)),
    "ead": Entry(
        ("Foolbox",), "l1",
        {"trials": TRIALS, "initial_weight": WEIGHT, "beta": BETA, "step_size": RATE},
        lambda n: EAD(steps=n, trials=TRIALS, initial_weight=WEIGHT, beta=BETA, step_size=RATE),
    ),
}  # fmt: skip

NORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "l0": lambda r: (r != 0).sum(1),
    "l1": lambda r: np.abs(r).sum(1),
    "l2": lambda r: np.linalg.norm(r, axis=1),
    "linf": lambda r: np.abs(r).max(1),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    add_task_arguments(parser)
    parser.add_argument("--attacks", default="all", help="all, or some of " + ", ".join(ENTRIES))
    parser.add_argument("--libraries", default="all", help="all, or some of " + ", ".join(LIBRARIES))
    parser.add_argument("--steps", type=int, default=60, help="of each attack, for EAD of each of its four trials")
    parser.add_argument("--batch", type=int, default=24, help="examples at once: our lanes, and a call of the peer")
    parser.add_argument("--repeat", type=int, default=3, help="times that each side is measured")


def record_of(times: list[float], answer: Answer, norm: str) -> dict[str, Any]:
    """Seconds per example (median, and all), success, and the mean norm of the successes in data units."""
    found = np.asarray(answer.found, bool)
    norms = NORMS[norm](answer.delta.reshape(len(found), -1).astype(np.float64))
    return {
        "per_example_s": statistics.median(times) / len(found),
        "seconds": times,
        "success": float(found.mean()),
        norm: float(norms[found].mean()) if found.any() else float("nan"),
        "evaluations": answer.evaluations,
        "forwards": answer.forwards,
    }


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    names, libraries = pick("attacks", options.attacks, ENTRIES), pick("libraries", options.libraries, LIBRARIES)
    repeat, steps = check_whole("repeat", options.repeat), check_whole("steps", options.steps)
    batch = check_whole("batch", options.batch)
    python = python_with("torch_python", options.torch_python, NEEDED)
    task, load = task_of(options), note_load()
    rows: dict[str, dict[str, Any]] = {}
    with Worker(python, "run_attacks.py", task.write, threads(), timeout=options.timeout) as worker:
        try:
            check = worker.ask("check", batch=batch)
        except Skipped as reason:
            raise BadArgument("torch_python", "run ResNet20", str(python), hint=str(reason)) from None
        faster = min(check["layouts"], key=lambda layout: check["layouts"][layout])
        print(
            f"{len(task.x)} pairs, {batch} at once, {threads()} threads; "
            + ", ".join(f"{name} {version}" for name, version in check["versions"].items())
            + f"\nlogits differ by {check['difference']:.1e} at most; torch's faster layout is {faster}"
        )
        for name in names:
            entry = ENTRIES[name]
            constants = {"steps": steps, "relative_step": 2.5 / steps, **entry.constants}
            values = {"name": name, "layout": faster, "batch": batch, "constants": constants}
            mine = ours(task, entry.ours(steps), targeted=entry.targeted, lanes=min(batch, len(task.x)))
            sides: dict[str, Side] = {"invjax": mine}
            sides |= {
                library: theirs(worker, "run", library=library, **values)
                for library in entry.libraries
                if library in libraries
            }
            print(f"{name}:", flush=True)
            rows[name] = _measured(sides, repeat, entry.norm)
    _print(rows)
    write_json(
        options.json,
        {"pairs": len(task.x), "batch": batch, "steps": steps, "repeat": repeat, "threads": threads(), "load": load,
         "peer": check, "image_index": task.chosen.index.tolist(), "rows": rows},
    )  # fmt: skip
    return 0


def _measured(sides: dict[str, Side], repeat: int, norm: str) -> dict[str, Any]:
    """The records by side; each is called once before, to compile and to warm up, and is left out if that fails."""
    skipped: dict[str, Any] = {}
    for name in list(sides):
        try:
            sides[name]()
        except Skipped as reason:
            skipped[name] = {"skipped": str(reason)}
            del sides[name]
    times, answers = compare(sides, repeat)
    return {name: record_of(times[name], answers[name], norm) for name in sides} | skipped


def _print(rows: dict[str, dict[str, Any]]) -> None:
    head = "s/example  least   most   / ours  success  norm           gradients  forwards"
    print(f"\n{'attack':10s}  {'code':8s}  {head}")
    for name, sides in rows.items():
        own, norm = sides["invjax"]["per_example_s"], ENTRIES[name].norm
        for side, row in sides.items():
            if "skipped" in row:
                print(f"{name:10s}  {side:8s}  skipped: {row['skipped']}")
                continue
            scale = row["per_example_s"] / statistics.median(row["seconds"])
            print(
                f"{name:10s}  {side:8s}  {row['per_example_s']:9.4f}  {scale * min(row['seconds']):5.3f}  "
                f"{scale * max(row['seconds']):5.3f}  {row['per_example_s'] / own:7.2f}  {row['success']:7.1%}  "
                f"{norm:4s} {row[norm]:8.3f}  {row['evaluations']:9.1f}  {row['forwards']:8.1f}"
            )
    for name, sides in rows.items():
        own = sides["invjax"]["per_example_s"]
        for side, row in sides.items():
            if side != "invjax" and "skipped" not in row:
                ratio = row["per_example_s"] / own
                print(f"{name}: {_verdict(side, ratio)}")


def _verdict(side: str, ratio: float) -> str:
    """Who is faster, in words. ratio: their time over ours."""
    if ratio >= 1:
        return f"ours is {ratio:.2f} times as fast as {side}"
    return f"{side} is {1 / ratio:.2f} times as fast as ours"
