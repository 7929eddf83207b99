"""What the perturbations of a comparison say: interpretability score, and overlap with Grad-CAM."""

from __future__ import annotations

from typing import Any

import numpy as np

from invjax.bulk import Chosen
from invjax.targets import Pairs


def explained(
    logits: Any, images: Chosen, pairs: Pairs, changes: np.ndarray, found: np.ndarray, batch: int
) -> dict[str, Any]:
    raise NotImplementedError


def print_scores(records: dict[str, dict[str, Any]]) -> None:
    raise NotImplementedError
