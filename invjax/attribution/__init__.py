"""Maps of where a classifier looks: the adversarial saliency map, CAM and Grad-CAM of images.

logits = load("resnet20", "resnet20.safetensors")
maps = saliency_maps(logits, images, labels, targets)      # [N, H, W, C]: which features carry the label to the target
planes = grad_cams(logits, images, labels)                 # [N, H, W] in [0, 1]: where the network sees the label

How far a perturbation lies on such a map is measured by :mod:`invjax.metrics.attribution` (interpretability score) and
:mod:`invjax.metrics.attribution_overlap`. Explaining rows of a table in words is another matter:
:mod:`invjax.recourse`.
"""

from invjax.attribution.cam import cam, cams, grad_cam, grad_cams, scale_map
from invjax.attribution.saliency import INDICATORS, Indicator, saliency_batch, saliency_map, saliency_maps
from invjax.attribution.split import Split, split
from invjax.core.meant import suggest_names

__all__ = [
    "INDICATORS",
    "Indicator",
    "Split",
    "cam",
    "cams",
    "grad_cam",
    "grad_cams",
    "saliency_batch",
    "saliency_map",
    "saliency_maps",
    "scale_map",
    "split",
]

suggest_names(__name__)
