"""Numbers that say how good an answer is. Host-side numpy: arrays in, arrays out, nothing compiled."""

from invjax.metrics.attack import (
    Attempts,
    attack_rows,
    attack_table,
    best_average_worst,
    changed_pixels,
    d20,
    l2,
    measure,
    num_clusters,
    summarize,
)

__all__ = [
    "Attempts",
    "attack_rows",
    "attack_table",
    "best_average_worst",
    "changed_pixels",
    "d20",
    "l2",
    "measure",
    "num_clusters",
    "summarize",
]
