"""Accuracy by group: the worst group, three averages, and their intervals.

With n_g examples in group g, k_g of them right, a_g = k_g / n_g, and m_g the number of *training* examples of g:

    worst = min_g a_g   average = Σ_g k_g / Σ_g n_g   group_mean = Σ_g a_g / G   train_weighted = Σ_g m_g a_g / Σ_g m_g

The averages differ. On a test set with balanced groups the literature on WaterBirds prints the train-weighted average,
not the plain one ("adjusted" in WILDS, Koh et al. 2021; SubpopBench uses that word for the group mean). Each group has
the Wilson score interval (Wilson 1927)

    (a + z²/2n ± z sqrt(a (1 − a) / n + z²/4n²)) / (1 + z²/n),        z = Φ⁻¹((1 + confidence) / 2)

and the worst group the percentile interval of a bootstrap within the groups, which for right-or-wrong answers is a draw
k_g* ~ Binomial(n_g, a_g). The minimum of several noisy numbers lies below the least true accuracy on average, and the
bootstrap shows that: its interval reaches further down than up. It has no width where every group is all right or all
wrong; the Wilson interval of that group has.

Host-side numpy. Source of the metrics: Sagawa et al. 2020; WILDS gives a group without examples the accuracy 0, which
pulls the worst group down to it: here such a group is an error, or left out by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy import special

from invjax.core.arguments import kinds_checked
from invjax.core.errors import (
    BadArgument,
    Words,
    check_choice,
    check_entries,
    check_number,
    check_seed,
    check_whole,
    of_shape,
)
from invjax.core.labels import check_flags, check_indices, whole_numbers
from invjax.core.shown import short_repr

Empty = Literal["error", "skip"]
EMPTY: tuple[Empty, ...] = get_args(Empty)


class GroupAccuracies(NamedTuple):
    """Accuracies of one list of answers; G groups. An empty group has NaN."""

    count: np.ndarray  # [G] int64 examples
    correct: np.ndarray  # [G] int64 of them right
    accuracy: np.ndarray  # [G] float64, NaN where empty
    low: np.ndarray  # [G] Wilson interval, NaN where empty
    high: np.ndarray  # [G]
    worst: float  # least accuracy of a group that is not empty
    worst_group: int  # its index, the first if several are equal
    worst_low: float  # bootstrap interval of the minimum
    worst_high: float
    average: float  # share of all examples
    group_mean: float  # every (non-empty) group counts the same
    train_weighted: float  # groups count as in training; NaN without training counts

    __repr__ = short_repr

    def to_dict(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Plain numbers for a log or a JSON file.

        names: of the groups; the default is "0", "1", …; names of several groups get the group's number, "cat (2)".
        """
        names = [str(g) for g in range(len(self.count))] if names is None else list(names)
        if len(names) != len(self.count):
            raise BadArgument("names", f"be {len(self.count)}, one per group", hint=f"they were {len(names)}")
        names = _distinct(names)
        groups = {
            name: {
                "accuracy": _plain(self.accuracy[g]),
                "interval": [_plain(self.low[g]), _plain(self.high[g])],
                "correct": int(self.correct[g]),
                "count": int(self.count[g]),
            }
            for g, name in enumerate(names)
        }
        return {
            "accuracy": self.average,
            "wga": self.worst,
            "wga_ci": [self.worst_low, self.worst_high],
            "worst_group": names[self.worst_group],
            "group_mean": self.group_mean,
            "train_weighted": _plain(self.train_weighted),
            "groups": groups,
        }


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, those that occur more than once with their position: "cat (2)"."""
    seen = Counter(names)
    marked = [f"{name} ({at})" if seen[name] > 1 else name for at, name in enumerate(names)]
    return marked if len(set(marked)) == len(marked) else _distinct(marked)


def _plain(value: float) -> float | None:
    """A Python float; None for NaN, which JSON cannot express."""
    return None if np.isnan(value) else float(value)


@kinds_checked
def group_index(label: Any, attribute: Any, attributes: int | None = None) -> np.ndarray:
    """Group ``y · A + a`` of each example: [N], [N] int -> [N] int32. attributes: A, by default the largest a plus 1.

    The order of WaterBirds: LL, LW, WL, WW for y and a in (land, water).
    """
    y, a = _integers("label", label), _integers("attribute", attribute)
    if y.shape != a.shape:
        raise BadArgument("attribute", f"have the shape of label, {y.shape}", of_shape(a.shape))
    total = int(a.max(initial=-1)) + 1 if attributes is None else attributes
    if a.size and a.max() >= total:
        raise BadArgument("attribute", f"lie in [0, {total})", hint=f"the largest is {int(a.max())}")
    return check_indices("label", y * total + a, len(y), what="groups")


@kinds_checked
def group_counts(groups: Any, num_groups: int | None = None) -> np.ndarray:
    """Examples of each group: [N] int -> [G] int64. num_groups: G, by default the largest index plus 1."""
    g = _integers("groups", groups)
    total = int(g.max(initial=-1)) + 1 if num_groups is None else num_groups
    if g.size and g.max() >= total:
        raise BadArgument("groups", f"lie in [0, {total})", hint=f"the largest is {int(g.max())}")
    return np.bincount(g, minlength=total).astype(np.int64)


@kinds_checked
def wilson_interval(correct: Any, count: Any, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """The Wilson score interval of ``correct`` right answers of ``count``: (low, high), in [0, 1]; NaN if count is 0.

    correct, count: of any shapes that broadcast. Raises ValueError unless 0 <= correct <= count.
    """
    check_confidence(confidence)
    try:
        k, n = np.broadcast_arrays(np.asarray(correct, np.float64), np.asarray(count, np.float64))
    except ValueError:
        shapes = Words(f"{np.shape(correct)} and {np.shape(count)}")
        raise BadArgument("correct", "be numbers of a shape that broadcasts with count", shapes) from None
    if not np.all((k >= 0) & (k <= n)):
        raise BadArgument("correct", "lie in [0, count]", Words(f"{k.tolist()} of {n.tolist()}"))
    z = special.ndtri((1 + confidence) / 2)
    safe = np.where(n > 0, n, 1.0)
    a = k / safe
    middle = a + z * z / (2 * safe)
    half = z * np.sqrt(a * (1 - a) / safe + z * z / (4 * safe * safe))
    scale = 1 + z * z / safe
    # Exactly 0 or 1 if all are wrong or right: middle and half then differ in the last bit only.
    low = np.where(k == 0, 0.0, np.clip((middle - half) / scale, 0, 1))
    high = np.where(k == n, 1.0, np.clip((middle + half) / scale, 0, 1))
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


@kinds_checked
def bootstrap_worst(
    correct: Any, count: Any, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of ``min_g a_g`` when every group is drawn anew, ``k_g* ~ Binomial(n_g, k_g / n_g)``.

    correct, count: [G], groups without examples are left out. The ends are order statistics, that is values the minimum
      took.
    """
    check_confidence(confidence)
    check_whole("resamples", resamples)
    k = whole_numbers("correct", correct, "be whole numbers [G]")
    n = whole_numbers("count", count, "be whole numbers [G]")
    if k.ndim != 1 or k.shape != n.shape:
        raise BadArgument("correct", "be [G], as count", Words(f"{k.shape} and {n.shape}"))
    check_entries("correct", k, (k < 0) | (k > n), "lie in [0, count]")
    k, n = k[n > 0], n[n > 0]
    if not n.size:
        raise BadArgument("count", "have a group with examples", hint="all were 0")
    draws = np.random.default_rng(check_seed("seed", seed)).binomial(n, k / n, (resamples, len(n))) / n
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(draws.min(axis=1), tails, method="inverted_cdf")
    return float(low), float(high)


@kinds_checked
def group_accuracies(
    correct: Any,
    groups: Any,
    *,
    num_groups: int | None = None,
    train_groups: Any = None,
    empty: Empty = "error",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> GroupAccuracies:
    """Accuracies by group and their intervals; the head of this module has the formulas.

    Args:
      correct: [N] bool (or 0/1), whether each answer is right.
      groups: [N] int, the group of each example.
      num_groups: G; by default the largest index plus 1, so give it where a group may be missing.
      train_groups: [M] int, the groups of the training set: gives ``train_weighted``. Groups without
        examples here drop out, and the other shares are scaled to sum to 1.
      empty: whether a group without examples is an "error", or to "skip": then it enters neither the minimum nor the
        means, and its own numbers are NaN.
      confidence: of the intervals, in (0, 1). resamples, seed: of the bootstrap.

    Raises:
      ValueError: a wrong argument, an empty list, a group without examples under "error".
    """
    check_choice("empty", empty, EMPTY)
    right, g = check_flags("correct", correct), _integers("groups", groups)
    if right.shape != g.shape:
        raise BadArgument("correct", f"have the shape of groups, {g.shape}", of_shape(right.shape))
    if not g.size:
        raise BadArgument("groups", "not be empty")
    n = group_counts(g, num_groups)
    if empty == "error" and not n.all():
        missing = Words(f"without any of {np.flatnonzero(n == 0).tolist()}")
        raise BadArgument("groups", f"have examples of each of the {len(n)} groups", missing, hint='or empty="skip"')
    k = np.bincount(g, weights=right.astype(np.float64), minlength=len(n)).round().astype(np.int64)
    held = n > 0
    a = np.where(held, k / np.where(held, n, 1), np.nan)
    low, high = wilson_interval(k, n, confidence)
    worst_low, worst_high = bootstrap_worst(k, n, confidence, resamples, seed)
    weighted = float("nan")
    if train_groups is not None:
        m = np.where(held, group_counts(train_groups, len(n)), 0)
        if not m.sum():
            raise BadArgument("train_groups", "have examples of the groups that are measured", Words("none"))
        weighted = float(np.sum(np.where(held, m * np.nan_to_num(a), 0.0)) / m.sum())
    worst = int(np.nanargmin(a))
    return GroupAccuracies(
        count=n,
        correct=k,
        accuracy=a,
        low=low,
        high=high,
        worst=float(a[worst]),
        worst_group=worst,
        worst_low=worst_low,
        worst_high=worst_high,
        average=float(k.sum() / n.sum()),
        group_mean=float(a[held].mean()),
        train_weighted=weighted,
    )


def _integers(name: str, values: Any) -> np.ndarray:
    """A list of indices [N]. Raises BadArgument about ``name`` for anything else."""
    wanted = "be a list of integers [N]"
    whole = whole_numbers(name, values, wanted)
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iuO"):
        raise BadArgument(name, wanted, Words(f"{array.dtype} {array.shape}"))
    if whole.size and whole.min() < 0:
        raise BadArgument(name, "be at least 0", int(whole.min()), int(whole.argmin()))
    return whole.astype(np.int64)


def check_confidence(confidence: float) -> None:
    """Raise BadArgument unless the confidence is in (0, 1)."""
    check_number("confidence", confidence, lambda value: 0 < value < 1, "in (0, 1)")
