"""Arrays laid over the devices of a mesh, as users of several devices have them."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding

from invjax.core.errors import BadArgument

T = TypeVar("T")


def automatic(name: str, tree: T) -> T:
    """``tree`` with every array on a mesh of automatic axes: the same devices and the same layout, without a copy.

    ``jax.make_mesh`` gives explicit axes by default, on which plain ``vmap`` and convolutions fail.
    Raises BadArgument ``name`` for an array that lies on devices of another process too, or on explicit axes inside
    ``jax.set_mesh``, which would hold the program to them.
    """

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or isinstance(leaf, Tracer):
            return leaf
        if not leaf.is_fully_addressable:
            hint = "every process takes the whole list and solves its share of it"
            raise BadArgument(name, "lie on devices of this process alone", leaf.sharding, hint=hint)
        sharding = leaf.sharding
        if not isinstance(sharding, NamedSharding) or set(sharding.mesh.axis_types) <= {AxisType.Auto}:
            return leaf
        if AxisType.Explicit in jax.sharding.get_abstract_mesh().axis_types:
            hint = "call solve outside of it, or make the mesh with axis_types=(jax.sharding.AxisType.Auto,)"
            raise BadArgument(name, "not be laid over explicit axes inside jax.set_mesh", leaf.sharding, hint=hint)
        return jax.device_put(leaf, NamedSharding(automatic_mesh(sharding.mesh), sharding.spec))

    return jax.tree.map(one, tree)


def is_explicit(value: Any) -> bool:
    """Whether this is an array over axes of a mesh that are not automatic."""
    if not isinstance(value, jax.Array) or isinstance(value, Tracer):
        return False
    sharding = value.sharding
    return isinstance(sharding, NamedSharding) and not set(sharding.mesh.axis_types) <= {AxisType.Auto}


def automatic_mesh(mesh: Any) -> Mesh:
    """The mesh with automatic axes."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
