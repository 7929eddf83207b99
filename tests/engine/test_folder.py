"""Runs that survive: resuming from a folder, refusing another run's, damaged parts, SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import nets
import numpy as np
import pytest

import invjax
from invjax import Result, Status, engine
from invjax.attacks import FGSM, PGD
from invjax.campaign import attack_pairs, make_pairs
from invjax.core import identity as identity_module
from invjax.engine import checks
from invjax.engine import folder as folder_module

shared_module = sys.modules["invjax.engine.shared"]
parts_module = sys.modules["invjax.engine.parts"]
fast = pytest.mark.fast
CONFIG = PGD(eps=0.08, step_size=0.03, steps=4, restarts=2, random_start=True)
TASK = nets.task(nets.mlp(), count=20)


def solve(out: Path | None = None, *, task: nets.Task = TASK, method: Any = CONFIG, **options: Any) -> Result:
    options = {"lanes": 4, "progress": False, **options}
    return invjax.solve(task.net, task.x, task.label, target=task.target, method=method, out=out, **options)


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every group of examples is written as soon as it ends, instead of every ten seconds."""
    monkeypatch.setattr(shared_module, "RunFolder", partial(folder_module.RunFolder, every=0.0))


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The rows that each run set out to solve."""
    seen: list[np.ndarray] = []

    def spy(*args: Any, todo: np.ndarray, **options: Any) -> Any:
        seen.append(np.asarray(todo))
        return engine.stream(*args, todo=todo, **options)

    monkeypatch.setattr(shared_module, "stream", spy)
    return seen


def parts(out: Path) -> list[Path]:
    return sorted(out.glob("p*.npz"))


def damaged(out: Path) -> Any:
    """The warning about a part of a folder that is set aside."""
    return pytest.warns(UserWarning, match=rf"{out.name}.*npz' was damaged: it is 'p.*npz.damaged' now")


def indices(out: Path) -> np.ndarray:
    return np.concatenate([np.load(path)["index"] for path in parts(out)])


def interrupt(out: Path, monkeypatch: pytest.MonkeyPatch, after: int, error: type[BaseException]) -> None:
    """A run that is broken off after ``after`` examples."""

    def breaking(*args: Any, **options: Any) -> Any:
        for part in engine.stream(*args, **options):
            yield part
            if part.done >= after:
                raise error

    with monkeypatch.context() as patch:
        patch.setattr(shared_module, "stream", breaking)
        with pytest.raises(error):
            solve(out)


@fast
def test_a_folder_changes_nothing(tmp_path: Path) -> None:
    nets.same(solve(tmp_path / "new" / "run"), solve())
    manifest = json.loads((tmp_path / "new" / "run" / "manifest.json").read_text())
    assert manifest["method"] == "pgd"
    assert manifest["config"]["steps"] == 4
    assert manifest["examples"] == 20
    np.testing.assert_array_equal(np.sort(indices(tmp_path / "new" / "run")), np.arange(20))


@fast
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solved: list[np.ndarray], error: type[BaseException], capsys: Any
) -> None:
    """Broken off in the middle: the finished ones are kept, and not solved again."""
    interrupt(tmp_path, monkeypatch, 8, error)
    kept = indices(tmp_path)
    assert 8 <= len(kept) < 20
    result = solve(tmp_path, progress=True)
    nets.same(result, solve())
    np.testing.assert_array_equal(solved[-1], np.setdiff1d(np.arange(20), kept))
    last = capsys.readouterr().err.split("\r")[-1]  # of the bar, which counts what was kept in both numbers
    assert "20/20" in last
    assert f"found={(result.status == Status.FOUND).sum()}," in last
    nets.same(solve(tmp_path), solve())  # and a third time there is nothing to do
    assert len(solved[-1]) == 0


@fast
def test_waiting_rows_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the usual pause between files, an interrupted run still writes all that has ended, in one file."""
    monkeypatch.setattr(shared_module, "RunFolder", folder_module.RunFolder)
    interrupt(tmp_path, monkeypatch, 8, KeyboardInterrupt)
    assert len(parts(tmp_path)) == 1
    assert len(indices(tmp_path)) >= 8


class Stopped(Exception):
    """Before the first row is solved."""


@fast
def test_a_list_on_disk_is_never_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """x is a memory map and the answers stay on disk: memory grows by a few numbers per row, whatever the row's size.

    A row has 64 numbers here, 256 bytes; its answer has three times as many, and one copy of a mask for all rows would
    be 64 bytes per row, which is where the checks would make it. Until the first row is solved the peak is looked at.
    Later it depends on the pace of the disk and the threads: no array may have as much as two numbers for each row.
    """
    monkeypatch.setattr(shared_module, "PART_BYTES", 2**16)
    monkeypatch.setattr(folder_module, "PART_BYTES", 2**16)
    monkeypatch.setattr(identity_module, "_BLOCK", 2**16)
    monkeypatch.setattr(checks, "_BLOCK", 2**14)
    shape, lanes = nets.SMALL, 64
    began: list[int] = []  # the most bytes until then
    largest: list[int] = []  # bytes of the largest array

    def run(rows: int, whole: bool) -> engine.SavedRun:
        on_disk = np.lib.format.open_memmap(tmp_path / f"{rows}.npy", "w+", np.float32, (rows, *shape))
        for begin in range(0, rows, 20):
            on_disk[begin : begin + 20] = TASK.x
        on_disk.flush()
        x = np.load(tmp_path / f"{rows}.npy", mmap_mode="r")

        def watched(*args: Any, **options: Any) -> Any:
            began.append(tracemalloc.get_traced_memory()[1])
            if not whole:
                raise Stopped
            for number, part in enumerate(engine.stream(*args, **options)):
                if number % 12 == 11:
                    traces = tracemalloc.take_snapshot().traces
                    largest.append(max(one.size for one in traces if one.domain == np.lib.tracemalloc_domain))
                yield part

        monkeypatch.setattr(shared_module, "stream", watched)
        tracemalloc.start()
        try:
            prepared = engine.prepare(
                TASK.net, x, np.resize(TASK.label, rows), method=FGSM(eps=0.1), mask=np.ones(shape, bool),
                groups=np.zeros(shape, np.int32), bounds=(np.zeros(shape), np.ones(shape)),
            )  # fmt: skip
            return engine.run_saved(prepared, out=tmp_path / f"run{rows}", lanes=lanes, progress=False)
        finally:
            tracemalloc.stop()

    for rows in (1_000, 2_000, 8_000):  # the first compiles
        with pytest.raises(Stopped):
            run(rows, whole=False)
    assert (began[2] - began[1]) / 6_000 < 40, began  # bytes per row
    saved = run(2_000, whole=True)
    assert sum(len(index) for index, _ in saved.parts("status")) == 2_000
    assert largest
    assert 8 * 2_000 <= max(largest) < 16 * 1_500, largest  # the numbers of the rows, and nothing larger


def as_process(process: int, of: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this is one of several processes. (test_distributed.py has real ones.)"""
    monkeypatch.setattr(jax, "process_index", lambda: process)
    monkeypatch.setattr(jax, "process_count", lambda: of)
    monkeypatch.setattr(shared_module, "_wait_for_all", lambda: None)


@fast
def test_resume_with_another_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solved: list[np.ndarray]
) -> None:
    """Three processes, of which one is broken off and one never starts; then two; then one. No row is solved twice."""
    want = solve()
    with monkeypatch.context() as patch:
        as_process(0, 3, patch)
        nets.same(solve(tmp_path), want[::3])
        as_process(1, 3, patch)
        interrupt(tmp_path, patch, 4, KeyboardInterrupt)
    kept = invjax.open_run(tmp_path).saved
    assert 7 + 4 <= len(kept) < 14
    with monkeypatch.context() as patch:
        for process in (0, 1):
            as_process(process, 2, patch)
            nets.same(solve(tmp_path), want[process::2])
            own = np.arange(process, 20, 2)
            np.testing.assert_array_equal(solved[-1], np.setdiff1d(own, kept))
    nets.same(solve(tmp_path), want)
    assert len(solved[-1]) == 0
    every = np.concatenate([np.load(path)["index"] for path in tmp_path.glob("p?/p*.npz")])
    np.testing.assert_array_equal(np.sort(every), np.arange(20))
    assert parts_module.count_saved(tmp_path) == 20


@fast
def test_a_campaign_of_several_processes_measures_all_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = make_pairs(TASK.label, 4)

    def campaign(out: Path) -> Any:
        options = {"lanes": 4, "progress": False, "out": out}
        return attack_pairs("pgd", TASK.net, TASK.x, pairs, CONFIG, invjax.Bounds(), **options)

    want = campaign(tmp_path / "alone")
    as_process(1, 2, monkeypatch)
    with pytest.raises(ValueError, match="must hold all 60 rows"):  # it does not wait here: nobody else is there
        campaign(tmp_path / "shared")
    as_process(0, 2, monkeypatch)
    got = campaign(tmp_path / "shared")
    nets.same(got.result, want.result)
    assert str(got.table) == str(want.table)  # it has NaN where nothing is found


@fast
def test_resume_on_another_number_of_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes that were chosen for eight devices are chosen anew for three."""
    prepared = engine.prepare(TASK.net, TASK.x, TASK.label, target=TASK.target, method=CONFIG)

    def run(devices: int) -> Any:
        mesh = jax.make_mesh((devices,), ("lanes",), devices=jax.devices()[:devices])
        return engine.run_saved(prepared, out=tmp_path, lanes="auto", mesh=mesh, progress=False)

    assert run(8).manifest["lanes"] % 8 == 0
    for path in parts(tmp_path)[1:]:
        path.unlink()
    (path,) = parts(tmp_path)
    saved = invjax.open_run(tmp_path)
    ((index, rows),) = saved.parts()
    path.unlink()
    parts_module.write_part(path, [(index[:4], rows[:4])], saved._run or "")
    resumed = run(3)
    assert resumed.manifest["lanes"] % 3 == 0
    nets.alike(resumed.load(), solve())


@fast
def test_more_processes_than_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_process(3, 4, monkeypatch)
    result = solve(tmp_path, task=nets.Task(TASK.net, *(field[:2] for field in TASK[1:])))
    assert result.x.shape == (0, *nets.SMALL)


@fast
def test_a_saved_run_is_read_by_parts_by_rows_and_whole(tmp_path: Path) -> None:
    prepared = engine.prepare(TASK.net, TASK.x, TASK.label, target=TASK.target, method=CONFIG)
    run = engine.run_saved(prepared, out=tmp_path, lanes=4)
    want = solve()
    assert (len(run), run.examples, run.manifest["method"]) == (20, 20, "pgd")
    assert repr(run) == f"SavedRun({str(tmp_path)!r}: 20 of 20 rows in {len(parts(tmp_path))} parts)"
    nets.same(run.load(), want)
    read = []
    for index, rows in run.parts():
        nets.same(rows, want[index])
        read.append(index)
    assert len(read) == len(parts(tmp_path)) > 2
    np.testing.assert_array_equal(np.sort(np.concatenate(read)), np.arange(20))
    for choice in (3, -1, slice(2, 17, 5), [4, 4, 0], np.arange(20) % 2 == 0):
        nets.same(run[choice], want[np.array(choice) if isinstance(choice, list) else choice])
    for index, rows in run.parts("status", "evaluations"):
        np.testing.assert_array_equal(rows.status, want.status[index])
        np.testing.assert_array_equal(rows.evaluations, want.evaluations[index])
        assert rows.x is None
        assert rows.delta is None
    with pytest.raises(IndexError, match="20"):
        run[20]
    with pytest.raises(ValueError, match=r"fields must be one of 'x', .* was 'images'"):
        next(run.parts("images"))
    _noise(parts(tmp_path)[0])
    lost = read[0]
    with pytest.raises(ValueError, match=r"folder must hold whole parts, was damaged: .*p0-000000"):
        run[lost[0]]
    again = invjax.open_run(tmp_path)
    with pytest.raises(ValueError, match=rf"saved, was {len(lost)} of 20 rows are not saved, row {lost.min()} say"):
        again[:]
    np.testing.assert_array_equal(again.saved, np.setdiff1d(np.arange(20), lost))
    with pytest.warns(UserWarning, match=r"p0-000000-.*npz' is damaged and left out: the call that made it"):
        assert sum(len(index) for index, _ in again.parts("status")) == 20 - len(lost)
    with pytest.raises(
        ValueError, match=r"folder must hold all 20 rows, was a folder with .* of them; damaged: .*p0-0000"
    ):
        again.load()
    with damaged(tmp_path):
        nets.same(engine.run_saved(prepared, out=tmp_path, lanes=4).load(), want)


@fast
def test_folders_of_machines_that_share_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want, (first, second, other) = solve(), (tmp_path / name for name in "abc")
    with monkeypatch.context() as patch:
        for process, out in enumerate((first, second)):
            as_process(process, 2, patch)
            solve(out)
    nets.same(invjax.open_run(first, second).load(), want)
    solve(other, key=jax.random.key(7))
    with pytest.raises(ValueError, match=r"folder must be followed by folders of the same run; .*c' holds a run with"):
        invjax.open_run(first, second, other)
    for nothing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match=r"folder must be the folder of a run, was .*manifest.json: No such file"):
            invjax.open_run(nothing)
    for text in ('{"format": 1}', "[" * 200_000, '{"examples": 1e999}'):
        (second / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=r"folder must be the folder of a run, was .*b': manifest.json: it is not"):
            invjax.open_run(first, second)


@fast
def test_what_is_no_folder_is_refused_before_the_run() -> None:
    prepared = engine.prepare(TASK.net, TASK.x, TASK.label, method=CONFIG)
    for call in (lambda: solve(3), lambda: engine.run_saved(prepared, out=None, lanes=4)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^out must be (the path of a folder|text or a path.*), was "):
            call()
    with pytest.raises(ValueError, match=r"^folder must be the path of a folder, was 3"):
        invjax.open_run(3)  # type: ignore[arg-type]


@fast
def test_parts_are_written_before_they_grow_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast device ends more in ten seconds than should wait in memory."""
    monkeypatch.setattr(shared_module, "RunFolder", folder_module.RunFolder)
    solve(tmp_path / "usual")
    assert len(parts(tmp_path / "usual")) == 1
    for module in (shared_module, folder_module):
        monkeypatch.setattr(module, "PART_BYTES", 6 * 3 * TASK.x[0].nbytes)
    nets.same(solve(tmp_path / "small"), solve())
    assert max(len(np.load(path)["index"]) for path in parts(tmp_path / "small")) <= 8


@fast
def test_a_part_is_written_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a fast device writing would take as long as solving. What the disk refuses is said by the next part."""
    real, gate = parts_module.write_atomic, threading.Event()
    row = solve()[:1]
    folder = folder_module.RunFolder(tmp_path, {"examples": 20}, every=1e-9)

    def slow(path: Path, data: bytes) -> None:
        assert gate.wait(30)
        real(path, data)

    monkeypatch.setattr(parts_module, "write_atomic", slow)
    folder.add(np.array([0]), row)  # is back while the writer waits
    assert parts(tmp_path) == []
    gate.set()
    folder.add(np.array([1]), row)
    assert len(parts(tmp_path)) >= 1

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    folder.flush()
    monkeypatch.setattr(parts_module, "write_atomic", full)
    folder.add(np.array([2]), row)
    with pytest.raises(ValueError, match=r"^out must be a folder that can be written, was .*: No space left"):
        folder.flush()
    np.testing.assert_array_equal(np.sort(indices(tmp_path)), [0, 1])
    monkeypatch.setattr(parts_module, "write_atomic", real)
    folder.close()  # there is room now: what was refused is tried once more
    np.testing.assert_array_equal(np.sort(indices(tmp_path)), [0, 1, 2])


SCRIPT = """
import os, sys, time
import jax, numpy as np
sys.path.insert(0, {tests!r})
import nets, test_folder
from functools import partial
module = test_folder.shared_module
module.RunFolder = partial(test_folder.folder_module.RunFolder, every=0.0)
def slow(*args, **options):
    for part in test_folder.engine.stream(*args, **options):
        yield part
        print(part.done, flush=True)
        sys.stdin.readline()  # one more part for each line
module.stream = slow
test_folder.solve(sys.argv[1])
"""


@fast
def test_sigkill(tmp_path: Path, solved: list[np.ndarray]) -> None:
    """Killed without warning: the second run goes on from there and ends with the same answers, bit for bit."""
    here = Path(__file__).resolve().parent
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(here.parent.parent), str(here.parent / "helpers"), str(here)]),
    }
    command = [sys.executable, "-c", SCRIPT.format(tests=str(here)), str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=env, text=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 6:
                break
            print(file=process.stdin, flush=True)
        process.send_signal(signal.SIGKILL)  # the child cannot have gone on: it waits for a line
        assert process.wait(30) == -signal.SIGKILL
    kept = indices(tmp_path)
    assert 4 <= len(kept) < 20
    (tmp_path / ".p0-000099.npz.1.tmp").write_bytes(b"half of a part")  # what a kill in the middle of writing leaves
    nets.same(solve(tmp_path), solve())
    np.testing.assert_array_equal(solved[-1], np.setdiff1d(np.arange(20), kept))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _noise(path: Path) -> None:
    path.write_bytes(b"not a zip file at all")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(60, len(data) - 400, 7):
        data[at] ^= 0xFF
    path.write_bytes(bytes(data))


def _array(path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.arange(3))


def _other_fields(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, index=np.arange(3))


def _short(path: Path) -> None:
    """Whole as a file, but one field has lost a row."""
    with np.load(path) as file:
        fields = dict(file)
    fields["x"] = fields["x"][:-1]
    np.savez(path, **fields)


def _far(path: Path) -> None:
    """Rows that the list does not have."""
    with np.load(path) as file:
        fields = dict(file)
    fields["index"] = fields["index"] + 1000
    np.savez(path, **fields)


def _changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Whole as a file, with a field of other values."""

    def damage(path: Path) -> None:
        with np.load(path) as file:
            fields = dict(file)
        fields[name] = change(fields[name])
        np.savez(path, **fields)

    return damage


DAMAGES = {
    **{f.__name__[1:]: f for f in (_cut, _empty, _noise, _flip, _array, _other_fields, _short, _far)},
    "moved": _changed("x", lambda x: x + 5),
    "nan": _changed("attempt", lambda x: x * np.nan),
    "text": _changed("delta", lambda x: x.astype("U8")),
    "status": _changed("status", lambda status: np.full_like(status, 99)),
    "wide": _changed("x", lambda x: x.astype(np.float64)),
    "swapped": _changed("index", lambda index: index[::-1]),
    "unchecked": _changed("checks", lambda checks: checks[:0]),
}


@fast
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_damaged_parts_are_solved_again(
    tmp_path: Path, solved: list[np.ndarray], damage: Callable[[Path], None]
) -> None:
    reference = solve(tmp_path)
    victim = parts(tmp_path)[1]
    lost = np.load(victim)["index"]
    damage(victim)
    bad = victim.read_bytes()
    with damaged(tmp_path):
        nets.same(solve(tmp_path), reference)
    np.testing.assert_array_equal(solved[-1], np.sort(lost))
    assert victim.with_name(f"{victim.name}.damaged").read_bytes() == bad
    nets.same(solve(tmp_path), reference)  # it is done with
    assert len(solved[-1]) == 0


@fast
def test_saved_examples_are_counted_once(tmp_path: Path) -> None:
    assert parts_module.count_saved(tmp_path / "nowhere") == 0
    solve(tmp_path)
    assert parts_module.count_saved(tmp_path) == 20
    first, second = parts(tmp_path)[:2]
    (tmp_path / "p1-000000.npz").write_bytes(first.read_bytes())  # the same rows again
    lost = len(np.load(second)["index"])
    _noise(second)
    assert parts_module.count_saved(tmp_path) == 20 - lost


def clipped(*arguments: Any) -> Any:
    """Another way to look at the network."""
    seen = engine.white_box(*arguments)
    return seen._replace(grad=seen.grad.clip(-1, 1))


@fast
def test_another_run_is_refused(tmp_path: Path) -> None:
    solve(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = nets.task(nets.mlp(seed=4), count=20)
    x = TASK.x.copy()
    x[3, 0, 0, 0] += 1e-6
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"method": PGD(eps=0.0801, step_size=0.03, steps=4, restarts=2, random_start=True)}, "config"),
        ({"method": FGSM()}, "config"),
        ({"task": TASK._replace(net=other.net)}, "weights"),
        ({"task": TASK._replace(x=x)}, "inputs"),
        ({"task": TASK._replace(target=(TASK.label + 1) % 4)}, "inputs"),
        ({"task": nets.Task(TASK.net, *(field[:19] for field in TASK[1:]))}, "inputs, examples"),
        ({"bounds": (0.0, 1.5)}, "inputs"),
        ({"key": jax.random.key(7)}, "inputs"),
        ({"name": "other"}, "model"),
        ({"evaluator": clipped}, "evaluator"),
    ]
    for change, what in wrong:
        with pytest.raises(ValueError, match=rf"out must be a new folder .* holds a run with another {what}$"):
            solve(tmp_path, **change)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    nets.same(solve(tmp_path, lanes=4), solve())  # lanes are not part of what a run is
    solve(tmp_path, lanes=8)


@fast
@pytest.mark.parametrize("text", ["{", "[1, 2]", "null", "[" * 200_000], ids=["cut", "list", "null", "deep"])
def test_damaged_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"out must be a folder that can be written, was .*manifest.json is not"):
        solve(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@fast
def test_unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("here already")
    for out in (file, file / "below"):
        with pytest.raises(ValueError, match=r"out must be a folder that can be written, was '.*file"):
            solve(out)
    assert file.read_text() == "here already"

    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(sys.modules["invjax.engine.manifest"], "write_new", refuse)
    with pytest.raises(ValueError, match=r"out must be a folder that can be written, was .*: Permission denied"):
        solve(tmp_path / "closed")


@fast
def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solved: list[np.ndarray]) -> None:
    """A part appears under its name only when it is whole; what is left of a broken write is not read."""
    real, seen = os.replace, []

    def broken(source: Any, to: Any) -> None:
        seen.append((Path(source).name, Path(to).name))
        if Path(to).name.startswith("p0-000001-"):
            raise OSError(28, "No space left on device")
        real(source, to)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", broken)
        with pytest.raises(ValueError, match=r"^out must be a folder that can be written, was .*: No space left"):
            solve(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
    assert all(source.endswith(".tmp") and not to.endswith(".tmp") for source, to in seen)
    assert parts(tmp_path)[0].name.startswith("p0-000000-")
    assert not any(path.name.startswith("p0-000001-") for path in parts(tmp_path))
    kept = indices(tmp_path)
    nets.same(solve(tmp_path), solve())
    np.testing.assert_array_equal(solved[-1], np.setdiff1d(np.arange(20), kept))


@fast
def test_single_example_with_a_folder(tmp_path: Path) -> None:
    first = invjax.solve(TASK.net, TASK.x[0], TASK.label[0], target=TASK.target[0], method=CONFIG, out=tmp_path)
    again = invjax.solve(TASK.net, TASK.x[0], TASK.label[0], target=TASK.target[0], method=CONFIG, out=tmp_path)
    assert first.x.shape == nets.SMALL
    nets.same(first, again)


@fast
def test_digest_sees_values_shapes_dtypes_and_keys() -> None:
    digests = [
        identity_module.digest(tree)
        for tree in (
            np.zeros(4, np.float32), np.zeros((2, 2), np.float32), np.zeros(4, np.int32), np.ones(4, np.float32),
            jax.random.key(0), jax.random.key(1), [np.zeros(4, np.float32)] * 2, 0.0,
        )
    ]  # fmt: skip
    assert len(set(digests)) == len(digests)
    assert identity_module.digest(jax.numpy.zeros(4)) == digests[0]
