"""PyTorch weights into NNX models, without PyTorch.

A table maps each key of a torch state dict to the attribute of the module that it fills, and to the change of its axes:

    convolution  OIHW -> HWIO        linear  [out, in] -> [in, out]        vectors unchanged

:func:`fill_from_torch` uses every key exactly once. :mod:`invjax.models.torch_files` reads the files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.models.params_file import weights_of, with_weights
from invjax.models.torch_files import load_state_dict

Module = TypeVar("Module")
StateDict = Mapping[str, np.ndarray]
WRAPPERS = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning
MOST_NAMED = 8  # keys of a message
COUNTERS = "num_batches_tracked"  # BatchNorm's counter of training batches, which evaluation does not need


class Entry(NamedTuple):
    """The place of one tensor of a file: dotted attribute path, and the change of axes (None keeps them).

    part: (i, n) where the tensor is the i-th of n equal parts of the attribute, along its last axis.
    shape: of the tensor, where it has other axes than the attribute, which it becomes by a reshape.
    """

    path: str
    axes: tuple[int, ...] | None = None
    part: tuple[int, int] = (0, 1)
    shape: tuple[int, ...] | None = None


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


def layer_norm(torch_name: str, path: str) -> dict[str, Entry]:
    """Entries of an ``nn.LayerNorm``."""
    return {f"{torch_name}.weight": Entry(f"{path}.scale"), f"{torch_name}.bias": Entry(f"{path}.bias")}


def conv_bn(torch_name: str, torch_norm: str, path: str) -> dict[str, Entry]:
    """Entries of a convolution and its BatchNorm, for a :class:`invjax.models.blocks.ConvBN`."""
    return conv(torch_name, f"{path}.conv") | batch_norm(torch_norm, f"{path}.bn")


def strip_wrappers(state: StateDict) -> dict[str, np.ndarray]:
    """Remove the prefixes that wrappers put before every key ("module." of DataParallel and the like)."""
    out = dict(state)
    while out:
        prefix = next((p for p in WRAPPERS if all(key.startswith(p) for key in out)), None)
        if prefix is None:
            break
        out = {key[len(prefix) :]: value for key, value in out.items()}
    return out


def fill_from_torch(
    module: Module, state: StateDict, table: Table, others: Mapping[str, np.ndarray] | None = None
) -> Module:
    """A module like ``module`` with the weights of a file, of which every key is used exactly once.

    Args:
      module: the NNX module; an abstract one from ``nnx.eval_shape`` is enough.
      state: the tensors as arrays, by key. Prefixes of wrappers and counters of BatchNorm are ignored.
      table: key of the file -> :class:`Entry`.
      others: attribute path -> array, of weights that the table leaves out.

    Raises:
      ValueError: keys missing from ``state`` or unknown to ``table``, or tensors of another shape; they are named.
    """
    name, wanted = type(module).__name__, weights_of(module)
    tensors = {k: v for k, v in strip_wrappers(state).items() if k.rpartition(".")[2] != COUNTERS}
    missing, unknown = sorted(set(table) - set(tensors)), sorted(set(tensors) - set(table))
    if missing or unknown:
        hint = f"missing: {some(missing)}, unknown: {some(unknown)}"
        raise BadArgument("state_dict", f"hold the weights of {name}", hint=hint)
    pieces: dict[str, dict[int, np.ndarray]] = {}
    wrong = []
    for key, entry in table.items():
        part, parts = entry.part
        theirs, shape = tensors[key], wanted[entry.path].shape
        shape = (*shape[:-1], shape[-1] // parts)
        axes = entry.axes or tuple(range(len(shape)))
        expected = entry.shape or tuple(shape[axes.index(i)] for i in range(len(axes)))  # the file's order of axes
        if theirs.shape != expected:
            wrong.append(f"{key} must be {expected}, was {theirs.shape}")
        else:
            value = theirs.reshape(shape) if entry.shape else theirs.transpose(axes)
            pieces.setdefault(entry.path, {})[part] = value
    if wrong:
        raise BadArgument("state_dict", f"have the shapes of {name}", hint="; ".join(wrong[:MOST_NAMED]))
    arrays = {path: np.concatenate([found[i] for i in sorted(found)], -1) for path, found in pieces.items()}
    return with_weights(module, {**arrays, **(others or {})})


def some(names: list[str]) -> str:
    """The names as a list; of many the first and the last ones."""
    half = MOST_NAMED // 2
    if len(names) <= MOST_NAMED:
        return str(names)
    return f"{str(names[:half])[:-1]}, …, {str(names[-half:])[1:]}"


def read_state(state: StateDict | str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a state dict or a file (:func:`load_state_dict`), without the prefixes of wrappers."""
    return strip_wrappers(state if isinstance(state, Mapping) else load_state_dict(state))


def statistics_of(state: StateDict) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray] | None]:
    """A state dict without the mean and deviation that its network normalises by, and the two, one per channel.

    RobustBench keeps them as ``mu`` and ``sigma``, or in a layer ``normalize`` before the ``model``.
    """
    for names in (("mu", "sigma"), ("normalize.mean", "normalize.std")):
        if set(names) <= set(state):
            rest = strip_wrappers({key: value for key, value in state.items() if key not in names})
            mean, std = (np.asarray(state[name], np.float32).reshape(-1) for name in names)
            return rest, (mean, std)
    return dict(state), None


def num_outputs(state: StateDict, key: str, axes: int, name: str) -> int:
    """The number of outputs of a layer: the length of the first axis of its weight ``key``.

    Raises:
      ValueError: the state dict has no such weight with so many axes; ``name`` says whose weights it should hold.
    """
    if key not in state or state[key].ndim != axes:
        was = f"of shape {state[key].shape}" if key in state else f"missing among {sorted(state)[:5]} …"
        raise BadArgument("state_dict", f"hold {key} with {axes} axes, as a {name} does", Words(was))
    return state[key].shape[0]
