"""Learning: networks trained on arrays, on perturbed data sets, and for accuracy in every group.

The study of learning from counterfactuals, which compares all of this by the worst group, is :mod:`invjax.learn.study`.
"""

from invjax.core.meant import suggest_names
from invjax.learn.adversarial import Adversary, RobustAccuracy, robust_accuracy, train_at
from invjax.learn.evaluate import evaluate, predict
from invjax.learn.last_layer import LastLayer, feature_network, last_layer, penultimate, with_last_layer
from invjax.learn.optimiser import Optax, Optimiser
from invjax.learn.perturb import Perturbed, draw_targets, make_perturbed_dataset
from invjax.learn.presets import PRESETS, Recipe, preset
from invjax.learn.retrain import Logistic, Retrained, afr, afr_weights, dfr, l1_logistic
from invjax.learn.robust import errors_of, group_dro, jtt, resample, reweight
from invjax.learn.rules import ERM, GroupDRO, Rule
from invjax.learn.train import Trained, fit

__all__ = [
    "ERM",
    "PRESETS",
    "Adversary",
    "GroupDRO",
    "LastLayer",
    "Logistic",
    "Optax",
    "Optimiser",
    "Perturbed",
    "Recipe",
    "Retrained",
    "RobustAccuracy",
    "Rule",
    "Trained",
    "afr",
    "afr_weights",
    "dfr",
    "draw_targets",
    "errors_of",
    "evaluate",
    "feature_network",
    "fit",
    "group_dro",
    "jtt",
    "l1_logistic",
    "last_layer",
    "make_perturbed_dataset",
    "penultimate",
    "predict",
    "preset",
    "resample",
    "reweight",
    "robust_accuracy",
    "train_at",
    "with_last_layer",
]

suggest_names(__name__)
