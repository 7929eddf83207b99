"""Vision transformer: Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021), and its descendants.

An image is cut into patches, which become tokens; learned prefix tokens stand before them. With LN layer normalisation,

    t_0 = [prefix; W patch_1 + p_1; …; W patch_N + p_N]                                                            (1)
    u   = t + s_1 · attention(LN_1 t),      t' = u + s_2 · W_2 gelu(W_1 LN_2 u)         one block, s = 1 or learned (2)
    logits = head(pool(LN t_L))                                                                                    (3)

One configuration covers ViT, DeiT (a distillation token with a head of its own), DeiT-III and DINOv2 (learned scales
s, register tokens). Positions p belong to the patches alone: where published weights have one for a prefix token, it is
a part of that token, which gives the same function.

The patches are embedded by a matrix product, not by a convolution: on CPU XLA differentiates convolutions slowly inside
loops (:mod:`invjax.cpu.convolutions`), and the patches do not overlap.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check_choice, check_number, check_whole, of_shape
from invjax.core.nnx import module_repr
from invjax.types import Array

Pool = Literal["token", "mean", "token_mean"]
POOLS: tuple[Pool, ...] = ("token", "mean", "token_mean")
GELUS = ("erf", "tanh")
NORMS = ("tokens", "pooled")


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """The architecture of a :class:`ViT`; the default is ViT-B/16 at 224 px.

    Fields:
      patch: side of the square patches, pixels; it divides both sides of the image.
      image: height and width of the images, pixels.
      channels: of the images.
      width: numbers per token, D.
      depth: blocks, L.
      heads: of the attention; they divide ``width``.
      hidden: numbers per token inside the two layers of (2).
      pool: what the head sees: "token" (the class token), "mean" (the mean of the patches) or "token_mean" (both, 2D).
      class_token: whether there is one; "token" and "token_mean" need it.
      distilled: whether a second token has a head of its own; the logits are the mean of the two heads (DeiT).
      registers: further prefix tokens that no head looks at.
      layer_scale: whether s of (2) is learned, one number per feature.
      norm: where the last LN is: on the "tokens", before they are pooled, or on what is "pooled".
      representation: size of a layer with tanh between pool and head; 0 for none.
      epsilon: of the layer normalisations, added to the variance.
      gelu: x Φ(x) by "erf", exactly, or by the "tanh" approximation.
    """

    patch: int = 16
    image: tuple[int, int] = (224, 224)
    channels: int = 3
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    pool: Pool = "token"
    class_token: bool = True
    distilled: bool = False
    registers: int = 0
    layer_scale: bool = False
    norm: Literal["tokens", "pooled"] = "tokens"
    representation: int = 0
    epsilon: float = 1e-6
    gelu: Literal["erf", "tanh"] = "erf"

    def __post_init__(self) -> None:
        for name in ("patch", "channels", "width", "depth", "heads", "hidden"):
            check_whole(f"ViTConfig.{name}", getattr(self, name))
        for name in ("registers", "representation"):
            check_whole(f"ViTConfig.{name}", getattr(self, name), 0)
        for name, choices in (("pool", POOLS), ("norm", NORMS), ("gelu", GELUS)):
            check_choice(f"ViTConfig.{name}", getattr(self, name), choices)
        check_number("ViTConfig.epsilon", self.epsilon, lambda value: value > 0, "a number > 0")
        sides = self.image
        if not isinstance(sides, tuple) or len(sides) != 2 or any(side % self.patch or side < 1 for side in sides):
            wanted = f"be a height and a width that the patches of {self.patch} pixels divide"
            raise BadArgument("ViTConfig.image", wanted, sides)
        if self.width % self.heads:
            raise BadArgument("ViTConfig.heads", f"divide the width, {self.width}", self.heads)
        if not self.class_token and (self.pool != "mean" or self.distilled):
            needs = "a second head" if self.distilled else f"pool={self.pool!r}"
            raise BadArgument("ViTConfig.class_token", f"be True for {needs}", self.class_token)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches."""
        return self.image[0] // self.patch, self.image[1] // self.patch

    @property
    def prefix(self) -> int:
        """The number of tokens before the patches: class, distillation and registers, in this order."""
        return int(self.class_token) + int(self.distilled) + self.registers

    @property
    def pooled(self) -> int:
        """How many numbers the head sees."""
        return self.representation or (2 * self.width if self.pool == "token_mean" else self.width)


@kinds_checked
def vit_config(size: Literal["ti", "s", "b", "l"] = "b", patch: int = 16, **others: object) -> ViTConfig:
    """The configuration of a published size: "ti", "s", "b" or "l"; the other fields by name."""
    width, depth, heads = SIZES[check_choice("size", size, SIZES)]
    fields: dict[str, object] = {"width": width, "depth": depth, "heads": heads, "hidden": 4 * width, **others}
    return ViTConfig(patch=patch, **fields)  # type: ignore[arg-type]


SIZES = {"ti": (192, 12, 3), "s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16)}  # width, depth, heads


class Patches(nnx.Module):
    """W of equation (1) on each patch of an image: [B, H, W, C] -> [B, N, D], row by row."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs) -> None:
        shape = (config.patch, config.patch, config.channels, config.width)  # as a convolution has it, HWIO
        self.kernel = nnx.Param(nnx.initializers.truncated_normal(np.prod(shape[:3]) ** -0.5)(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(config.width))
        self.grid = config.grid

    def __call__(self, x: Array) -> Array:
        (rows, columns), (side, _, channels, width) = self.grid, self.kernel.shape
        cut = x.reshape(len(x), rows, side, columns, side, channels).transpose(0, 1, 3, 2, 4, 5)
        return cut.reshape(len(x), rows * columns, -1) @ self.kernel[...].reshape(-1, width) + self.bias[...]


class Block(nnx.Module):
    """Equation (2): [B, T, D] -> [B, T, D]."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs) -> None:
        width = config.width
        self.heads, self.exact = config.heads, config.gelu == "erf"
        self.norm1 = _layer_norm(width, config, rngs)
        self.qkv = _linear(width, 3 * width, rngs)  # queries, keys and values, in this order
        self.out = _linear(width, width, rngs)
        self.norm2 = _layer_norm(width, config, rngs)
        self.fc1 = _linear(width, config.hidden, rngs)
        self.fc2 = _linear(config.hidden, width, rngs)
        self.scale1 = nnx.Param(jnp.ones(width)) if config.layer_scale else None
        self.scale2 = nnx.Param(jnp.ones(width)) if config.layer_scale else None

    def attend(self, y: Array) -> Array:
        """Attention over normalised tokens, [B, T, D] -> [B, T, D]."""
        batch, count, width = y.shape
        q, k, v = jnp.split(self.qkv(y).reshape(batch, count, 3 * self.heads, -1), 3, axis=2)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k)
        return self.out(jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v).reshape(batch, count, width))

    def finish(self, t: Array, normalised: Array) -> Array:
        """(2), where the attention sees ``normalised`` in the place of LN_1 t."""
        u = t + _scaled(self.attend(normalised), self.scale1)
        inner = jax.nn.gelu(self.fc1(self.norm2(u)), approximate=not self.exact)
        return u + _scaled(self.fc2(inner), self.scale2)

    def __call__(self, t: Array) -> Array:
        return self.finish(t, self.norm1(t))


class ViT(nnx.Module):
    """The classifier on normalised images, [B, H, W, C] -> logits [B, K]; ``__call__ = head(features(x))``.

    Args:
      config: the architecture, see ``vit_config``. H, W and C are those of ``config.image`` and ``config.channels``.
      num_classes: K; 0 for a network without a head, which :func:`~invjax.models.with_classes` can give it.
      rngs: random numbers for the initial weights.
    """

    def __init__(self, config: ViTConfig | None = None, num_classes: int = 1000, *, rngs: nnx.Rngs) -> None:
        config = ViTConfig() if config is None else config
        check_whole("num_classes", num_classes, 0)
        self.config = config
        draw = nnx.initializers.truncated_normal(0.02)
        self.patches = Patches(config, rngs=rngs)
        rows, columns = config.grid
        self.positions = nnx.Param(draw(rngs.params(), (1, rows * columns, config.width)))
        self.prefix = nnx.Param(draw(rngs.params(), (1, config.prefix, config.width))) if config.prefix else None
        for i in range(config.depth):
            # Numbered attributes: a list of modules is handled differently by the supported versions of flax.
            setattr(self, f"block{i + 1}", Block(config, rngs=rngs))
        pooled = 2 * config.width if config.pool == "token_mean" else config.width
        self.norm = _layer_norm(config.width if config.norm == "tokens" else pooled, config, rngs)
        self.representation = _linear(pooled, config.representation, rngs) if config.representation else None
        self.classifier = _linear(config.pooled, num_classes, rngs) if num_classes else None
        second = config.distilled and num_classes
        self.classifier_distilled = _linear(config.pooled, num_classes, rngs) if second else None

    @property
    def head_inputs(self) -> int:
        """How many numbers the linear layer of the head sees, as :func:`~invjax.models.with_classes` asks."""
        return self.config.pooled

    @property
    def blocks(self) -> list[Block]:
        """The blocks of (2), in order."""
        return [getattr(self, f"block{i + 1}") for i in range(self.config.depth)]

    def embed(self, x: Array) -> Array:
        """Equation (1): [B, H, W, C] -> tokens [B, P + N, D]. Raises BadArgument about images of another size."""
        config = self.config
        if x.ndim != 4 or x.shape[1:] != (*config.image, config.channels):
            wanted = f"be images [B, {config.image[0]}, {config.image[1]}, {config.channels}]"
            hint = "image=(height, width) of load and vit_from_weights resizes the positions of a ViT"
            raise BadArgument("x", wanted, of_shape(x.shape), hint=hint)
        tokens = self.patches(x) + self.positions[...]
        if self.prefix is None:
            return tokens
        before = jnp.broadcast_to(self.prefix[...].astype(tokens.dtype), (len(x), config.prefix, config.width))
        return jnp.concatenate([before, tokens], axis=1)

    def activations(self, x: Array) -> dict[str, Array]:
        """What each layer gives, in order: ``embedded``, ``block1`` … [B, P + N, D], ``pooled``, ``logits``."""
        out = {"embedded": self.embed(x)}
        t = out["embedded"]
        for i, block in enumerate(self.blocks, 1):
            t = out[f"block{i}"] = block(t)
        out["pooled"] = self.pool(t)
        out["logits"] = self.classify(t)
        return out

    def pool(self, t: Array) -> Array:
        """The tokens of the last block, [B, P + N, D] -> what the head sees, [B, ``config.pooled``]."""
        return self._pooled(t, 0)

    def _pooled(self, t: Array, token: int) -> Array:
        config = self.config
        t = self.norm(t) if config.norm == "tokens" else t
        patches = t[:, config.prefix :]
        match config.pool:
            case "token":
                seen = t[:, token]
            case "mean":
                seen = jnp.mean(patches, axis=1)
            case _:
                seen = jnp.concatenate([t[:, token], jnp.mean(patches, axis=1)], axis=-1)
        seen = self.norm(seen) if config.norm == "pooled" else seen
        return seen if self.representation is None else jnp.tanh(self.representation(seen))

    def classify(self, t: Array) -> Array:
        """Equation (3): the tokens of the last block, [B, P + N, D] -> logits [B, K]."""
        if self.classifier is None:
            hint = "with_classes(net, K, rngs=...) puts a fresh one on it"
            raise BadArgument("ViT", "have a head to give logits", Words("one without"), hint=hint)
        logits = self.classifier(self._pooled(t, 0))
        if self.classifier_distilled is None:
            return logits
        return (logits + self.classifier_distilled(self._pooled(t, 1))) / 2

    def features(self, x: Array) -> tuple[Array, Array]:
        """The patches as the last attention sees them, and what :meth:`head` needs beside.

        [B, H, W, C] -> LN_1 t of the last block without the prefix tokens, [B, h, w, D], where class activation maps
        are read; and t itself, [B, P + N, D]. (After the last block the class token alone reaches the head.)
        """
        t = self.embed(x)
        for block in self.blocks[:-1]:
            t = block(t)
        seen = self.blocks[-1].norm1(t)[:, self.config.prefix :]
        return seen.reshape(len(t), *self.config.grid, self.config.width), t

    def head(self, features: tuple[Array, Array]) -> Array:
        """The rest of the network, from what :meth:`features` gives to logits [B, K]."""
        grid, t = features
        last = self.blocks[-1]
        prefix = last.norm1(t[:, : self.config.prefix])
        normalised = jnp.concatenate([prefix, grid.reshape(len(t), -1, self.config.width)], axis=1)
        return self.classify(last.finish(t, normalised))

    def __repr__(self) -> str:
        takes = "x".join(map(str, (*self.config.image, self.config.channels)))
        gives = "features" if self.classifier is None else f"{self.classifier.out_features} classes"
        return module_repr(self, f"{takes} -> {gives}")

    def __call__(self, x: Array) -> Array:
        t = self.embed(x)
        for block in self.blocks:
            t = block(t)
        return self.classify(t)


def _linear(before: int, after: int, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(before, after, kernel_init=nnx.initializers.truncated_normal(0.02), rngs=rngs)


def _layer_norm(width: int, config: ViTConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # Fast variance is E x² − (E x)², which loses digits where the mean is large.
    return nnx.LayerNorm(width, epsilon=config.epsilon, use_fast_variance=False, rngs=rngs)


def _scaled(y: Array, scale: nnx.Param | None) -> Array:
    return y if scale is None else y * scale[...]
