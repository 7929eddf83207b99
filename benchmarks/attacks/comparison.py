"""``attacks``: all attacks on the images of one data set, CIFAR-10 or ImageNet, beside the published tables.

Each attack runs over the same (image, target) pairs through the queue and is compiled apart. With ``--runs`` it keeps
what has ended, and an interrupted run resumes there. The tables have the rows of the GSE papers; beside them stand the
interpretability score, the overlap with Grad-CAM, and the cost of each attack.

EfficientNet-lite0, 1 and 2 bring their ImageNet weights as packages (extra ``imagenet``); every other network takes a
file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.attacks import figures as attack_figures
from benchmarks.attacks.attribution import attribution_record, print_scores
from benchmarks.attacks.records import SHOWN, attempted, record_of, table_of
from benchmarks.attacks.settings import Entry, configuration
from benchmarks.attacks.suites import SUITES, Suite
from benchmarks.common import Timed, check_json, pick, timed_run, write_json
from invjax.attribution import grad_cams
from invjax.campaign import ChosenImages, choose, constants_text
from invjax.campaign.pairs import Pairs, make_pairs
from invjax.core.errors import check_whole
from invjax.core.files import check_folder, write_atomic
from invjax.core.logits import num_classes
from invjax.data import ImageData, ImageSource, open_images
from invjax.metrics.summary import attack_table
from invjax.models import load
from invjax.types import Config, LogitsFn

LEDGER = ("compile_s", "run_s", "steps", "network_s", "issued")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    tables = {f"{data}, {mode}": table for data, suite in SUITES.items() for mode, table in suite.modes.items()}
    entries = " | ".join(f"{name}: {', '.join(table)}" for name, table in tables.items())

    def by_data(key: str) -> str:
        return ", ".join(f"{data} {suite.defaults[key]}" for data, suite in SUITES.items())

    parser.add_argument("--data", choices=tuple(SUITES), default="cifar10", help="default: cifar10")
    parser.add_argument(
        "--images", required=True, help="npz with images [N, H, W, 3] uint8 and labels [N], or a folder"
    )
    parser.add_argument("--model", help=f"name of the network (default: {by_data('model')})")
    parser.add_argument("--weights", help="its torch weights (.safetensors or .pth), unless it brings its own")
    parser.add_argument("--mean", type=float, nargs="+", help="its input normalisation (default: by network)")
    parser.add_argument("--std", type=float, nargs="+", help="likewise")
    parser.add_argument("--size", type=int, help="side of the images in pixels; others are resized (imagenet: 224)")
    parser.add_argument("--attacks", default="gse", help=f"all, or some of these ({entries})")
    parser.add_argument("--mode", choices=("default", "fidelity"), default="default", help="whose constants")
    parser.add_argument("--start", type=int, default=0, help="index of the first image considered")
    parser.add_argument("--n", type=int, help=f"number of correctly classified images (default: {by_data('n')})")
    parser.add_argument(
        "--targets", help=f"all, untargeted, or offsets added to the label: 1,4,7 (default: {by_data('targets')})"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a constant of every attack")
    parser.add_argument("--lanes", type=int, help=f"examples worked on at once (default: {by_data('lanes')})")
    parser.add_argument("--runs", help="folder that keeps what has ended; the same command resumes there")
    parser.add_argument("--no-explain", action="store_true", help="without interpretability score and Grad-CAM")
    parser.add_argument("--figures", help="folder for the curves of the score and the picture grid")
    parser.add_argument("--json", help="file for the record")
    parser.add_argument("--no-progress", action="store_true")


def _with_defaults(options: argparse.Namespace, suite: Suite) -> argparse.Namespace:
    """The options, with the data set's own defaults for those that were not given."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    return argparse.Namespace(**{**vars(options), **suite.defaults, **given})


def _open(path: str, size: int | None) -> ImageSource:
    """The images, resized (bilinear, antialiased) where a ``size`` is given and their side differs."""
    source = open_images(path)
    if size is None:
        return source
    check_whole("size", size)

    def read(start: int, stop: int) -> ImageData:
        part = source.read(start, stop)
        shape = (len(part.images), size, size, part.images.shape[3])
        if part.images.shape == shape:
            return part
        images = np.asarray(jax.image.resize(part.images, shape, "bilinear", antialias=True))
        return part._replace(images=np.clip(images, *part.bounds))

    return ImageSource(source.count, read)


def run(options: argparse.Namespace) -> int:
    """Run the chosen attacks one after the other; print and write what they gave."""
    check_json(options.json)
    suite = SUITES[options.data]
    options = _with_defaults(options, suite)
    figures = None if options.figures is None else check_folder(options.figures, "figures")
    table = suite.modes[options.mode]
    entries = {name: table[name] for name in pick("attacks", options.attacks, table)}
    untargeted = options.targets == "untargeted"
    configs = {name: configuration(entry, untargeted, options.set) for name, entry in entries.items()}

    logits = load(options.model, options.weights, mean=options.mean, std=options.std)
    images = choose(logits, _open(options.images, options.size), None, options.start, options.n)
    classes = num_classes(logits, images.images.shape[1:], images.images.dtype)
    pairs = make_pairs(images.labels, classes, options.targets)
    records: dict[str, dict[str, Any]] = {}
    changes: dict[str, np.ndarray] = {}
    for name, entry in entries.items():
        timed = _one(name, entry, configs[name], logits, images, pairs, options)
        x = images.images[pairs.image]
        as_tried = options.mode == "fidelity"
        records[name] = record_of(timed, pairs, x if as_tried else None) | _cost(entry)
        records[name]["constants"] = constants_text(configs[name])
        changes[name] = attempted(timed.result, x) if as_tried else np.asarray(timed.result.delta)
        _print_one(records[name])
        if not options.no_explain:
            status = np.asarray(timed.result.status)
            records[name] |= attribution_record(logits, images, pairs, changes[name], status, suite.batch, as_tried)
        _write(options, images, records)  # after each, so that an interrupted run leaves a record
    _print_all(records, suite, untargeted)
    if not options.no_explain:
        print_scores(records)
    if figures is not None:
        few = images.images[: attack_figures.SHOWN]
        maps = None if options.no_explain else grad_cams(logits, few, images.labels[: len(few)], batch=suite.batch)
        paths = attack_figures.write(figures, images, pairs, changes, records, maps, suite.names)
        print("\nwrote " + ", ".join(str(path) for path in paths))
    return 0


def _one(
    name: str,
    entry: Entry,
    config: Config,
    logits: LogitsFn,
    images: ChosenImages,
    pairs: Pairs,
    options: argparse.Namespace,
) -> Timed:
    """One attack over all pairs, resumed where an earlier call stopped."""
    problem = {}
    if entry.superpixels:
        from invjax.attacks.parts.superpixels import superpixels

        problem["groups"] = superpixels(images.images, entry.superpixels)[pairs.image]
    folder = None
    if options.runs is not None:
        which = f"{name}-{options.mode}-{options.targets}-{options.start}-{options.n}"
        folder = check_folder(options.runs, "runs") / which
    print(f"{name}: {constants_text(config)}", flush=True)
    timed = timed_run(
        logits, images.images[pairs.image], pairs.label, pairs.target, method=config,
        lanes=options.lanes, progress=False if options.no_progress else None, out=folder, **problem,
    )  # fmt: skip
    return timed if folder is None else _with_ledger(timed, folder)


def _with_ledger(timed: Timed, folder: Path) -> Timed:
    """The times summed over all calls that worked on a folder; they are kept beside its parts."""
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
    """The upper bounds of the released code's cost, where they are known."""
    if entry.released is None:
        return {}
    return {"released_evaluations": entry.released[0], "released_forwards": entry.released[1]}


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
    print("\n" + attack_table({name: table_of(record) for name, record in records.items()}, published, cases))
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


def _write(options: argparse.Namespace, images: ChosenImages, records: dict[str, dict[str, Any]]) -> None:
    write_json(
        options.json,
        {
            "benchmark": "attacks",
            "data": options.data,
            "mode": options.mode,
            "image_index": images.index.tolist(),
            "attacks": records,
        },
    )
