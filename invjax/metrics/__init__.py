"""Numbers that say how good an answer is. Host-side numpy, arrays in, arrays out; only a density is run by JAX."""

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
from invjax.metrics.counterfactual import (
    CounterfactualRecord,
    measure_counterfactuals,
    nearest_accepted_row,
    summarize_counterfactuals,
)
from invjax.metrics.counterfactual_robustness import (
    Diversity,
    Pairs,
    compare_counterfactuals,
    diversity,
    input_stability,
    protected_flips,
    retrained_validity,
)
from invjax.metrics.group import (
    GroupAccuracies,
    bootstrap_worst,
    group_accuracies,
    group_counts,
    group_index,
    wilson_interval,
)
from invjax.metrics.plausibility import density_rank, local_outlier_factor, neighbour_agreement

__all__ = [
    "Attempts",
    "CounterfactualRecord",
    "Diversity",
    "GroupAccuracies",
    "Pairs",
    "attack_rows",
    "attack_table",
    "best_average_worst",
    "bootstrap_worst",
    "changed_pixels",
    "compare_counterfactuals",
    "d20",
    "density_rank",
    "diversity",
    "group_accuracies",
    "group_counts",
    "group_index",
    "input_stability",
    "l2",
    "local_outlier_factor",
    "measure",
    "measure_counterfactuals",
    "nearest_accepted_row",
    "neighbour_agreement",
    "num_clusters",
    "protected_flips",
    "retrained_validity",
    "summarize",
    "summarize_counterfactuals",
    "wilson_interval",
]
