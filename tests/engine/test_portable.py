"""A network and its solver as one file of StableHLO, which a process without invjax runs with the same answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import invjax
from invjax.attacks import GSE
from invjax.models import ViT, ViTConfig, as_logits

PAGE = (Path(__file__).parent.parent.parent / "docs" / "portable.md").read_text("utf-8")
WITHOUT = "import sys\nsys.modules.update(dict.fromkeys(('invjax', 'flax', 'optax')))\n"  # importing them is an error
CONFIG = ViTConfig(patch=4, image=(8, 8), width=8, depth=1, heads=2, hidden=8, pool="mean", class_token=False)


def test_another_process_finds_the_same(tmp_path):
    export = pytest.importorskip("jax.export")
    pytest.importorskip("flatbuffers")
    from flax import nnx

    method = GSE(steps=5)
    model = as_logits(ViT(CONFIG, 4, rngs=nnx.Rngs(0)), mean=0.5, std=0.1)
    x = np.random.default_rng(0).uniform(size=(3, 8, 8, 3)).astype(np.float32)
    target, label = np.argsort(model(x), -1)[:, -2:].T
    weights, structure = jax.tree.flatten(model)

    @jax.jit
    def attack(weights, x, label, target):
        network = jax.tree.unflatten(structure, weights)
        result = invjax.solve(network, x, label, target=target, method=method)
        return {"x": result.x, "status": result.status}

    platforms = ["cpu", "cuda", "tpu"]
    exported = export.export(attack, platforms=platforms)(weights, x, label, target)
    (tmp_path / "gse.stablehlo").write_bytes(exported.serialize())
    assert exported.platforms == tuple(platforms)
    wanted = invjax.solve(model, x, label, target=target, method=method)
    np.savez(tmp_path / "inputs.npz", *weights, x=x, label=label, target=target, answer=wanted.x)
    assert np.abs(wanted.delta).max() > 0
    reader = PAGE.split("```python\n")[2].partition("```")[0] + "\nnp.savez('found.npz', **found)\n"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + reader],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_allclose(found["x"], wanted.x, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found["status"], wanted.status)
