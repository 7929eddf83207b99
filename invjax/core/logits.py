"""How a classifier enters the library: :class:`LogitsModel` and :func:`as_logits`.

A classifier is a function from a batch in the *data range* to logits, ``[B, *S] -> [B, K]``, and a pytree whose leaves
are its weights. So weights are arguments of a compiled program, never constants captured by it (36 MB of captured
weights become 72 million characters of program), and new weights of the same architecture never recompile.

This module imports no neural network library: flax is touched only where a flax module is handed in.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from invjax.core.apply import Apply, FunctionApply, NormalisedApply, PytreeApply
from invjax.core.errors import BadArgument, Words
from invjax.types import Array, ArrayLike, LogitsFn


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LogitsModel:
    """A classifier as a pytree: ``model(x) = apply(params, x)``.

    Args:
      params: a pytree of arrays, the weights: the leaves of the model.
      apply: ``apply(params, x)`` with x [B, *S] in the data range -> logits [B, K]. It is static: part of the key under
        which compiled programs are kept. So define it once (a module-level function, a bound method of a Linen module,
        a frozen dataclass) and not anew for every set of weights; it must be hashable.

    Raises:
      ValueError: ``apply`` is not callable or not hashable.
    """

    params: Any
    apply: Apply = dataclasses.field(metadata={"static": True})

    def __post_init__(self) -> None:
        if not callable(self.apply):
            raise BadArgument("apply", "be a function (params, x) -> logits", self.apply)
        try:
            hash(self.apply)
        except TypeError as error:
            wanted = "be hashable, so that compiled programs can be found again"
            raise BadArgument("apply", wanted, Words(f"a {type(self.apply).__name__}: {error}")) from None

    def __call__(self, x: Array) -> Array:
        """Logits of a batch: [B, *S] -> [B, K]."""
        return self.apply(self.params, x)


def as_logits(
    model: Any, mean: ArrayLike | None = None, std: ArrayLike | None = None, *, example: Any = None
) -> LogitsModel:
    """Make a :class:`LogitsModel` of what the user has: ``logits(x) = model((x - mean) / std)``.

    Args:
      model: one of

        * an ``nnx.Module``, [B, *S] -> [B, K]. A copy is set to evaluation mode, and on that copy every
          :class:`invjax.models.blocks.ConvBN` is folded into one convolution; the user's module is never changed.
          Modules of one architecture give equal tree structures: their compiled programs are shared;
        * a :class:`LogitsModel` (to add a normalisation or the check of ``example``);
        * a callable that is a registered pytree of arrays; its leaves are the weights;
        * a plain function ``logits(x)``; arrays it captured become constants of the program, so prefer
          ``LogitsModel(params, apply)`` for large networks.
      mean, std: normalisation of the data range, broadcast against [*S]: scalars or one number per channel. For a
        model trained on inputs in [-1, 1] and images in [0, 1] both are 0.5. They are leaves, like the weights.
      example: one input [*S], or a shape as a tuple of ints. When given, the model is run twice, to check that the
        logits of an example do not depend on the other examples of its batch: the engine relies on that.

    Raises:
      ValueError: ``model`` is not callable; ``mean`` or ``std`` not finite, or ``std`` not positive; ``example`` is not
        a floating-point array; the model returns no [B, K] or mixes the examples of a batch.
    """
    logits = _wrap(model)
    if mean is not None or std is not None:
        params = {
            "inner": logits.params,
            "mean": _statistic("mean", 0.0 if mean is None else mean),
            "std": _statistic("std", 1.0 if std is None else std, positive=True),
        }
        logits = LogitsModel(params, NormalisedApply(logits.apply))
    if example is not None:
        _check_independent(logits, example)
    return logits


def _wrap(model: Any) -> LogitsModel:
    if isinstance(model, LogitsModel):
        return model
    if is_nnx_module(model):
        from invjax.core.nnx import evaluation_parts

        return LogitsModel(*evaluation_parts(model))
    if not callable(model):
        wanted = "be an nnx.Module, a LogitsModel or a function x [B, *S] -> logits [B, K]"
        raise BadArgument("model", wanted, Words(type(model).__name__))
    function: Callable[[Any], Any] = model
    leaves, structure = jax.tree.flatten(model)
    if jax.tree_util.treedef_is_leaf(structure):
        return LogitsModel((), FunctionApply(function))
    for leaf in leaves:
        if not isinstance(leaf, jax.Array | np.ndarray | float | int):
            was = Words(f"a {type(model).__name__} with a leaf of type {type(leaf).__name__}")
            hint = "separate the two and use LogitsModel(params, apply)"
            raise BadArgument("model", "have arrays alone as leaves where it is a pytree", was, hint=hint)
    return LogitsModel(model, PytreeApply())


def _statistic(name: str, value: ArrayLike, positive: bool = False) -> Array:
    """A constant of the normalisation as a float32 leaf; inside a trace its values cannot be looked at."""
    if isinstance(value, jax.core.Tracer):
        return jnp.asarray(value, jnp.float32)
    host = np.asarray(value, np.float32)
    if not np.all(np.isfinite(host)) or (positive and not np.all(host > 0)):
        wanted = "positive and finite" if positive else "finite"
        raise BadArgument(name, f"be {wanted}", host.tolist())
    return jnp.asarray(host)


def _probes(example: Any) -> np.ndarray:
    """Three inputs as unlike as can be, [3, *S]: batch statistics of any kind then differ from those of one alone."""
    shape = getattr(example, "shape", None)
    if isinstance(example, jax.ShapeDtypeStruct):
        example = example.shape
    if isinstance(example, tuple) and all(isinstance(n, int | np.integer) for n in example):
        first = np.random.default_rng(0).uniform(size=example).astype(np.float32)
    else:
        first = np.asarray(example)
        if shape is None or not jnp.issubdtype(first.dtype, jnp.floating):
            was = first.dtype if shape is not None else Words(type(example).__name__)
            raise BadArgument("example", "be a floating-point array [*S] in the data range, or a shape", was)
    # The others are all dark beside a bright example and all bright beside a dark one, so that the average over the
    # batch is far from that of the example alone.
    far, noise = float(first.mean() < 0.5), np.random.default_rng(1).uniform(size=(2, *first.shape))
    return np.concatenate([first[None], np.abs(far - 0.2 * noise).astype(first.dtype)])


def _check_independent(model: LogitsModel, example: Any) -> None:
    points, run = _probes(example), jax.jit(lambda model, x: model(x))
    try:
        together, alone = np.asarray(run(model, points)), np.asarray(run(model, points[:1]))
    except Exception as error:
        if type(error).__name__ != "TraceContextError":
            raise
        # flax's word for a module captured by a function, which updates its statistics when it is called.
        hint = "is BatchNorm in eval mode? Give the nnx.Module itself rather than a function around it"
        raise BadArgument("model", "not change its own state when called", hint=hint) from error
    if together.ndim != 2 or together.shape[0] != 3 or alone.shape != (1, together.shape[1]):
        gave = f"{points.shape} gave {together.shape} and {points[:1].shape} gave {alone.shape}"
        raise BadArgument("model", "map [B, *S] to logits [B, K]", hint=gave)
    row = together[0].astype(np.float64)
    # Other batch sizes round differently (about 1e-6, a bfloat16 network 1e-2); mixed examples differ by order one.
    rounding = max(2e-3, 4 * float(jnp.finfo(together.dtype).eps))
    tolerance = rounding * (np.max(np.abs(together), initial=0.0) + 1e-6)
    if not np.allclose(row, alone[0], rtol=0.0, atol=tolerance, equal_nan=True):
        apart = f"logits of one input alone and in a batch of three differ by {np.max(np.abs(row - alone[0])):.3g}"
        raise BadArgument("model", "not mix the examples of a batch", hint=f"{apart}; is BatchNorm in eval mode?")


def is_nnx_module(model: Any) -> bool:
    """Whether ``model`` is a Flax NNX module; flax is not imported for the question."""
    nnx = sys.modules.get("flax.nnx")  # an nnx.Module can only exist where it has been imported
    return nnx is not None and isinstance(model, nnx.Module)


def as_logits_fn(logits: Any, name: str = "logits") -> LogitsFn:
    """The callable as a pytree: its weights as leaves where it is one already, a plain function as a constant.

    An nnx.Module goes through :func:`as_logits`. Raises BadArgument, about ``name``, for what cannot be called.
    """
    if not callable(logits):
        raise BadArgument(name, "be a function [B, *S] -> [B, K]", Words(type(logits).__name__))
    if is_nnx_module(logits):
        return as_logits(logits)
    treedef = jax.tree.structure(logits)
    if jax.tree_util.treedef_is_leaf(treedef) and treedef.num_leaves == 1:  # not a registered pytree
        return jax.tree_util.Partial(logits)
    return cast(LogitsFn, logits)


@jax.jit
def _call(logits: LogitsFn, x: Array) -> Array:
    return logits(x)


def num_classes(logits: LogitsFn, shape: tuple[int, ...], dtype: Any) -> int:
    """K of a network, from its abstract evaluation on a batch of two. Raises BadArgument where it gives no [B, K]."""
    probe = jax.ShapeDtypeStruct((2, *shape), dtype)
    try:
        out = _call.eval_shape(logits, probe)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        accepted = f"accept x of shape [B, {', '.join(map(str, shape))}] (channel last), {np.dtype(dtype).name}"
        raise BadArgument("logits", accepted, hint=f"calling it failed: {first}") from error
    if not hasattr(out, "shape") or len(out.shape) != 2 or out.shape[0] != 2 or out.shape[1] < 2:
        found = getattr(out, "shape", type(out).__name__)
        raise BadArgument("logits", "return [B, K] with K >= 2 classes", Words(f"{found} for a batch of 2"))
    return out.shape[1]
