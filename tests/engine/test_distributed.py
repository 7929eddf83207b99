"""Two processes on this machine: each solves its share; both return all of it, or their own rows with a folder."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nets
import numpy as np
import pytest

import invjax
from invjax.attacks import PGD
from invjax.data import mnist_digits
from invjax.models import mnist_cnn

HERE = Path(__file__).resolve().parent
CONFIG = PGD(eps=0.08, step_size=0.03, steps=4, restarts=2, random_start=True)

PAGE = HERE.parent.parent / "docs" / "many_machines.md"

START = """
import os, signal, sys
from functools import partial
process, folder = int(os.environ["SLURM_PROCID"]), sys.argv[1]
exec(compile(open(sys.argv[2]).read(), sys.argv[2], "exec"))
import jax, numpy as np
import nets, test_distributed as test
import invjax
assert jax.process_count() == 2
"""

WHOLE = (
    START
    + """
plain = test.solve()
for _ in range(2):  # the first goes on where a killed run has ended, the second has nothing to do
    own = test.solve(out=folder + "/list")
    nets.same(own, plain[process::2])
    nets.same(invjax.open_run(folder + "/list").load(), plain)
task = nets.task(nets.mlp(), count=13)
alone = invjax.solve(task.net, task.x[3], task.label[3], target=task.target[3], ids=3, method=test.CONFIG,
                     out=folder + "/single")
nets.same(alone, plain[3])
try:
    invjax.solve(nets.mlp(), np.zeros((2, 8, 8, 1)), np.zeros(2, int), method=test.CONFIG, lanes=2,
                 mesh=jax.sharding.Mesh(np.array(jax.devices()), ("lanes",)))
except ValueError as error:
    assert "mesh must hold devices of this process alone" in str(error), error
else:
    raise AssertionError("a mesh over both processes was accepted")
local = jax.sharding.Mesh(np.array(jax.local_devices()), ("lanes",))
nets.same(test.solve(mesh=local), plain)
np.savez(f"{folder}/plain{process}.npz", **vars(plain))
jax.distributed.shutdown()
"""
)

KILLED = (
    START
    + """
from invjax.engine import shared
class Eager(shared.RunFolder):
    def flush(self):
        super().flush()
        if process == 1:  # nobody is told: no exception, no last words
            os.kill(os.getpid(), signal.SIGKILL)
shared.RunFolder = partial(Eager, every=0.0)
test.solve(out=folder + "/list")
raise AssertionError("a process did not wait for the other")
"""
)


def solve(**options: object) -> invjax.Result:
    task = nets.task(nets.mlp(), count=13)  # not a multiple of the processes
    return invjax.solve(task.net, task.x, task.label, target=task.target, method=CONFIG, lanes=4, progress=False,
                        **options)  # type: ignore[arg-type]  # fmt: skip


LOWEST_PORT = 2**16 - 2**12  # jax makes the port of a SLURM job from here on of the job's number


def _free_port() -> int:
    for port in np.random.default_rng().permutation(np.arange(LOWEST_PORT, 2**16)):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", int(port)))
            return int(port)
    raise AssertionError("no port is free")


def _wait(processes: list[subprocess.Popen]) -> bool:
    """To the end of all, or of the first that fails; whether all went well."""
    return all(process.wait(150) == 0 for process in processes)


def _run_two(script: str, job: str, folder: Path, ended: Callable[[list[subprocess.Popen]], bool]) -> None:
    """Two tasks of SLURM, so to speak, that run ``job``, which makes them known to each other, and then ``script``.

    They run until ``ended`` has seen what it waits for; those still alive are killed.
    """
    (folder / "job.py").write_text(job)
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent.parent), str(HERE.parent / "helpers"), str(HERE)]),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        # The flags of this process, whose answers theirs are to equal bit for bit, but for the number of devices.
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1",
    }
    for attempt in range(3):  # a port that was free a moment ago may be taken by now
        slurm = {"JOB_ID": _free_port() - LOWEST_PORT, "STEP_NODELIST": "localhost", "NTASKS": 2, "STEP_NUM_NODES": 1}
        env |= {f"SLURM_{name}": str(value) for name, value in slurm.items()}
        command, processes = [sys.executable, "-c", script, str(folder), "job.py"], []
        try:
            for k in range(2):
                own = env | {"SLURM_PROCID": str(k), "SLURM_LOCALID": str(k)}
                with open(folder / f"log{k}", "w") as log:
                    processes.append(
                        subprocess.Popen(command, env=own, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
                    )
            if ended(processes):
                return
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
        logs = "\n".join((folder / f"log{k}").read_text()[-3000:] for k in range(2))
        assert attempt < 2, logs
        assert "address" in logs.lower(), logs


def test_two_processes(tmp_path: Path) -> None:
    """One is killed, and then the other; a second pair goes on. Meanwhile a reader sees whole parts alone."""
    want, run = solve(), tmp_path / "list"

    def one_is_dead_and_the_other_waits(processes: list[subprocess.Popen]) -> bool:
        end, counts = time.monotonic() + 150, [0]
        while time.monotonic() < end:
            ended = processes[0].poll()
            if (run / "manifest.json").exists():
                saved = invjax.open_run(run)
                for index, rows in saved.parts():
                    nets.same(rows, want[index])
                counts.append(len(saved.saved))
                assert counts[-1] >= counts[-2]
                if processes[1].poll() is not None and set(range(0, 13, 2)) <= set(saved.saved.tolist()):
                    return processes[1].poll() == -signal.SIGKILL and ended != 0
            if ended is not None:
                break
            time.sleep(0.05)
        return False

    _run_two(KILLED, "import jax; jax.distributed.initialize()", tmp_path, one_is_dead_and_the_other_waits)
    saved = invjax.open_run(run)
    assert 7 < len(saved.saved) < 13
    with pytest.raises(ValueError, match=rf"must hold all 13 rows, was a folder with {len(saved.saved)} of them"):
        saved.load()

    digits = mnist_digits()
    x, label = digits.images[::400], digits.labels[::400]
    np.save(tmp_path / "images.npy", x)
    np.save(tmp_path / "labels.npy", label)
    (job,) = re.findall(r"^```py\n(# job\.py\n.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    _run_two(WHOLE, job, tmp_path, _wait)
    told = [(tmp_path / f"log{k}").read_text() for k in range(2)]
    assert [text.count("SavedRun('run': 13 of 13 rows in 2 parts)") for text in told] == [1, 0], told
    nets.same(
        invjax.open_run(tmp_path / "run").load(),
        invjax.solve(mnist_cnn(), x, label, target=(label + 1) % 10, method=PGD(eps=0.3), lanes=64),
    )
    for k in (0, 1):
        with np.load(tmp_path / f"plain{k}.npz") as file:
            nets.same(invjax.Result(**file), want)
        rows = [np.load(path)["index"] for path in run.glob(f"p{k}/p{k}-*.npz")]
        np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(k, 13, 2))  # each row once
    assert {path.name for path in run.iterdir()} == {"manifest.json", "p0", "p1"}
    with pytest.raises(ValueError, match="another model"):
        solve(out=run, name="other")
    nets.same(solve(out=run), want)  # one process reads what two have written
