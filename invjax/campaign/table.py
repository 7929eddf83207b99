"""The table of a campaign: a row per attack for the best, the average and the worst target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from invjax.campaign.attack import Run
from invjax.core.meant import explained
from invjax.metrics import attack_rows

_CASES = {"best": "best target", "average": "average target", "worst": "worst target"}

NOTE = (
    "ASR: share of targets reached. ACP: changed pixels. ANC: clusters of changed pixels. l2: length of the change, in "
    "[−1, 1] units. d2,0: 8×8 windows touched. Evaluations: gradients of the network per pair. Seconds: the whole "
    "call, compilation included. Best and worst are taken over the targets of each image, then averaged "
    "over images; worst counts only images whose every target was reached; the average counts a failure as no change."
)


@explained
def table_rows(runs: Sequence[Run]) -> list[dict[str, str]]:
    """The rows of all runs: best, average and worst target (only "average" where there is one target)."""
    several = runs[0].attempts.success.shape[1] > 1
    by_name = {run.name: run for run in runs}
    rows = attack_rows(
        {run.name: run.table for run in runs}, cases=("best", "average", "worst") if several else ("average",)
    )
    for row in rows:
        run = by_name[row["attack"]]
        mean = run.table["evaluations"][row["case"]]
        row["evaluations"] = "–" if np.isnan(mean) else f"{mean:.0f}"
        row["seconds"] = f"{run.seconds:.1f}" if row["case"] == "average" else ""
        row["case"] = _CASES[row["case"]] if several else "one target"
    return rows


def median_pixels(run: Run) -> str:
    """Changed pixels of the median success, or a dash."""
    counts = run.attempts.acp[run.attempts.success]
    return f"{np.median(counts):.0f}" if counts.size else "–"


def share_reached(run: Run) -> str:
    """Share of the targets reached, in per cent."""
    return f"{100 * run.table['asr']['average']:.1f} %".replace(".0 %", " %")
