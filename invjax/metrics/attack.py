"""Sparse and group-wise sparse attacks in numbers: ASR, ACP, ANC, l2 and d2,0, and their best/average/worst table.

For one perturbation r of an image [H, W, C], with the support ``s_ij = [max_c |r_ijc| > atol]``:

    ACP = Σ_ij s_ij                            changed pixels (a count, not a share of the image)
    ANC = connected components of s            clusters of changed pixels, 4-neighbourhood unless told otherwise
    l2  = ‖r‖_2                                in data units, or in the [-1, 1] units the GSE tables are printed in
    d20 = #{n × n windows that meet s}         stride 1, windows wholly inside the image, n = 8

All measures take any leading axes, ``[..., H, W, C] -> [...]``, on the host in numpy. Inside compiled code the same
counts come from :mod:`invjax.core.windows` (``changed``, ``window_count``).

Source: the definitions of the GSE tables as its released harness computes them (there ANC has the 4-neighbourhood;
the 2023 poster's ANC seems to have 8 neighbours).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy import ndimage

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check, check_choice, check_number, check_whole, of_shape
from invjax.core.labels import check_flags, check_status
from invjax.core.meant import explained
from invjax.metrics.summary import CONVENTIONS, Convention, Summary, Table
from invjax.types import Status

LengthUnit = Literal["data", "model"]

MEASURES = ("acp", "anc", "l2", "d20")


class Attempts(NamedTuple):
    """One row of numbers per attempt; N images, T targets (T = 1: untargeted)."""

    success: np.ndarray  # [N, T] bool, the attack reached the target
    already: np.ndarray  # [N, T] bool, the clean image already had the wanted class: no attempt
    acp: np.ndarray  # [N, T] int64 changed pixels
    anc: np.ndarray  # [N, T] int64 clusters
    l2: np.ndarray  # [N, T] float64, in the unit asked for
    d20: np.ndarray  # [N, T] int64 windows touched

    def __repr__(self) -> str:
        reached = f"{int(self.success.sum())} of {int((~self.already).sum())} reached the target"
        return f"Attempts({'x'.join(map(str, self.success.shape))}: {reached})"


@kinds_checked
def changed_pixels(delta: Any, atol: float = 0.0) -> np.ndarray:
    """ACP: pixels where any channel changes by more than ``atol`` (data units). [..., H, W, C] -> [...] int64."""
    return _support(delta, atol).sum(axis=(-2, -1), dtype=np.int64)


@kinds_checked
def num_clusters(delta: Any, connectivity: int = 4, atol: float = 0.0) -> np.ndarray:
    """ANC: connected components of the changed pixels. [..., H, W, C] -> [...] int64.

    ``connectivity`` 4 joins pixels that share an edge, 8 also those that share a corner.
    """
    check("connectivity", connectivity, lambda c: c in (4, 8), "4 or 8")
    support = _support(delta, atol)
    structure = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    planes = support.reshape(-1, *support.shape[-2:])
    counts = np.zeros(len(planes), np.int64)
    labels = np.zeros(planes.shape[1:], np.int32)
    for n, plane in enumerate(planes):
        counts[n] = ndimage.label(plane, structure, output=labels)  # given an output, it returns the count alone
    return counts.reshape(support.shape[:-2])


@kinds_checked
def l2(delta: Any, unit: LengthUnit = "data", bounds: tuple[Any, Any] = (0.0, 1.0)) -> np.ndarray:
    """``‖r‖_2`` of each example. [..., H, W, C] -> [...] float64.

    Args:
        delta: perturbations in the data range.
        unit: "data" leaves them as they are. "model" scales by ``2 / (upper - lower)`` to the units in which the range
            is [-1, 1]: twice the data value for bounds (0, 1). Published GSE numbers are in "model" units.
        bounds: (lower, upper) of the data range, each a scalar or of a shape that broadcasts to [H, W, C].
    """
    check_choice("unit", unit, get_args(LengthUnit))
    r = _images(delta).astype(np.float64)
    span = np.asarray(bounds[1], np.float64) - np.asarray(bounds[0], np.float64)
    if not np.all(span > 0):
        raise BadArgument("bounds", "be (lower, upper) with lower < upper", bounds)
    if unit == "model":
        r = r * (2.0 / span)
    return np.sqrt(np.sum(np.square(r), axis=(-3, -2, -1)))


@kinds_checked
def d20(delta: Any, window: int = 8, atol: float = 0.0) -> np.ndarray:
    """``d_{2,0}``: stride-1 windows ``window × window``, all channels, with any change. [..., H, W, C] -> [...] int64.

    One changed corner pixel counts 1, an interior pixel 64, a 3×3 interior block 100. Along an axis shorter than the
    window, the window is cut to the axis, so that a tiny image still has one window.
    """
    check_whole("window", window)
    support = _support(delta, atol)
    rows, columns = (min(window, side) for side in support.shape[-2:])
    # The summed-area table: any window's count of changed pixels is a difference of four of its entries.
    area = np.zeros((*support.shape[:-2], support.shape[-2] + 1, support.shape[-1] + 1), np.int64)
    area[..., 1:, 1:] = support.cumsum(axis=-2, dtype=np.int64).cumsum(axis=-1)
    inside = (
        area[..., rows:, columns:]
        - area[..., :-rows, columns:]
        - area[..., rows:, :-columns]
        + area[..., :-rows, :-columns]
    )
    return (inside > 0).sum(axis=(-2, -1), dtype=np.int64)


@kinds_checked
def measure(
    delta: Any,
    status: Any,
    *,
    unit: LengthUnit = "model",
    bounds: tuple[Any, Any] = (0.0, 1.0),
    window: int = 8,
    connectivity: int = 4,
    atol: float = 0.0,
) -> Attempts:
    """All measures of a list of attempts.

    Args:
        delta: [N, T, H, W, C] or [N, H, W, C] (then T = 1). Give ``result.delta`` to count a failure as the unchanged
            image, ``result.attempt - x`` to count what the failed attack last tried.
        status: [N, T] or [N], of :class:`~invjax.types.Status`.
        unit, bounds: see :func:`l2`; the tables of the literature are in "model" units.
        window: see :func:`d20`.
        connectivity: see :func:`num_clusters`.
        atol: see :func:`changed_pixels`.
    """
    r, state = np.asarray(delta), check_status("status", status)
    if r.ndim == 4 and state.ndim == 1:
        r, state = r[:, None], state[:, None]
    if r.ndim != 5 or state.shape != r.shape[:2]:
        wanted = "be [N, T, H, W, C] with status [N, T], or [N, H, W, C] with status [N]"
        raise BadArgument("delta", wanted, Words(f"{np.shape(delta)} and {np.shape(status)}"))
    return Attempts(
        success=state == Status.FOUND,
        already=state == Status.ALREADY_TARGET,
        acp=changed_pixels(r, atol),
        anc=num_clusters(r, connectivity, atol),
        l2=l2(r, unit, bounds),
        d20=d20(r, window, atol),
    )


@kinds_checked
def best_average_worst(
    success: Any,
    measures: Mapping[str, Any],
    *,
    already: Any = None,
    convention: Convention = "all_attempts",
) -> Table:
    """The table of the targeted benchmarks: the cost of the easiest, the average and the hardest target.

    Each row is computed per image i with targets t and averaged over the images to which it applies:

    * best: ``min_t`` of the measure over the successful targets; images with at least one success. ASR: their share.
    * average, "all_attempts": over every (i, t), failures included with the value given here (an unchanged image
      gives 0). The released harness prints this average, and so do the published tables.
      "successes_only": over the successful (i, t) alone. ASR: the share of successful (i, t).
    * worst: ``max_t``, only images whose every target succeeded. ASR: their share.

    Each measure is minimised and maximised on its own, so the best ACP and the best l2 may belong to different targets.
    The two conventions differ only in the average. A mean over nothing (no success at all, no image with all targets
    reached, an empty list) is ``nan``, never 0. A measure that is NaN for an attempt (whose iterate broke down) is no
    number: the attempt is left out of it, and its image out of "worst".

    Args:
        success: [N, T] bool.
        measures: name -> [N, T] numbers.
        already: [N, T] bool or None; True where the clean image already had the wanted class. Such pairs count neither
            as a success nor as a failure. An image with nothing else is left out.
        convention: how failures enter the averages.

    Returns:
        ``{"asr": {"best": , "average": , "worst": }, name: {...}, ...}``; ASR as a fraction.
    """
    check_choice("convention", convention, CONVENTIONS)
    won = check_flags("success", success)
    if won.ndim != 2:
        raise BadArgument("success", "be [N images, T targets]", of_shape(won.shape))
    counted = np.ones_like(won) if already is None else ~check_flags("already", already)
    if counted.shape != won.shape:
        raise BadArgument("already", f"have the shape {won.shape} of success", of_shape(counted.shape))
    won = won & counted
    image, some = np.any(counted, axis=1), np.any(won, axis=1)
    every = image & np.all(won | ~counted, axis=1)
    table: Table = {
        "asr": {"best": _mean(some[image]), "average": _mean(won[counted]), "worst": _mean(every[image])},
    }
    entering = counted if convention == "all_attempts" else won
    for name, numbers in measures.items():
        values = np.asarray(numbers, np.float64)
        if values.shape != won.shape:
            raise BadArgument(f"measures[{name!r}]", f"have the shape {won.shape} of success", of_shape(values.shape))
        have = ~np.isnan(values)
        table[name] = {
            "best": _mean(np.where(won & have, values, np.inf).min(axis=1, initial=np.inf)[(won & have).any(axis=1)]),
            "average": _mean(values[entering & have]),
            "worst": _mean(
                np.where(counted, values, -np.inf).max(axis=1, initial=-np.inf)[every & (have | ~counted).all(axis=1)]
            ),
        }
    return table


@explained
def summarize(attempts: Attempts) -> Summary:
    """The tables of both conventions, and the counts behind them.

    Returns:
        ``{"all_attempts": table, "successes_only": table, "attempts": int, "failed": int, "already_target": int,
        "undefined": int}``, a dict that a notebook shows as a table. The two tables are those of
        :func:`best_average_worst` for acp, anc, l2 and d20. ``attempts`` leaves out the ``already_target`` pairs, which
        are in neither table. ``undefined`` of them have no l2 (NaN).
    """
    if not isinstance(attempts, Attempts):
        hint = "summarize(measure(result.delta, result.status))" if hasattr(attempts, "delta") else None
        raise BadArgument("attempts", "be what measure() gives", Words(type(attempts).__name__), hint=hint)
    measures = {name: getattr(attempts, name) for name in MEASURES}
    tables = {
        convention: best_average_worst(attempts.success, measures, already=attempts.already, convention=convention)
        for convention in CONVENTIONS
    }
    counted = ~attempts.already
    return Summary(
        **tables,
        attempts=int(counted.sum()),
        failed=int((counted & ~attempts.success).sum()),
        already_target=int(attempts.already.sum()),
        undefined=int((counted & np.isnan(attempts.l2)).sum()),
    )


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if values.size else float("nan")


def _images(delta: Any) -> np.ndarray:
    array = np.asarray(delta)
    if array.ndim < 3:
        raise BadArgument("delta", "be images [..., H, W, C]", of_shape(array.shape))
    return array


def _support(delta: Any, atol: float) -> np.ndarray:
    """The changed pixels, [..., H, W] bool. A NaN counts as a change, as in ``core.windows.changed``."""
    check_number("atol", atol, lambda a: a >= 0, "a number >= 0")
    r = _images(delta)
    size = np.abs(r.astype(np.float64) if r.dtype.kind == "i" else r)  # the least integer has no absolute value
    return ~np.all(size <= atol, axis=-1)
