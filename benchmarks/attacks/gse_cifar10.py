"""``gse-cifar10``: GSE on CIFAR-10, beside the published table."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks.attacks import published
from benchmarks.attacks.records import record_of, table_of
from benchmarks.attacks.settings import CIFAR10, Entry, configuration
from benchmarks.common import check_json, timed_run, write_json
from invjax.campaign import choose
from invjax.campaign.pairs import make_pairs
from invjax.core.errors import BadArgument, Words, of_shape
from invjax.core.logits import num_classes
from invjax.data import open_images
from invjax.metrics.attack import MEASURES
from invjax.metrics.summary import attack_table
from invjax.models import load
from invjax.models.params_file import load_arrays

VARIANTS = {"fast": CIFAR10["gse"], "released": CIFAR10["gse-released"], "published": Entry("gse-published", {})}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--images", required=True, help="npz with images [N,32,32,3] uint8 and labels [N]")
    parser.add_argument("--weights", required=True, help="torch weights of ResNet20 (.safetensors or .pth)")
    parser.add_argument("--start", type=int, default=0, help="index of the first image considered")
    parser.add_argument("--n", type=int, default=24, help="number of correctly classified images")
    parser.add_argument("--targets", default="all", help="all, or offsets added to the label: 1,4,7")
    parser.add_argument("--untargeted", action="store_true", help="any class but the label")
    parser.add_argument(
        "--variant", choices=list(VARIANTS), default="fast", help="fast: ours; or the authors' code, or the paper"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a constant of GSE")
    parser.add_argument("--lanes", type=int, default=64, help="examples worked on at once")
    parser.add_argument("--mean", type=float, nargs="+", default=[0.5], help="the network's input normalisation")
    parser.add_argument("--std", type=float, nargs="+", default=[0.5])
    parser.add_argument("--compare", help="npz with acp, anc, l2, d20 [T, N] and image_index [N] of another code")
    parser.add_argument("--json", help="file for the record")
    parser.add_argument("--no-progress", action="store_true")


def compare(path: str, record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Ratio of the means to those of another code, and share of the examples on which both agree."""
    other = load_arrays(path)
    if not {*MEASURES, "image_index"} <= set(other):
        raise BadArgument("compare", f"be an npz with {', '.join((*MEASURES, 'image_index'))}", Words(sorted(other)))
    if other["image_index"].tolist() != record["image_index"]:
        raise BadArgument("compare", "have the images of this run", hint="--start and --n choose others")
    found = {}
    for name in MEASURES:
        ours, theirs = np.asarray(record["per_example"][name], np.float64), other[name].T
        if ours.shape != theirs.shape:
            raise BadArgument("compare", f"have arrays of shape {ours.T.shape}", of_shape(theirs.T.shape))
        equal = np.isclose(ours, theirs, rtol=1e-4, atol=0)
        ratio = ours.mean() / theirs.mean() if theirs.any() else float("nan")
        found[name] = {"ratio": float(ratio), "equal": float(equal.mean())}
    return found


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    source = open_images(options.images)
    logits = load("resnet20", options.weights, mean=options.mean, std=options.std)
    config = configuration(VARIANTS[options.variant], options.untargeted, options.set)
    chosen = choose(logits, source, None, options.start, options.n)
    classes = num_classes(logits, chosen.images.shape[1:], chosen.images.dtype)
    pairs = make_pairs(chosen.labels, classes, "untargeted" if options.untargeted else options.targets)
    x = chosen.images[pairs.image]
    timed = timed_run(
        logits, x, pairs.label, pairs.target, method=config, lanes=options.lanes,
        progress=False if options.no_progress else None,
    )  # fmt: skip
    record = {"variant": options.variant, "lanes": timed.lanes, **record_of(timed, pairs)}
    record["image_index"] = chosen.index.tolist()
    reference = (published.CIFAR10_UNTARGETED if options.untargeted else published.CIFAR10_TARGETED)["GSE"]
    cases = ("average",) if options.untargeted else ("best", "average", "worst")
    print(attack_table({f"GSE {options.variant}": table_of(record)}, {"GSE": reference}, cases))
    print(
        f"\n{record['attempts']} attempts, {record['failed']} failed; l2 in [-1, 1] units, ANC 4-connected, window 8\n"
        f"evaluations {record['evaluations']:.1f}, forwards {record['forwards']:.1f} per example; "
        f"occupancy {record['occupancy']:.3f}\n"
        f"compile {record['compile_s']:.1f} s, run {record['run_s']:.1f} s, {record['per_example_s']:.3f} s per example"
        f" = {record['per_example_in_gradients']:.0f} bare gradients of {1e3 * record['bare_gradient_s']:.2f} ms"
    )
    if options.compare:
        record["compare"] = compare(options.compare, record)
        shares = (f"{name} {row['ratio']:.4f} ({row['equal']:.1%})" for name, row in record["compare"].items())
        print(f"ratio of means, share of equal examples: {', '.join(shares)}")
    write_json(options.json, record)
    return 0
