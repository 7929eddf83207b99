"""``accelerator``: what this library does on a GPU or TPU, part by part, within a number of minutes.

    python -m benchmarks accelerator --out DIR [--minutes 8]

The first round has the rows of most worth of every part, the second all others. Each part has a share of the minutes,
and what one leaves goes to the next; a row that cannot end in what is left is not begun. Every row is written to
DIR/PART.json at once and DIR/report.md after every part, so that a killed run keeps what it has, and the same command
goes on where it stopped.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import jax

from benchmarks.accelerator.log import Log, Missing
from benchmarks.accelerator.parts import PARTS
from benchmarks.accelerator.setting import Setting
from benchmarks.common import check_json, device, pick, versions, write_json
from invjax.core.errors import BadArgument, check_number
from invjax.core.files import check_folder, write_atomic, writing
from invjax.data.folder import data_folder
from invjax.report.text import text_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--out", help="folder of the records; the same command resumes there")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--parts", default="all", help=f"all, or some of {', '.join(PARTS)}")
    parser.add_argument("--data", help="folder of the data, as --pack makes it (default: INVJAX_DATA)")
    parser.add_argument("--pack", metavar="DIR", help="gather data and wheels in a folder that can travel, and stop")
    parser.add_argument("--python", help="with --pack: version of Python where it travels to, as 3.12 (default: this)")
    parser.add_argument("--json", help="file for the record of all parts together")
    parser.add_argument("--cpu", action="store_true", help="run although there is no accelerator")
    parser.add_argument("--tiny", action="store_true", help="a few pairs and steps, to see that every part works")


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    begin = time.monotonic()
    data = data_folder() if options.data is None else Path(options.data)
    if options.data is not None and not data.is_dir():
        raise BadArgument("data", "be an existing folder", options.data)
    if options.pack is not None:
        from benchmarks.accelerator.packing import pack

        print("\n".join(pack(data, options.pack, options.python)))
        return 0
    check_json(options.json)
    check_number("minutes", options.minutes, lambda value: value > 0, "above 0")
    names = pick("parts", options.parts, PARTS)
    if options.out is None:
        raise BadArgument("out", "be the folder of the records")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.6")  # the rest is torch's; read when jax starts a device
    if jax.default_backend() == "cpu" and not options.cpu:
        raise BadArgument("cpu", "be given where there is no accelerator", hint=f"jax sees {device()}")
    folder = check_folder(options.out)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    jax.block_until_ready(jax.numpy.ones((8, 8)) @ jax.numpy.ones((8, 8)))  # starting a device belongs to no row
    print(f"{device()}; {', '.join(f'{name} {number}' for name, number in versions().items())}", flush=True)
    print(f"started in {time.monotonic() - begin:.0f} s", flush=True)
    logs = {name: Log(folder, name, part.seconds[0] / part.first, options.tiny) for name, part in PARTS.items()}
    setting = Setting(data, options.tiny, logs["ceilings"])

    def one(name: str) -> None:
        before, since = len(logs[name].rows), time.monotonic()
        _part(name, logs[name], setting)
        if len(logs[name].rows) > before or not logs[name].rows:
            print(f"\n{name}: {PARTS[name].line} ({time.monotonic() - since:.0f} s)\n{_text(logs[name])}", flush=True)
        write_atomic(folder / "report.md", _report(logs, names).encode())

    rounds(names, logs, begin + 60 * options.minutes, one)
    missing = [f"{name}: {row}: {why}" for name in names for row, why in logs[name].notes.items()]
    print("\n".join(["", *missing, f"{time.monotonic() - begin:.0f} s in all; wrote {folder / 'report.md'}"]))
    write_json(options.json, {"benchmark": "accelerator", "parts": {name: logs[name].rows for name in names}})
    return 0


def rounds(names: list[str], logs: dict[str, Log], end: float, one: Callable[[str], None]) -> None:
    """Give each part its share of the time until ``end`` (by the clock of its log), twice, and let ``one`` run it."""
    for number in (0, 1):
        for position, name in enumerate(names):
            part, log = PARTS[name], logs[name]
            shares = [PARTS[later].seconds[number] for later in names[position:]]
            if not shares[0] or "left out" in log.notes:
                continue
            seconds = (end - log.clock()) * shares[0] / sum(shares)
            log.open(seconds, part.first if number == 0 else None)
            one(name)


def _part(name: str, log: Log, setting: Setting) -> None:
    """Run a part. What it lacks, or what goes wrong before its rows, is noted, and the next part has its turn."""
    try:
        importlib.import_module(f"benchmarks.accelerator.parts.{PARTS[name].module}").run(log, setting)
    except Missing as missing:
        log.note("left out", str(missing))
    except Exception as error:
        log.note("left out", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _text(log: Log) -> str:
    lines = [text_table(log.table())] if log.rows else []
    return "\n".join([*lines, *(f"{name}: {why}" for name, why in log.notes.items())])


def _report(logs: dict[str, Log], names: list[str]) -> str:
    """All parts so far as Markdown."""
    sections = [f"# {device()}", ", ".join(f"{name} {number}" for name, number in versions().items())]
    for name in names:
        sections += [f"## {name}: {PARTS[name].line}", f"```\n{_text(logs[name])}\n```"]
    return "\n\n".join(sections) + "\n"
