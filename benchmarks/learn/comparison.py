"""``learn``: networks trained on counterfactuals and on adversarial examples, with controls, by the worst group.

    python -m benchmarks learn --data digits-spurious --seeds 3 --json learn.json

For each seed a network is trained on the data set as it is, every method moves the training examples towards the
targets that ``--policy`` draws, and a fresh network is trained on the moved examples, labelled with their targets. It
is measured on the untouched test set. The policy ``other`` (ỹ ≠ y) is the definition of the paper (arXiv 2505.16583):
the fresh network learns from the perturbations alone. The default ``all`` (ỹ uniform over all classes, so that of two
classes half of the examples keep their image and their right label) is that of its public code, to which the published
tables compare.
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from benchmarks.common import check_json, write_json
from invjax.core.errors import BadArgument, check_whole
from invjax.core.files import check_folder
from invjax.learn.study import (
    DENSITIES,
    DESCRIPTIONS,
    NETWORKS,
    POLICIES,
    TASKS,
    Study,
    Task,
    ablation,
    chosen_methods,
    load_task,
    manifest_of,
    table_row,
)
from invjax.report.text import text_table

THROUGHPUT = 256  # images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--data", choices=TASKS, default="digits-spurious")
    parser.add_argument("--zip", help="waterbirds: the zip or folder with metadata.csv (default: INVJAX_DATA)")
    parser.add_argument("--model", choices=NETWORKS, default="resnet20", help="network for waterbirds")
    parser.add_argument("--weights", help="ImageNet weights of resnet50 (torchvision or timm)")
    parser.add_argument("--size", type=int, help="side of the images for resnet50, pixels (default: 224)")
    parser.add_argument("--methods", default="all", help=f"all, or some of {', '.join(DESCRIPTIONS)}, p-cfe-grid")
    parser.add_argument(
        "--policy", choices=POLICIES, default="all", help="targets from all classes, or only from the others"
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (each draws data, weights, targets)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--density", choices=tuple(DENSITIES), help="density of p-CFE (default: by data)")
    parser.add_argument("--train", type=int, help="training images (default: by data)")
    parser.add_argument("--steps", type=int, help="steps of each training (default: by data)")
    parser.add_argument("--iterations", type=int, help="gradients per example (default: by data)")
    parser.add_argument("--throughput", action="store_true", help=f"also time p-CFE on {THROUGHPUT} images")
    parser.add_argument("--panels", help="folder for Grad-CAM panels of the first seed, which are also measured")
    parser.add_argument("--runs", help="folder that keeps what has ended; the same command resumes there")
    parser.add_argument("--json", help="file for the record")


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    check_whole("seeds", options.seeds)
    panels = None if options.panels is None else check_folder(options.panels, "panels")
    runs = None if options.runs is None else check_folder(options.runs, "runs")
    try:
        task = load_task(
            options.data, source=options.zip, model=options.model, train=options.train, steps=options.steps,
            iterations=options.iterations, density=options.density, weights=options.weights, size=options.size,
        )  # fmt: skip
    except BadArgument as error:
        raise error.renamed({"source": "zip", "name": "data"}.get(error.name, error.name)) from None
    names = chosen_methods(options.methods, task, options.policy)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    record: dict[str, Any] = {
        "benchmark": "learn", "data": task.name, "policy": options.policy, "seeds": list(seeds),
        "settings": manifest_of(task, options.policy),
    }  # fmt: skip

    def look(study: Study) -> None:
        if study.seed != seeds[0]:
            return
        print(f"\n{study.data!r}\n", flush=True)
        if panels is not None:
            record["evidence"] = importlib.import_module("benchmarks.learn.evidence").write(panels, study)
        if options.throughput:
            from benchmarks.learn.throughput import line, throughput

            record["throughput"] = throughput(study, THROUGHPUT)
            print(line(record["throughput"]) + "\n", flush=True)

    record["methods"] = ablation(
        task, names, seeds=seeds, policy=options.policy, folder=runs, keep_networks=panels is not None,
        say=lambda text: print(text, flush=True), look=look,
    )  # fmt: skip
    print("\n" + text_table([table_row(name, merged) for name, merged in record["methods"].items()]))
    print(f"\n{_reading(task, options.policy, len(seeds))}")
    write_json(options.json, record)
    return 0


def _reading(task: Task, policy: str, seeds: int) -> str:
    """How to read the table."""
    intervals = (
        "± half a 95 % interval of t over the seeds" if seeds > 1 else "95 % intervals: Wilson; bootstrap of the worst"
    )
    targets = {"all": "uniform over all classes (their own included)", "other": "uniform over the other classes"}
    return (
        f"Targets {targets[policy]}. Density: {task.density}. {intervals}. Accuracy: of all test images; group mean: "
        f"all groups alike; as in training: groups weighted by their shares there. Reached: examples that the attacked "
        f"network gives their target."
    )
