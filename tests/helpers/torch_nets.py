"""Torch as the oracle of the ImageNet networks: state dicts of random numbers, and the networks as functions of them.

Written from the papers' tables and run in float64; nothing here uses the code that is tested, but for the names and
shapes that a state dict must have.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from invjax.models import as_logits
from invjax.models.params_file import weights_of


def random_state(net: Any, table: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights and statistics under torch's keys; activations stay of order 1."""
    rng, shapes = np.random.default_rng(seed), weights_of(net)
    state: dict[str, np.ndarray] = {}
    for key, entry in table.items():
        ours = shapes[entry.path].shape
        shape = ours if entry.axes is None else tuple(ours[entry.axes.index(i)] for i in range(len(ours)))
        if key.endswith("running_var"):
            value = rng.uniform(0.5, 2.0, shape)
        elif len(shape) == 1:
            value = rng.normal(0.0, 0.2, shape) + (1.0 if entry.path.endswith("scale") else 0.0)
        else:
            value = rng.normal(size=shape) * np.sqrt(2.0 / np.prod(shape[1:]))
        state[key] = value.astype(np.float32)
    return state


class Net:
    """A state dict with the layers of a torch network; ``seen`` keeps what each gave, channels last."""

    def __init__(self, state: dict[str, np.ndarray], epsilon: float) -> None:
        import torch

        self.torch, self.epsilon = torch, epsilon
        self.state = {key: torch.from_numpy(value).double() for key, value in state.items()}
        self.seen: dict[str, np.ndarray] = {}

    def image(self, x: np.ndarray) -> Any:
        """[B, H, W, C] -> a leaf [B, C, H, W]."""
        return self.torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).double().requires_grad_()

    def see(self, name: str, y: Any) -> Any:
        value = y.detach().numpy()
        self.seen[name] = value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
        return y

    def conv_bn(self, x: Any, conv: str, norm: str, stride: int = 1, *, depthwise: bool = False, same: bool = False):
        f, w = self.torch.nn.functional, self.state[f"{conv}.weight"]
        k = w.shape[-1]
        pad = k // 2
        if same:  # TensorFlow's padding, the odd pixel at the end
            total = [max((-(-n // stride) - 1) * stride + k - n, 0) for n in x.shape[-2:]]
            x = f.pad(x, [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2])
            pad = 0
        y = f.conv2d(x, w, stride=stride, padding=pad, groups=x.shape[1] if depthwise else 1)
        names = ("running_mean", "running_var", "weight", "bias")
        return f.batch_norm(y, *(self.state[f"{norm}.{name}"] for name in names), False, 0.0, self.epsilon)

    def head(self, y: Any, layer: str) -> Any:
        y = self.see("features", y).mean((2, 3))
        return self.see("logits", y @ self.state[f"{layer}.weight"].T + self.state[f"{layer}.bias"])


def efficientnet_lite(net: Net, x: Any, strides: list[int]) -> Any:
    """Logits; strides: of each block."""
    relu6 = net.torch.nn.functional.relu6
    y = net.see("stem", relu6(net.conv_bn(x, "_conv_stem", "_bn0", 2, same=True)))
    for i, stride in enumerate(strides):
        block, z = f"_blocks.{i}", y
        if f"{block}._expand_conv.weight" in net.state:
            z = relu6(net.conv_bn(z, f"{block}._expand_conv", f"{block}._bn0"))
        z = relu6(net.conv_bn(z, f"{block}._depthwise_conv", f"{block}._bn1", stride, depthwise=True, same=True))
        z = net.conv_bn(z, f"{block}._project_conv", f"{block}._bn2")
        y = net.see(f"block{i}", y + z if y.shape == z.shape else z)
    return net.head(relu6(net.conv_bn(y, "_conv_head", "_bn1")), "_fc")


def resnet(net: Net, x: Any, blocks: tuple[int, ...]) -> Any:
    """Logits; blocks: per stage. A block of three convolutions is a bottleneck."""
    torch = net.torch
    y = net.see("stem", torch.relu(net.conv_bn(x, "conv1", "bn1", 2)))
    y = net.see("pool", torch.nn.functional.max_pool2d(y, 3, 2, 1))
    for stage, count in enumerate(blocks):
        for i in range(count):
            block, stride = f"layer{stage + 1}.{i}", 2 if stage and not i else 1
            last = 3 if f"{block}.conv3.weight" in net.state else 2
            z = y
            for n in range(1, last + 1):
                z = net.conv_bn(z, f"{block}.conv{n}", f"{block}.bn{n}", stride if n == last - 1 else 1)
                z = torch.relu(z) if n < last else z
            if f"{block}.downsample.0.weight" in net.state:
                y = net.conv_bn(y, f"{block}.downsample.0", f"{block}.downsample.1", stride)
            y = net.see(f"stage{stage + 1}_block{i + 1}", torch.relu(y + z))
    return net.head(y, "fc")


@jax.jit
def everything(model: Any, x: Any, weights: Any) -> Any:
    """Logits, and the gradient of a weighted sum of them by the image."""
    (_, logits), gradient = jax.value_and_grad(lambda x: (jnp.sum((z := model(x)) * weights), z), has_aux=True)(x)
    return logits, gradient


def assert_same_layers(net: Any, theirs: Net, image: Any, logits: Any, x: np.ndarray, weights: np.ndarray) -> None:
    """Every activation, the logits and the gradient of ours against torch's, whose ``logits`` come from ``image``."""
    (logits * theirs.torch.from_numpy(weights)).sum().backward()
    copy = nnx.clone(net)
    copy.eval()
    ours = jax.jit(lambda x: copy.activations(x))(x)
    assert set(ours) == set(theirs.seen)
    for name, value in theirs.seen.items():
        scale = np.abs(value).max()
        assert scale > 0.1
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=2e-5 * scale, err_msg=name)
    folded, gradient = everything(as_logits(net), x, weights)  # with folded normalisation
    wanted = theirs.seen["logits"]
    np.testing.assert_allclose(folded, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    want = image.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(gradient, want, rtol=0, atol=1e-4 * np.abs(want).max())


def assert_classifier(net: Any, model: Any, inside: np.ndarray, x: np.ndarray, weights: np.ndarray) -> None:
    """What the library needs of ``model``, which sees ``inside`` as ``net`` sees x."""
    logits, gradient = everything(model, inside, weights)
    assert logits.shape == (len(x), len(weights))
    assert logits.dtype == gradient.dtype == jnp.float32
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0
    np.testing.assert_allclose(logits, everything(as_logits(net), x, weights)[0], rtol=1e-4, atol=1e-4)
    alone = jax.jit(jax.vmap(lambda one: model(one[None])[0]))(inside)
    np.testing.assert_allclose(alone, logits, rtol=1e-4, atol=1e-4)
