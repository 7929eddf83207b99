"""The adversarial saliency map: which features carry an example from its label to a target.

With Z the logits, l the label and t the target of x,

    ASM(x) = s · ∂Z_t/∂x · |∂Z_l/∂x|,      one number per coordinate                                                (1)

    indicator "none"   s = 1
              "or"     s = 1[∂Z_t/∂x >= 0  or  ∂Z_l/∂x <= 0]
              "and"    s = 1[∂Z_t/∂x >= 0  and  ∂Z_l/∂x <= 0]                                                       (2)

A large positive entry means that more of this feature raises the target while the label is sensitive to it.

Source: "and" is the map of Papernot et al. 2016 (eq. 8) with the label instead of the sum over all other classes, as in
StrAttack (Xu et al. 2019). "or" is the indicator printed on the 2023 poster of GSE. "none" is what GSE's released code
computes, where the indicator is switched off. Departure from that code: it seeds the two gradients of every row with
the targets (labels) of the whole batch, so that an example's map depends on the rest of its batch and, if the batch
holds all classes, not on its own target. Here each example has its own label and target.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, check_choice, of_shape
from invjax.core.images import check_floats
from invjax.core.labels import check_indices, no_class, whole_numbers
from invjax.core.logits import as_logits_fn, num_classes
from invjax.core.meant import explained
from invjax.core.rows import BATCH, map_rows
from invjax.engine import checks
from invjax.losses import wanted
from invjax.types import UNTARGETED, Array, ArrayLike, LogitsFn

Indicator = Literal["none", "or", "and"]
INDICATORS: tuple[Indicator, ...] = get_args(Indicator)


@explained
def saliency_batch(logits: LogitsFn, x: Array, label: Array, target: Array, indicator: Indicator = "none") -> Array:
    """The maps (1) of a batch: x [B, *S], label and target [B] int -> [B, *S]. Traceable.

    It takes one forward pass and two backward passes, whatever the number of classes. A target of UNTARGETED stands for
    the strongest class at x that is not the label. A map is NaN where the logits hold NaN, and where a traced label or
    target, which cannot be checked, is no class.

    Raises ValueError: an unknown indicator, or a label or target that is not a class.
    """
    check_choice("indicator", indicator, INDICATORS)
    z, pull = jax.vjp(lambda points: logits(points), x)
    total = z.shape[-1]
    if not checks.is_traced(label, target):
        check_targets(target, check_indices("label", label, len(z), total, of="logits"), total)
    goal = jax.vmap(wanted)(z, label, target)

    def gradient(classes: Array) -> Array:
        return pull(jax.nn.one_hot(classes, z.shape[-1], dtype=z.dtype))[0]  # a row of logits depends on its own x

    towards, away = gradient(goal), gradient(label)
    product = towards * jnp.abs(away)
    none = jnp.isnan(z).any(-1) | no_class(label, total) | no_class(goal, total)
    product = jnp.where(none.reshape(-1, *(1,) * (product.ndim - 1)), jnp.full_like(product, jnp.nan), product)
    if indicator == "none":
        return product
    rises, falls = towards >= 0, away <= 0
    kept = rises | falls if indicator == "or" else rises & falls
    return jnp.where(kept | jnp.isnan(product), product, jnp.zeros_like(product))


@explained
def saliency_map(
    logits: LogitsFn, x: Array, label: ArrayLike, target: ArrayLike = UNTARGETED, indicator: Indicator = "none"
) -> Array:
    """The map (1) of ONE example, [*S] -> [*S] in (logit units per data unit)², for use inside ``jit`` and ``vmap``.

    Args:
        logits: [B, *S] -> [B, K].
        x: [*S], data range.
        label: [] int, l.
        target: [] int, t; UNTARGETED takes the strongest class at x that is not the label.
        indicator: s of (2), static.

    Raises ValueError: as :func:`saliency_batch`, or an x that is not floating point.
    """
    function, point = as_logits_fn(logits), jnp.asarray(x)
    check_floats(point.dtype)
    own, aim = one_label("label", label), one_label("target", target)
    return saliency_batch(function, point[None], own, aim, indicator)[0]


@kinds_checked
def saliency_maps(
    logits: LogitsFn, x: Any, label: Any, target: Any = None, indicator: Indicator = "none", *, batch: int = BATCH
) -> np.ndarray:
    """The maps (1) of a list: x [N, *S], label and target [N] -> [N, *S], ``batch`` examples at a time.

    The arguments are those of :func:`saliency_map`; ``target=None`` makes all UNTARGETED.
    Raises ValueError: an unknown indicator, a label or target that is not a class, or an x without examples.
    """
    function = as_logits_fn(logits)
    rows = check_examples(x)
    classes = num_classes(function, rows.shape[1:], rows.dtype)
    own = np.asarray(checks.check_labels("label", label, len(rows), classes))
    columns = (rows, own, check_targets(target, own, classes))
    return map_rows(saliency_batch, function, *columns, batch=batch, static=(indicator,))


def check_targets(target: Any, label: np.ndarray, classes: int) -> np.ndarray:
    """Targets [N] as int32, each a class or UNTARGETED; None makes all UNTARGETED. Raises ValueError otherwise."""
    if target is None:
        return np.full(len(label), UNTARGETED, np.int32)
    aim = whole_numbers("target", target, "be class indices")
    given = np.where(aim == UNTARGETED, label, aim) if aim.shape == label.shape else aim
    checks.check_labels("target", given, len(label), classes)
    return aim.astype(np.int32)


def one_label(name: str, value: Any) -> Array:
    """A class of one example, [1] int32, which must be a whole number; a traced one cannot be looked at."""
    if checks.is_traced(value):
        return jnp.asarray(value, jnp.int32)[None]
    whole = whole_numbers(name, np.asarray(value).reshape(-1), "be a class index")
    if whole.shape != (1,):
        raise BadArgument(name, "be one class index", of_shape(np.shape(value)))
    kept = np.clip(whole, -2, np.iinfo(np.int32).max)  # what 32 bits do not hold is no class either
    return jnp.asarray(kept, jnp.int32)


def check_examples(x: Any) -> np.ndarray:
    """x as a host array [N, *S]. Raises ValueError if it holds no example or is not floating point."""
    rows = np.asarray(x)
    if rows.ndim < 2 or 0 in rows.shape:
        raise BadArgument("x", "hold at least one example, [N, *S] with N >= 1", of_shape(rows.shape))
    check_floats(rows.dtype)
    return rows.astype(jax.dtypes.canonicalize_dtype(rows.dtype), copy=False)
