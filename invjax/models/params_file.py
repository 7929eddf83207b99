"""Weights of an NNX model as one ``.npz`` file: an array per weight, named by its attribute path.

    conv1.kernel, conv1.bias, …, and what the network expects: input.mean, input.std, input.shape

NumPy alone can read it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument
from invjax.core.files import no_file, write_atomic
from invjax.core.unpack import Unreadable, read_npz, storable

Module = TypeVar("Module")
INPUT = "input."  # entries that describe the input rather than a weight


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write an npz, whole or not at all, which :func:`load_arrays` reads. bfloat16 and float8 become float32."""
    path, content = Path(path), io.BytesIO()
    if not os.path.isdir(path.parent):
        raise BadArgument("path", "lie in an existing folder", hint=f"there is no {path.parent}")
    np.savez_compressed(content, **{name: storable(name, array) for name, array in arrays.items()})
    try:
        write_atomic(path, content.getvalue())
    except OSError as error:
        raise BadArgument("path", "be writable", hint=f"{path}: {error.strerror or error}") from error


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read an npz of numeric arrays.

    Raises:
      ValueError: the file is missing, truncated, corrupt, no npz, or holds pickled objects.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise no_file("path", "be an existing .npz file", path)
    try:
        return read_npz(path)
    except Unreadable as error:
        raise BadArgument("path", "be a readable .npz file", hint=f"{path}: {error}") from error


def weights_of(module: Any) -> dict[str, Any]:
    """The weights (parameters and running statistics) of an NNX module by attribute path. Those of an abstract module
    (``nnx.eval_shape``) are shapes and dtypes."""
    from flax import nnx

    state: Any = nnx.split(module, nnx.RngState, ...)[2]
    flat: dict[str, Any] = {}

    def walk(node: Mapping[Any, Any], prefix: str) -> None:
        for key, value in node.items():
            name = f"{prefix}{key}"
            if isinstance(value, Mapping):
                walk(value, name + ".")
            else:
                flat[name] = value

    walk(nnx.to_pure_dict(state), "")
    return flat


def with_weights(module: Module, arrays: Mapping[str, np.ndarray]) -> Module:
    """A module like ``module`` with the weights ``arrays``, by attribute path; ``input.`` entries are skipped.

    Args:
      module: an NNX module, possibly an abstract one from ``nnx.eval_shape(lambda: Net(rngs=nnx.Rngs(0)))``. Drawing
        initial weights would have to be compiled, which takes longer than the rest of loading a file.
      arrays: one for each of ``weights_of(module)``; they are cast to its dtypes.

    Raises:
      ValueError: a weight is missing, unknown, or of another shape; all are named.
    """
    from flax import nnx

    wanted = weights_of(module)
    given = {name: array for name, array in arrays.items() if not name.startswith(INPUT)}
    if wrong := sorted(set(wanted) ^ set(given)):
        missing, unknown = [n for n in wrong if n in wanted], [n for n in wrong if n in given]
        hint = f"missing: {missing}, unknown: {unknown}"
        raise BadArgument("weights", f"be those of {type(module).__name__}", hint=hint)
    if shapes := [f"{n}: {given[n].shape} for {wanted[n].shape}" for n in wanted if given[n].shape != wanted[n].shape]:
        raise BadArgument("weights", f"have the shapes of {type(module).__name__}", hint=f"wrong: {', '.join(shapes)}")
    if kinds := [f"{n}: {given[n].dtype}" for n in wanted if not _is_real(given[n].dtype)]:
        raise BadArgument("weights", "be real numbers", hint=f"these are not: {', '.join(kinds)}")
    graph, random, state = nnx.split(module, nnx.RngState, ...)
    nested: dict[str, Any] = {}
    for name, old in wanted.items():
        *parents, last = name.split(".")
        node = nested
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = jnp.asarray(np.asarray(given[name], old.dtype))
    nnx.replace_by_pure_dict(state, nested)
    return nnx.merge(graph, jax.tree.map(_concrete, random), state)


def _is_real(dtype: Any) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def _concrete(leaf: Any) -> Any:
    """The random-number state (of dropout, say) of an abstract module made real, so that it can be trained on."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), leaf.shape)
    return jnp.zeros(leaf.shape, leaf.dtype)
