"""What a value is: different where an answer may differ, equal in every process."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from invjax import Bounds, white_box
from invjax.attacks import PGD
from invjax.core.errors import BadArgument
from invjax.core.identity import describe, digest, digest_of_leaves, digest_of_structure
from invjax.densities import fit_knn
from invjax.engine.blackbox import antithetic
from invjax.models import MLP, as_logits

SCALE = 0.5
OPTIONS = types.SimpleNamespace(scale=0.5, lanes=64)
TABLE = {"w": np.ones(3)}


def scaled(x: Any) -> Any:
    return x * SCALE


def by_option(x: Any) -> Any:
    return x * OPTIONS.scale


def weighted(x: Any) -> Any:
    return scaled(x) @ TABLE["w"]


def plus(offset: Any, factor: float = 1.0) -> Callable[[Any], Any]:
    """A closure, with a default and a cell."""

    def add(x: Any, twice: bool = False, *, factor: float = factor) -> Any:
        return factor * (scaled(x) + offset)

    return add


class Shift:
    """An object with a method that computes, and with a value that is derived."""

    sign = 1

    def __init__(self, by: float) -> None:
        self.by = by

    def apply(self, x: Any) -> Any:
        return x + self.sign * self.by

    @functools.cached_property
    def doubled(self) -> float:
        return 2 * self.by


class Other(Shift):
    def apply(self, x: Any) -> Any:
        return x - self.by


@dataclasses.dataclass(frozen=True)
class Fields:
    function: Any
    count: int = 3


class Scaled(nnx.Module):
    def __init__(self, factor: float) -> None:
        self.factor, self.last = factor, nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    def __call__(self, x: Any) -> Any:
        return self.last(self.factor * x)


X, LABEL = np.random.default_rng(0).random((12, 3)).astype(np.float32), np.arange(12) % 2
# Each line: makers of values that all differ.
DIFFERENT: dict[str, list[Callable[[], Any]]] = {
    "numbers": [lambda: 1, lambda: 1.0, lambda: True, lambda: "1", lambda: None, lambda: 2, lambda: -0.0, lambda: 0.0],
    "arrays": [
        lambda: np.zeros(4), lambda: np.zeros((2, 2)), lambda: np.zeros(4, np.float32), lambda: np.ones(4),
        lambda: jnp.zeros(4, jnp.bfloat16), lambda: jnp.ones(4, jnp.bfloat16), lambda: np.array(["a", 1], object),
        lambda: jax.random.key(0), lambda: jax.random.key(1), lambda: jax.random.key(0, impl="rbg"),
    ],
    "containers": [
        lambda: [1, 2], lambda: (1, 2), lambda: [2, 1], lambda: {1, 2}, lambda: {"a": 1, "b": 2},
        lambda: {"a": 2, "b": 1}, lambda: Bounds(1, 2), lambda: slice(1, 2), lambda: range(2),
    ],
    "cells": [lambda: plus(1.0), lambda: plus(2.0), lambda: plus(1.0, 2.0), lambda: plus(np.ones(2))],
    "code": [lambda: lambda x: x + 1, lambda: lambda x: x + 2, lambda: lambda x: x - 1, lambda: lambda x, y=1: x],
    "partials": [
        lambda: functools.partial(scaled, 1), lambda: functools.partial(scaled, 2), lambda: jax.tree_util.Partial(plus),
        lambda: functools.partial(scaled, x=1), lambda: functools.partial(weighted, 1),
    ],
    "methods": [lambda: Shift(1.0).apply, lambda: Shift(2.0).apply, lambda: Other(1.0).apply, lambda: Shift(1.0)],
    "wrapped": [
        lambda: jax.jit(plus(4.0)), lambda: jax.jit(plus(5.0)), lambda: jax.vmap(plus(4.0)),
        lambda: jax.vmap(plus(5.0)), lambda: jax.custom_jvp(plus(4.0)), lambda: functools.lru_cache(plus(3.0)),
    ],
    "rates": [
        lambda: optax.sgd(1e-2), lambda: optax.sgd(2e-2), lambda: optax.adam(1e-2), lambda: optax.adam(1e-2, b1=0.8),
        lambda: optax.adam(optax.cosine_decay_schedule(1e-2, 9)),
        lambda: optax.adam(optax.cosine_decay_schedule(1e-2, 8)),
        lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)),
    ],
    "settings": [
        lambda: Fields(plus(1.0)), lambda: Fields(plus(2.0)), lambda: Fields(plus(1.0), 4), lambda: PGD(eps=0.1),
        lambda: PGD(eps=0.2), lambda: PGD(eps=0.1, norm="l2"), lambda: antithetic(4), lambda: antithetic(5),
        lambda: white_box,
    ],
    "densities": [lambda: fit_knn(X, LABEL, 2), lambda: fit_knn(X, LABEL, 3), lambda: fit_knn(X, 1 - LABEL, 2)],
    "networks": [
        lambda: MLP((3, 4, 2), rngs=nnx.Rngs(0)), lambda: MLP((3, 4, 2), rngs=nnx.Rngs(1)), lambda: Scaled(1.0),
        lambda: Scaled(2.0), lambda: as_logits(Scaled(1.0)), lambda: as_logits(Scaled(2.0)),
    ],
}  # fmt: skip


@pytest.mark.fast
@pytest.mark.parametrize("kind", [name for name in DIFFERENT if name not in ("densities", "networks")])
def test_other_values_differ_and_equal_ones_agree(kind: str) -> None:
    found = [digest(make()) for make in DIFFERENT[kind]]
    assert len(set(found)) == len(found)
    assert found == [digest(make()) for make in DIFFERENT[kind]]  # other objects, the same values


def _all() -> str:
    return "\n".join(digest(make()) for makers in DIFFERENT.values() for make in makers)


def test_every_process_finds_the_same() -> None:
    """Whatever its hash seed: a folder is opened by other processes."""
    here = Path(__file__).resolve()
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(here.parents[2]), str(here.parent)]),
        "PYTHONHASHSEED": "77",
    }
    code = "import test_identity; print(test_identity._all())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == _all()
    assert len(set(_all().split())) == len(_all().split())


@pytest.mark.fast
def test_what_a_function_looks_up_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of a notebook are a global of its function, and so is a helper's constant, one step further."""
    before = digest(weighted), digest(plus(1.0)), digest(Shift(1.0))
    monkeypatch.setitem(TABLE, "w", np.zeros(3))
    assert digest(weighted) != before[0]
    monkeypatch.undo()
    assert digest(weighted) == before[0]
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 0.25)
    assert digest(plus(1.0)) != before[1]
    before_options = digest(by_option)
    monkeypatch.setattr(OPTIONS, "lanes", 32)
    assert digest(by_option) == before_options
    monkeypatch.setattr(OPTIONS, "scale", 0.25)
    assert digest(by_option) != before_options
    monkeypatch.setattr(Shift, "sign", -1)
    assert digest(Shift(1.0)) != before[2]


@pytest.mark.fast
def test_what_is_derived_or_written_beside_does_not_count() -> None:
    shift = Shift(1.0)
    before = digest(shift)
    assert shift.doubled == 2
    assert digest(shift) == before

    def one(x: Any) -> Any:
        """Without a word."""
        return x + 1

    first = digest(one)

    def one(x: Any) -> Any:
        """With a word about it, in other lines."""

        return x + 1  # and a comment

    assert digest(one) == first
    assert digest(jnp.zeros(4)) == digest(np.zeros(4, np.float32))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


@pytest.mark.fast
def test_structure_and_leaves() -> None:
    one, other = (as_logits(MLP((3, 4, 2), rngs=nnx.Rngs(seed))) for seed in (0, 1))
    assert digest_of_structure(one) == digest_of_structure(other)
    assert digest_of_leaves(one) != digest_of_leaves(other)
    shifts = [jax.tree_util.Partial(plus(offset)) for offset in (1.0, 2.0)]
    assert digest_of_leaves(shifts[0]) == digest_of_leaves(shifts[1])
    assert digest_of_structure(shifts[0]) != digest_of_structure(shifts[1])


@pytest.mark.fast
def test_what_cannot_be_told_apart_needs_a_name() -> None:
    lock = threading.Lock()

    def guarded(x: Any) -> Any:
        with lock:
            return x

    wanted = r"^name must be given where a run .*; nothing says which lock it holds \(.*guarded, lock\)$"
    with pytest.raises(BadArgument, match=wanted):
        digest(guarded)
    assert digest(guarded, name="mine") != digest(scaled, name="mine")


@pytest.mark.fast
def test_a_reader_knows_the_settings() -> None:
    assert describe(PGD(eps=0.5))["class"] == "PGD"
    assert describe(PGD(eps=0.5))["eps"] == 0.5
    assert describe(white_box) == "white_box"
    assert describe(scaled).startswith("scaled ")
    assert describe(plus(1.0)) != describe(plus(2.0))
    assert describe((np.arange(2), Path("a"), None)) == [[0, 1], "a", None]
