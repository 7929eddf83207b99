"""The bulk job of ``invjax attack``: images of a file, one attack, a folder of results; can be stopped and resumed."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from invjax.campaign.attack import (
    NOTE,
    Chosen,
    Run,
    attack,
    choose,
    classify,
    configure,
    constants,
    median_pixels,
    table_rows,
)
from invjax.campaign.attack import reached as share_reached
from invjax.campaign.pairs import Pairs, make_pairs
from invjax.core.errors import BadArgument, Words
from invjax.core.files import check_folder, write_atomic
from invjax.core.logits import num_classes
from invjax.data import ImageData, ImageSource, open_images
from invjax.data.images.source import LABEL_KEYS, read_npz, to_labels
from invjax.engine.folder import count_saved
from invjax.models import load
from invjax.models.registry import REGISTRY as MODELS
from invjax.report import attack_section, write_report
from invjax.report.text import text_table
from invjax.types import UNTARGETED, Bounds, Status

SHOWN = 12  # images on the page
PREDICTED = "predicted"  # labels: what the network says
CSV_COLUMNS = ("index", "label", "target", "status", "evaluations", "pixels", "clusters", "l2", "d20")


@dataclass(frozen=True)
class Job:
    """What ``invjax attack`` is asked for; the fields are its options."""

    images: str
    model: str
    out: str | Path
    weights: str | Path | None = None
    attack: str = "gse"
    targets: str = "all"
    labels: str | None = None
    split: str = "test"
    start: int = 0
    n: int | None = None
    all_images: bool = False
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    eps: str | None = None
    set: Sequence[str] = ()
    seed: int = 0
    lanes: int = 64
    no_progress: bool = False


def run_job(job: Job, say: Callable[[str], None] = print) -> Run:
    """Check everything, solve all pairs, write ``results.npz``, ``results.csv`` and ``report.html`` into ``job.out``.

    results.npz, of N images and T targets: ``index`` [N] rows of the images, ``label`` [N], ``target`` [N, T] (-1:
    untargeted), ``status`` [N, T], ``evaluations``, ``forwards``, ``acp``, ``anc``, ``l2`` (in [-1, 1] units), ``d20``
    [N, T], ``x`` and ``delta`` [N, T, H, W, C].

    Raises:
      ValueError, ImportError: before the folder is made; naming the option, what it must be and what it was.
    """
    begin = time.perf_counter()
    config = configure(job.attack, _constants(job))
    if job.lanes < 1:
        raise BadArgument("lanes", "be at least 1", Words(job.lanes))
    folder = check_folder(job.out)
    source = open_images(job.images, job.split, bounds=job.bounds)
    logits = _load(job)
    first = source.read(0, 1)
    classes = _classes(logits, first, job)
    chosen = choose(logits, *_labelled(job, source, logits, classes), job.start, job.n, everything=job.all_images)
    pairs = _pairs(job, chosen, source.count, classes)

    say(f"{job.attack}: {len(chosen.index)} images, {len(pairs.label)} pairs")
    run = attack(
        job.attack, logits, chosen.images, pairs, config, Bounds(*job.bounds), lanes=job.lanes,
        key=jax.random.key(job.seed), out=folder / "run", name=job.model, progress=False if job.no_progress else None,
    )  # fmt: skip
    rows = table_rows([run])
    say(f"\n{text_table(rows, 'case')}\n")
    target = np.full(pairs.shape, UNTARGETED, np.int32) if pairs.target is None else pairs.target.reshape(pairs.shape)
    try:
        write_atomic(folder / "results.npz", _npz(run, chosen, target))
        write_atomic(folder / "results.csv", _csv(run, chosen, target).encode())
    except OSError as error:
        raise BadArgument(
            "out", "be a folder that can be written", Words(f"{str(folder)!r}: {error.strerror}")
        ) from error
    shown = slice(0, SHOWN)
    section = attack_section(
        chosen.images[shown],
        chosen.labels[shown],
        target[shown],
        {job.attack: run.result.rows(shown)},
        rows,
        title=f"{job.attack} on {Path(job.images).name}",
        facts={
            "images × targets": f"{pairs.shape[0]} × {pairs.shape[1]}",
            "targets reached": share_reached(run),
            "pixels changed (median)": median_pixels(run),
            "gradients per pair": f"{run.result.evaluations.mean():.0f}",
            "seconds": f"{run.seconds:.0f}",
        },
        note=f"{NOTE} Constants: {constants(config)}.",
        class_names=first.names,
        bounds=job.bounds,
        max_images=SHOWN,
    )
    of = "" if job.weights is None else f" with the weights `{Path(job.weights).name}`"
    more = f" The first {SHOWN} of {len(chosen.index)} images are shown." if len(chosen.index) > SHOWN else ""
    write_report(
        folder / "report.html",
        [section],
        title="invjax attack",
        subtitle=f"`{job.model}`{of}.{more}",
        footer=f"All answers: results.npz and results.csv beside this page. {time.perf_counter() - begin:.0f} s.",
    )
    say(f"wrote {folder / 'report.html'}, results.npz, results.csv")
    return run


def kept(out: str | Path) -> int:
    """How many pairs the run folder of an interrupted job holds."""
    return count_saved(Path(out) / "run")


def _constants(job: Job) -> dict[str, str | float]:
    given: dict[str, str | float] = {}
    for setting in job.set:
        name, equals, value = setting.partition("=")
        if not (name and equals and value):
            raise BadArgument("set", "be NAME=VALUE", setting)
        given[name] = value
    if job.eps is not None:
        given["eps"] = job.eps
    return given


def _load(job: Job) -> Any:
    if job.model not in MODELS:
        raise BadArgument("model", f"be one of {', '.join(sorted(MODELS))}", job.model)
    if job.weights is not None and not Path(job.weights).is_file():
        raise BadArgument("weights", "be an existing file", str(job.weights))
    mean, std = (None if side is None else np.asarray(side, np.float32) for side in (job.mean, job.std))
    try:
        return load(job.model, job.weights, mean=mean, std=std)
    except ValueError as error:
        text = str(error)
        named = text if text.startswith(("mean", "std", "weights")) else f"weights must fit {job.model!r}: {text}"
        raise ValueError(
            re.sub(r"^path must be", "weights must be", text) if text.startswith("path") else named
        ) from error


def _classes(logits: Any, first: ImageData, job: Job) -> int:
    try:
        return num_classes(logits, first.images.shape[1:], np.float32)
    except ValueError as error:
        reason = str(error).rpartition("failed: ")[2]
        raise BadArgument(
            "images",
            f"have the shape that the network {job.model!r} takes",
            Words(f"{first.images.shape[1:]}: {reason}"),
        ) from error


def _labelled(job: Job, source: ImageSource, logits: Any, classes: int) -> tuple[ImageSource, np.ndarray | None]:
    """The source with labels that are checked against the number of classes, or a list of labels for it."""

    def checked(labels: np.ndarray, offset: int = 0) -> np.ndarray:
        if (wrong := np.flatnonzero(labels >= classes)).size:
            raise BadArgument(
                "labels",
                f"lie in [0, {classes}), the classes of the weights",
                Words(f"{labels[wrong[0]]} at index {offset + int(wrong[0])}"),
            )
        return labels

    if job.labels is not None and job.labels != PREDICTED:
        return source, checked(to_labels(read_integers(job.labels, "labels", LABEL_KEYS), source.count))

    def read(start: int, stop: int) -> ImageData:
        data = source.read(start, stop)
        if job.labels == PREDICTED:
            return data._replace(labels=classify(logits, data.images).astype(np.int32))
        if data.labels is None:
            raise BadArgument("labels", f"be a file or {PREDICTED!r}", hint=f"{job.images!r} holds none")
        return data._replace(labels=checked(data.labels, start))

    return ImageSource(source.count, read), None


def _pairs(job: Job, chosen: Chosen, count: int, classes: int) -> Pairs:
    if job.targets in ("all", "untargeted") or re.fullmatch(r"-?\d+(,-?\d+)*", job.targets):
        return make_pairs(chosen.labels, classes, job.targets)
    if not Path(job.targets).is_file():
        raise BadArgument("targets", "be all, untargeted, offsets like 1,4,7 or a file", job.targets)
    wanted = read_integers(job.targets, "targets", ("targets", "target"))
    wanted = wanted[:, None] if wanted.ndim == 1 else wanted
    if wanted.ndim != 2 or len(wanted) != count or not wanted.shape[1]:
        raise BadArgument("targets", f"be a file of shape ({count},) or ({count}, T)", Words(wanted.shape))
    rows = wanted[chosen.index]
    for wrong, what in (
        ((rows < 0) | (rows >= classes), f"lie in [0, {classes}), the classes of the weights"),
        (rows == chosen.labels[:, None], "differ from the label"),
    ):
        if wrong.any():
            i, t = np.argwhere(wrong)[0]
            raise BadArgument("targets", f"{what}", Words(f"{rows[i, t]} for the image at index {chosen.index[i]}"))
    each = rows.shape[1]
    image = np.repeat(np.arange(len(rows)), each)
    return Pairs(image, chosen.labels[image], rows.reshape(-1).astype(np.int32), tuple(range(each)))


def read_integers(path: str | Path, name: str, keys: tuple[str, ...]) -> np.ndarray:
    """Integers of a ``.npy``, of one of the ``keys`` of an ``.npz``, or of a text file. ValueError naming ``name``."""
    path = Path(path)
    if not path.is_file():
        raise BadArgument(name, "be an existing file", str(path))
    if path.suffix == ".npz":
        arrays = read_npz(path, name, keys)
        if not arrays:
            raise BadArgument(name, f"be an npz with an array {keys[0]!r}, {str(path)!r} has none")
        values = next(iter(arrays.values()))
    else:
        try:
            values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _read_text(path)
        except (OSError, EOFError, ValueError) as error:
            raise BadArgument(name, f"be a .npy, .npz or text file of integers, {str(path)!r} is not") from error
    if not np.issubdtype(values.dtype, np.integer):
        raise BadArgument(name, "be integers", values.dtype)
    return values


def _read_text(path: Path) -> np.ndarray:
    rows = [[int(word) for word in line.replace(",", " ").split()] for line in path.read_text().splitlines()]
    rows = [row for row in rows if row]
    return np.asarray([row[0] for row in rows] if all(len(row) == 1 for row in rows) else rows)


def _npz(run: Run, chosen: Chosen, target: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    result, numbers = run.result, run.attempts
    np.savez_compressed(
        buffer, index=chosen.index, label=chosen.labels, target=target, status=result.status,
        evaluations=result.evaluations, forwards=result.forwards, acp=numbers.acp, anc=numbers.anc, l2=numbers.l2,
        d20=numbers.d20, x=result.x, delta=result.delta,
    )  # fmt: skip
    return buffer.getvalue()


def _csv(run: Run, chosen: Chosen, target: np.ndarray) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    numbers = run.attempts
    for i, t in np.ndindex(*target.shape):
        wanted = "any" if target[i, t] == UNTARGETED else int(target[i, t])
        status = Status(int(run.result.status[i, t])).name.lower()
        measures = (int(numbers.acp[i, t]), int(numbers.anc[i, t]), f"{numbers.l2[i, t]:.6g}", int(numbers.d20[i, t]))
        writer.writerow(
            (int(chosen.index[i]), int(chosen.labels[i]), wanted, status, int(run.result.evaluations[i, t]), *measures)
        )
    return text.getvalue()
