"""Measures of how good an answer is: NumPy arrays in, NumPy arrays out, on the host.

    attack               ASR, ACP, ANC, l2 and d2,0 of attacks, and their best/average/worst table
    summary              these numbers as tables, for a terminal and a notebook
    counterfactual       validity, distance, sparsity, plausibility and violations of counterfactual rows
    stability            how counterfactuals react to small changes, and how diverse a set of them is
    plausibility         local outlier factor, rank of a log-density, agreement of neighbours
    group                accuracy by group and the worst group
    attribution          interpretability score of a perturbation on a saliency map
    attribution_overlap  overlap of a perturbation, or a mask, with a class activation map
    mean                 means with bootstrap intervals

The measures of ONE map in the two attribution modules take JAX arrays and may stand inside compiled code.
"""

from invjax.core.meant import suggest_names
from invjax.metrics.attack import (
    Attempts,
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
from invjax.metrics.summary import Summary, attack_rows, attack_table

__all__ = [
    "Attempts",
    "CounterfactualRecord",
    "Curve",
    "Diversity",
    "GroupAccuracies",
    "Overlap",
    "Pairs",
    "Summary",
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

suggest_names(__name__)
