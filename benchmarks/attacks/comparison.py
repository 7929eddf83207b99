"""The comparison of all attacks on images of one data set: ``attacks-cifar10`` and ``attacks-imagenet``.

Each attack runs over the same (image, target) pairs through the queue, its compilation apart, in a folder from which an
interrupted run goes on. The tables are those of the GSE papers; beside them stand the interpretability score, the
overlap with Grad-CAM, and what each attack asked of the network.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.attacks import pictures as attack_pictures
from benchmarks.attacks.explained import explained, print_scores
from benchmarks.attacks.records import SHOWN, attempted, record_of
from benchmarks.attacks.settings import Entry, brief, chosen, configuration
from benchmarks.common import Timed, check_json, timed_run, write_json
from invjax.attribution import grad_cams
from invjax.campaign.attack import Chosen, choose, constants
from invjax.campaign.pairs import Pairs, make_pairs
from invjax.core.errors import BadArgument
from invjax.core.files import check_folder, write_atomic
from invjax.core.logits import num_classes
from invjax.data import ImageSource
from invjax.metrics.attack import attack_table

LEDGER = ("compile_s", "run_s", "steps", "network_s", "issued")


class Suite(NamedTuple):
    """What one data set brings to the comparison."""

    name: str
    modes: dict[str, dict[str, Entry]]  # mode -> entries
    published: dict[str, dict[str, Any]]  # "targeted", "untargeted" -> title -> table
    load: Callable[[argparse.Namespace], Any]  # the classifier
    open: Callable[[argparse.Namespace], ImageSource]  # the images
    batch: int  # images at once where no gradient loop runs
    names: Sequence[str] | None = None  # of the classes, for the pictures


def add_arguments(parser: argparse.ArgumentParser, suite: Suite) -> None:
    """The options that both benchmarks have."""
    modes = " | ".join(f"{mode}: {', '.join(table)}" for mode, table in suite.modes.items())
    parser.add_argument(
        "--images", required=True, help="npz with images [N, H, W, 3] uint8 and labels [N], or a folder"
    )
    parser.add_argument("--attacks", default="gse", help=f"all, or some of these ({modes})")
    parser.add_argument("--mode", choices=tuple(suite.modes), default="default", help="whose constants")
    parser.add_argument("--start", type=int, default=0, help="index of the first image looked at")
    parser.add_argument("--n", type=int, default=24, help="how many correctly classified images")
    parser.add_argument("--targets", default="all", help="all, untargeted, or offsets added to the label: 1,4,7")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another constant of each attack"
    )
    parser.add_argument("--lanes", type=int, default=64, help="examples worked on at once")
    parser.add_argument("--runs", help="folder in which runs are kept; the same command goes on from there")
    parser.add_argument("--no-explain", action="store_true", help="without interpretability score and Grad-CAM")
    parser.add_argument("--figures", help="folder for the curves of the score and the picture grid")
    parser.add_argument("--json", help="file for the record")
    parser.add_argument("--no-progress", action="store_true")


def run(options: argparse.Namespace, suite: Suite) -> int:
    """Run the chosen attacks one after the other; print and write what they gave."""
    check_json(options.json)
    figures = None if options.figures is None else check_folder(options.figures, "figures")
    entries = chosen(suite.modes[options.mode], options.attacks)
    untargeted = options.targets == "untargeted"
    settings = dict(one.partition("=")[::2] for one in options.set)
    configs = {name: configuration(entry, untargeted, settings) for name, entry in entries.items()}
    impossible = [name for name, entry in entries.items() if not (entry.targeted or untargeted)]
    if impossible:
        raise BadArgument("targets", f"be 'untargeted' for {', '.join(impossible)}", hint="no targeted form exists")

    logits = suite.load(options)
    images = choose(logits, suite.open(options), None, options.start, options.n)
    classes = num_classes(logits, images.images.shape[1:], images.images.dtype)
    pairs = make_pairs(images.labels, classes, options.targets)
    records: dict[str, dict[str, Any]] = {}
    changes: dict[str, np.ndarray] = {}
    for name, entry in entries.items():
        timed = _one(name, entry, configs[name], logits, images, pairs, options)
        x = images.images[pairs.image]
        as_tried = options.mode == "fidelity"
        records[name] = record_of(timed, pairs, x if as_tried else None) | _cost(entry)
        records[name]["constants"] = constants(configs[name])
        changes[name] = attempted(timed.result, x) if as_tried else timed.result.delta
        _print_one(records[name])
        if not options.no_explain:
            status = np.asarray(timed.result.status)
            records[name] |= explained(logits, images, pairs, changes[name], status, suite.batch, as_tried)
        _write(options, suite, images, records)  # after each: whatever is done is on disk
    _print_all(records, suite, untargeted)
    if not options.no_explain:
        print_scores(records)
    if figures is not None:
        few = images.images[: attack_pictures.SHOWN]
        maps = None if options.no_explain else grad_cams(logits, few, images.labels[: len(few)], batch=suite.batch)
        paths = attack_pictures.write(figures, images, pairs, changes, records, maps, suite.names)
        print("\nwrote " + ", ".join(str(path) for path in paths))
    return 0


def _one(
    name: str, entry: Entry, config: Any, logits: Any, images: Chosen, pairs: Pairs, options: argparse.Namespace
) -> Timed:
    """One attack over all pairs, from where an earlier call left off."""
    problem = {}
    if entry.superpixels:
        from invjax.attacks.parts.superpixels import superpixels

        problem["groups"] = superpixels(images.images, entry.superpixels)[pairs.image]
    folder = None
    if options.runs is not None:
        which = f"{name}-{options.mode}-{options.targets}-{options.start}-{options.n}"
        folder = check_folder(options.runs, "runs") / which
    print(f"{name}: {constants(config)}", flush=True)
    timed = timed_run(
        logits, images.images[pairs.image], pairs.label, pairs.target, method=config, brief=brief(config),
        lanes=options.lanes, progress=False if options.no_progress else None, out=folder, **problem,
    )  # fmt: skip
    return timed if folder is None else _with_ledger(timed, folder)


def _with_ledger(timed: Timed, folder: Path) -> Timed:
    """The times of all calls that worked on a folder, added up beside its parts."""
    path = folder / "times.json"
    before = json.loads(path.read_text()) if path.exists() else dict.fromkeys(LEDGER, 0.0)
    times = {
        "compile_s": timed.compile_s,
        "run_s": timed.run_s if timed.steps else 0.0,
        "steps": timed.steps,
        "network_s": timed.steps * timed.step_s,
        "issued": timed.occupancy * timed.steps if timed.steps else 0.0,
    }
    total = {key: before[key] + times[key] for key in LEDGER}
    write_atomic(path, json.dumps(total).encode())
    if not total["steps"]:
        return timed
    return timed._replace(
        run_s=total["run_s"], steps=int(total["steps"]), step_s=total["network_s"] / total["steps"],
        occupancy=total["issued"] / total["steps"], compile_s=total["compile_s"],
    )  # fmt: skip


def _cost(entry: Entry) -> dict[str, Any]:
    """The released code's ceilings, where they are known."""
    if entry.released is None:
        return {}
    return {"released_evaluations": entry.released[0], "released_forwards": entry.released[1]}


def _table(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {key: record[key] for key in SHOWN}


def _print_one(record: dict[str, Any]) -> None:
    average = {key: record[key]["average"] for key in SHOWN}
    print(
        f"  ASR {average['asr']:.1%}, ACP {average['acp']:.1f}, ANC {average['anc']:.2f}, l2 {average['l2']:.2f}, "
        f"d2,0 {average['d20']:.1f}; {record['evaluations']:.0f} gradients, {record['forwards']:.0f} forwards, "
        f"{record['per_example_s']:.2f} s per example, overhead {record['overhead']:.2f}, "
        f"compile {record['compile_s']:.0f} s",
        flush=True,
    )


def _print_all(records: dict[str, dict[str, Any]], suite: Suite, untargeted: bool) -> None:
    cases = ("average",) if untargeted else ("best", "average", "worst")
    published = suite.published.get("untargeted" if untargeted else "targeted", {})
    print("\n" + attack_table({name: _table(record) for name, record in records.items()}, published, cases))
    first = next(iter(records.values()))
    print(
        f"\n{first['images']} images, {first['attempts']} attempts of each attack; failures in the average: "
        f"{first['failures']}; l2 in [-1, 1] units, ANC 4-connected, windows of 8"
    )
    header = f"{'attack':14s}  failed  gradients  forwards  released    s/example  overhead  occupancy"
    print(f"\n{header}\n{'-' * len(header)}")
    for name, record in records.items():
        released = (
            f"{record['released_evaluations']}/{record['released_forwards']}"
            if "released_evaluations" in record
            else "–"
        )
        print(
            f"{name:14s}  {record['failed']:6d}  {record['evaluations']:9.1f}  {record['forwards']:8.1f}  "
            f"{released:10s}  {record['per_example_s']:9.3f}  {record['overhead']:8.2f}  {record['occupancy']:9.3f}"
        )


def _write(options: argparse.Namespace, suite: Suite, images: Chosen, records: dict[str, dict[str, Any]]) -> None:
    write_json(
        options.json,
        {
            "benchmark": suite.name,
            "mode": options.mode,
            "image_index": images.index.tolist(),
            "attacks": records,
        },
    )
