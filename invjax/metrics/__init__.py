"""Numbers that say how good an answer is. Host-side numpy, arrays in, arrays out; a density is run by JAX.

The measures of one explanation (:mod:`invjax.metrics.attribution`, ``explanation_overlap``) are of JAX arrays and may
stand in compiled code; those of lists take and give numpy there too.
"""

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
from invjax.metrics.attribution import (
    Curve,
    chance_level,
    curve_rows,
    interpretability,
    interpretability_score,
    summarize_curve,
)
from invjax.metrics.attribution_overlap import (
    Overlap,
    energy_inside,
    iou,
    mass_inside,
    measure_overlap,
    overlap,
    pointing_game,
    summarize_overlap,
    top_region,
)
from invjax.metrics.counterfactual import (
    CounterfactualRecord,
    measure_counterfactuals,
    nearest_accepted_row,
    summarize_counterfactuals,
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
from invjax.metrics.stability import (
    Diversity,
    Pairs,
    compare_counterfactuals,
    diversity,
    input_stability,
    protected_flips,
    retrained_validity,
)

__all__ = [
    "Attempts",
    "CounterfactualRecord",
    "Curve",
    "Diversity",
    "GroupAccuracies",
    "Overlap",
    "Pairs",
    "attack_rows",
    "attack_table",
    "best_average_worst",
    "bootstrap_worst",
    "chance_level",
    "changed_pixels",
    "compare_counterfactuals",
    "curve_rows",
    "d20",
    "density_rank",
    "diversity",
    "energy_inside",
    "group_accuracies",
    "group_counts",
    "group_index",
    "input_stability",
    "interpretability",
    "interpretability_score",
    "iou",
    "l2",
    "local_outlier_factor",
    "mass_inside",
    "measure",
    "measure_counterfactuals",
    "measure_overlap",
    "nearest_accepted_row",
    "neighbour_agreement",
    "num_clusters",
    "overlap",
    "pointing_game",
    "protected_flips",
    "retrained_validity",
    "summarize",
    "summarize_counterfactuals",
    "summarize_curve",
    "summarize_overlap",
    "top_region",
    "wilson_interval",
]
