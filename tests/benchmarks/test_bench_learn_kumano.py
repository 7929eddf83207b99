"""``learn-kumano`` at tiny sizes: three networks, their records, what is kept and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from benchmarks.__main__ import main
from benchmarks.learn import kumano as learn_kumano
from benchmarks.learn.kumano import ConvNet
from invjax.data.grouped.spuco_mnist import Digits


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = (np.arange(60) % 10).astype(np.int32)
    images = rng.integers(0, 255, (60, 28, 28)).astype(np.uint8)
    monkeypatch.setattr(learn_kumano, "mnist_source", lambda: Digits(images, labels, 40))


KUMANO = ["learn-kumano", "--train", "24", "--epochs", "2", "--attack-steps", "2", "--width", "0.02", "--test", "16"]


@pytest.mark.filterwarnings("ignore:PGD makes .* steps")  # a few steps, to be quick
def test_kumano(
    digits: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three networks, their records, and the same command again reads what is done."""
    out = tmp_path / "kumano.json"
    words = [*KUMANO, "--json", str(out), "--runs", str(tmp_path / "runs")]
    assert main(words) == 0
    record = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert list(record["networks"]) == ["standard", "R-l2", "D-l2"]
    for row in record["networks"].values():
        assert len(row["curve"]) == 2
        assert row["final"] == row["curve"][-1] <= row["best"]
        assert row["interval"][0] <= row["final"] <= row["interval"][1]
    assert record["networks"]["D-l2"]["published"] == {"final": 0.39, "best": 0.45}
    assert record["settings"]["attack_steps"] == 2
    assert "Published: 60000 images, 100 epochs, 100 steps" in capsys.readouterr().out

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr("invjax.learn.perturb.solve", fail)
    monkeypatch.setattr("invjax.learn.train.train_step", fail)
    assert main(words) == 0
    again = json.loads(out.read_text())["networks"]
    assert [row["curve"] for row in again.values()] == [row["curve"] for row in record["networks"].values()]


def test_kumano_refuses(digits: None, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--train", "41"], "--train must be a whole number from 2 to 40, was 41"),
        (["--train", "24", "--test", "21"], "--test must be a whole number from 2 to 20, was 21"),
        (["--width", "0"], "--width must be a factor > 0, was 0.0"),
        (["--norms", "l1"], "--norms must be 'all' or some of l2, linf, was 'l1'"),
        (["--targets", ","], "--targets must be 'all' or some of rand, det"),
        (["--lanes", "0"], "--lanes must be a whole number >= 1, was 0"),
    ):
        assert main(["learn-kumano", *words]) == 2
        assert message in capsys.readouterr().err


def test_convnet_is_as_published() -> None:
    """Its number of weights, 904,058: 16·9 + 16, 16·128·9 + 128, 128²·9 + 128, 128·256·9 + 256, 256²·9 + 256, 2570."""
    shapes = jax.eval_shape(lambda: nnx.split(ConvNet(rngs=nnx.Rngs(0)))[1])
    sizes = [leaf.size for leaf in jax.tree.leaves(shapes) if leaf.dtype == np.float32]
    assert sum(sizes) == 160 + 18560 + 147584 + 295168 + 590080 + 2570
    net = ConvNet(0.02, rngs=nnx.Rngs(0))
    assert jax.eval_shape(net.features, jax.ShapeDtypeStruct((2, 28, 28, 1), np.float32)).shape == (2, 9, 9, 5)
