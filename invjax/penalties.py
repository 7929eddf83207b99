"""Penalties: a value and its proximal map side by side, with one traced weight.

    value(u)      = weight · φ(u + shift) + indicator of the box                                       []
    prox(v, step) = argmin_u  1/2 ‖u − v‖² + step · value(u)                                           [*S]

A :class:`Penalty` is a pytree. Weight, box, shift, labels and m are leaves: they are traced, so a sweep over them is a
batch axis and never recompiles. Only the pair of functions is static. The constructors take the regularisation weight
alone, without the step. :func:`in_box`, :func:`scaled` and :func:`shifted` combine penalties, always to the exact joint
map, never by applying one map after another. ``ELEMENTWISE`` has the penalties of one number by name.

A penalty of your own takes two module-level functions::

    ELASTIC = Kind("elastic", value=lambda z, p: p.weight * jnp.sum(z**2) / 2,
                   prox=lambda v, w, p: jnp.clip(v / (1 + w), p.lower, p.upper))
    g = in_box(Penalty(weight=0.1, kind=ELASTIC), 0.0, 1.0)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from invjax import projections
from invjax import prox as maps
from invjax.core.errors import check_choice
from invjax.core.groups import Axis, Grouping, grouping
from invjax.core.meant import suggest_names
from invjax.core.numerics import as_float, at_least_float32, safe_sqrt
from invjax.core.ranges import check_box, check_least
from invjax.core.shown import short_repr
from invjax.types import Array, ArrayLike


class Kind(NamedTuple):
    """The static half of a penalty: module-level functions, whose identity decides whether a program compiles anew."""

    name: str
    value: Callable[[Array, Any], Array]  # (z [*S], penalty) -> [], the weight included, the box left out
    prox: Callable[[Array, Array, Any], Array]  # (v [*S], whole weight, penalty) -> [*S], exact with the penalty's box

    def __repr__(self) -> str:
        return self.name


class Elementwise(NamedTuple):
    """φ of one number, applied to each coordinate."""

    phi: Callable[[Array], Array]  # r [*S] -> φ(r) [*S]
    prox: Callable[..., Array]  # (v, w, lower=, upper=) -> argmin_u 1/2 (u − v)² + w φ(u) on the interval, exact
    power: float | None  # p of φ(r) = |r|^p


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Penalty:
    """One function g as the head of this module describes it. The functions below build it."""

    weight: ArrayLike  # [] or one per coordinate or group, >= 0; an indicator ignores it
    kind: Kind = dataclasses.field(metadata={"static": True})
    lower: ArrayLike | None = None  # the box, in the coordinates z = u + shift
    upper: ArrayLike | None = None
    shift: ArrayLike | None = None
    groups: ArrayLike | None = None  # [*S] int labels
    m: ArrayLike | None = None  # [] int, the limit of the top-m indicators
    num_groups: int | None = dataclasses.field(default=None, metadata={"static": True})
    axis: Axis = dataclasses.field(default=None, metadata={"static": True})

    __repr__ = short_repr

    def value(self, u: ArrayLike) -> Array:
        """g(u), or infinity outside the box (up to a few roundings). u: [*S] -> [], at least float32."""
        u = at_least_float32(as_float(u))
        z = u if self.shift is None else u + maps.floats_like(u, self.shift)
        inside = jnp.ones((), bool)
        slack = 8 * jnp.finfo(u.dtype).eps * (1 if self.shift is None else 1 + jnp.abs(maps.floats_like(u, self.shift)))
        if self.lower is not None:
            low = maps.floats_like(u, self.lower)
            inside &= jnp.all(z >= low - slack * (1 + jnp.abs(low)))
        if self.upper is not None:
            high = maps.floats_like(u, self.upper)
            inside &= jnp.all(z <= high + slack * (1 + jnp.abs(high)))
        value = self.kind.value(z, self)
        return jnp.where(inside, value, jnp.full_like(value, jnp.inf))

    def prox(self, v: ArrayLike, step: ArrayLike) -> Array:
        """``argmin_u 1/2 ‖u − v‖² + step · g(u)``; the whole weight is step × weight. v: [*S] -> [*S], its dtype."""
        check_least("step", step)
        v = as_float(v)
        whole = jnp.asarray(step, v.dtype) * jnp.asarray(self.weight, v.dtype)
        if self.shift is None:
            return self.kind.prox(v, whole, self)
        shift = maps.floats_like(v, self.shift)
        return self.kind.prox(v + shift, whole, self) - shift

    def grouping(self, shape: tuple[int, ...]) -> Grouping:
        """The groups of an array of this shape."""
        return grouping(shape, self.groups, self.num_groups, self.axis)


# ---------------------------------------------------------------------------------------------------------------------
# Constructors
# ---------------------------------------------------------------------------------------------------------------------
def zero() -> Penalty:
    """g = 0: the proximal map is the identity (with :func:`in_box` the projection onto the box)."""
    return Penalty(weight=0.0, kind=_KINDS["none"])


def box(lower: ArrayLike | None, upper: ArrayLike | None) -> Penalty:
    """The indicator of ``lower <= u <= upper``."""
    check_box(lower, upper)
    return Penalty(weight=0.0, kind=_KINDS["none"], lower=lower, upper=upper)


def l1(weight: ArrayLike) -> Penalty:
    """``weight · Σ |u_i|``. weight: [] or [*S], here and in the other elementwise penalties."""
    return Penalty(weight=_weight(weight), kind=_KINDS["l1"])


def l0(weight: ArrayLike) -> Penalty:
    """``weight · #{i : u_i ≠ 0}``."""
    return Penalty(weight=_weight(weight), kind=_KINDS["l0"])


def l_half(weight: ArrayLike) -> Penalty:
    """``weight · Σ |u_i|^(1/2)``."""
    return Penalty(weight=_weight(weight), kind=_KINDS["l_half"])


def l_two_thirds(weight: ArrayLike) -> Penalty:
    """``weight · Σ |u_i|^(2/3)``."""
    return Penalty(weight=_weight(weight), kind=_KINDS["l_two_thirds"])


def group_l2(
    weight: ArrayLike, groups: ArrayLike | None = None, *, num_groups: int | None = None, axis: Axis = None
) -> Penalty:
    """``Σ_g weight_g ‖u_g‖_2``; without groups and axis ``weight · ‖u‖_2``.

    weight: broadcasts to [*G]; groups, num_groups, axis: see :func:`invjax.core.groups.grouping`.
    """
    return Penalty(weight=_weight(weight), kind=_GROUP_L2, groups=groups, num_groups=num_groups, axis=axis)


def group_l0(
    weight: ArrayLike, groups: ArrayLike | None = None, *, num_groups: int | None = None, axis: Axis = None
) -> Penalty:
    """``Σ_g weight_g [u_g ≠ 0]``. Arguments as in :func:`group_l2`."""
    return Penalty(weight=_weight(weight), kind=_GROUP_L0, groups=groups, num_groups=num_groups, axis=axis)


def top_m(m: ArrayLike) -> Penalty:
    """The indicator of ``‖u‖_0 <= m``. m: [] int, traced. With :func:`in_box` the projection onto the intersection."""
    check_least("m", m)
    return Penalty(weight=0.0, kind=_TOP_M, m=m)


def top_m_groups(
    m: ArrayLike, groups: ArrayLike | None = None, *, num_groups: int | None = None, axis: Axis = None
) -> Penalty:
    """The indicator of "at most m groups are not 0". Arguments as in :func:`top_m` and :func:`group_l2`."""
    check_least("m", m)
    return Penalty(weight=0.0, kind=_TOP_M_GROUPS, groups=groups, m=m, num_groups=num_groups, axis=axis)


# ---------------------------------------------------------------------------------------------------------------------
# Combinators
# ---------------------------------------------------------------------------------------------------------------------
def in_box(penalty: Penalty, lower: ArrayLike | None = None, upper: ArrayLike | None = None) -> Penalty:
    """``g(u)`` + the indicator of ``lower <= u <= upper``, with the exact joint map; a second box is intersected."""
    check_box(lower, upper)
    low = _tighter(jnp.maximum, penalty.lower, _moved(lower, penalty.shift))
    high = _tighter(jnp.minimum, penalty.upper, _moved(upper, penalty.shift))
    check_box(low, high)  # two boxes may have no point in common
    return dataclasses.replace(penalty, lower=low, upper=high)


def scaled(penalty: Penalty, factor: ArrayLike) -> Penalty:
    """``factor · g``, factor >= 0."""
    check_least("factor", factor)
    return dataclasses.replace(penalty, weight=jnp.multiply(penalty.weight, factor))


def shifted(penalty: Penalty, x: ArrayLike) -> Penalty:
    """``u ↦ g(x + u)``, with the map ``prox_g(v + x) − x``: a penalty on x' = x + r as one on r. x: [] or [*S]."""
    return dataclasses.replace(penalty, shift=_moved(x, penalty.shift))


def _weight(weight: ArrayLike) -> ArrayLike:
    check_least("weight", weight)
    return weight


def _moved(bound: ArrayLike | None, shift: ArrayLike | None) -> ArrayLike | None:
    return bound if shift is None or bound is None else jnp.add(bound, shift)


def _tighter(choose: Callable[..., Array], a: ArrayLike | None, b: ArrayLike | None) -> ArrayLike | None:
    return a if b is None else b if a is None else choose(a, b)


# ---------------------------------------------------------------------------------------------------------------------
# Kinds
# ---------------------------------------------------------------------------------------------------------------------
def _infinite_unless(condition: Array, z: Array) -> Array:
    return jnp.where(condition, jnp.zeros((), z.dtype), jnp.full((), jnp.inf, z.dtype))


def _active_groups(z: Array, p: Penalty) -> Array:
    return p.grouping(z.shape).total((z != 0).astype(z.dtype)) > 0


def _limit(p: Penalty) -> Array:
    return jnp.asarray(0 if p.m is None else p.m, jnp.int32)


def _group_weights(z: Array, p: Penalty) -> Array:
    return jnp.broadcast_to(jnp.asarray(p.weight, z.dtype), p.grouping(z.shape).shape)


def _groups(p: Penalty) -> dict[str, Any]:
    return {"groups": p.groups, "num_groups": p.num_groups, "axis": p.axis, "lower": p.lower, "upper": p.upper}


def _two_thirds(z: Array) -> Array:
    """``|z|^(2/3)``, with a finite derivative at 0."""
    size = jnp.where(z == 0, jnp.ones_like(z), jnp.abs(z))
    return jnp.where(z == 0, jnp.zeros_like(z), jnp.square(jnp.cbrt(size)))


def _clip(v: Array, w: Array, *, lower: ArrayLike | None = None, upper: ArrayLike | None = None) -> Array:
    return projections.box(v, lower, upper)


# The penalties of one number by name: methods and constraints look them up here.
PenaltyName = Literal["none", "l0", "l_half", "l_two_thirds", "l1"]
ELEMENTWISE: dict[str, Elementwise] = {
    "none": Elementwise(jnp.zeros_like, _clip, None),
    "l0": Elementwise(lambda z: (z != 0).astype(z.dtype), maps.l0, 0.0),
    "l_half": Elementwise(lambda z: safe_sqrt(jnp.abs(z)), maps.l_half, 1 / 2),
    "l_two_thirds": Elementwise(_two_thirds, maps.l_two_thirds, 2 / 3),
    "l1": Elementwise(jnp.abs, maps.l1, 1.0),
}
PENALTIES = tuple(ELEMENTWISE)


def elementwise(penalty: PenaltyName) -> Elementwise:
    """φ and its map by name. Raises BadArgument about ``penalty`` for an unknown one."""
    return ELEMENTWISE[check_choice("penalty", penalty, PENALTIES)]


def _elementwise_value(z: Array, p: Penalty) -> Array:
    return jnp.sum(maps.floats_like(z, p.weight) * ELEMENTWISE[p.kind.name].phi(z))


def _elementwise_prox(v: Array, w: Array, p: Penalty) -> Array:
    return ELEMENTWISE[p.kind.name].prox(v, w, lower=p.lower, upper=p.upper)


def _group_l2_value(z: Array, p: Penalty) -> Array:
    return jnp.sum(_group_weights(z, p) * safe_sqrt(p.grouping(z.shape).total(jnp.square(z))))


def _group_l2_prox(v: Array, w: Array, p: Penalty) -> Array:
    return maps.group_l2(v, w, **_groups(p))


def _group_l0_value(z: Array, p: Penalty) -> Array:
    return jnp.sum(_group_weights(z, p) * _active_groups(z, p).astype(z.dtype))


def _group_l0_prox(v: Array, w: Array, p: Penalty) -> Array:
    return maps.group_l0(v, w, **_groups(p))


def _top_m_value(z: Array, p: Penalty) -> Array:
    return _infinite_unless(jnp.sum(z != 0) <= _limit(p), z)


def _top_m_prox(v: Array, w: Array, p: Penalty) -> Array:
    return projections.top_m(v, _limit(p), lower=p.lower, upper=p.upper)


def _top_m_groups_value(z: Array, p: Penalty) -> Array:
    return _infinite_unless(jnp.sum(_active_groups(z, p)) <= _limit(p), z)


def _top_m_groups_prox(v: Array, w: Array, p: Penalty) -> Array:
    return projections.top_m_groups(v, _limit(p), **_groups(p))


_KINDS = {name: Kind(name, _elementwise_value, _elementwise_prox) for name in ELEMENTWISE}
_GROUP_L2 = Kind("group_l2", _group_l2_value, _group_l2_prox)
_GROUP_L0 = Kind("group_l0", _group_l0_value, _group_l0_prox)
_TOP_M = Kind("top_m", _top_m_value, _top_m_prox)
_TOP_M_GROUPS = Kind("top_m_groups", _top_m_groups_value, _top_m_groups_prox)


suggest_names(__name__)
