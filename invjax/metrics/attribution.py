"""Does a perturbation lie where the classifier looks? The interpretability score IS on the adversarial saliency map.

For a perturbation r and a map M of the same shape (:mod:`invjax.attribution.saliency`),

    IS(P) = ‖ 1[M > ν_P] ⊙ r ‖₂ / ‖r‖₂                                                                               (1)

with ν_P the P-th percentile of the entries of M, by one of two conventions:

    "released"   sort the entries that are not 0 (negative ones included) and put a 0 in front: m numbers; take number
                 ⌈P m / 100⌉, counted from 0                                                                         (2)
    "plain"      all entries, linear interpolation (``numpy.percentile``)

If M is unrelated to r, a share 1 - P/100 of ‖r‖² lies above ν_P on average, so such an attack scores

    chance(P) = sqrt(1 - P/100)                                                                                      (3)

and only a curve that differs from it says anything. (3) holds for maps without zeros. If an indicator has set a share z
of M to 0, "released" leaves less above ν_P, the level is about sqrt((1 - z)(1 - P/100)), and under "plain" several ν_P
may be 0. So a curve also carries the level of its own maps:

    level(P) = mean over the attempts of sqrt(|{M > ν_P}| / D)                                                       (4)

Source: (1) StrAttack (Xu et al. 2019); (2) the released code of GSE. Departures from that code: an example's map does
not depend on its batch (in the published curves it does, see :mod:`invjax.attribution.saliency`); if P is too near 100
for (2) the largest entry is taken instead of failing; failures enter by their status. Overlap in the image plane is
measured by :mod:`invjax.metrics.attribution_overlap`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from invjax.attribution.saliency import Indicator, check_examples, check_targets, saliency_batch
from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check_choice, of_shape
from invjax.core.labels import check_status
from invjax.core.logits import as_logits_fn, num_classes
from invjax.core.meant import explained
from invjax.core.numerics import as_float
from invjax.core.rows import BATCH, Picked, map_rows
from invjax.core.shown import short_repr
from invjax.engine import checks
from invjax.metrics.summary import CONVENTIONS, Convention
from invjax.types import Array, ArrayLike, LogitsFn, Status

Threshold = Literal["released", "plain"]
THRESHOLDS: tuple[Threshold, ...] = get_args(Threshold)
PERCENTILES = (50.0, 60.0, 70.0, 80.0, 90.0)  # those of the published curves
NAN = float("nan")


class Curve(NamedTuple):
    """IS against the percentile, of a list of attempts; P percentiles."""

    percentiles: np.ndarray  # [P] float64, percent
    scores: np.ndarray  # [N, P] or [N, T, P] float64; NaN where an attempt is not counted or has no score
    mean: np.ndarray  # [P] float64, over the counted attempts; NaN where there is none
    chance: np.ndarray  # [P] float64, (3)
    level: np.ndarray  # [P] float64, (4): chance for these very maps; with the indicator "none" about (3)
    counted: int  # attempts with a score
    failed: int  # attempts that missed their target; counted only under "all_attempts"
    already: int  # examples whose clean input had the wanted class, so that there was no attempt
    undefined: int  # attempts that would count, but r is 0, or r or its map is not finite

    __repr__ = short_repr


@kinds_checked
def chance_level(percentiles: Any = PERCENTILES) -> np.ndarray:
    """(3), the score of a perturbation that is unrelated to the map: [P] percent -> [P] float64."""
    return np.sqrt(1.0 - _percentiles(percentiles) / 100.0)


def saliency_threshold(saliency: Array, percentile: ArrayLike, threshold: Threshold = "released") -> Array:
    """ν_P of ONE map [*S]: [] in the units of the map. percentile: [] in [0, 100), traced. Traceable.

    Raises ValueError: an unknown threshold.
    """
    check_choice("threshold", threshold, THRESHOLDS)
    flat = as_float(saliency).reshape(-1)
    share = jnp.asarray(percentile, flat.dtype)
    if threshold == "plain":
        ordered = jnp.sort(flat)
        low, fraction = _place(share, jnp.asarray(flat.size - 1, jnp.int32))
        below, above = jnp.take(ordered, low), jnp.take(ordered, low + 1, mode="clip")
        return below + fraction * (above - below)
    there = flat != 0
    ordered = jnp.sort(jnp.where(there, flat, jnp.full_like(flat, jnp.inf)))
    count = jnp.sum(there, dtype=jnp.int32)
    whole, fraction = _place(share, count + 1)
    rank = jnp.minimum(whole + (fraction > 0), count)
    entry = jnp.take(ordered, jnp.maximum(rank - 1, 0))
    return jnp.where(rank > 0, entry, jnp.zeros_like(entry))


def _place(share: Array, m: Array) -> tuple[Array, Array]:
    """share · m / 100 as an int32 and a fraction in [0, 1), exact for whole percents.

    The product alone is not exact in float32. With m = 100 a + b, share · a is whole for whole percents, and share · b
    is below 10⁴, so that a hundredth of it is far above its rounding error.
    """
    hundreds, rest = (part.astype(share.dtype) for part in jnp.divmod(m, 100))
    whole = jnp.floor(share * hundreds)
    part = (share * hundreds - whole) + share * rest / 100
    part = jnp.where(jnp.abs(part - jnp.round(part)) < 1e-4, jnp.round(part), part)
    return (whole + jnp.floor(part)).astype(jnp.int32), part - jnp.floor(part)


@explained
def interpretability_score(
    delta: Array, saliency: Array, percentiles: Any = PERCENTILES, threshold: Threshold = "released"
) -> Array:
    """IS (1) of ONE perturbation: delta and saliency [*S] -> [P], or [] for one percentile. Traceable.

    NaN if delta is 0 or either is not finite. percentiles: in [0, 100), traced. threshold: static.
    Raises ValueError: shapes that differ, an unknown threshold.
    """
    if delta.shape != saliency.shape:
        raise BadArgument("saliency", f"have the shape of delta, {delta.shape}", of_shape(saliency.shape))
    delta, saliency = as_float(delta), as_float(saliency)
    largest = jnp.max(jnp.abs(delta))
    good = (largest > 0) & jnp.isfinite(largest) & jnp.all(jnp.isfinite(saliency))
    r = jnp.where(good, delta, jnp.ones_like(delta)) / jnp.where(
        good, largest, jnp.ones_like(largest)
    )  # squares must not underflow
    mass, total = jnp.square(r), jnp.sum(jnp.square(r))

    def score(percentile: Array) -> Array:
        salient = saliency > saliency_threshold(saliency, percentile, threshold)
        share = jnp.sum(jnp.where(salient, mass, jnp.zeros_like(mass))) / total
        return jnp.where(good, jnp.sqrt(share), jnp.full_like(share, NAN))

    asked = jnp.asarray(percentiles, delta.dtype)
    return jax.vmap(score)(asked.reshape(-1)).reshape(asked.shape)


def _scores(
    shared: tuple[Any, Array], x: Array, label: Array, target: Array, delta: Array, indicator: Any, threshold: Any
) -> tuple[Array, Array]:
    """IS (1) [B, P] of each attempt, and its terms of (4)."""
    logits, percentiles = shared
    maps = saliency_batch(logits, x, label, target, indicator)

    def level(m: Array) -> Array:
        above = jax.vmap(lambda percentile: jnp.mean(m > saliency_threshold(m, percentile, threshold), dtype=m.dtype))
        return jnp.sqrt(above(percentiles))

    scores = jax.vmap(lambda r, m: interpretability_score(r, m, percentiles, threshold))
    return scores(delta.astype(maps.dtype), maps), jax.vmap(level)(maps)


@kinds_checked
def interpretability(
    logits: LogitsFn,
    x: Any,
    label: Any,
    delta: Any,
    status: Any,
    target: Any = None,
    *,
    percentiles: Sequence[float] = PERCENTILES,
    indicator: Indicator = "none",
    threshold: Threshold = "released",
    convention: Convention = "successes_only",
    batch: int = BATCH,
) -> Curve:
    """The IS curve of an attack on a list of examples. No map is kept: ``batch`` attempts are scored at a time.

    Args:
        logits: [B, *S] -> [B, K].
        x: [N, *S] clean inputs.
        label: [N] int.
        delta: [N, *S] or [N, T, *S]: ``result.delta``, or ``result.attempt - x`` to include what failures tried.
        status: [N] or [N, T], of :class:`~invjax.types.Status`.
        target: of the shape of status, int; None (or UNTARGETED) takes the strongest class at x that is not the label.
        percentiles: each in [0, 100).
        indicator: of the map, see :mod:`invjax.attribution.saliency`.
        threshold: how ν_P is found, see (2).
        convention: "successes_only" counts FOUND; "all_attempts" counts all but those whose clean input already had
            the wanted class.
        batch: attempts at once.

    Raises ValueError: a shape that does not fit, a label or target that is not a class, an unknown choice.
    """
    check_choice("threshold", threshold, THRESHOLDS)
    asked, state, r = _percentiles(percentiles), check_status("status", status), np.asarray(delta)
    function = as_logits_fn(logits)
    rows = check_examples(x)
    classes = num_classes(function, rows.shape[1:], rows.dtype)
    own = np.asarray(checks.check_labels("label", label, len(rows), classes))
    if state.ndim not in (1, 2) or state.shape[:1] != own.shape or r.shape != (*state.shape, *rows.shape[1:]):
        wanted = f"be [N, *S] with status [N], or [N, T, *S] with status [N, T], for x of shape {rows.shape}"
        raise BadArgument("delta", wanted, Words(f"{r.shape} and {state.shape}"))
    index = counted(state, convention).reshape(-1).nonzero()[0]
    image = np.arange(state.size) // state[0].size  # of each attempt
    aim = check_targets(None if target is None else _like(target, state).reshape(-1), own[image], classes)
    scores, level = np.full((2, state.size, len(asked)), NAN)
    if len(index):
        flat, image = r.reshape(-1, *rows.shape[1:]), image[index]
        shared = (function, jnp.asarray(asked, rows.dtype))
        columns = (Picked(rows, image), own[image], aim[index], Picked(flat, index))
        scores[index], level[index] = map_rows(_scores, shared, *columns, batch=batch, static=(indicator, threshold))
    have = np.isfinite(scores).all(axis=1)
    return Curve(
        percentiles=asked,
        scores=scores.reshape(*state.shape, len(asked)),
        mean=scores[have].mean(axis=0) if have.any() else np.full(len(asked), NAN),
        chance=chance_level(asked),
        level=level[have].mean(axis=0) if have.any() else np.full(len(asked), NAN),
        counted=int(have.sum()),
        failed=int((~np.isin(state, (Status.FOUND, Status.ALREADY_TARGET))).sum()),
        already=int((state == Status.ALREADY_TARGET).sum()),
        undefined=int(len(index) - have.sum()),
    )


@explained
def summarize_curve(curve: Curve) -> dict[str, Any]:
    """A curve as plain numbers for JSON; the scores of single attempts are left out."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in curve._asdict().items()
        if name != "scores"
    }


@explained
def curve_rows(curves: Mapping[str, Curve]) -> list[dict[str, str]]:
    """The curves as rows of formatted text, with the chance level (4), averaged over the curves, as the last row.

    Returns rows with the keys "attack", "IS 50" … (one per percentile) and "attempts" (those with a score).
    Raises ValueError: curves of different percentiles.
    """
    if not curves:
        return []
    first = next(iter(curves.values()))
    for name, curve in curves.items():
        if not np.array_equal(curve.percentiles, first.percentiles):
            raise BadArgument("curves", "have the same percentiles", hint=f"{name!r} has {curve.percentiles}")

    def row(name: str, values: np.ndarray, attempts: str) -> dict[str, str]:
        columns = [f"IS {percentile:g}" for percentile in first.percentiles]
        cells = {c: "–" if np.isnan(v) else f"{v:.3f}" for c, v in zip(columns, values, strict=True)}
        return {"attack": name, **cells, "attempts": attempts}

    rows = [row(name, curve.mean, str(curve.counted)) for name, curve in curves.items()]
    levels = np.stack([curve.level if curve.counted else curve.chance for curve in curves.values()])
    return [*rows, row("chance", levels.mean(axis=0), "")]


def counted(status: Any, convention: Convention) -> np.ndarray:
    """[*] bool: which attempts enter a mean. status: [*] of Status.

    Raises ValueError: an unknown convention, or what is no status.
    """
    check_choice("convention", convention, CONVENTIONS)
    state = check_status("status", status)
    return state == Status.FOUND if convention == "successes_only" else state != Status.ALREADY_TARGET


def _percentiles(percentiles: Any) -> np.ndarray:
    asked = np.atleast_1d(np.asarray(percentiles, np.float64))
    if asked.ndim != 1 or not asked.size or not np.all((asked >= 0) & (asked < 100)):
        raise BadArgument("percentiles", "be numbers from 0 to below 100", percentiles)
    return asked


def _like(target: Any, state: np.ndarray) -> np.ndarray:
    aim = np.asarray(target)
    if aim.shape != state.shape:
        raise BadArgument("target", f"have the shape of status, {state.shape}", of_shape(aim.shape))
    return aim
