"""The driver of the peers, with stand-ins for the peers: the files, the judge, and a reason for every skip."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.counterfactuals import peer_comparison as cfe_peers
from benchmarks.counterfactuals import scfe_torch
from benchmarks.counterfactuals.peer_comparison import (
    PEERS,
    SCRIPTS,
    Peer,
    judge,
    real_rows,
    run_peer,
)
from benchmarks.counterfactuals.peers.exchange import (
    Exchange,
    Outcome,
    network,
    read_exchange,
    read_outcome,
    sigmoid,
    write_exchange,
    write_outcome,
)
from benchmarks.peers import worker
from benchmarks.peers.environments import Skipped, environment


@pytest.fixture
def given() -> Exchange:
    """Two columns; class 1 where x_0 > 0, by a network of two layers that computes x_0 exactly."""
    generator = np.random.default_rng(0)
    train_x = generator.normal(size=(90, 2)).astype(np.float32)
    test_x = generator.normal(size=(7, 2)).astype(np.float32)
    weights = (
        (np.array([[1, -1], [0, 0]], np.float32), np.zeros(2, np.float32)),
        (np.array([[1], [-1]], np.float32), np.zeros(1, np.float32)),
    )
    predicted = (test_x[:, 0] > 0).astype(np.int32)
    lower, upper = np.full(2, -4, np.float32), np.full(2, 4, np.float32)
    labels = (train_x[:, 0] > 0).astype(np.int32)
    return Exchange(train_x, labels, test_x, predicted, 1 - predicted, lower, upper, weights)


def _script(folder: Path, body: str) -> Path:
    """A stand-in: it reads the rows as ``given``, and ``body`` makes ``x`` and ``found``."""
    path = folder / "script.py"
    path.write_text(
        f"import sys, numpy as np\nsys.path.insert(0, {str(SCRIPTS)!r})\n"
        "from exchange import Outcome, arguments, read_exchange, write_outcome\n"
        "options = arguments('', ['flip'])\ngiven = read_exchange(options.exchange)\n"
        "x, found = given.test_x.astype(float), np.ones(len(given.test_x), bool)\n"
        f"{body}\nwrite_outcome(options.out, Outcome(x, found, .5, 2., {{'peer': '1.2'}}))\n"
    )
    return path


def _peer(script: Path, imports: str = "import numpy") -> Peer:
    return Peer("env", ("a requirement that is none",), imports, str(script), "flip")


def test_files(given: Exchange, tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    write_exchange(path, given)
    back = read_exchange(path)
    for name in Exchange._fields[:-1]:
        np.testing.assert_array_equal(getattr(back, name), getattr(given, name))
    assert len(back.weights) == 2
    z = network(back.weights, given.test_x)
    np.testing.assert_array_equal(z, given.test_x[:, 0].astype(np.float64))
    assert z.dtype == np.float64
    assert [len(part) for part in back.first(3)[2:5]] == [3, 3, 3]
    np.testing.assert_allclose(sigmoid(np.array([-800.0, 0, 2, 800])), [0, 0.5, 1 / (1 + np.exp(-2)), 1], rtol=1e-12)

    outcome = Outcome(given.test_x.astype(float), np.ones(7, bool), 0.25, 3.0, {"python": "3"})
    write_outcome(path, outcome)
    assert read_outcome(path)[2:] == (0.25, 3.0, {"python": "3"})

    for wrong, message in (
        (given._replace(target=given.target[:2]), "target must have shape"),
        (given._replace(lower=given.lower[:1]), "lower must have shape"),
        (given._replace(weights=given.weights[:1]), "one output"),
        (given._replace(weights=given.weights[::-1]), "W2 must have shape"),
    ):
        write_exchange(path, wrong)
        with pytest.raises(ValueError, match=message):
            read_exchange(path)
    np.savez(path, test_x=given.test_x)
    with pytest.raises(ValueError, match="must hold train_x"):
        read_exchange(path)


def test_judge(given: Exchange) -> None:
    """Against sums by hand, and a local outlier factor written out."""
    x = given.test_x.astype(np.float64)
    x[:, 0] = np.where(given.target == 1, 0.5, -0.5)
    x[0, 0] = given.test_x[0, 0]  # not moved: not valid
    x[1, 1] += 0.5e-4  # within the tolerance: not a change
    x[2] = [9.0 * (2 * given.target[2] - 1), 0]  # valid, two changes, outside
    found = np.ones(7, bool)
    found[3] = False
    row = judge(given, x, found)
    assert (row["rows"], row["found"], row["valid"], row["outside"]) == (7, 6, 5, 1)
    valid = np.array([False, True, True, False, True, True, True])
    assert row["per_row"]["valid"] == valid.tolist()
    assert row["l2"] == pytest.approx(np.sqrt(((x - given.test_x) ** 2).sum(1))[valid].mean())
    assert row["l0"] == pytest.approx((2 + 4 * 1) / 5)

    pool = given.train_x[given.train_y == given.target[4]].astype(np.float64)

    def density(point: np.ndarray, others: np.ndarray) -> tuple[float, np.ndarray]:
        """Local reachability density (Breunig et al., 2000), and the neighbours."""
        near = np.argsort(np.linalg.norm(others - point, axis=1))[:20]
        reach = []
        for j in near:
            k_distance = np.sort(np.linalg.norm(pool - pool[j], axis=1))[20]  # the first is the point itself
            index = np.linalg.norm(pool[j] - point)
            reach.append(max(k_distance, index))
        return 1 / float(np.mean(reach)), near

    own, near = density(x[4], pool)
    theirs = []
    for j in near:
        others = np.where((np.arange(len(pool)) == j)[:, None], np.inf, pool)
        theirs.append(density(pool[j], others)[0])
    assert row["per_row"]["lof"][4] == pytest.approx(np.mean(theirs) / own, rel=1e-6)

    nothing = judge(given, given.test_x, np.zeros(7, bool))
    assert nothing["valid"] == 0
    assert np.isnan(nothing["l2"])


def test_real_rows(given: Exchange) -> None:
    rows = real_rows(given)
    assert rows["real"]["l2"] == 0
    assert rows["real"]["valid"] == 7
    distance = np.linalg.norm(given.test_x[:, None].astype(float) - given.train_x[None], axis=-1)
    distance[given.target[:, None] != given.train_y[None]] = np.inf
    assert rows["nearest"]["l2"] == pytest.approx(distance.min(1).mean(), rel=1e-6)
    assert rows["nearest"]["valid"] == 7


@pytest.fixture
def envs(tmp_path: Path) -> Path:
    """A folder whose environment ``env`` is this interpreter."""
    if os.name == "nt":
        pytest.skip("the stand-in environment is a shell script")
    python = tmp_path / "envs" / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return tmp_path / "envs"


def test_command(
    given: Exchange, envs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flip = _script(tmp_path, "x[:, 0] *= -1\nfound[1] = False")
    (tmp_path / "bad").mkdir()
    broken = _script(tmp_path / "bad", "raise RuntimeError('no such error of mine')")
    monkeypatch.setitem(PEERS, "relax", _peer(flip))
    monkeypatch.setitem(PEERS, "relax-jit", _peer(broken))
    monkeypatch.setitem(PEERS, "relax-bce", _peer(flip, "import a_module_that_is_not"))
    write_exchange(tmp_path / "rows.npz", given)
    parser = argparse.ArgumentParser()
    cfe_peers.add_arguments(parser)
    words = ["--exchange", str(tmp_path / "rows.npz"), "--envs", str(envs), "--no-install", "--n", "5"]
    words += ["--peers", "relax,relax-jit,relax-bce", "--json", str(tmp_path / "o.json")]
    assert cfe_peers.run(parser.parse_args(words)) == 0
    record = json.loads((tmp_path / "o.json").read_text())["rows"]
    assert (record["relax"]["valid"], record["relax"]["rows"], record["relax"]["l0"]) == (4, 5, 1)
    assert record["relax"]["rows_per_s"] == 10
    assert record["relax"]["first_s"] == 2
    assert record["relax"]["versions"] == {"peer": "1.2"}
    assert "no such error of mine" in record["relax-jit"]["skipped"]
    assert "a_module_that_is_not" in record["relax-bce"]["skipped"]
    out = capsys.readouterr().out
    assert out.count("skipped: ") == 2
    assert "4/5" in out

    for extra, message in (
        (["--peers", "alibi"], "peers must be 'all' or some of"),
        (["--n", "0"], "n must be a whole number >= 1"),
        (["--exchange", str(tmp_path / "none.npz")], "exchange must be a file"),
    ):
        with pytest.raises(ValueError, match=message):
            cfe_peers.run(parser.parse_args([*words, *extra]))
    with pytest.raises(ValueError, match="envs must be the folder of existing environments"):
        cfe_peers.run(parser.parse_args(["--no-install"]))


def test_scfe_torch(
    given: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in reflects every row, and says how many threads it got."""
    (tmp_path / "run_scfe.py").write_text(
        f"import sys, numpy as np\nsys.path[:0] = [{str(SCRIPTS)!r}, {str(worker.HERE)!r}]\n"
        "from exchange import Outcome, read_exchange, write_outcome\nfrom serve import serve\n"
        "given = read_exchange(sys.argv[1])\n"
        "def run(out, threads, bandwidths, constants):\n"
        "    x = given.test_x * np.array([-1, 1])\n"
        "    write_outcome(out, Outcome(x, np.ones(len(x), bool), 2.0 * threads, 0.0, {}))\n"
        "    return {'seconds': 2.0 * threads, 'm': constants['beta'] / len(bandwidths)}\n"
        "serve({'run': run})\n"
    )
    monkeypatch.setattr(scfe_torch, "SCRIPTS", tmp_path)
    monkeypatch.setattr(scfe_torch, "NEEDED", ("numpy",))
    monkeypatch.setattr(scfe_torch, "protocol", lambda name: given)
    monkeypatch.setitem(scfe_torch.CONSTANTS, "trials", 2)
    for name in scfe_torch.RELEASED_FILES:
        (tmp_path / name).write_text("")
    words = ["scfe-torch", "--released", str(tmp_path), "--n", "5", "--max-changes", "1", "--repeat", "2", "--tau", "0"]
    assert main([*words, "--json", str(tmp_path / "o.json")]) == 0
    record = json.loads((tmp_path / "o.json").read_text())
    released = record["rows"]["the released code"]
    assert (released["valid"], released["rows"], released["l0"], released["seconds"]) == (5, 5, 1, [2.0, 2.0])
    assert record["peer_threads"] == 1
    assert record["rows"]["S-CFE"]["valid"] == 5
    assert record["rows"]["S-CFE"]["l2"] <= released["l2"]
    assert record["rows"]["as released, ours"]["evaluations"] == 2 * 201
    assert "the released code" in capsys.readouterr().out
    for extra, message in (
        (["--repeat", "0"], "--repeat must be a whole number >= 1, was 0"),
        (["--released", str(tmp_path / "none")], "missing there: SCFE.py, Models.py"),
        (["--max-changes", "0"], "--max-changes must be a whole number >= 1, was 0"),
        (["--tau", "-1"], "--tau must be a weight >= 0"),
        (["--torch-python", str(tmp_path / "none")], "--torch-python must be a Python that can import numpy"),
    ):
        assert main([*words, *extra]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_skips_say_why(given: Exchange, envs: Path, tmp_path: Path) -> None:
    python = environment(envs / "env", "import numpy", None)
    with pytest.raises(Skipped, match=r"running failed: .*none\.py"):
        run_peer(python, _peer(tmp_path / "none.py"), given)
    with pytest.raises(Skipped, match="more than 0 s"):
        run_peer(python, _peer(_script(tmp_path, "import time; time.sleep(60)")), given, timeout=0.3)
    with pytest.raises(Skipped, match="shape"):
        run_peer(python, _peer(_script(tmp_path, "x = x[:2]")), given)
    with pytest.raises(Skipped, match="no working environment in other"):
        environment(envs / "other", "import numpy", None)


def test_scripts_exist() -> None:
    for peer in PEERS.values():
        source = (SCRIPTS / peer.script).read_text()
        assert f'"{peer.method}"' in source
        assert "import invjax" not in source


def test_protocol() -> None:
    from benchmarks.counterfactuals.protocol import protocol
    from invjax.data.tables.load import load_tabular

    pytest.importorskip("sklearn")
    exchange, data = protocol("wine"), load_tabular("wine")
    assert (len(exchange.train_x), len(exchange.test_x)) == (78, 100)
    assert [kernel.shape for kernel, _ in exchange.weights] == [(13, 20), (20, 20), (20, 1)]
    assert (exchange.predicted == data.label[data.test]).mean() >= 0.95
    np.testing.assert_array_equal(exchange.target, 1 - exchange.predicted)
    assert (exchange.lower <= exchange.test_x).all()
    assert (exchange.test_x <= exchange.upper).all()
    again = protocol("wine")
    assert all(
        (a == b).all()
        for one, two in zip(exchange.weights, again.weights, strict=True)
        for a, b in zip(one, two, strict=True)
    )
