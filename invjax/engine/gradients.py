"""A word, on the host, where a run failed for want of a gradient: such an example only looks robust."""

from __future__ import annotations

import numpy as np

from invjax.core.errors import warn
from invjax.types import Result, Status

SHARE = 0.1  # of the answers: from here on a run says so


def warn_without_gradient(result: Result, name: str) -> None:
    """One UserWarning where at least ``SHARE`` of the answers ended as NO_GRADIENT. name: the method's."""
    status = np.asarray(result.status)
    blind = int((status == Status.NO_GRADIENT).sum())
    if blind < max(1, SHARE * status.size):
        return
    warn(
        f"{name} saw no gradient but zero for {blind} of {status.size} answers (Status.NO_GRADIENT): it tried "
        "nothing there, which is no sign of robustness. Likely causes: the network ends in a softmax, it rounds its "
        "input or its output, it returns integers or classes, its logits are so large that the loss underflows, the "
        "mask leaves nothing that matters, or the differences of a black box are too short."
    )
