"""A training's folder: ``manifest.json`` says which training it is, orbax keeps the last two states and the history.

What makes two trainings the same is written down (all numbers, the first weights, the data, the key); a folder of
another training is refused with what differs. The steps between two saves are lost when a run is killed, and done again
exactly as before: the order of the examples and all random numbers depend on the key and the step alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument
from invjax.engine.folder import digest, open_folder

KEPT = 2  # a save that is cut short leaves the one before
SAMPLE = 16  # examples that stand for data too large to be held: files that are read when asked for


def _orbax() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError("checkpoint needs orbax: pip install 'invjax[ckpt]'") from error
    return ocp


def fingerprint(x: Any) -> str:
    """A hash of the inputs [N, *S]: of all bytes of an array, of a sample where they are files."""
    if isinstance(x, np.ndarray | jax.Array):
        return digest(x)
    rows = np.unique(np.linspace(0, len(x) - 1, SAMPLE).astype(np.int64))
    return digest((np.asarray(len(x)), np.asarray(x[rows])))


def _plain(leaf: Any) -> Any:
    """Typed keys do not go into files: their data does."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf


def _typed(plain: Any, like: Any) -> Any:
    if isinstance(like, jax.Array) and jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(plain, impl=jax.random.key_impl(like))
    return plain


class Checkpoints:
    """The saved states of one training. A pytree goes in as its leaves: orbax need know no class of ours."""

    def __init__(self, folder: str | Path, manifest: dict[str, Any]) -> None:
        ocp = _orbax()
        path = Path(folder).expanduser().absolute()
        open_folder(path, manifest, "checkpoint")
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, enable_async_checkpointing=False)
        self.folder, self._manager, self._args = path, ocp.CheckpointManager(path / "steps", options=options), ocp.args

    def save(self, step: int, state: Any, history: list[dict[str, Any]]) -> None:
        """Write the state after ``step`` steps; a second call for the same step does nothing."""
        if step in self._manager.all_steps():
            return
        leaves = {str(i): _plain(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
        self._manager.save(
            step,
            args=self._args.Composite(state=self._args.StandardSave(leaves), history=self._args.JsonSave(history)),
        )

    def restore(self, like: Any) -> tuple[Any, list[dict[str, Any]]] | None:
        """The newest state that can be read, with the shapes, types and devices of ``like``, and its history; or None.

        Raises:
          ValueError: there are saved states and none of them can be read.
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
            raise BadArgument(
                "checkpoint",
                "hold a state that can be read",
                hint=f"none of the steps {steps} in {str(self.folder)!r} can: {reason}",
            ) from reason
        return None

    def close(self) -> None:
        self._manager.close()
