"""The adversarial saliency map: which features carry an example from its label to a target.

With Z the logits, l the label and t the target of x,

    ASM(x) = s · ∂Z_t/∂x · |∂Z_l/∂x|,      one number per coordinate                                                (1)

    indicator "none"   s = 1
              "or"     s = 1[∂Z_t/∂x >= 0  or  ∂Z_l/∂x <= 0]
              "and"    s = 1[∂Z_t/∂x >= 0  and  ∂Z_l/∂x <= 0]                                                       (2)

A large positive entry: more of this feature raises the target, and the label cares for it.

Source: "and" is the map of Papernot et al. 2016 (eq. 8), with the label in the place of the sum over all other classes,
as StrAttack (Xu et al. 2019) has it; "or" the indicator printed on the 2023 poster of GSE; "none" what GSE's released
code computes, where the indicator is switched off. Departure from that code: there the two gradients are seeded with
the targets (labels) of the whole batch in every row, so an example's map depends on what else is in the batch and, in a
batch with all classes, on its own target not at all. Here each example has its own label and target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument, of_shape
from invjax.core.logits import as_logits_fn, num_classes
from invjax.core.rows import BATCH, map_rows
from invjax.engine import checks
from invjax.losses import wanted
from invjax.types import UNTARGETED, Array, ArrayLike

Indicator = Literal["none", "or", "and"]
INDICATORS: tuple[Indicator, ...] = ("none", "or", "and")


def saliency_batch(
    logits: Callable[[Array], Array], x: Array, label: Array, target: Array, indicator: Indicator = "none"
) -> Array:
    """The maps (1) of a batch: x [B, *S], label and target [B] int -> [B, *S]. Traceable.

    One forward pass and two backward ones, of the two logits needed, however many classes there are. A target of
    UNTARGETED stands for the strongest class at x that is not the label.

    Raises ValueError: an unknown indicator.
    """
    if indicator not in INDICATORS:
        raise BadArgument("indicator", f"be one of {', '.join(map(repr, INDICATORS))}", indicator)
    z, pull = jax.vjp(lambda points: logits(points), x)
    goal = jax.vmap(wanted)(z, label, target)

    def gradient(classes: Array) -> Array:
        return pull(jax.nn.one_hot(classes, z.shape[-1], dtype=z.dtype))[0]  # logits of one example see it alone

    towards, away = gradient(goal), gradient(label)
    product = towards * jnp.abs(away)
    if indicator == "none":
        return product
    rises, falls = towards >= 0, away <= 0
    return jnp.where(rises | falls if indicator == "or" else rises & falls, product, jnp.zeros_like(product))


def saliency_map(
    logits: Any, x: Array, label: ArrayLike, target: ArrayLike = UNTARGETED, indicator: Indicator = "none"
) -> Array:
    """The map (1) of ONE example, [*S] -> [*S] in (logit units per data unit)², for use inside ``jit`` and ``vmap``.

    Args:
        logits: [B, *S] -> [B, K].
        x: [*S], data range.
        label: [] int, l.
        target: [] int, t; UNTARGETED: the strongest class at x that is not the label.
        indicator: s of (2), static.

    Raises ValueError: an unknown indicator.
    """
    function = as_logits_fn(logits)
    own, aim = (jnp.asarray(value, jnp.int32)[None] for value in (label, target))
    return saliency_batch(function, jnp.asarray(x)[None], own, aim, indicator)[0]


def saliency_maps(
    logits: Any, x: Any, label: Any, target: Any = None, indicator: Indicator = "none", *, batch: int = BATCH
) -> np.ndarray:
    """The maps (1) of a list: x [N, *S], label and target [N] -> [N, *S], ``batch`` examples at a time.

    Arguments as in :func:`saliency_map`; ``target=None``: UNTARGETED, for all.
    Raises ValueError: an unknown indicator, labels or targets that are no classes, or x that is no list of examples.
    """
    function = as_logits_fn(logits)
    rows = check_examples(x)
    classes = num_classes(function, rows.shape[1:], rows.dtype)
    own = np.asarray(checks.check_labels("label", label, len(rows), classes))
    columns = (rows, own, check_targets(target, own, classes))
    return map_rows(saliency_batch, function, *columns, batch=batch, static=(indicator,))


def check_targets(target: Any, label: np.ndarray, classes: int) -> np.ndarray:
    """Targets [N] as int32; None: all UNTARGETED, as single ones may be. Raises ValueError: one is no class."""
    if target is None:
        return np.full(len(label), UNTARGETED, np.int32)
    aim = np.asarray(target)
    given = np.where(aim == UNTARGETED, label, aim) if aim.shape == label.shape else aim
    checks.check_labels("target", given, len(label), classes)
    return aim.astype(np.int32)


def check_examples(x: Any) -> np.ndarray:
    """x as a host array [N, *S]. Raises ValueError: it holds no example, or is not floating point."""
    rows = np.asarray(x)
    if rows.ndim < 2 or 0 in rows.shape:
        raise BadArgument("x", "hold at least one example, [N, *S] with N >= 1", of_shape(rows.shape))
    if not jnp.issubdtype(rows.dtype, jnp.floating):
        raise BadArgument("x", "be floating point in the data range", rows.dtype)
    return rows.astype(jax.dtypes.canonicalize_dtype(rows.dtype), copy=False)
