"""Two processes on this machine: each solves its share of the list, both return all of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import nets
import numpy as np
import pytest

import invjax
from invjax.attacks import PGD

HERE = Path(__file__).resolve().parent
CONFIG = PGD(eps=0.08, step_size=0.03, steps=4, restarts=2, random_start=True)

SCRIPT = """
import sys
import jax, numpy as np
port, process, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_compilation_cache_dir", folder + "/cache")
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=process, initialization_timeout=60)
import nets, test_distributed as test
import invjax
assert jax.process_count() == 2
for out in (None, folder + "/run", folder + "/run"):
    result = test.solve(out=out)
    np.savez(f"{folder}/{'out' if out else 'plain'}{process}.npz", **result._asdict())
try:
    invjax.solve(nets.mlp(), np.zeros((2, 8, 8, 1)), np.zeros(2, int), method=test.CONFIG, lanes=2,
                 mesh=jax.sharding.Mesh(np.array(jax.devices()), ("lanes",)))
except ValueError as error:
    assert "mesh must hold devices of this process alone" in str(error), error
else:
    raise AssertionError("a mesh over both processes was accepted")
local = jax.sharding.Mesh(np.array(jax.local_devices()), ("lanes",))
np.savez(f"{folder}/mesh{process}.npz", **test.solve(mesh=local)._asdict())
jax.distributed.shutdown()
"""


def solve(**options: object) -> invjax.Result:
    task = nets.task(nets.mlp(), count=13)  # not a multiple of the processes
    return invjax.solve(task.net, task.x, task.label, target=task.target, method=CONFIG, lanes=4, progress=False,
                        **options)  # type: ignore[arg-type]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _run_two(folder: Path, env: dict[str, str]) -> str:
    """Both processes to their end; what the first that failed said last, or "" where both went well."""
    port, processes = str(_free_port()), []
    try:
        for k in range(2):
            with open(folder / f"log{k}", "w") as log:
                command = [sys.executable, "-c", SCRIPT, port, str(k), str(folder)]
                processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
        failed = [k for k, process in enumerate(processes) if process.wait(150) != 0]
        return (folder / f"log{failed[0]}").read_text()[-3000:] if failed else ""
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def test_two_processes(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent.parent), str(HERE.parent / "helpers"), str(HERE)]),
        "JAX_PLATFORMS": "cpu",
        # The flags of this process, whose answers theirs are to equal bit for bit, but for the number of devices.
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1",
    }
    for attempt in range(3):  # a port that was free a moment ago may be taken by now
        logs = _run_two(tmp_path, env)
        if not logs:
            break
        assert attempt < 2, logs
        assert "address" in logs.lower(), logs

    want = solve()
    for name in ("plain0", "plain1", "out0", "out1", "mesh0", "mesh1"):
        with np.load(tmp_path / f"{name}.npz") as file:
            nets.same(invjax.Result(**file), want)
    rows = [np.concatenate([np.load(path)["index"] for path in (tmp_path / "run").glob(f"p{k}-*.npz")]) for k in (0, 1)]
    np.testing.assert_array_equal(np.sort(rows[0]), np.arange(0, 13, 2))
    np.testing.assert_array_equal(np.sort(rows[1]), np.arange(1, 13, 2))
    with pytest.raises(ValueError, match="another model"):
        solve(out=tmp_path / "run", name="other")
    nets.same(solve(out=tmp_path / "run"), want)  # one process reads what two have written
