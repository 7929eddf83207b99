"""Class activation maps of images: CAM and Grad-CAM, through a network in two halves (:mod:`invjax.attribution.split`).

With A = features(x) [h, w, F] and Z = head(A), the map of class c is

    M = Σ_k α_k A_k,        α_k = Σ_ij ∂Z_c/∂A_ijk           CAM                                                    (1)
    M = max(0, Σ_k α_k A_k),    α_k = mean_ij ∂Z_c/∂A_ijk    Grad-CAM                                               (2)

scaled to [0, 1] (3), brought to the size of the image by bilinear interpolation, and scaled once more:

    scale(M) = (M - min M) / (max M - min M + 1e-7),    of each image by itself                                     (3)

CAM is defined for a head of global average pooling and one linear layer, where α_k of (1) is the weight of channel k in
class c. Grad-CAM takes any head. Where the head needs more than A, as that of a transformer does, features(x) is the
pair of A and the rest, which (1) and (2) hold constant. Only the head is differentiated, so a map costs one forward
pass of the network and one backward pass of its (usually tiny) last part.

Source: CAM, Zhou et al. 2016; Grad-CAM, Selvaraju et al. 2017. The order of steps, the 1e-7 and the interpolation are
those of the PyPI package grad-cam (1.5.7), and the tests compare with its numbers. Departures from GSE's released
``CAM``: an image is scaled by its own minimum and maximum, not by those of the batch, and the interpolation is
bilinear, not bicubic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from invjax.attribution.saliency import check_examples, one_label
from invjax.attribution.split import Split, split
from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, of_shape
from invjax.core.images import check_floats
from invjax.core.labels import check_indices, classes_of, no_class
from invjax.core.logits import num_classes
from invjax.core.meant import explained
from invjax.core.numerics import at_least_float32
from invjax.core.rows import BATCH, map_rows
from invjax.engine import checks
from invjax.types import Array, ArrayLike

Kind = Literal["cam", "grad_cam"]
FLOOR = 1e-7  # added to the range in (3), so that a constant map becomes 0
UNEVEN = 1e-3  # CAM: how far ∂Z_c/∂A may vary over the plane, relative to its largest entry


@explained
def grad_cam(model: Any, x: Array, label: ArrayLike | None = None) -> Array:
    """Grad-CAM (2) of ONE image for class ``label``: [H, W, C] -> [H, W] in [0, 1]; traceable.

    Args:
        model: a :class:`~invjax.attribution.Split`, or a model that :func:`~invjax.attribution.split` can divide.
        x: [H, W, C] in the data range.
        label: [] int, any class of interest; None takes the class predicted for x. If no channel supports the class,
            the map is 0. It is NaN where the network predicts no class (its logits hold NaN), and where a traced label,
            which cannot be checked, is no class.

    Raises ValueError: x is no image of floats, the label is no class, the model cannot be split, or the features are
    not [B, h, w, F].
    """
    return _one(model, x, label, "grad_cam")


@explained
def cam(model: Any, x: Array, label: ArrayLike | None = None) -> Array:
    """CAM (1) of ONE image for class ``label``: [H, W, C] -> [H, W] in [0, 1]; traceable.

    The head must be global average pooling and one linear layer, which only :func:`cams` can check. The arguments are
    those of :func:`grad_cam`.
    """
    return _one(model, x, label, "cam")


@kinds_checked
def grad_cams(model: Any, x: Any, label: Any = None, *, batch: int = BATCH) -> np.ndarray:
    """Grad-CAM (2) of a list: x [N, H, W, C], label [N] (None: the predicted class) -> [N, H, W] in [0, 1].

    ``batch`` images go through the network at a time; a map depends on its own image alone.
    Raises ValueError: as :func:`grad_cam`, or a label that is not a class.
    """
    return _many(model, x, label, "grad_cam", batch)[0]


@kinds_checked
def cams(model: Any, x: Any, label: Any = None, *, batch: int = BATCH) -> np.ndarray:
    """CAM (1) of a list, like :func:`grad_cams`.

    Raises ValueError: as :func:`grad_cams`, or a head that is not global average pooling and one linear layer. Such a
    head is recognised by ∂Z_c/∂A, which is then constant over the plane and the same for all A.
    """
    maps, uneven = _many(model, x, label, "cam", batch)
    if np.any(uneven > UNEVEN):
        raise BadArgument(
            "model",
            "end in global average pooling and one linear layer, so that the gradient of a logit is constant over the "
            "plane and the same for all features, for CAM",
            Words(f"a model whose gradient varies by {uneven.max():.2g} of its size"),
            hint="grad_cams takes any head",
        )
    return maps


@explained
def scale_map(m: Array) -> Array:
    """Scale one map [h, w] to [0, 1] by (3); its smallest entry becomes 0."""
    above = m - jnp.min(m)
    return above / (jnp.max(above) + FLOOR)


def _resize(m: Array, size: tuple[int, ...]) -> Array:
    """Bilinear [h, w] -> [H, W]: pixel centers at half integers, edges repeated, no smoothing where it shrinks."""
    return jax.image.resize(m, size, "linear", antialias=False)


def _maps(halves: Split, x: Array, label: Array | None, kind: Kind) -> tuple[Array, Array]:
    """The maps [B, H, W] of a batch of images, and how uneven each ∂Z_c/∂A is over the plane, [B]."""
    if x.ndim != 4:
        raise BadArgument("x", "be images [N, H, W, C]", of_shape(x.shape))
    seen = halves.features(x)
    features, *rest = seen if isinstance(seen, tuple) else (seen,)
    if features.ndim != 4:
        raise BadArgument("features", "be [B, h, w, F]", of_shape(features.shape))

    def head(a: Array) -> Array:
        return halves.head((a, *rest) if isinstance(seen, tuple) else a)

    z, pull = jax.vjp(head, features)
    if label is not None and not checks.is_traced(label):
        check_indices("label", label, len(z), z.shape[-1], of="the model")
    classes = classes_of(z) if label is None else label
    (slope,) = pull(jax.nn.one_hot(classes, z.shape[-1], dtype=z.dtype))
    given, slope, features = features, at_least_float32(slope), at_least_float32(features)
    mean = jnp.mean(slope, axis=(1, 2), keepdims=True)
    uneven = jnp.max(jnp.abs(slope - mean), axis=(1, 2, 3))
    if kind == "grad_cam":
        plane = jax.nn.relu(jnp.sum(mean * features, axis=-1))
    else:
        plane = jnp.sum(mean * features, axis=-1) * (slope.shape[1] * slope.shape[2])
        uneven = jnp.maximum(uneven, _bend(head, given, classes, slope))
    none = no_class(classes, z.shape[-1])[:, None, None]
    plane = jnp.where(none, jnp.full_like(plane, jnp.nan), plane)
    maps = jax.vmap(lambda m: scale_map(_resize(scale_map(m), x.shape[1:3])))(plane)
    largest = jnp.max(jnp.abs(slope), axis=(1, 2, 3))
    return maps, uneven / jnp.where(largest > 0, largest, jnp.ones_like(largest))


def _bend(head: Callable[[Array], Array], features: Array, classes: Array, slope: Array) -> Array:
    """By how much ∂Z_c/∂A differs at other features than A, [B]: 0 for a linear head.

    The others are the channels of A in other proportions, and -A. A head that begins with max(0, ·) has no slope there;
    where A has no negative entry, it may be linear all the same.
    """
    channel = jnp.arange(features.shape[-1])
    proportions = jnp.where(channel % 3 == 0, 4.0, jnp.where(channel % 3 == 1, 0.25, 1.0)).astype(features.dtype)

    def differs(at: Array) -> tuple[Array, Array]:
        z, pull = jax.vjp(head, at)
        (there,) = pull(jax.nn.one_hot(classes, z.shape[-1], dtype=z.dtype))
        there = at_least_float32(there)
        return jnp.max(jnp.abs(there - slope), axis=(1, 2, 3)), jnp.any(there != 0, axis=(1, 2, 3))

    scaled, (mirrored, moves) = differs(features * proportions)[0], differs(-features)
    rectified = ~moves & jnp.all(features >= 0, axis=(1, 2, 3))
    return jnp.maximum(scaled, jnp.where(rectified, jnp.zeros_like(mirrored), mirrored))


def _one(model: Any, x: Array, label: ArrayLike | None, kind: Kind) -> Array:
    point = jnp.asarray(x)
    check_floats(point.dtype)
    own = None if label is None else one_label("label", label)
    return _maps(split(model), point[None], own, kind)[0][0]


def _many(model: Any, x: Any, label: Any, kind: Kind, batch: int) -> tuple[np.ndarray, np.ndarray]:
    halves, rows = split(model), check_examples(x)
    if label is not None:
        classes = num_classes(halves, rows.shape[1:], rows.dtype)
        label = np.asarray(checks.check_labels("label", label, len(rows), classes))
    return map_rows(_maps, halves, rows, label, batch=batch, static=(kind,))
