"""One attack on many pairs: its constants given as text, and the run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from invjax import attacks
from invjax.campaign.pairs import Pairs
from invjax.core.arguments import kinds_checked
from invjax.core.config import kind_of
from invjax.core.errors import BadArgument
from invjax.core.images import check_floats
from invjax.core.shown import short_repr
from invjax.engine import open_run, solve
from invjax.metrics import best_average_worst, measure
from invjax.metrics.attack import MEASURES, Attempts
from invjax.metrics.summary import Table
from invjax.types import Bounds, Config, LogitsFn, Result


class Run(NamedTuple):
    """One attack on N images with T targets each."""

    name: str
    config: Config
    result: Result  # fields [N, T, ...]
    attempts: Attempts  # [N, T] measures
    table: Table  # best, average, worst of asr, acp, anc, l2, d20, evaluations
    seconds: float  # wall time, compilation included

    __repr__ = short_repr


@kinds_checked
def configure(name: str, constants: Mapping[str, str | float]) -> Config:
    """The attack ``name`` with constants given as text: "8/255", "50", "true", "margin".

    Raises BadArgument for an unknown attack or constant, or a value that is not of the constant's kind or range.
    """
    attack = cast(attacks.AttackName, name)  # text, which make looks at
    fields = {field.name: field for field in dataclasses.fields(attacks.make(attack))}
    values = {key: _value(value, fields[key]) if key in fields else value for key, value in constants.items()}
    try:
        config = attacks.make(attack, **values)
    except BadArgument as error:
        raise (error.renamed("constants") if error.name == "keywords" else error) from None
    if (check := getattr(config, "check", None)) is not None:
        check()
    return config


def _value(given: str | float, field: dataclasses.Field[Any]) -> Any:
    """``given`` as the kind of value that the field holds."""
    name, text = field.name, str(given).strip()
    kind, others = kind_of(field)
    if kind is str or (text == "None" and "None" in others):
        return text if kind is str else None
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise BadArgument(name, "be true or false", text)
    try:
        above, _, below = text.partition("/")
        number = float(above) / float(below) if below else float(above)
    except (ValueError, ZeroDivisionError):
        raise BadArgument(name, "be a number", text) from None
    if kind is int:
        if not number.is_integer():
            raise BadArgument(name, "be a whole number", text)
        return int(number)
    return number


def constants_text(config: Config) -> str:
    """The constants of an attack as text: ``eps=0.3, steps=40``; without those that it derives (None)."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    values = {key: value for key, value in values.items() if value is not None}
    return ", ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()
    )


def attack_pairs(
    title: str, logits: LogitsFn, images: np.ndarray, pairs: Pairs, config: Config, bounds: Bounds, **options: Any
) -> Run:
    """Solve all pairs and measure the answers. ``options`` go to :func:`invjax.solve` (lanes, progress, out, key …).

    With ``out`` a run that was interrupted, or killed, resumes when it is called again: :mod:`invjax.engine.folder`.
    Each of several processes then measures all pairs, which it reads from there when they are solved.
    """
    check_floats(images.dtype, "images", tuple(bounds))
    begin = time.perf_counter()
    x = images[pairs.image]
    result = solve(logits, x, pairs.label, target=pairs.target, method=config, bounds=bounds, **options)
    if options.get("out") is not None and jax.process_count() > 1:  # this process was given its own rows alone
        result = open_run(options["out"]).load()
    result = jax.tree.map(lambda field: np.asarray(field).reshape(*pairs.shape, *field.shape[1:]), result)
    seconds = time.perf_counter() - begin  # after the results are on the host
    attempts = measure(result.delta, result.status, bounds=bounds)
    measures = {key: getattr(attempts, key) for key in MEASURES} | {"evaluations": result.evaluations}
    table = best_average_worst(attempts.success, measures, already=attempts.already)
    return Run(title, config, result, attempts, table, seconds)
