"""A ReLU multi-layer perceptron as plain float64 matrices, the form that exact solvers need.

    a_0 = x,   z_l = a_{l-1} W_l + b_l,   a_l = max(0, z_l)  (l < L),   logits = z_L                              (1)

Everything here is NumPy in float64. A certificate is about the exact arithmetic of (1), from which a float32 evaluation
differs by about 1e-6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.types import UNTARGETED

Layers = list[tuple[np.ndarray, np.ndarray]]

ACCEPTED = (
    "an invjax.models.MLP, a LogitsModel or as_logits(...) of one (with or without a normalisation), a list of (W, b), "
    "or an object with a method relu_layers()"
)


class Box(NamedTuple):
    """Bounds of a layer's pre-activations, lower <= z <= upper."""

    lower: np.ndarray  # [out]
    upper: np.ndarray  # [out]


def relu_layers(model: Any) -> Layers:
    """The network as ``[(W [in, out], b [out]), ...]`` in float64; the last pair gives the logits.

    model: one of

    * an :class:`invjax.models.MLP` or ``as_logits`` of one; a normalisation ``(x - mean) / std`` is folded into the
      first layer;
    * a sequence of pairs (W [in, out], b [out]), ReLU between them; logistic regression is one pair;
    * an object with a method ``relu_layers()``, or a ``LogitsModel`` whose ``apply`` has ``relu_layers(params)``, so
      that other wrappers can say which network they hold. Both return such pairs.

    A network of one logit z is the binary classifier with logits (0, z), and gets a column for the 0.

    Raises:
      ValueError: ``model`` is none of these, or its matrices do not fit together or are not finite.
    """
    return _checked(_extract(model))


def _extract(model: Any) -> Any:
    from invjax.core.apply import NormalisedApply
    from invjax.core.logits import LogitsModel

    if isinstance(model, LogitsModel):
        own = getattr(model.apply, "relu_layers", None)
        if own is not None:
            return own(model.params)
        if isinstance(model.apply, NormalisedApply):
            inner = _checked(_extract(LogitsModel(model.params["inner"], model.apply.inner)), single=True)
            return _normalised(inner, model.params["mean"], model.params["std"])
        return _of_module(model)
    if callable(getattr(model, "relu_layers", None)):
        return model.relu_layers()
    if isinstance(model, Sequence) and not isinstance(model, str) and len(model):
        return model
    if type(model).__module__.startswith("invjax.models"):
        return _of_mlp(model)
    raise BadArgument("model", f"be {ACCEPTED}", Words(type(model).__name__))


def _of_module(model: Any) -> Any:
    """The MLP inside a ``LogitsModel`` that ``as_logits`` made of it."""
    from flax import nnx

    from invjax.core.nnx import NnxApply

    if not isinstance(model.apply, NnxApply):
        name = type(model.apply).__name__
        raise BadArgument("model", f"be {ACCEPTED}", Words(f"a LogitsModel of {name}, which hides its layers"))
    if model.apply.random_leaves:
        raise BadArgument("model", f"be {ACCEPTED}", Words("a module with random numbers (dropout)"))
    return _of_mlp(nnx.merge(model.apply.graph, model.params))


def _of_mlp(module: Any) -> Any:
    from invjax.models.mlp import MLP

    if type(module) is not MLP:  # a subclass may compute something else
        raise BadArgument("model", f"be {ACCEPTED}", Words(type(module).__name__))
    layers = [getattr(module, f"dense{i + 1}") for i in range(module.layers)]
    return [(np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])) for layer in layers]


def _normalised(layers: Layers, mean: Any, std: Any) -> Layers:
    """``((x - mean) / std) W + b = x (W / std) + (b - (mean / std) W)``."""
    weight, bias = layers[0]
    mean, std = (np.broadcast_to(np.asarray(one, np.float64).reshape(-1), weight.shape[0]) for one in (mean, std))
    return [(weight / std[:, None], bias - (mean / std) @ weight), *layers[1:]]


def _checked(pairs: Any, single: bool = False) -> Layers:
    layers: Layers = []
    width: int | None = None
    for position, pair in enumerate(pairs):
        try:
            weight, bias = (np.array(one, np.float64) for one in pair)
        except (TypeError, ValueError):
            raise BadArgument(
                "model", "be a list of pairs (W, b) of numbers", hint=f"entry {position} was not"
            ) from None
        fits = weight.ndim == 2 and bias.shape == weight.shape[1:] and width in (None, weight.shape[0])
        if not fits or 0 in weight.shape:
            raise BadArgument(
                "model",
                "be pairs (W [in, out], b [out]) that fit together",
                hint=(f"entry {position} had shapes {weight.shape} and {bias.shape} after a layer of {width} outputs"),
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise BadArgument("model", "have finite weights", hint=f"entry {position} has a NaN or an infinity")
        layers.append((weight, bias))
        width = weight.shape[1]
    if not layers:
        raise BadArgument("model", "have at least one layer", Words("none"))
    if width == 1 and not single:
        weight, bias = layers[-1]
        layers[-1] = np.pad(weight, ((0, 0), (1, 0))), np.pad(bias, (1, 0))
    return layers


def pre_activations(layers: Layers, x: np.ndarray) -> list[np.ndarray]:
    """``[z_1, ..., z_L]`` of (1). x: [N, D] or [D]; the last is the logits."""
    answer, active = [], np.asarray(x, np.float64)
    for weight, bias in layers:
        answer.append(active @ weight + bias)
        active = np.maximum(answer[-1], 0.0)
    return answer


def margin(layers: Layers, x: np.ndarray, label: int, target: int) -> np.ndarray:
    """[N] (or [], for one row) by how many logit units the wanted class wins; negative where it loses.

    targeted  Z_t - max_{j != t} Z_j            untargeted  max_{j != y} Z_j - Z_y
    """
    logits = pre_activations(layers, x)[-1]
    aim = label if target == UNTARGETED else target
    other = np.delete(logits, aim, axis=-1).max(-1)
    return other - logits[..., aim] if target == UNTARGETED else logits[..., aim] - other


def rounding(layers: Layers, x: np.ndarray, dtype: Any) -> float:
    """What rounding does to a difference of logits at x [D] where the network is evaluated in ``dtype``, logit units.

    Roundings of a sum of n terms add up like steps of a random walk; four times their size is on the safe side.
    """
    unit = float(np.finfo(dtype).eps) / 2
    error, active = np.zeros(layers[0][0].shape[0]), np.asarray(x, np.float64)
    for weight, bias in layers:
        square, z = np.square(weight), active @ weight + bias
        terms = (len(weight) + 1) * (np.square(active) @ square + np.square(bias))
        error = np.sqrt(np.square(error) @ square + np.square(unit) * (terms + np.square(z)))
        active = np.maximum(z, 0.0)
    return 4 * float(np.sqrt(np.square(np.sort(error)[-2:]).sum()))


def interval(layers: Layers, lower: np.ndarray, upper: np.ndarray) -> list[Box]:
    """Interval bound propagation: a :class:`Box` of every layer's z for x in [lower, upper]; the first is exact."""
    boxes = []
    for weight, bias in layers:
        positive, negative = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
        boxes.append(Box(lower @ positive + upper @ negative + bias, upper @ positive + lower @ negative + bias))
        lower, upper = (np.maximum(one, 0.0) for one in boxes[-1])
    return boxes


def pieces(layers: Layers, pattern: Sequence[np.ndarray]) -> Layers:
    """Every layer's z as an affine function of x where the activation pattern holds: ``[(A [D, out], c [out]), ...]``.

    pattern: of each hidden layer, [out] bool, True where z > 0.
    """
    matrix, shift = np.eye(layers[0][0].shape[0]), np.zeros(layers[0][0].shape[0])
    answer: Layers = []
    for position, (weight, bias) in enumerate(layers):
        if position:
            matrix, shift = matrix * pattern[position - 1], shift * pattern[position - 1]
        matrix, shift = matrix @ weight, shift @ weight + bias
        answer.append((matrix, shift))
    return answer
