"""``gse-torch``: GSE beside its authors' code under torch; ``--profile``: the engine's loop beside bare gradients."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.attacks.gse_cifar10 import VARIANTS
from benchmarks.attacks.settings import configuration
from benchmarks.attacks.side_by_side import Side, compare, lanes_used, ours, record_of, theirs
from benchmarks.attacks.torch_task import Task, add_task_arguments, task_of
from benchmarks.common import check_json, note_load, threads, write_json
from benchmarks.engine.loop_profile import profile
from benchmarks.peers.environments import Skipped, check_clone, python_with
from benchmarks.peers.torch_network import LAYOUTS
from benchmarks.peers.worker import Worker
from invjax.core.errors import BadArgument, check_whole
from invjax.types import Config

RELEASED_FILES = ("attacks.py", "models.py", "attackParams.json")
NEEDED = ("torch", "torchvision", "skimage", "numpy")  # what the authors' attacks.py imports
SETTINGS = {"as-released": "as released", "best": "at its best"}  # --peer -> name of the side


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    add_task_arguments(parser)
    parser.add_argument("--released", metavar="DIR", help="a clone of the authors' repository, wagnermoritz/GSE")
    parser.add_argument(
        "--peer", choices=(*SETTINGS, "both"), default="both",
        help="as released, or at its best: weights that want no gradient, and the faster memory layout",
    )  # fmt: skip
    parser.add_argument(
        "--peer-batch", type=int, help="examples of a call of the peer (default: --n, as in its main.py)"
    )
    parser.add_argument("--variant", choices=list(VARIANTS), default="fast", help="which GSE of ours")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a constant of ours")
    parser.add_argument("--lanes", default="auto", help="examples that ours works on at once (default: auto)")
    parser.add_argument("--repeat", type=int, help="times that each side is measured (default: 3; with --profile 5)")
    parser.add_argument("--profile", action="store_true", help="time the engine's loop beside bare gradients instead")
    parser.add_argument("--batch", default="24,64", help="with --profile: batches, separated by commas")


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    repeat = check_whole("repeat", (5 if options.profile else 3) if options.repeat is None else options.repeat)
    method = configuration(VARIANTS[options.variant], False, options.set)
    record: dict[str, Any] = {"variant": options.variant, "repeat": repeat, "threads": threads()}
    try:
        if options.profile:
            record |= run_profile(options, method, repeat)
        else:
            record |= run_released(options, method, repeat)
    except Skipped as reason:
        raise BadArgument("torch_python", "run the peer", options.torch_python, hint=str(reason)) from None
    write_json(options.json, record)
    return 0


# --- the released code ------------------------------------------------------------------------------------------------


def lanes_of(text: str) -> int | str:
    """``--lanes`` as an argument of :func:`invjax.solve`."""
    return int(text) if text.lstrip("-").isdigit() else text


def run_released(options: argparse.Namespace, method: Config, repeat: int) -> dict[str, Any]:
    """Both codes in turn; prints the table."""
    folder = check_clone(options.released, "wagnermoritz/GSE", RELEASED_FILES)
    python = python_with("torch_python", options.torch_python, NEEDED)
    task = task_of(options)
    batch = check_whole("peer_batch", len(task.chosen.images) if options.peer_batch is None else options.peer_batch)
    count, load = len(task.x), note_load()
    mine = ours(task, method, lanes=lanes_of(options.lanes))
    with Worker(python, "gse_released.py", task.write, threads(), folder, timeout=options.timeout) as worker:
        check = worker.ask("check")
        layouts = worker.ask("choose", batch=batch)["seconds"]
        faster = min(layouts, key=lambda layout: layouts[layout])
        print(
            f"{count} pairs, {threads()} threads; torch {check['version']}, its ResNet20 differs from ours by "
            f"{check['difference']:.1e} in the logits at most\nthe faster layout of its weights is {faster}; {batch} "
            f"examples in a call"
        )
        first_s = mine().seconds
        lanes = lanes_used(task, method, lanes_of(options.lanes))
        print(f"ours works on {lanes} at once; its first call, compilation included: {first_s:.1f} s", flush=True)
        peers = {
            "as-released": theirs(worker, "run", layout=LAYOUTS[0], frozen=False, batch=batch),
            "best": theirs(worker, "run", layout=faster, frozen=True, batch=batch),
        }
        sides: dict[str, Side] = {f"GSE {options.variant}": mine}
        sides |= {SETTINGS[name]: side for name, side in peers.items() if options.peer in (name, "both")}
        times, answers = compare(sides, repeat)
    rows = {name: record_of(task, times[name], answers[name]) for name in sides}
    _print(rows, count)
    return {
        "pairs": count, "image_index": task.chosen.index.tolist(), "targets": list(task.pairs.offsets),
        "load": load, "lanes": lanes, "peer_batch": batch, "layouts": layouts, "torch": check,
        "first_s": first_s, "rows": rows,
    }  # fmt: skip


def _print(rows: dict[str, dict[str, Any]], pairs: int) -> None:
    own = next(iter(rows.values()))["per_example_s"]
    head = "s/example  least   most  / ours     ASR    ACP    ANC     l2   d2,0  gradients  forwards"
    print(f"\n{'':14s}  {head}")
    for name, row in rows.items():
        low, high = min(row["seconds"]) / pairs, max(row["seconds"]) / pairs
        print(
            f"{name:14s}  {row['per_example_s']:9.3f}  {low:5.3f}  {high:5.3f}  {row['per_example_s'] / own:6.1f}  "
            f"{row['asr']:6.1%}  {row['acp']:5.1f}  {row['anc']:5.2f}  {row['l2']:5.2f}  {row['d20']:5.1f}  "
            f"{row['evaluations']:9.1f}  {row['forwards']:8.1f}"
        )
    print("medians; failures count as the unchanged image; l2 in [-1, 1] units")


# --- the loop ---------------------------------------------------------------------------------------------------------


def run_profile(options: argparse.Namespace, method: Config, repeat: int) -> dict[str, Any]:
    """``--profile``: torch joins where it is at hand."""
    batches, task = _batches(options.batch), task_of(options)
    record: dict[str, Any] = {}
    worker = _torch_gradients(options, task)
    try:
        if worker is not None:
            record["torch"] = says = worker.ask("check")
            print(f"torch {says['version']}, largest difference of logits {says['difference']:.1e}")
        record["rows"] = profile(
            task.logits, task.x, task.pairs.label, task.target, method, batches=batches, repeat=repeat, worker=worker
        )
    finally:
        if worker is not None:
            worker.close()
    return record


def _torch_gradients(options: argparse.Namespace, task: Task) -> Worker | None:
    """The process that times torch's gradients; None without torch, unless an interpreter was named for it."""
    try:
        python = python_with("torch_python", options.torch_python, ("torch", "numpy"))
    except BadArgument:
        if options.torch_python is not None:
            raise
        print("torch is left out: this Python has none; --torch-python names one that does")
        return None
    return Worker(python, "torch_gradients.py", task.write, threads(), timeout=options.timeout)


def _batches(text: str) -> tuple[int, ...]:
    try:
        return tuple(check_whole("batch", int(word)) for word in text.split(","))
    except ValueError:
        raise BadArgument("batch", "be whole numbers >= 1, separated by commas", text) from None
