"""``gse-torch``: GSE beside its authors' code under torch; ``--profile``: the engine's loop beside bare gradients."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.attacks.gse_cifar10 import VARIANTS
from benchmarks.attacks.settings import configuration
from benchmarks.attacks.torch_task import Task, add_task_arguments, task_of, threads
from benchmarks.common import check_json, write_json
from benchmarks.engine.loop_profile import profile
from benchmarks.peers.environments import Skipped, python_with
from benchmarks.peers.worker import Worker
from invjax.core.errors import BadArgument, check_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    add_task_arguments(parser)
    parser.add_argument("--variant", choices=list(VARIANTS), default="fast", help="which GSE of ours")
    parser.add_argument("--repeat", type=int, help="times that each side is measured (default: 5)")
    parser.add_argument("--profile", action="store_true", help="time the engine's loop beside bare gradients")
    parser.add_argument("--batch", default="24,64", help="with --profile: batches, separated by commas")


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    return run_profile(options)


def run_profile(options: argparse.Namespace) -> int:
    """``--profile``: torch joins where it is at hand."""
    repeat = check_whole("repeat", 5 if options.repeat is None else options.repeat)
    batches, task = _batches(options.batch), task_of(options)
    record: dict[str, Any] = {"variant": options.variant, "repeat": repeat, "threads": threads()}
    worker = _torch_gradients(options, task)
    try:
        if worker is not None:
            record["torch"] = worker.ask("check")
            print(
                f"torch {record['torch']['version']}, largest difference of logits {record['torch']['difference']:.1e}"
            )
        record["rows"] = profile(
            task.logits, task.x, task.pairs.label, task.target, configuration(VARIANTS[options.variant], False, []),
            batches=batches, repeat=repeat, worker=worker,
        )  # fmt: skip
    except Skipped as reason:
        raise BadArgument("torch_python", "run ResNet20", options.torch_python, hint=str(reason)) from None
    finally:
        if worker is not None:
            worker.close()
    write_json(options.json, record)
    return 0


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
