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

from invjax.core.apply import FunctionApply, NormalisedApply, PytreeApply
from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, of_shape
from invjax.core.mixing import ROWS, check_unmixed, is_new, shape_of, six_rows
from invjax.core.remedies import for_call, for_no_network, for_output
from invjax.core.shown import shown, size_of
from invjax.types import Array, ArrayLike, LogitsFn, Values


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
    apply: Callable[[Any, Any], Any] = dataclasses.field(metadata={"static": True})

    def __post_init__(self) -> None:
        if not callable(self.apply):
            raise BadArgument("apply", "be a function (params, x) -> logits", self.apply)
        try:
            hash(self.apply)
        except TypeError as error:
            wanted = "be hashable, so that compiled programs can be found again"
            raise BadArgument("apply", wanted, Words(f"a {type(self.apply).__name__}: {error}")) from None

    def __repr__(self) -> str:
        """What it is, and how many parameters it has; the whole of an NNX module shows ``nnx.display``."""
        what = type(self.params).__name__ if isinstance(self.apply, PytreeApply) else shown(self.apply)
        inner = self.params["inner"] if isinstance(self.apply, NormalisedApply) else self.params
        return f"LogitsModel({', '.join([what, *([size_of(inner)] if jax.tree.leaves(inner) else [])])})"

    def __call__(self, x: ArrayLike) -> Array:
        """Logits of a batch: [B, *S] -> [B, K]."""
        return self.apply(self.params, x)


@kinds_checked
def as_logits(model: Any, mean: Values | None = None, std: Values | None = None, *, example: Any = None) -> LogitsModel:
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
      example: one input [*S], or a shape as a tuple of ints. When given, the model is run twice, to check now that the
        logits of an example depend neither on the other examples of its batch nor on its place among them: the engine
        relies on that. Without it :func:`invjax.solve` checks, once, with its own rows.

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
        rows = _rows(example)
        try:
            check_unmixed(logits, rows, "model")
        except BadArgument:
            raise
        except Exception:  # the network's own, of whatever does not fit it
            asked_in_shapes(logits, rows.shape[1:], rows.dtype, "model")
            raise
        is_new(logits, rows.shape[1:], rows.dtype)  # no longer
    return logits


def titled(model: LogitsModel, title: str) -> LogitsModel:
    """The same, called so where it is shown. Programs that were compiled for it serve both."""
    apply: Any = model.apply
    if isinstance(apply, NormalisedApply):
        inner = titled(LogitsModel(model.params["inner"], apply.inner), title).apply
        return dataclasses.replace(model, apply=dataclasses.replace(apply, inner=inner))
    return dataclasses.replace(model, apply=dataclasses.replace(apply, title=title))


def _wrap(model: Any) -> LogitsModel:
    if isinstance(model, LogitsModel):
        return model
    if is_nnx_module(model):
        from invjax.core.nnx import evaluation_parts

        return LogitsModel(*evaluation_parts(model))
    if not callable(model):
        wanted = "be an nnx.Module, a LogitsModel or a function x [B, *S] -> logits [B, K]"
        raise BadArgument("model", wanted, Words(type(model).__name__), hint=for_no_network(model))
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


def _statistic(name: str, value: Values, positive: bool = False) -> Array:
    """A constant of the normalisation as a float32 leaf; inside a trace its values cannot be looked at."""
    if isinstance(value, jax.core.Tracer):
        return jnp.asarray(value, jnp.float32)
    host = np.asarray(value, np.float32)
    if not host.size or not np.all(np.isfinite(host)) or (positive and not np.all(host > 0)):
        wanted = "positive and finite" if positive else "finite"
        raise BadArgument(name, f"be {wanted}", host.tolist())
    return jnp.asarray(host)


def _rows(example: Any) -> np.ndarray:
    """Rows to check a network with: the example (or a random one of its shape), and others."""
    shape = getattr(example, "shape", None)
    if isinstance(example, jax.ShapeDtypeStruct):
        example = example.shape
    if isinstance(example, tuple) and all(isinstance(n, int | np.integer) for n in example):
        one = np.random.default_rng(0).uniform(size=example).astype(np.float32)
    else:
        one = np.asarray(example)
        if shape is None or not jnp.issubdtype(one.dtype, jnp.floating):
            was = one.dtype if shape is not None else Words(type(example).__name__)
            raise BadArgument("example", "be a floating-point array [*S] in the data range, or a shape", was)
    if not one.size:
        raise BadArgument("example", "hold at least one number", of_shape(one.shape))
    return six_rows(one[None], min(0.0, float(one.min())), max(1.0, float(one.max())))


def is_nnx_module(model: Any) -> bool:
    """Whether ``model`` is a Flax NNX module; flax is not imported for the question."""
    nnx = sys.modules.get("flax.nnx")  # an nnx.Module can only exist where it has been imported
    return nnx is not None and isinstance(model, nnx.Module)


def as_logits_fn(logits: Any, name: str = "logits") -> LogitsFn:
    """The callable as a pytree: its weights as leaves where it is one already, a plain function as a constant.

    An nnx.Module goes through :func:`as_logits`. Raises BadArgument, about ``name``, for what cannot be called.
    """
    if not callable(logits):
        was = Words(type(logits).__name__)
        raise BadArgument(name, "be a function [B, *S] -> [B, K]", was, hint=for_no_network(logits))
    if is_nnx_module(logits):
        return as_logits(logits)
    treedef = jax.tree.structure(logits)
    if jax.tree_util.treedef_is_leaf(treedef) and treedef.num_leaves == 1:  # not a registered pytree
        return jax.tree_util.Partial(logits)
    return cast(LogitsFn, logits)


def asked_in_shapes(logits: LogitsFn, shape: tuple[int, ...], dtype: Any, name: str = "logits") -> Any:
    """Shape and dtype of what a network gives a batch. Raises BadArgument about ``name`` where it takes no such one."""
    try:
        return shape_of(logits, shape, dtype)
    except Exception as error:
        accepted = f"accept x of shape [B, {', '.join(map(str, shape))}] (channel last), {np.dtype(dtype).name}"
        hint = for_call(logits, error, shape, lambda: jax.eval_shape(logits, jax.ShapeDtypeStruct(shape, dtype)))
        raise BadArgument(name, accepted, hint=hint) from error


def num_classes(logits: LogitsFn, shape: tuple[int, ...], dtype: Any) -> int:
    """K of a network, from its abstract evaluation on a batch. Raises BadArgument where it gives no logits [B, K]."""
    out = asked_in_shapes(logits, shape, dtype)
    if not hasattr(out, "shape") or len(out.shape) != 2 or out.shape[0] != ROWS or out.shape[1] < 2:
        found = getattr(out, "shape", type(out).__name__)
        was = Words(f"{found} for a batch of {ROWS}")
        raise BadArgument("logits", "return [B, K] with K >= 2 classes", was, hint=for_output(out))
    if not jnp.issubdtype(out.dtype, jnp.floating):
        hint = "scores that are counted or rounded have no gradient: return what they are made of"
        raise BadArgument("logits", "return floating-point logits", out.dtype, hint=hint)
    return out.shape[1]
