"""Many images, many targets: what ``invjax demo`` and ``invjax attack`` share.

Choosing the images that the classifier gets right, attacking each (image, target) pair once, and the table of it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax import attacks
from invjax.campaign.pairs import Pairs
from invjax.core.errors import BadArgument, Words
from invjax.data import ImageSource
from invjax.engine import solve
from invjax.metrics import attack_rows, best_average_worst, measure
from invjax.metrics.attack import MEASURES, Attempts, Table
from invjax.types import Bounds, Config, Result

BATCH = 256  # images per call of the network when the right ones are looked for


class Chosen(NamedTuple):
    """The images of a run."""

    index: np.ndarray  # [N] int64 rows of the source
    images: np.ndarray  # [N, H, W, C] float32
    labels: np.ndarray  # [N] int32


class Run(NamedTuple):
    """One attack on N images with T targets each."""

    name: str
    config: Config
    result: Result  # fields [N, T, ...]
    attempts: Attempts  # [N, T] numbers
    table: Table  # best, average, worst of asr, acp, anc, l2, d20, evaluations
    seconds: float  # wall time, compilation included


@jax.jit
def _classes(logits: Any, x: Any) -> Any:
    return logits(x).argmax(axis=-1)


def classify(logits: Any, images: np.ndarray, batch: int = BATCH) -> np.ndarray:
    """[N] int, the classes of ``images`` [N, *S]; one compilation whatever N."""
    found = []
    for begin in range(0, len(images), batch):
        rows = images[begin : begin + batch]
        whole = np.resize(rows, (batch, *rows.shape[1:])) if len(images) > batch else rows
        found.append(np.asarray(_classes(logits, whole))[: len(rows)])
    return np.concatenate(found)


def choose(
    logits: Any, source: ImageSource, labels: np.ndarray | None, start: int, n: int | None, *, everything: bool = False
) -> Chosen:
    """The first ``n`` images from row ``start`` on whose label is the class the network gives them.

    labels: [count] int, used in the place of the source's; None: the source's. n: None for all there are.
    everything: take the others as well. Rows are read in blocks, no further than needed.

    Raises ValueError: a bad ``start`` or ``n``, no labels, or no image the network gets right.
    """
    if not 0 <= start < source.count:
        raise BadArgument("start", f"be from 0 to {source.count - 1}, the last image", Words(start))
    if n is not None and n < 1:
        raise BadArgument("n", "be at least 1", Words(n))
    index, images, classes, seen = [], [], [], 0
    while start + seen < source.count and (n is None or sum(map(len, index)) < n):
        begin = start + seen
        block = source.read(begin, min(begin + BATCH, source.count))
        right = block.labels if labels is None else labels[begin : begin + BATCH]
        if right is None:
            raise BadArgument("labels", "be given", hint="the images come without any")
        take = np.ones(len(right), bool) if everything else classify(logits, block.images) == right
        index.append(begin + np.flatnonzero(take))
        images.append(block.images[take])
        classes.append(right[take])
        seen += len(right)
    chosen = Chosen(*(np.concatenate(parts)[:n] for parts in (index, images, classes)))
    if not len(chosen.index):
        raise BadArgument(
            "images",
            "hold some that the network gets right",
            hint=(
                f"of the {seen} looked at it gets none (do the weights, the normalisation and the labels "
                "belong together?)"
            ),
        )
    return chosen


def configure(name: str, constants: dict[str, str | float]) -> Config:
    """The attack ``name`` with constants given as text: "8/255", "50", "true", "margin".

    Raises BadArgument for an unknown attack or constant, or a value that is not of the constant's kind or range.
    """
    default = attacks.make(name)
    kinds = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
    values = {key: _value(key, value, kinds[key]) if key in kinds else value for key, value in constants.items()}
    try:
        config = attacks.make(name, **values)
    except BadArgument as error:
        raise (error.renamed("set") if error.name == "keywords" else error) from None
    if (check := getattr(config, "check", None)) is not None:
        check()
    return config


def _value(name: str, given: str | float, default: Any) -> Any:
    """``given`` as the kind of value that the default is."""
    text = str(given).strip()
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise BadArgument(name, "be true or false", text)
    try:
        above, _, below = text.partition("/")
        number = float(above) / float(below) if below else float(above)
    except (ValueError, ZeroDivisionError):
        raise BadArgument(name, "be a number", text) from None
    if not np.isfinite(number):
        raise BadArgument(name, "be finite", text)
    if isinstance(default, int):
        if number != int(number):
            raise BadArgument(name, "be a whole number", text)
        return int(number)
    return number


def attack(
    title: str, logits: Any, images: np.ndarray, pairs: Pairs, config: Config, bounds: Bounds, **options: Any
) -> Run:
    """Solve all pairs and measure them. ``options`` go to :func:`invjax.solve` (lanes, progress, out, key …)."""
    begin = time.perf_counter()
    x = images[pairs.image]
    result = solve(logits, x, pairs.label, target=pairs.target, method=config, bounds=bounds, **options)
    result = Result(*(np.asarray(field).reshape(*pairs.shape, *field.shape[1:]) for field in result))
    seconds = time.perf_counter() - begin  # after the results are on the host
    attempts = measure(result.delta, result.status, bounds=bounds)
    measures = {key: getattr(attempts, key) for key in MEASURES} | {"evaluations": result.evaluations}
    table = best_average_worst(attempts.success, measures, already=attempts.already)
    return Run(title, config, result, attempts, table, seconds)


def table_rows(runs: Sequence[Run]) -> list[dict[str, str]]:
    """The rows of all runs: best, average and worst target (only "average" where there is one target)."""
    several = runs[0].attempts.success.shape[1] > 1
    rows = attack_rows(
        {run.name: run.table for run in runs}, cases=("best", "average", "worst") if several else ("average",)
    )
    by_name = {run.name: run for run in runs}
    for row in rows:
        run = by_name[row["attack"]]
        mean = run.table["evaluations"][row["case"]]
        row["evaluations"] = "–" if np.isnan(mean) else f"{mean:.0f}"
        row["seconds"] = f"{run.seconds:.1f}" if row["case"] == "average" else ""
        row["case"] = CASES[row["case"]] if several else "one target"
    return rows


CASES = {"best": "best target", "average": "average target", "worst": "worst target"}

NOTE = (
    "ASR: share of targets reached. ACP: changed pixels. ANC: clusters of changed pixels. l2: length of the change, in "
    "[−1, 1] units. d2,0: 8×8 windows touched. Evaluations: gradients of the network asked per pair. Seconds: of "
    "the whole call, compilation included. Best and worst are taken over the targets of each image, then averaged "
    "over images; worst counts only images whose every target was reached; the average counts a failure as no change."
)


def median_pixels(run: Run) -> str:
    """Changed pixels of the median success, or a dash."""
    counts = run.attempts.acp[run.attempts.success]
    return f"{np.median(counts):.0f}" if counts.size else "–"


def reached(run: Run) -> str:
    """Share of the targets reached, in per cent."""
    return f"{100 * run.table['asr']['average']:.1f} %".replace(".0 %", " %")


def constants(config: Config) -> str:
    """The constants of an attack as text: ``eps=0.3, steps=40``."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return ", ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()
    )
