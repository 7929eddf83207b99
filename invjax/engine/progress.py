"""A progress bar on long runs: tqdm where it is installed, nothing where it is not."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from invjax.types import Status

if TYPE_CHECKING:
    from invjax.engine.queue import Part


SHORT = 1.0  # seconds: a notebook keeps every bar for good, and those of shorter runs would hide the answers


def in_notebook() -> bool:
    """Whether the output goes to a cell of Jupyter or Colab, which is no terminal but shows a bar."""
    return "ipykernel.iostream" in sys.modules and type(sys.stderr).__module__ == "ipykernel.iostream"


def count_found(status: np.ndarray) -> int:
    """The examples with an answer, of statuses [N]; one that has a set of answers, [N, P], counts once."""
    return int((status == Status.FOUND).any(axis=tuple(range(1, status.ndim))).sum())


@contextmanager
def progress_bar(
    show: bool | None, total: int, start: int = 0, lanes: int | None = None, found: int = 0
) -> Iterator[Callable[[Part], None]]:
    """A callback for each :class:`Part`. show: True, False, or None for "on a terminal, and in a notebook".

    total: examples, of which ``start`` had ended before, ``found`` of them with an answer. lanes: shown in it. In a
    notebook the bar stands there at once, while the program is compiled; that of a run below a second goes away.
    """
    notebook = in_notebook()
    wanted = (notebook or sys.stderr.isatty()) if show is None else show
    if not wanted:
        yield lambda part: None
        return
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="IProgress not found")  # then tqdm writes a bar of text
            from tqdm.auto import tqdm
    except ImportError:
        if show:
            raise ImportError("progress=True needs tqdm: pip install 'invjax[cli]'") from None
        yield lambda part: None
        return

    words: dict[str, Any] = {} if lanes is None else {"lanes": lanes}
    with tqdm(total=total, initial=start, unit="example", dynamic_ncols=True) as bar:

        def update(part: Part) -> None:
            nonlocal found
            if len(part.index):
                found += count_found(np.asarray(part.result.status))
                bar.update(len(part.index))
            bar.set_postfix(found=found, iterations=part.steps, **words, refresh=not len(part.index))

        yield update
        if notebook and show is None:
            bar.leave = bar.format_dict["elapsed"] >= SHORT
