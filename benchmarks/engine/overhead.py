"""``engine-overhead``: run time over that of the bare network, and the share of the lanes that is in use."""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.common import check_json, timed_run, write_json
from invjax.attacks import make
from invjax.campaign import choose
from invjax.campaign.pairs import make_pairs
from invjax.core.errors import check_whole
from invjax.core.logits import num_classes
from invjax.data import open_images
from invjax.models import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--images", required=True, help="npz with images [N,32,32,3] uint8 and labels [N]")
    parser.add_argument("--weights", required=True, help="torch weights of ResNet20")
    parser.add_argument("--attack", choices=("gse", "pgd", "fgsm"), default="gse")
    parser.add_argument("--pairs", type=int, default=1000, help="(image, target) pairs")
    parser.add_argument("--lanes", type=int, default=64)
    parser.add_argument("--json", help="file for the record")
    parser.add_argument("--no-progress", action="store_true")


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    check_whole("pairs", options.pairs)
    source = open_images(options.images)
    logits = load("resnet20", options.weights)
    shape = source.read(0, 1).images.shape[1:]
    classes = num_classes(logits, shape, np.float32)
    chosen = choose(logits, source, None, 0, -(-options.pairs // (classes - 1)))
    pairs = make_pairs(chosen.labels, classes, "all")
    keep = slice(0, options.pairs)
    config = make(options.attack)
    assert pairs.target is not None
    timed = timed_run(
        logits, chosen.images[pairs.image[keep]], pairs.label[keep], pairs.target[keep], method=config,
        lanes=options.lanes,
        progress=False if options.no_progress else None,
    )  # fmt: skip
    record = {
        "attack": options.attack,
        "pairs": options.pairs,
        "lanes": timed.lanes,
        "overhead": timed.overhead,
        "occupancy": timed.occupancy,
        "batched_evaluations": timed.steps,
        "evaluations": float(timed.result.evaluations.mean()),
        "bare_batched_gradient_s": timed.bare_s,
        "compile_s": timed.compile_s,
        "run_s": timed.run_s,
        "found": float(timed.result.found.mean()),
    }
    width = max(map(len, record))
    for name, value in record.items():
        print(f"{name.ljust(width)}  {value:.4g}" if isinstance(value, float) else f"{name.ljust(width)}  {value}")
    write_json(options.json, record)
    return 0
