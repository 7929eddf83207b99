"""Where the features lie among the columns. It is static, so that every index is a constant of the program."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from invjax.types import Array


class _Index(NamedTuple):
    feature: np.ndarray  # [D] the feature of each column
    first: np.ndarray  # [F] the first column of each feature
    is_category: np.ndarray  # [D] bool
    block: np.ndarray  # [C, K] the columns of each category, padded with D
    category: np.ndarray  # [F] which of the categories a feature is, 0 for other features
    place: np.ndarray  # [D] the position of a category's column in the flat [C * K], 0 elsewhere


class Layout(NamedTuple):
    """F features over D columns, C of them categories of at most K levels. Hashable: part of a program's identity."""

    widths: tuple[int, ...]
    categories: tuple[bool, ...]
    has_grids: bool
    has_relations: bool
    disjoint: bool  # no two relations share a feature

    @property
    def width(self) -> int:
        """D."""
        return sum(self.widths)

    @property
    def num_features(self) -> int:
        """F."""
        return len(self.widths)

    @property
    def has_categories(self) -> bool:
        """C > 0."""
        return any(self.categories)

    @property
    def is_category(self) -> np.ndarray:
        """[D] bool."""
        return _index(self).is_category

    def blocks(self, a: Array, fill: float = 0.0) -> Array:
        """[D] -> [C, K] the columns of each category, padded with ``fill``."""
        padded = jnp.concatenate([a, jnp.full(1, fill, a.dtype)])
        return padded[_index(self).block]

    def columns(self, blocks: Array, others: Array) -> Array:
        """[C, K] of the categories and [D] of the other columns -> [D]."""
        return jnp.where(self.is_category, blocks.reshape(-1)[_index(self).place], others)

    def per_feature(self, columns: Array, categories: Array | None) -> Array:
        """[D] values of the other columns and [C] of the categories -> [F]."""
        if categories is None:
            return columns
        index = _index(self)
        return jnp.where(np.array(self.categories), categories[index.category], columns[index.first])

    def spread(self, features: Array) -> Array:
        """[F] -> [D], each column the value of its feature."""
        return features[_index(self).feature] if self.has_categories else features


@functools.lru_cache(maxsize=256)
def _index(layout: Layout) -> _Index:
    widths, width = np.array(layout.widths), layout.width
    first = np.concatenate([[0], np.cumsum(widths)[:-1]]).astype(int)
    feature = np.repeat(np.arange(len(widths)), widths)
    chosen = [i for i, one in enumerate(layout.categories) if one]
    most = max((layout.widths[i] for i in chosen), default=1)
    block = np.full((len(chosen), most), width)
    category, place = np.zeros(len(widths), int), np.zeros(width, int)
    for c, i in enumerate(chosen):
        own = np.arange(first[i], first[i] + widths[i])
        block[c, : widths[i]] = own
        category[i] = c
        place[own] = c * most + np.arange(widths[i])
    # int32 as jax's own indices are: an eager gather must not mix types.
    feature, first, block, category, place = (a.astype(np.int32) for a in (feature, first, block, category, place))
    return _Index(feature, first, np.array(layout.categories)[feature], block, category, place)
