"""The programs that compare with torch, without torch: a stand-in answers in the place of the peer."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import nets
import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.attacks import gse_torch, peer_comparison
from benchmarks.common import in_turn
from benchmarks.peers import worker
from benchmarks.peers.environments import Skipped, python_with
from benchmarks.peers.worker import Worker

# The peer moves the first pixel of every image by a half, and says that it has found an answer for all but the last.
STAND_IN = f"""
import sys, numpy as np
sys.path.insert(0, {str(worker.HERE)!r})
from serve import serve
file = np.load(sys.argv[1])

def run(out, library="", **options):
    if library == "Foolbox":
        import a_module_that_is_not
    print("what a library prints does no harm")
    delta = np.zeros_like(file["x"])
    delta[:, 0, 0, 0] = 0.5
    np.savez(out, delta=delta, found=np.arange(len(delta)) < len(delta) - 1)
    return {{"seconds": 6.0, "evaluations": 500.0, "forwards": 501.0}}

def choose(batch):
    return {{"seconds": {{"contiguous": 2.0, "channels last": 1.0}}}}

def check(batch=0):
    return {{"version": "1.2", "versions": {{"torch": "1.2"}}, "difference": 0.0, "layouts": choose(batch)["seconds"]}}

serve({{"check": check, "choose": choose, "run": run}})
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of scripts in which every peer is the stand-in, and this Python has all that they need."""
    (tmp_path / "scripts").mkdir()
    for script in ("gse_released.py", "run_attacks.py"):
        (tmp_path / "scripts" / script).write_text(STAND_IN)
    monkeypatch.setattr(worker, "HERE", tmp_path / "scripts")
    for module in (gse_torch, peer_comparison):
        monkeypatch.setattr(module, "NEEDED", ("numpy",))
    for name in gse_torch.RELEASED_FILES:
        (tmp_path / name).write_text("")
    return tmp_path


def test_released(stand_in: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["gse-torch", "--images", str(pictures), "--weights", str(nets.NARROW), "--n", "2", "--targets", "1,2"]
    words = [*files, "--released", str(stand_in), "--repeat", "2", "--peer-batch", "3", "--lanes", "4"]
    words += ["--set", "steps=4", "--set", "patience=2"]
    assert main([*words, "--json", str(stand_in / "o.json")]) == 0
    record = json.loads((stand_in / "o.json").read_text())
    assert set(record["rows"]) == {"GSE fast", "as released", "at its best"}
    row = record["rows"]["at its best"]
    assert (row["per_example_s"], row["seconds"], row["evaluations"]) == (1.5, [6.0, 6.0], 500.0)
    # Three of four are found; one pixel in the corner is one window, and .5 in [0, 1] is 1 in [-1, 1].
    assert (row["asr"], row["acp"], row["d20"], row["l2"]) == (0.75, 0.75, 0.75, 0.75)
    own = record["rows"]["GSE fast"]
    assert own["per_example_s"] > 0
    assert 1 <= own["evaluations"] <= 8
    assert record["image_index"] == [0, 1]
    assert record["lanes"] == 4
    out = capsys.readouterr().out
    assert "channels last" in out
    assert "at its best" in out

    for extra, message in (
        (["--repeat", "0"], "--repeat must be a whole number >= 1, was 0"),
        (["--released", str(stand_in / "scripts")], "--released must be a clone of the authors' repository"),
        (["--torch-python", str(stand_in / "none")], "--torch-python must be a Python that can import numpy"),
        (["--lanes", "many"], "--lanes must"),
        (["--targets", "untargeted"], "--targets must be all, or offsets"),
    ):
        assert main([*words, *extra]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert main([*files, "--repeat", "1"]) == 2
    assert "--released must be a clone of the authors' repository, wagnermoritz/GSE" in capsys.readouterr().err


def test_attacks_peers(stand_in: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["attacks-peers", "--images", str(pictures), "--weights", str(nets.NARROW), "--n", "2", "--targets", "1"]
    words = [*files, "--attacks", "pgd-linf", "--steps", "3", "--batch", "2", "--repeat", "2"]
    assert main([*words, "--json", str(stand_in / "o.json")]) == 0
    rows = json.loads((stand_in / "o.json").read_text())["rows"]["pgd-linf"]
    assert rows["adv-lib"] | {"linf": 0.5, "success": 0.5, "per_example_s": 3.0} == rows["adv-lib"]
    assert rows["invjax"]["evaluations"] == 4  # the clean input and three steps: it does not end early
    assert rows["invjax"]["linf"] <= 8 / 255 or rows["invjax"]["success"] == 0
    assert "a_module_that_is_not" in rows["Foolbox"]["skipped"]
    assert "pgd-linf: ours is" in capsys.readouterr().out
    for extra, message in (
        (["--attacks", "deepfool"], "--attacks must be 'all' or some of sigma-zero"),
        (["--libraries", "cleverhans"], "--libraries must be 'all' or some of adv-lib"),
        (["--steps", "0"], "--steps must be a whole number >= 1, was 0"),
        (["--batch", "0"], "--batch must be a whole number >= 1, was 0"),
    ):
        assert main([*words, *extra]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_a_worker_says_why_it_failed(tmp_path: Path) -> None:
    python = Path(sys.executable)
    write = lambda path: np.savez(path, x=np.zeros(1))  # noqa: E731
    script = tmp_path / "peer.py"
    script.write_text("import a_module_that_is_not")
    with Worker(python, script, write) as peer, pytest.raises(Skipped, match=r"peer failed: .*a_module_that_is_not"):
        peer.ask("anything")
    serving = f"import sys, time\nsys.path.insert(0, {str(worker.HERE)!r})\nfrom serve import serve\n"
    script.write_text(serving + "serve({'sleep': lambda: time.sleep(60), 'divide': lambda by: {'is': 1 / by}})")
    with Worker(python, script, write, timeout=0.5) as peer:
        assert peer.ask("divide", by=4) == {"is": 0.25}
        with pytest.raises(Skipped, match="ZeroDivisionError"):
            peer.ask("divide", by=0)
        with pytest.raises(Skipped, match="took more than 0"):
            peer.ask("sleep")
    with pytest.raises(ValueError, match="torch_python must be a Python that can import a_module_that_is_not"):
        python_with("torch_python", None, ("a_module_that_is_not",))


def test_in_turn() -> None:
    calls: list[str] = []
    sides = {name: lambda name=name: calls.append(name) or len(calls) for name in "abc"}
    assert in_turn(sides, 3) == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}
    assert "".join(calls) == "abccbaabc"


@pytest.mark.fast
def test_scripts_of_peers_import_nothing_of_ours() -> None:
    """They run in environments that have no invjax, and find each other by their folder."""
    scripts = [path for path in worker.HERE.glob("*.py") if path.stem not in ("__init__", "environments", "worker")]
    assert {"serve", "gse_released", "run_attacks", "torch_gradients"} <= {path.stem for path in scripts}
    for path in scripts:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"invjax", "benchmarks", "jax"}, path.name
