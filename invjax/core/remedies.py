"""What to write instead: for networks, images and labels as other libraries have them. Asked once a call has failed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

_ROUNDING = 1e-3  # of the data range: as much may come from rounding
_PIXEL = 255  # the largest number of 8 bits


def for_no_network(model: Any) -> str | None:
    """About what stands in the place of a network and cannot be called, or is of another library."""
    if isinstance(model, str | os.PathLike):
        return 'invjax.models.load("resnet20", path) reads a network by the name of its architecture'
    if isinstance(model, type):
        return f"it is a class: make a network of it, {model.__name__}(...)"
    if hasattr(model, "shape"):
        return "the network comes first, then x and label"
    library = _library(model)
    if library == "torch":
        return "invjax.models.load reads torch's weights, and invjax.models.black_box asks any predict_proba"
    if library in ("keras", "tensorflow"):
        return "invjax.models.black_box asks any predict_proba, without its gradient"
    if hasattr(model, "predict") or hasattr(model, "predict_proba"):
        return "invjax.recourse.from_predictor takes fitted models of tables, invjax.models.black_box any predict_proba"
    return None


def _library(model: Any) -> str | None:
    names = {str(kind.__module__).partition(".")[0] for kind in type(model).__mro__}
    return next((name for name in ("torch", "keras", "tensorflow") if name in names), None)


def for_call(model: Any, error: Exception, shape: tuple[int, ...], one: Callable[[], Any]) -> str:
    """About a network that does not take a batch of x [*S]. one: what it gives for a single x, if it takes that."""
    first = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
    said = f"calling it failed: {first}"
    for name in ("func", "apply", "inner", "function"):  # what stands around it
        model = getattr(model, name, model)
    if isinstance(model, type) or _library(model) is not None:
        return f"{said}; {for_no_network(model)}"
    if isinstance(error, jax.errors.ConcretizationTypeError | jax.errors.TracerArrayConversionError):
        return f"{said}; write it with jax.numpy, or ask it as invjax.models.black_box does"
    if isinstance(error, TypeError) and "missing" in first:
        return f"{said}; give its other arguments: lambda x: model(x, ...)"
    if len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3, 4):
        return f"{said}; x looks channel first: x.transpose(0, 2, 3, 1) has the channel last"
    try:
        if len(getattr(one(), "shape", ())) == 1:
            return f"{said}; it takes one example at a time: jax.vmap(model) takes a batch"
    except Exception:  # neither
        pass
    return said


def for_output(out: Any) -> str | None:
    """About what a network returns, if that is not [B, K]."""
    if isinstance(out, Mapping):
        return f"take the logits out of it: lambda x: model(x)[{next(iter(out), 'logits')!r}]"
    if isinstance(out, tuple | list):
        return "take the logits out of it: lambda x: model(x)[0]"
    shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
    if shape is None or len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        return None
    if np.dtype(dtype).kind in "iub":
        return "return the scores of all classes, not the class"
    return "invjax.models.binary makes two classes of one logit"


def for_values(values: np.ndarray, lower: Any, upper: Any) -> str | None:
    """About x outside of its box: pixels, or numbers that a network's normalisation has been applied to."""
    if np.ndim(lower) or np.ndim(upper) or not np.isfinite(values).all():
        return None
    least, most = float(values.min()), float(values.max())
    slack = _ROUNDING * (float(upper) - float(lower))
    if lower - slack <= least and most <= upper + slack:
        return f"np.clip(x, {lower:g}, {upper:g}) takes away what rounding has added"
    if least >= 0 and upper <= 1 and 2 < most <= _PIXEL:
        return "divide pixels by 255, or give bounds=(0, 255)"
    if least < lower and most < 50 * float(upper):
        low, high = np.floor(least), np.ceil(most)
        return (
            f"give bounds=({low:g}, {high:g}) if that is its range; "
            "of normalised images give the images themselves, and as_logits(model, mean, std)"
        )
    return None


def for_no_classes(values: Any) -> str | None:
    """About labels that are no whole numbers, or not one for each example."""
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "fiub" and (array.sum(1) == 1).all():
        return "of one-hot rows give the classes, rows.argmax(1)"
    if array.dtype.kind in "OSU":
        return "classes are numbers: names, label = np.unique(names, return_inverse=True)"
    if array.dtype.kind == "f" and (array == np.rint(array)).all():
        return "give them as integers, np.asarray(label, int)"
    return None


def for_mask(mask: np.ndarray, shape: tuple[int, ...]) -> str | None:
    """About a mask [H, W] or [N, H, W] of images [H, W, C]."""
    if len(shape) == 3 and mask.ndim in (2, 3) and mask.shape[-2:] == shape[:2]:
        return f"np.repeat(mask[..., None], {shape[2]}, -1) has the channels"
    return None


def for_method(config: Any) -> str | None:
    """About a class or a name in the place of a configuration."""
    if isinstance(config, type):
        return f"it is a class: {config.__name__}() is its configuration"
    if isinstance(config, str):
        return f"invjax.attacks.make({config!r}) makes one of a name"
    return None
