"""A process that runs another library in its own interpreter and answers requests, so that both can take turns."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import Skipped, reason, variables

HERE = Path(__file__).parent


class Worker:
    """One script of this folder (or any other path), from its start to :meth:`close`.

    A request and its answer are a line of JSON each; arrays travel as npz files in ``folder``. Between two requests the
    process waits for its input and takes no processor time.
    """

    def __init__(
        self,
        python: Path,
        script: str | Path,
        write: Callable[[Path], None],
        *arguments: object,
        timeout: float = 3600.0,
    ) -> None:
        """Start ``PYTHON SCRIPT INPUT.npz ARGUMENTS``; ``write`` makes the input."""
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        write(self.folder / "input.npz")
        self.name, self.timeout = Path(script).stem, timeout
        self._errors = open(self.folder / "errors.txt", "w+")  # noqa: SIM115 - it lives as long as the process
        words = [str(word) for word in (python, HERE / script, self.folder / "input.npz", *arguments)]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=variables(python)
        )

    def ask(self, what: str, **values: Any) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises Skipped: the peer failed, or took more than the timeout.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Timer(self.timeout, self._process.kill)
        late.start()
        try:
            self._process.stdin.write(json.dumps({"do": what, **values}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            ended = not late.is_alive()
            late.cancel()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            why = f"took more than {self.timeout:.0f} s" if ended else reason(self._errors.read()) or "ended early"
            raise Skipped(f"{self.name} failed: {why}")
        answer = json.loads(line)
        if "error" in answer:
            raise Skipped(f"{self.name} failed: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process, and remove its files."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()
        self._temporary.cleanup()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
