"""Maps of where a classifier looks: the adversarial saliency map, CAM and Grad-CAM of images.

(Rows of a table in, changes in words out, is another matter: :mod:`invjax.recourse`. How far an attack and a map
agree is measured by :mod:`invjax.metrics.attribution`.)

logits = load("resnet20", "resnet20.safetensors")
maps = saliency_maps(logits, images, labels, targets)      # [N, H, W, C]: which features carry the label to the target
planes = grad_cams(logits, images, labels)                 # [N, H, W] in [0, 1]: where the network sees the label
"""

from __future__ import annotations

from invjax.attribution.cam import cam as cam
from invjax.attribution.cam import cams as cams
from invjax.attribution.cam import grad_cam as grad_cam
from invjax.attribution.cam import grad_cams as grad_cams
from invjax.attribution.cam import scale_map as scale_map
from invjax.attribution.saliency import INDICATORS as INDICATORS
from invjax.attribution.saliency import saliency_batch as saliency_batch
from invjax.attribution.saliency import saliency_map as saliency_map
from invjax.attribution.saliency import saliency_maps as saliency_maps
from invjax.attribution.split import Split as Split
from invjax.attribution.split import split as split
