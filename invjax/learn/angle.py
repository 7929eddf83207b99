"""Do adversarial and plausible perturbations of the same example point the same way?

For an example x of class y, a target t and a network f,

    δ_adv     targeted PGD in an l2 ball                     δ_cfe    p-CFE: ‖x' − x‖² + γL − τ log q (+ β‖·‖_0)
    δ_den     p-CFE without the classifier, γ = 0            δ_cls    μ_t − μ_y, the difference of the class means

    cos(a, b) = <a, b> / (‖a‖ ‖b‖)                                                                                 (1)
    share(a)  = ‖P_x a‖² / ‖a‖²                                                                                    (2)

P_x projects onto the tangent space at x, the span of the m main directions of the k training points nearest to x (local
PCA). Adversarial perturbations of an ordinary network are said to leave the data, those of a robust network to look
like the other class (perceptually aligned gradients). (1) and (2) measure this against the radius of adversarial
training.

A cosine above 0 alone says little: both perturbations keep x in the box (a black pixel can only rise), both leave class
y, and δ_cfe contains a classifier's gradient, too. So there are null pairs: δ_cfe of another example, δ_cfe of x for
another target, and box-clipped white noise of the ball's radius instead of δ_adv. δ_den, in which no network takes
part, removes the common gradient. The chance level of (2) for unrelated directions is m / D.

Background: Freiesleben 2022, Minds and Machines; Ganz, Kawar, Elad 2023 (aligned gradients of robust networks).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax.attacks import PGD
from invjax.core.errors import BadArgument, Words, check_seed, of_shape
from invjax.core.labels import check_indices
from invjax.core.shown import short_repr
from invjax.counterfactuals import FixedWeights
from invjax.engine import solve
from invjax.types import Bounds, Density, LogitsFn

COSINES = {
    "adversarial, p-CFE": ("adversarial", "plausible"),
    "null: p-CFE of another example": ("adversarial", "shuffled"),
    "null: p-CFE for another target": ("adversarial", "other_target"),
    "null: noise, p-CFE": ("noise", "plausible"),
    "adversarial, density alone": ("adversarial", "density"),
    "adversarial, class means": ("adversarial", "means"),
    "p-CFE, class means": ("plausible", "means"),
}
SHARES = {
    "adversarial": "adversarial",
    "p-CFE": "plausible",
    "density alone": "density",
    "class means": "means",
    "null: noise": "noise",
}


class Directions(NamedTuple):
    """Perturbations of N examples, each [N, *S] in data units; a row of zeros if there is none."""

    adversarial: np.ndarray  # δ_adv, even if it misses the target
    plausible: np.ndarray  # δ_cfe, likewise
    other_target: np.ndarray  # δ_cfe of the same x for another target
    density: np.ndarray  # δ_den
    means: np.ndarray  # δ_cls
    noise: np.ndarray  # box-clipped white noise of the radius of the ball
    shuffled: np.ndarray  # δ_cfe of another example
    reached: dict[str, float]  # "adversarial", "plausible" -> share that reaches the target

    __repr__ = short_repr


class Angles(NamedTuple):
    """Cosines and shares of each example; NaN if a perturbation is 0."""

    cosines: dict[str, np.ndarray]  # pair of ``COSINES`` -> [N] (1)
    shares: dict[str, np.ndarray]  # name of ``SHARES`` -> [N] (2)
    chance: float  # m / D

    __repr__ = short_repr


def cosine(a: Any, b: Any) -> np.ndarray:
    """(1) of the rows: [N, *S], [N, *S] -> [N] float64, NaN if either is 0."""
    u, v = (np.asarray(one, np.float64).reshape(len(one), -1) for one in (a, b))
    if u.shape != v.shape:
        raise BadArgument("b", f"be of the shape of a, {np.shape(a)}", of_shape(np.shape(b)))
    size = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    return np.where(size > 0, (u * v).sum(1) / np.where(size > 0, size, 1), np.nan)


def tangent_basis(x: Any, reference: Any, neighbours: int = 40, dims: int = 10) -> np.ndarray:
    """Orthonormal rows that span the tangent space at each x: [N, m, D] float64, rows of zeros beyond its dimension.

    Args:
      x: [N, *S].
      reference: [M, *S] points of the data, without x itself.
      neighbours: k, from dims + 1 to M.
      dims: m, from 1 to D.

    Raises:
      ValueError: neighbours or dims out of range, or shapes that do not fit.
    """
    points, near = (np.asarray(one, np.float64).reshape(len(one), -1) for one in (x, reference))
    size = near.shape[1]
    if points.shape[1] != size:
        raise BadArgument("reference", f"be points of shape {np.shape(x)[1:]}", Words(f"of {np.shape(reference)[1:]}"))
    if not 1 <= dims <= size:
        raise BadArgument("dims", f"be from 1 to {size}, the coordinates", dims)
    if not dims < neighbours <= len(near):
        raise BadArgument("neighbours", f"be from {dims + 1} to {len(near)}, the reference points", neighbours)
    square = np.square(points).sum(1)[:, None] - 2 * points @ near.T + np.square(near).sum(1)
    index = np.argpartition(square, neighbours - 1, axis=1)[:, :neighbours]
    out = np.empty((len(points), dims, size))
    for n, rows in enumerate(index):
        cloud = near[rows] - near[rows].mean(0)
        _, values, directions = np.linalg.svd(cloud, full_matrices=False)
        own = min(dims, len(values))
        flat = values[:own] <= 1e-7 * max(
            values[0], 1e-300
        )  # the cloud has no extent there, so the direction is arbitrary
        out[n, own:] = 0
        out[n, :own] = np.where(flat[:, None], 0, directions[:own])
    return out


def tangent_share(delta: Any, basis: np.ndarray) -> np.ndarray:
    """(2) of the rows: delta [N, *S], basis [N, m, D] -> [N] in [0, 1], NaN if delta is 0."""
    r = np.asarray(delta, np.float64).reshape(len(delta), -1)
    whole = np.square(r).sum(1)
    part = np.square(np.einsum("nmd,nd->nm", basis, r)).sum(1)
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def class_means(x: Any, y: Any, classes: int) -> np.ndarray:
    """μ_k of the points x [M, *S] of classes y [M]: [K, *S] float64. Raises ValueError for a class without points."""
    points = np.asarray(x, np.float64)
    label = check_indices("y", y, len(points), classes, of="the network")
    if lacking := [k for k in range(classes) if not np.any(label == k)]:
        raise BadArgument("y", f"have points of each of the {classes} classes", Words(f"none of {lacking}"))
    return np.stack([points[label == k].mean(0) for k in range(classes)])


def other_targets(label: Any, target: Any, classes: int, seed: int = 0) -> np.ndarray:
    """[N] int32: a class that is neither label nor target, uniformly.

    Raises ValueError: fewer than 3 classes, or a target that is the label.
    """
    if classes < 3:
        raise BadArgument("classes", "be at least 3 for another target", classes)
    y = check_indices("label", label, None, classes, of="the network")
    t = check_indices("target", target, len(y), classes, of="the network")
    if np.any(y == t):
        raise BadArgument("target", "differ from label", t[y == t][0], np.argmax(y == t))
    generator = np.random.default_rng(check_seed("seed", seed))
    draw = generator.integers(classes - 2, size=y.shape)  # a position among the other classes
    draw = draw + (draw >= np.minimum(y, t))
    return (draw + (draw >= np.maximum(y, t))).astype(np.int32)


def directions(
    model: LogitsFn,
    x: Any,
    label: Any,
    target: Any,
    *,
    attack: PGD,
    counterfactual: FixedWeights,
    density: Density,
    means: np.ndarray,
    bounds: Bounds | tuple[Any, Any] = (0.0, 1.0),
    seed: int = 0,
    lanes: int = 128,
) -> Directions:
    """All perturbations of one network.

    Args:
      model: [B, *S] -> logits [B, K].
      x: [N, *S] float, N >= 2.
      label, target: [N] int.
      attack: in l2; with ``stop_early=False`` it takes all its steps.
      counterfactual: p-CFE.
      density: of the counterfactual.
      means: [K, *S], see :func:`class_means`.
      seed: of the other targets, the shuffle and the noise.

    Raises:
      ValueError: the attack is not in l2, fewer than two examples, a target that is the label.
    """
    points = np.asarray(x)
    y, t = (
        check_indices(name, given, len(points), len(means), of="the network")
        for name, given in (("label", label), ("target", target))
    )
    if attack.norm != "l2":
        raise BadArgument("attack", "be in the l2 norm", Words(f"in {attack.norm}"))
    if len(points) < 2:
        raise BadArgument("x", "hold at least 2 examples", len(points))
    rng = np.random.default_rng([check_seed("seed", seed, 32), 1])

    def moved(method: Any, aim: np.ndarray, q: Any) -> tuple[np.ndarray, float]:
        found = solve(
            model, points, y, target=aim, method=method, density=q, bounds=bounds, key=jax.random.key(seed),
            lanes=min(lanes, len(points)), progress=False,
        )  # fmt: skip
        return np.asarray(found.attempt) - points, float(np.mean(found.found))

    alone = dataclasses.replace(counterfactual, gamma=0.0)
    adversarial, hit = moved(attack, t, None)
    plausible, valid = moved(counterfactual, t, density)
    white = rng.standard_normal(points.shape)
    axes = tuple(range(1, points.ndim))
    white *= attack.eps / np.sqrt(np.square(white).sum(axes, keepdims=True))
    return Directions(
        adversarial=adversarial,
        plausible=plausible,
        other_target=moved(counterfactual, other_targets(y, t, len(means), seed), density)[0],
        density=moved(alone, t, density)[0],
        means=means[t] - means[y],
        noise=np.clip(points + white, *bounds) - points,
        shuffled=_of_another(plausible, rng),
        reached={"adversarial": hit, "plausible": valid},
    )


def measure_angles(moves: Directions, basis: np.ndarray) -> Angles:
    """(1) of the pairs in ``COSINES`` and (2) of those in ``SHARES``; basis: :func:`tangent_basis` at the examples."""
    return Angles(
        {name: cosine(getattr(moves, a), getattr(moves, b)) for name, (a, b) in COSINES.items()},
        {name: tangent_share(getattr(moves, field), basis) for name, field in SHARES.items()},
        basis.shape[1] / basis.shape[2],
    )


def _of_another(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rows in an order that leaves none in its place: a cycle through all of them."""
    cycle = rng.permutation(len(rows))
    out = np.empty_like(rows)
    out[cycle] = rows[np.roll(cycle, 1)]
    return out
