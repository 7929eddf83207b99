"""The zoo: networks with importers of their weights, black boxes, and your own classifier through :func:`as_logits`.

The network classes live in modules that import flax. They are loaded on first use, so that ``import invjax`` stays
light. How a classifier enters (``as_logits``, ``LogitsModel``) is in :mod:`invjax.core.logits`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from invjax.core.logits import LogitsModel, as_logits
from invjax.core.meant import no_attribute
from invjax.models.binary import binary
from invjax.models.registry import load, mnist_cnn, vit_mnist

if TYPE_CHECKING:
    from invjax.models.blackbox import agreement, black_box, distill, with_surrogate
    from invjax.models.blocks import ConvBN, with_classes
    from invjax.models.cnn import SmallCNN
    from invjax.models.efficientnet_lite import EfficientNetLite, efficientnet_lite_from_torch
    from invjax.models.mlp import MLP
    from invjax.models.normalised import Normalised
    from invjax.models.preact_resnet import PreActResNet, preact_resnet_from_torch
    from invjax.models.resnet import ResNet, resnet_from_torch
    from invjax.models.resnet_cifar import ResNet20, resnet20_from_torch
    from invjax.models.torch_files import load_state_dict
    from invjax.models.vgg import VGG, vgg_from_torch
    from invjax.models.vit import ViT, ViTConfig, vit_config
    from invjax.models.vit_import import vit_from_weights

__all__ = [
    "MLP",
    "VGG",
    "ConvBN",
    "EfficientNetLite",
    "LogitsModel",
    "Normalised",
    "PreActResNet",
    "ResNet",
    "ResNet20",
    "SmallCNN",
    "ViT",
    "ViTConfig",
    "agreement",
    "as_logits",
    "binary",
    "black_box",
    "distill",
    "efficientnet_lite_from_torch",
    "load",
    "load_state_dict",
    "mnist_cnn",
    "preact_resnet_from_torch",
    "resnet20_from_torch",
    "resnet_from_torch",
    "vgg_from_torch",
    "vit_config",
    "vit_from_weights",
    "vit_mnist",
    "with_classes",
    "with_surrogate",
]

_LAZY = {
    "ConvBN": "blocks",
    "EfficientNetLite": "efficientnet_lite",
    "MLP": "mlp",
    "Normalised": "normalised",
    "PreActResNet": "preact_resnet",
    "ResNet": "resnet",
    "ResNet20": "resnet_cifar",
    "SmallCNN": "cnn",
    "VGG": "vgg",
    "ViT": "vit",
    "ViTConfig": "vit",
    "agreement": "blackbox",
    "black_box": "blackbox",
    "distill": "blackbox",
    "efficientnet_lite_from_torch": "efficientnet_lite",
    "load_state_dict": "torch_files",
    "resnet20_from_torch": "resnet_cifar",
    "resnet_from_torch": "resnet",
    "preact_resnet_from_torch": "preact_resnet",
    "vgg_from_torch": "vgg",
    "vit_config": "vit",
    "vit_from_weights": "vit_import",
    "with_classes": "blocks",
    "with_surrogate": "blackbox",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"invjax.models.{_LAZY[name]}"), name)
    raise no_attribute(__name__, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
