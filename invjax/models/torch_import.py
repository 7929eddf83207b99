"""PyTorch weights into our NNX models, without PyTorch.

A table says for each key of a torch state dict which attribute of the module it fills and how its axes change:

    convolution  OIHW -> HWIO        linear  [out, in] -> [in, out]        vectors unchanged

and :func:`fill_from_torch` uses every key exactly once. Reading the files is :mod:`invjax.models.torch_files`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.models.params_file import weights_of, with_weights
from invjax.models.torch_files import load_state_dict

if TYPE_CHECKING:
    from invjax.models.resnet_cifar import ResNet20

__all__ = [
    "Entry",
    "batch_norm",
    "conv",
    "fill_from_torch",
    "linear",
    "load_state_dict",
    "num_outputs",
    "read_state",
    "resnet20_from_torch",
]

Module = TypeVar("Module")
StateDict = Mapping[str, np.ndarray]
WRAPPERS = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning
COUNTERS = "num_batches_tracked"  # of BatchNorm: a training counter, which evaluation does not need


class Entry(NamedTuple):
    """Where one torch tensor goes: dotted attribute path of a variable, and the change of axes (None: as it is)."""

    path: str
    axes: tuple[int, ...] | None = None


Table = Mapping[str, Entry]


def conv(torch_name: str, path: str, bias: bool = False) -> dict[str, Entry]:
    """Entries of an ``nn.Conv2d``: OIHW -> HWIO."""
    table = {f"{torch_name}.weight": Entry(f"{path}.kernel", (2, 3, 1, 0))}
    return table | ({f"{torch_name}.bias": Entry(f"{path}.bias")} if bias else {})


def linear(torch_name: str, path: str, bias: bool = True) -> dict[str, Entry]:
    """Entries of an ``nn.Linear``: [out, in] -> [in, out]."""
    table = {f"{torch_name}.weight": Entry(f"{path}.kernel", (1, 0))}
    return table | ({f"{torch_name}.bias": Entry(f"{path}.bias")} if bias else {})


def batch_norm(torch_name: str, path: str) -> dict[str, Entry]:
    """Entries of an ``nn.BatchNorm2d`` with its running statistics."""
    names = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    return {f"{torch_name}.{theirs}": Entry(f"{path}.{ours}") for theirs, ours in names.items()}


def strip_wrappers(state: StateDict) -> dict[str, np.ndarray]:
    """Remove the prefixes that wrappers put before every key ("module." of DataParallel and the like)."""
    out = dict(state)
    while out:
        prefix = next((p for p in WRAPPERS if all(key.startswith(p) for key in out)), None)
        if prefix is None:
            break
        out = {key[len(prefix) :]: value for key, value in out.items()}
    return out


def fill_from_torch(module: Module, state: StateDict, table: Table) -> Module:
    """A module like ``module`` with the weights of a torch state dict, every key of which is used exactly once.

    Args:
      module: the NNX module; an abstract one from ``nnx.eval_shape`` will do.
      state: torch tensors as arrays, by key; wrapper prefixes and the counters of BatchNorm are seen to.
      table: torch key -> :class:`Entry`.

    Raises:
      ValueError: keys missing from ``state`` or unknown to ``table``, or a tensor of another shape; all are named.
    """
    name, wanted = type(module).__name__, weights_of(module)
    tensors = {k: v for k, v in strip_wrappers(state).items() if k.rpartition(".")[2] != COUNTERS}
    missing, unknown = sorted(set(table) - set(tensors)), sorted(set(tensors) - set(table))
    if missing or unknown:
        raise BadArgument("state_dict", f"hold the weights of {name}", hint=f"missing: {missing}, unknown: {unknown}")
    arrays: dict[str, np.ndarray] = {}
    wrong = []
    for key, entry in table.items():
        theirs, shape = tensors[key], wanted[entry.path].shape
        axes = entry.axes or tuple(range(len(shape)))
        expected = tuple(shape[axes.index(i)] for i in range(len(axes)))  # the shape in torch's order of axes
        if theirs.shape != expected:
            wrong.append(f"{key} must be {expected}, was {theirs.shape}")
        else:
            arrays[entry.path] = theirs.transpose(axes)
    if wrong:
        raise BadArgument("state_dict", f"have the shapes of {name}", hint=str("; ".join(wrong)))
    return with_weights(module, arrays)


def read_state(state: StateDict | str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a state dict or a file (:func:`load_state_dict`), without the prefixes of wrappers."""
    return strip_wrappers(state if isinstance(state, Mapping) else load_state_dict(state))


def num_outputs(state: StateDict, key: str, axes: int, name: str) -> int:
    """The outputs of a layer of a state dict: the first of the ``axes`` of its weight ``key``.

    Raises:
      ValueError: it has none with so many axes; ``name`` says whose weights they should be.
    """
    if key not in state or state[key].ndim != axes:
        was = f"of shape {state[key].shape}" if key in state else f"missing among {sorted(state)[:5]} …"
        raise BadArgument("state_dict", f"hold {key} with {axes} axes, as a {name} does", Words(was))
    return state[key].shape[0]


def resnet20_table() -> dict[str, Entry]:
    """The keys of the usual torch ResNet20 for CIFAR (``conv1``, ``layer1.0.conv1`` …, ``linear``)."""
    from invjax.models.resnet_cifar import BLOCKS, STAGES, block_name

    table = conv("conv1", "stem.conv") | batch_norm("bn1", "stem.bn") | linear("linear", "classifier")
    for stage in range(STAGES):
        for block in range(BLOCKS):
            theirs, ours = f"layer{stage + 1}.{block}", block_name(stage, block)
            for i in (1, 2):
                table |= conv(f"{theirs}.conv{i}", f"{ours}.conv{i}.conv")
                table |= batch_norm(f"{theirs}.bn{i}", f"{ours}.conv{i}.bn")
    return table


def resnet20_from_torch(state: StateDict | str | os.PathLike[str]) -> ResNet20:
    """A :class:`~invjax.models.resnet_cifar.ResNet20` with torch weights (the form with option-A shortcuts).

    Width and number of classes are those of the tensors. The result expects inputs as the torch model did: give
    ``mean`` and ``std`` to :func:`invjax.models.as_logits`.

    Args:
      state: a state dict of arrays, or the path of a ``.safetensors``, ``.pth`` or ``.pt`` file.

    Raises:
      ValueError: the file cannot be read, or the keys or shapes are not those of a ResNet20; all are named.
    """
    from flax import nnx

    from invjax.models.resnet_cifar import ResNet20

    tensors = read_state(state)
    width, classes = (
        num_outputs(tensors, "conv1.weight", 4, "ResNet20"),
        num_outputs(tensors, "linear.weight", 2, "ResNet20"),
    )
    abstract = nnx.eval_shape(lambda: ResNet20(num_classes=classes, width=width, rngs=nnx.Rngs(0)))
    return fill_from_torch(abstract, tensors, resnet20_table())
