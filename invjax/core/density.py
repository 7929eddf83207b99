"""Is this a density, of points of this shape, that knows the classes it will be asked about?"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument, Words

_DENSITY = "be a density with log_prob(x, label), such as fit_kde(x, y)"


def check_density(density: Any, shape: tuple[int, ...], dtype: Any, labels: Any = None, name: str = "density") -> None:
    """Raise BadArgument about ``name`` unless ``density`` gives a number for a point [*S] of each class in ``labels``.

    labels: class indices of any shape. How many classes a density knows is its attribute ``classes``, where it has one.
    """
    if isinstance(density, type) or not callable(getattr(density, "log_prob", None)):
        was = Words(getattr(density, "__name__", None) or f"of type {type(density).__name__}")
        raise BadArgument(name, _DENSITY, was)
    leaves, tree = jax.tree.flatten(density)
    if not all(isinstance(leaf, jax.Array | np.ndarray | np.generic | int | float) for leaf in leaves):
        raise BadArgument(name, "be a pytree of arrays", Words(f"of type {type(density).__name__}"))
    of = tuple(jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    try:
        said = _tried(tree, of, shape, np.dtype(dtype))
    except TypeError:  # a static part that cannot be hashed: what is seen is not remembered
        said = _tried.__wrapped__(tree, of, shape, np.dtype(dtype))
    if said is not None:
        raise BadArgument(name, f"take points of shape {shape}", hint=said)
    known, asked = getattr(density, "classes", None), np.asarray(-1 if labels is None else labels)
    if isinstance(known, int) and asked.max(initial=-1) >= known:
        hint = f"it was fitted to the classes 0 to {known - 1}"
        raise BadArgument(name, f"know the class {int(asked.max())}, which is a target", hint=hint)


@lru_cache(maxsize=64)
def _tried(tree: Any, leaves: tuple[Any, ...], shape: tuple[int, ...], dtype: np.dtype) -> str | None:
    """What is wrong with the answer of such a density to such a point; None: nothing. Nothing is computed for it."""

    def ask(leaves: tuple[Any, ...], x: Any, label: Any) -> Any:
        return tree.unflatten(leaves).log_prob(x, label)

    try:
        out = jax.eval_shape(ask, leaves, jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct((), jnp.int32))
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"calling it failed: {first}"
    if getattr(out, "shape", None) != ():
        return f"it gave {getattr(out, 'shape', type(out).__name__)} instead of one number"
    return None
