"""A campaign: many images, many targets each, one attack, a table. What ``invjax attack`` does, as functions.

chosen = choose(logits, source, None, start=0, n=100)       # images that the network classifies correctly
pairs = make_pairs(chosen.labels, num_classes=10)           # each towards the nine other classes
run = attack_pairs("gse", logits, chosen.images, pairs, configure("gse", {}), bounds, out="run")
write_results("results", run, chosen, pairs)
"""

from invjax.campaign.attack import Run, attack_pairs, configure, constants_text
from invjax.campaign.images import ChosenImages, choose, classify
from invjax.campaign.pairs import Pairs, listed_pairs, make_pairs, parse_targets
from invjax.campaign.results import read_integers, write_results
from invjax.campaign.table import NOTE, median_pixels, share_reached, table_rows
from invjax.core.meant import suggest_names

__all__ = [
    "NOTE",
    "ChosenImages",
    "Pairs",
    "Run",
    "attack_pairs",
    "choose",
    "classify",
    "configure",
    "constants_text",
    "listed_pairs",
    "make_pairs",
    "median_pixels",
    "parse_targets",
    "read_integers",
    "share_reached",
    "table_rows",
    "write_results",
]

suggest_names(__name__)
