"""The figures of the attack comparison: curves of the interpretability score, and a grid of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from invjax.bulk import Chosen


def write(
    folder: Path, images: Chosen, changes: dict[str, np.ndarray], records: dict[str, dict[str, Any]]
) -> list[Path]:
    raise NotImplementedError
