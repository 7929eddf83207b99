"""Whose a run folder is: another run is refused, whatever it differs in, and also at the same moment."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

import invjax
from invjax import Result, attacks, counterfactuals, engine
from invjax.attacks import FGSM, PGD
from invjax.core.config import config
from invjax.core.errors import BadArgument
from invjax.core.identity import describe, digest
from invjax.counterfactuals import FixedWeights
from invjax.densities import fit_knn
from invjax.engine.folder import RunFolder
from invjax.engine.manifest import differences, make_manifest, open_folder
from invjax.engine.parts import FIELDS, part_paths
from invjax.models import black_box

fast = pytest.mark.fast
TASK = nets.task(nets.mlp(), count=12)


def network(scale: float, bias: Any = 0.0) -> Callable[[Any], Any]:
    """A plain function that holds its number."""
    return lambda x: scale * jnp.stack([x.sum((1, 2, 3)), (x * x).sum((1, 2, 3)) + bias], 1)


def times(x: Any, scale: float) -> Any:
    return network(scale)(x)


def clipped(limit: float) -> Any:
    """An evaluator that holds its number."""

    def evaluator(*arguments: Any) -> Any:
        seen = engine.white_box(*arguments)
        return seen._replace(grad=seen.grad.clip(-limit, limit))

    return evaluator


def solve(out: Path | None, net: Any = TASK.net, *, method: Any = None, x: Any = TASK.x, **options: Any) -> Result:
    method = FGSM(eps=0.1) if method is None else method
    options = {"lanes": 4, "progress": False, **options}
    return invjax.solve(net, x, np.zeros(len(x), np.int32), method=method, out=out, **options)


def knn(k: int) -> Any:
    return fit_knn(TASK.x, np.arange(12) % 4, k)


def manifest(net: Any = TASK.net, *, method: Any = None, **arguments: Any) -> dict[str, Any]:
    """What a folder would write down of this call."""
    how = {"evaluator": arguments.pop("evaluator", engine.white_box), "precision": arguments.pop("precision", None)}
    method = FGSM(eps=0.1) if method is None else method
    made = engine.prepare(net, TASK.x, np.zeros(12, np.int32), method=method, **arguments)
    return make_manifest(made.ctx, made.problems, made.config, made.method, made.key, None, **how)


def with_loss(scale: float) -> Any:
    """A method of the user's own, which holds a number."""
    method = PGD.method._replace(loss=lambda *arguments: scale * arguments[-1].sum())
    return config(type("Own", (), {"method": method}))()


CFE = FixedWeights(steps=2)
BOX = np.ones(nets.SMALL, bool)


@fast
@pytest.mark.parametrize(
    ("what", "makers"),
    [
        ("network", [lambda: {"net": network(1.0)}, lambda: {"net": network(2.0)}]),
        ("network", [lambda: {"net": network(1.0, np.zeros(1))}, lambda: {"net": network(1.0, np.ones(1))}]),
        ("network", [lambda: {"net": partial(times, scale=1.0)}, lambda: {"net": partial(times, scale=2.0)}]),
        ("evaluator", [lambda: {"evaluator": clipped(1.0)}, lambda: {"evaluator": clipped(2.0)}, dict]),
        ("density", [lambda: {"method": CFE, "density": knn(1)}, lambda: {"method": CFE, "density": knn(2)}]),
        ("config", [lambda: {"method": CFE}, lambda: {"method": dataclasses.replace(CFE, loss="hinge")}]),
        ("method, config", [lambda: {"method": with_loss(1.0)}, lambda: {"method": with_loss(2.0)}]),
        ("precision", [dict, lambda: {"precision": "highest"}]),
        ("inputs", [dict, lambda: {"mask": BOX}, lambda: {"ids": np.arange(1, 13)}, lambda: {"bounds": (0.0, 2.0)}]),
    ],
)
def test_other_numbers_anywhere_are_another_run(what: str, makers: list[Callable[[], dict[str, Any]]]) -> None:
    """And equal ones, in other objects as another process makes them, are the same."""
    made = [manifest(**make()) for make in makers]
    for number, one in enumerate(made):
        assert differences(one, manifest(**makers[number]())) == []
        for other in made[number + 1 :]:
            assert ", ".join(differences(one, other)) == what


@fast
def test_every_constant_of_every_method_counts() -> None:
    made = [make() for make in {**attacks.REGISTRY, **counterfactuals.REGISTRY}.values()]
    fields = 0
    for one in made:
        for field in dataclasses.fields(one):
            value = getattr(one, field.name)
            other = "other" if isinstance(value, str) else 0.5 if value is None or value == np.inf else None
            if other is None and isinstance(value, int | float):
                other = not value if isinstance(value, bool) else value + 1
            changed = dataclasses.replace(one, **{field.name: other})
            assert describe(changed) != describe(one), (one, field.name)
            assert digest(changed) != digest(one), (one, field.name)
            fields += 1
    assert fields > 300


@fast
def test_functions_that_hold_numbers(tmp_path: Path) -> None:
    first = solve(tmp_path, network(3.0))
    nets.same(solve(tmp_path, network(3.0)), first)
    with pytest.raises(BadArgument, match=r"^out must be .* holds a run with another network$"):
        solve(tmp_path, network(2.0))


def test_a_function_that_counts_its_calls_is_the_same_run(tmp_path: Path) -> None:
    """Its own count is no other function, neither at the next call of this process nor in the next process."""

    class Counted:
        calls = 0

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            self.calls += 1
            return np.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], 1)

    def call(predictor: Counted) -> Result:
        options = {"evaluator": engine.antithetic(2), "method": FGSM(eps=0.3)}
        return solve(tmp_path, black_box(predictor.predict_proba, 2), **options)

    predictor = Counted()
    first = call(predictor)
    assert predictor.calls > 0
    for again in (predictor, predictor, Counted()):
        nets.same(call(again), first)

    class Other(Counted):
        sign = -1

    with pytest.raises(BadArgument, match=r"holds a run with another network$"):
        call(Other())


@fast
def test_what_cannot_be_told_apart_needs_a_name(tmp_path: Path) -> None:
    lock = threading.Lock()

    def guarded(x: Any) -> Any:
        with lock:
            return network(1.0)(x)

    with pytest.raises(BadArgument, match=r"^name must be given where a .* which lock it holds \(.*lock\)$"):
        solve(tmp_path, guarded)
    assert not list(tmp_path.iterdir())
    first = solve(tmp_path, guarded, name="mine")
    nets.same(solve(tmp_path, guarded, name="mine"), first)
    with pytest.raises(BadArgument, match=r"holds a run with another model$"):
        solve(tmp_path, guarded, name="yours")
    with pytest.raises(BadArgument, match=r"^name must be text or None, was 3$"):
        solve(tmp_path / "new", name=3)
    solve(None, guarded)  # no folder, no name


@fast
def test_parts_without_a_manifest_are_refused(tmp_path: Path) -> None:
    solve(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(BadArgument, match=r"^out must be .* has parts of a run \(p0-.*npz\), but no manifest"):
        solve(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


@fast
def test_a_part_of_another_run_is_none_of_this_one(tmp_path: Path) -> None:
    """A part of another run, copied here under a part's name, is whole in itself."""
    for name, method in (("here", FGSM(eps=0.1)), ("there", FGSM(eps=0.2))):
        solve(tmp_path / name, method=method)
    (here,), (there,) = (part_paths(tmp_path / name) for name in ("here", "there"))
    here.write_bytes(there.read_bytes())
    with pytest.warns(UserWarning, match="was damaged"):
        nets.same(solve(tmp_path / "here"), solve(None))


@fast
def test_other_names_are_left_alone(tmp_path: Path) -> None:
    first = solve(tmp_path)
    (part,) = part_paths(tmp_path)
    others = ["p0-copy-1.npz", "p0-000000 (2).npz", "plan-3.npz", "p0/notes-1.npz", "photos/p0-000000-1.npz"]
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"the user's own")
    nets.same(solve(tmp_path), first)
    assert all((tmp_path / name).read_bytes() == b"the user's own" for name in others)
    assert part_paths(tmp_path) == [part]


@fast
def test_folders_of_earlier_versions_are_read_and_not_continued(tmp_path: Path) -> None:
    """Their manifests say less, so that nobody can tell whether it is the same run."""
    want = solve(tmp_path)
    (part,) = part_paths(tmp_path)
    with np.load(part) as file:
        fields = {name: file[name] for name in ("index", *FIELDS)}
    part.unlink()
    np.savez_compressed(tmp_path / "p0-000000-4711.npz", **fields)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    nets.same(invjax.open_run(tmp_path).load(), want)
    with pytest.raises(BadArgument, match=r"^out must be a new folder .* was made by another version of invjax"):
        solve(tmp_path)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16])
def test_points_and_weights_in_16_bits(tmp_path: Path, dtype: Any) -> None:
    net = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), TASK.net)
    x = np.asarray(TASK.x).astype(dtype)
    want = solve(None, net, x=x)
    assert want.x.dtype == dtype
    for _ in range(2):  # made, and read back
        got = solve(tmp_path, net, x=x)
        assert got.x.dtype == dtype
        nets.same(got, jax.tree.map(np.asarray, want))
    nets.same(invjax.open_run(tmp_path)[3:5], jax.tree.map(np.asarray, want)[3:5])


# ---------------------------------------------------------------------------------------------------------------------
# At the same moment
# ---------------------------------------------------------------------------------------------------------------------
def together(count: int, call: Callable[[int], None]) -> list[str]:
    """What ``call(i)`` said, "" or its error, in threads that start together."""
    barrier, said = threading.Barrier(count), [""] * count

    def one(number: int) -> None:
        barrier.wait()
        try:
            call(number)
        except Exception as error:
            said[number] = str(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


@fast
@pytest.mark.parametrize("links", [True, False])
def test_of_two_runs_that_open_a_folder_at_once_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Equal ones share it: the processes of one run come at the same moment, too."""
    if not links:  # a file system without them

        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    for trial in range(40):
        folder = tmp_path / str(trial)
        said = together(6, lambda number, folder=folder: open_folder(folder, {"format": 2, "run": number % 2}))
        kept = json.loads((folder / "manifest.json").read_text())["run"]
        assert [not text for text in said] == [number % 2 == kept for number in range(6)], said
        assert all("holds a run with another run" in text for text in said if text)
        assert [path.name for path in folder.iterdir()] == ["manifest.json"]


RACE = """
import sys
from pathlib import Path
from invjax.engine.manifest import differences, make_manifest, open_folder
print("here", flush=True)
sys.stdin.readline()
for trial in range(60):
    try:
        open_folder(Path(sys.argv[1]) / str(trial), {"format": 2, "run": sys.argv[2]})
        print(trial)
    except ValueError:
        pass
"""


def test_processes_that_open_a_folder_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(Path(invjax.__file__).parents[1])}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    racers = [subprocess.Popen([*command, name], **pipes) for name in ("a", "b")]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "here\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [word for racer in racers for word in racer.communicate(timeout=60)[0].split()]
    assert sorted(map(int, won)) == list(range(60))


@fast
def test_threads_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same run in six threads: each gets all answers, and none of their files is another's."""
    monkeypatch.setattr(sys.modules["invjax.engine.shared"], "RunFolder", partial(RunFolder, every=0.0))
    want = solve(None)
    for trial in range(3):
        got: list[Result | None] = [None] * 6

        def call(number: int, out: Path = tmp_path / str(trial), got: list[Result | None] = got) -> None:
            got[number] = solve(out)

        assert together(6, call) == [""] * 6
        for one in got:
            assert one is not None
            nets.same(one, want)
        assert all(path.suffix != ".tmp" for path in (tmp_path / str(trial)).iterdir())
