"""Where data files lie."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """The folder of data files: the environment variable ``INVJAX_DATA``, else ``~/.local/share/invjax``.

    It need not exist. A relative path that is not found from the working folder is looked for in it.
    """
    if chosen := os.environ.get("INVJAX_DATA"):
        return Path(os.path.expanduser(chosen))
    return Path(os.path.expanduser(os.environ.get("XDG_DATA_HOME") or "~/.local/share")) / "invjax"


def find(path: str | os.PathLike[str], below: str = "") -> Path:
    """``path``, or a relative one that is not there as a path of the data folder (of its folder ``below``)."""
    path = Path(os.path.expanduser(path))
    return path if os.path.exists(path) or path.is_absolute() else data_folder() / below / path
