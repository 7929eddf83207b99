"""An NNX module taken apart for a compiled step: two graphs (training and evaluation) and three states.

The graphs are hashable and equal for equal architectures, so the next seed finds the compiled program again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from invjax.core.errors import BadArgument, Words, check_choice
from invjax.core.nnx import comparable
from invjax.types import Array

BatchNorm = Literal["train", "frozen"]

Freeze = Callable[[str], bool]  # whether the weight at this attribute path ("stem.conv.kernel") stays fixed


class Graphs(NamedTuple):
    """The module without its arrays; static."""

    train: Any  # nnx.GraphDef: dropout on, batch normalisation by the batch (or frozen)
    evaluation: Any  # nnx.GraphDef: dropout off, batch normalisation by the running statistics


class States(NamedTuple):
    """The arrays of a module, as nnx.State."""

    weights: Any  # parameters that learn
    frozen: Any  # parameters that do not
    rest: Any  # running statistics, and the state of random numbers


def split_module(
    module: nnx.Module, key: Array, batch_norm: BatchNorm = "train", freeze: Freeze | None = None
) -> tuple[Graphs, States]:
    """``(Graphs, States)`` of a copy of ``module``; its random numbers (dropout) start from ``key``.

    batch_norm: "train" uses the statistics of the batch, which update the running ones. "frozen" uses the running
    statistics and leaves them as they are; scale and shift still learn unless frozen by name.

    Raises:
      ValueError: not an NNX module, an unknown mode, or no weights that learn.
    """
    if not isinstance(module, nnx.Module):
        raise BadArgument("model", "be an nnx.Module, so that it can be trained", Words(type(module).__name__))
    check_choice("batch_norm", batch_norm, get_args(BatchNorm))

    def free(path: tuple[Any, ...], value: Any) -> bool:
        del value
        return not (freeze and freeze(".".join(map(str, path))))

    learns = nnx.All(nnx.Param, free)
    copy = comparable(module)
    copy.eval()
    evaluation = nnx.split(copy, learns, nnx.Param, ...)[0]
    copy.train()
    if batch_norm == "frozen":
        for _, node in nnx.iter_graph(copy):
            if isinstance(node, nnx.BatchNorm):
                node.use_running_average = True
    graph, weights, frozen, rest = nnx.split(copy, learns, nnx.Param, ...)
    if not jax.tree.leaves(weights):
        raise BadArgument("model", "have weights that learn", Words("none (is everything frozen?)"))
    return Graphs(graph, evaluation), States(weights, frozen, _reseed(rest, key))


def _reseed(rest: Any, key: Array) -> Any:
    """The random-number state with fresh keys drawn from ``key``; counters stay as they are."""
    leaves, structure = jax.tree.flatten(rest)
    for i, leaf in enumerate(leaves):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            fresh = jax.random.fold_in(key, i)
            leaves[i] = jax.random.split(fresh, leaf.shape) if leaf.shape else fresh
    return jax.tree.unflatten(structure, leaves)


def trained(module: nnx.Module, states: States) -> nnx.Module:
    """A module like ``module``, in evaluation mode, with these arrays."""
    copy = nnx.clone(module)
    nnx.update(copy, states.weights, states.frozen, states.rest)
    copy.eval()
    return copy
