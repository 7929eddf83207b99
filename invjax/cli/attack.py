"""``invjax attack``: the images of a file, one attack, a folder of results.

The folder's ``run/`` holds the pairs that have ended, so that an interrupted or killed run resumes when the same
command is given again. The engine writes and reads it: :mod:`invjax.engine.folder`.
"""

from __future__ import annotations

import inspect
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from invjax import attacks, campaign
from invjax.campaign import ChosenImages, Pairs, Run
from invjax.cli.options import AttackOptions
from invjax.core.errors import BadArgument, Words, check_seed
from invjax.core.files import check_folder, no_file, writing
from invjax.core.labels import NO_CLASS
from invjax.core.logits import num_classes
from invjax.data import ImageData, ImageSource, open_images
from invjax.data.images.source import LABEL_KEYS
from invjax.engine import open_run
from invjax.engine.choosing import check_lanes
from invjax.models import load
from invjax.report import Section, attack_section, write_report
from invjax.report.text import text_table
from invjax.types import Bounds, Config, LogitsFn

_SHOWN = 12  # images on the page
_PREDICTED = "predicted"  # labels: what the network predicts


def run_attack(options: AttackOptions, say: Callable[[str], None] = print) -> Run:
    """Check everything, solve all pairs, write results.npz, results.csv and report.html into ``options.out``.

    The first two: :func:`invjax.campaign.write_results`.

    Raises:
      ValueError, ImportError: before the folder is made; naming the option, what it must be and what it was.
    """
    begin = time.perf_counter()
    config = _configured(options)
    check_lanes(options.lanes, None)
    check_seed("seed", options.seed, 32, -(2**31))
    folder = check_folder(options.out)
    source = open_images(options.images, options.split, bounds=options.bounds)
    logits = _load(options)
    first = source.read(0, 1)
    classes = _class_count(logits, first, options)
    try:
        labelled = _labelled(options, source, logits)
        chosen = campaign.choose(logits, *labelled, options.start, options.n, everything=options.all_images)
    except BadArgument as error:
        network = "model" if options.weights is None else "weights"
        raise (error.renamed(network) if error.name == "logits" else error) from None
    pairs = _pairs(options, chosen, source.count, classes)
    _check_names(first.names, pairs)

    which = chosen.words + (" (--all-images keeps them)" if chosen.left_out else "")
    say(f"{options.attack}: {which}{';' if chosen.left_out else ','} {len(pairs.label)} pairs")
    run = campaign.attack_pairs(
        options.attack, logits, chosen.images, pairs, config, Bounds(*options.bounds), lanes=options.lanes,
        key=jax.random.key(options.seed), out=folder / "run", name=options.model,
        progress=False if options.no_progress else None,
    )  # fmt: skip
    say(f"{open_run(folder / 'run').manifest.get('lanes', '?')} pairs at once")
    say(f"\n{text_table(campaign.table_rows([run]), 'case')}\n")
    with writing(folder, hint=f"the answers are kept in {str(folder / 'run')!r}, where the same command reads them"):
        campaign.write_results(folder, run, chosen, pairs)
    weights = "" if options.weights is None else f" with the weights `{Path(options.weights).name}`"
    more = f" The first {_SHOWN} of {len(chosen.index)} images are shown." if len(chosen.index) > _SHOWN else ""
    with writing(folder):
        write_report(
            folder / "report.html",
            [_section(options, run, chosen, pairs, first.names)],
            title="invjax attack",
            subtitle=f"`{options.model}`{weights}. {which}.{more}",
            footer=f"All answers: results.npz and results.csv beside this page. {time.perf_counter() - begin:.0f} s.",
        )
    say(f"wrote {folder / 'report.html'}, results.npz, results.csv")
    return run


def _section(
    options: AttackOptions, run: Run, chosen: ChosenImages, pairs: Pairs, names: tuple[str, ...] | None
) -> Section:
    shown = slice(0, _SHOWN)
    return attack_section(
        chosen.images[shown],
        chosen.labels[shown],
        pairs.target_table[shown],
        {run.name: run.result[shown]},
        campaign.table_rows([run]),
        title=f"{run.name} on {Path(options.images).name}",
        facts={
            "images × targets": f"{pairs.shape[0]} × {pairs.shape[1]}",
            "targets reached": campaign.share_reached(run),
            "pixels changed (median)": campaign.median_pixels(run),
            "gradients per pair": f"{run.result.evaluations.mean():.0f}",
            "seconds": f"{run.seconds:.0f}",
        },
        note=f"{campaign.NOTE} Constants: {campaign.constants_text(run.config)}.",
        class_names=names,
        bounds=options.bounds,
        max_images=_SHOWN,
    )


def _configured(options: AttackOptions) -> Config:
    given: dict[str, str | float] = {}
    for setting in options.set:
        name, equals, value = setting.partition("=")
        if not (name and equals and value):
            raise BadArgument("set", "be NAME=VALUE", setting)
        given[name] = value
    if options.eps is not None:
        given["eps"] = options.eps
    try:
        return campaign.configure(options.attack, given)
    except BadArgument as error:
        if error.name == "constants" and error.was == "eps" and options.eps is not None:
            wanted = f"be left out for attack {options.attack!r}, which has no radius"
            able = [name for name, make in attacks.REGISTRY.items() if "eps" in inspect.signature(make).parameters]
            raise BadArgument("eps", wanted, options.eps, hint=f"{', '.join(able)} have one") from None
        constant = error.name.rpartition(".")[2]
        if constant == "eps" and options.eps is not None:
            raise error.renamed("eps") from None
        if constant in given:
            raise error.renamed(f"--set {constant}") from None
        raise (error.renamed("set") if error.name == "constants" else error) from None


def _load(options: AttackOptions) -> LogitsFn:
    if options.weights is not None and not os.path.isfile(options.weights):
        raise no_file("weights", "be an existing file", options.weights)
    mean, std = (None if side is None else np.asarray(side, np.float32) for side in (options.mean, options.std))
    try:
        return load(options.model, options.weights, mean=mean, std=std)
    except BadArgument as error:
        if error.name in ("mean", "std", "weights"):
            raise
        if error.name in ("name", "model"):
            raise error.renamed("model") from error
        if error.name == "path":
            raise error.renamed("weights") from error
        raise BadArgument("weights", f"fit {options.model!r}", hint=str(error)) from error


def _class_count(logits: LogitsFn, first: ImageData[np.ndarray | None], options: AttackOptions) -> int:
    shape = first.images.shape[1:]
    try:
        return num_classes(logits, shape, np.float32)
    except BadArgument as error:
        if error.__cause__ is None:  # it takes the images; what it returns is wrong
            raise error.renamed("model") from None
        wanted = f"have the shape that the network {options.model!r} takes"
        raise BadArgument("images", wanted, Words(shape), hint=error.hint) from error


def _labelled(options: AttackOptions, source: ImageSource, logits: LogitsFn) -> tuple[ImageSource, np.ndarray | None]:
    """The source with its labels or those that the network predicts, or a list of labels for it."""
    if options.labels is not None and options.labels != _PREDICTED:
        return source, campaign.read_integers(options.labels, "labels", LABEL_KEYS)

    def read(start: int, stop: int) -> ImageData[np.ndarray | None]:
        data = source.read(start, stop)
        if options.labels == _PREDICTED:
            said = campaign.classify(logits, data.images).astype(np.int32)
            if (none := np.flatnonzero(said == NO_CLASS)).size:
                wanted = "give finite logits, from which labels are predicted"
                raise BadArgument("logits", wanted, Words("NaN for an image"), start + none[0])
            return data._replace(labels=said)
        if data.labels is None:
            raise BadArgument("labels", f"be a file or {_PREDICTED!r}", hint=f"{options.images!r} holds none")
        return data

    return ImageSource(source.count, read), None


def _check_names(names: tuple[str, ...] | None, pairs: Pairs) -> None:
    """Raise where the images come with names of classes, but not of all that the page will show."""
    most = int(max(pairs.label.max(), pairs.target_table.max()))
    if names is not None and len(names) <= most:
        raise BadArgument("images", f"name each class, as far as class {most}", Words(f"with {len(names)} names"))


def _pairs(options: AttackOptions, chosen: ChosenImages, count: int, classes: int) -> Pairs:
    if options.targets in ("all", "untargeted") or re.fullmatch(r"-?\d+(,-?\d+)*", options.targets):
        return campaign.make_pairs(chosen.labels, classes, options.targets)
    if not os.path.isfile(options.targets):
        raise no_file("targets", "be all, untargeted, offsets like 1,4,7 or a file", options.targets)
    wanted = campaign.read_integers(options.targets, "targets", ("targets", "target"))
    if len(wanted) != count:
        raise BadArgument("targets", f"have a row for each of the {count} images", len(wanted))
    try:
        return campaign.listed_pairs(chosen.labels, wanted[chosen.index], classes)
    except BadArgument as error:
        if error.index is None:
            raise
        image, which = error.index
        raise BadArgument(error.name, error.wanted, error.was, (chosen.index[image], which)) from error
