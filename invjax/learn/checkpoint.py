"""The folder of a training: ``manifest.json`` identifies it, orbax keeps the last two states and the history.

The manifest holds everything that makes two trainings the same (all numbers, the first weights, the data, the key). A
folder of another training is refused, and the error names the difference. A killed run loses the steps since its last
save and repeats them exactly: the order of the examples and all random numbers depend on the key and the step alone.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.core.identity import digest
from invjax.engine.folder import as_folder
from invjax.engine.manifest import open_folder

KEPT = 2  # if a save is cut short, the one before is left
_ROOM = 2**17  # bytes of a save beside its arrays
_REASON = 300  # characters of what a library says about a file
SAMPLE = 16  # examples that stand for data read from files on demand


def _orbax() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError("checkpoint needs orbax: pip install 'invjax[ckpt]'") from error
    return ocp


def fingerprint(x: Any) -> str:
    """A hash of the inputs [N, *S]: of all bytes of an array, of a sample if they are files."""
    if isinstance(x, np.ndarray | jax.Array):
        return digest(x)
    rows = np.unique(np.linspace(0, len(x) - 1, SAMPLE).astype(np.int64))
    return digest((np.asarray(len(x)), np.asarray(x[rows])))


def _plain(leaf: Any) -> Any:
    """Typed keys cannot be written to files, but their data can."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf


def _typed(plain: Any, like: Any) -> Any:
    if isinstance(like, jax.Array) and jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(plain, impl=jax.random.key_impl(like))
    return plain


class Checkpoints:
    """The saved states of one training. A pytree is stored as its leaves, so orbax needs no class of this library."""

    def __init__(self, folder: str | Path, manifest: dict[str, Any]) -> None:
        ocp = _orbax()
        path = as_folder("checkpoint", folder).expanduser().absolute()
        open_folder(path, manifest, "checkpoint", parts=("steps/*",))
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, enable_async_checkpointing=False)
        self.folder, self._manager, self._args = path, ocp.CheckpointManager(path / "steps", options=options), ocp.args

    def save(self, step: int, state: Any, history: list[dict[str, Any]]) -> None:
        """Write the state after ``step`` steps. A second call for the same step does nothing."""
        if step in self._manager.all_steps():
            return
        leaves = {str(i): _plain(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
        args = self._args.Composite(state=self._args.StandardSave(leaves), history=self._args.JsonSave(history))
        try:
            # Looked at before: what orbax prints where its threads meet a full disk cannot be held back.
            needs = _ROOM + 2 * sum(leaf.nbytes for leaf in leaves.values())
            if shutil.disk_usage(self.folder).free < needs:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._manager.save(step, args=args)
        except Exception as error:  # of the file system, in the words of whatever library met it
            for begun in (self.folder / "steps").glob(f"{step}.*tmp*"):
                shutil.rmtree(begun, ignore_errors=True)
            reason = " ".join(str(error).split())
            hint = "what was saved before is kept, and the same call goes on from there"
            was = Words(f"{str(self.folder)!r}: {getattr(error, 'strerror', None) or reason[:_REASON]}")
            raise BadArgument("checkpoint", "be a folder that can be written", was, hint=hint) from error

    def restore(self, like: Any) -> tuple[Any, list[dict[str, Any]]] | None:
        """The newest readable state, with the shapes, types and devices of ``like``, and its history; None if new.

        Raises:
          ValueError: there are saved states, but none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        leaves, structure = jax.tree.flatten(like)
        form = {str(i): _plain(leaf) for i, leaf in enumerate(leaves)}
        reason: Exception | None = None
        for step in steps:
            args = self._args.Composite(state=self._args.StandardRestore(form), history=self._args.JsonRestore())
            try:
                found = self._manager.restore(step, args=args)
            except Exception as error:  # damaged files fail in many ways
                reason = reason or error
                continue
            typed = [_typed(found.state[str(i)], leaf) for i, leaf in enumerate(leaves)]
            return jax.tree.unflatten(structure, typed), list(found.history)
        if reason is not None:
            hint = f"none of the steps {steps} in {str(self.folder)!r} can: {reason}"
            raise BadArgument("checkpoint", "hold a state that can be read", hint=hint) from reason
        return None

    def close(self) -> None:
        self._manager.close()
