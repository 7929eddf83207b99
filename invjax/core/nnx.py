"""How a Flax NNX module becomes pure data: weights, and a hashable ``apply`` equal for equal architectures.

The only module of ``core`` that imports flax; it is loaded where an NNX module is handed in.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from invjax.core.apply import Apply, has_halves
from invjax.core.shown import size_of
from invjax.types import Array


@dataclasses.dataclass(frozen=True)
class NnxApply:
    """``apply`` of an NNX module: its graph without the weights, equal by value for equal architectures.

    ``random`` describes the random-number state (dropout has some): in evaluation mode nothing may draw from it, so it
    is no leaf of the model, and a module that draws all the same gets the same numbers every time.
    """

    graph: Any  # nnx.GraphDef
    random_structure: Any  # treedef of the random-number state
    random_leaves: tuple[tuple[tuple[int, ...], Any, str | None], ...]  # (shape, dtype, PRNG implementation)
    method: str = "__call__"  # which of the module's methods
    title: str = dataclasses.field(default="", compare=False)  # what it is called; no part of what it is

    def __call__(self, params: Any, x: Array) -> Array:
        return getattr(self.module(params), self.method)(x)

    def __repr__(self) -> str:
        return self.title or self.graph.nodes[0].type.__name__

    def split(self, params: Any) -> tuple[Apply, Apply] | None:
        """The module's methods ``features`` and ``head`` (:mod:`invjax.attribution.split`), or None."""
        if not has_halves(self.module(params)):
            return None
        return dataclasses.replace(self, method="features"), dataclasses.replace(self, method="head")

    def module(self, params: Any) -> Any:
        """The module with these weights."""
        leaves = [
            jnp.zeros(shape, dtype) if impl is None else jnp.broadcast_to(jax.random.key(0, impl=impl), shape)
            for shape, dtype, impl in self.random_leaves
        ]
        return nnx.merge(self.graph, params, jax.tree.unflatten(self.random_structure, leaves))


def module_repr(module: nnx.Module, *facts: str) -> str:
    """A network in one line: its class, what it takes and gives, and how many parameters it has."""
    return f"{type(module).__name__}({', '.join((*facts, size_of(nnx.state(module, nnx.Param))))})"


def comparable(module: nnx.Module) -> nnx.Module:
    """A copy whose graph equals that of any module of its architecture, so that compiled programs are found again.

    flax 0.11 keeps initialisers in its layers, and ``he_normal()`` makes another function each time: networks of one
    architecture would not compare equal, and every new set of weights would compile again.
    """
    copy = nnx.clone(module)
    for node in [node for _, node in nnx.iter_graph(copy) if isinstance(node, nnx.Module)]:
        if type(node).__module__.startswith("flax."):
            for name in [name for name, value in vars(node).items() if name.endswith("_init") and callable(value)]:
                setattr(node, name, None)
    return copy


def evaluation_parts(module: nnx.Module) -> tuple[Any, Apply]:
    """``(params, apply)`` of a copy of ``module`` in evaluation mode with every layer folded that
    has a method ``fold`` (:class:`invjax.models.blocks.ConvBN`)."""
    copy = comparable(module)
    copy.eval()
    for node in [node for _, node in nnx.iter_graph(copy) if callable(getattr(node, "fold", None))]:
        node.fold()
    graph, random, weights = nnx.split(copy, nnx.RngState, ...)
    leaves, structure = jax.tree.flatten(random)
    described = tuple(
        (leaf.shape, None, str(jax.random.key_impl(leaf)))
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else (leaf.shape, leaf.dtype, None)
        for leaf in leaves
    )
    return weights, NnxApply(graph, structure, described)
