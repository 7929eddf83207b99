"""The declaration of a table: features, relations between them, and how raw units become model coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from invjax.constraints.features import Feature, Relation
from invjax.core.errors import BadArgument, of_shape, unknown_name


class Schema:
    """What :class:`invjax.constraints.FeatureSpace` declares; see there for the arguments and the errors."""

    def __init__(
        self,
        features: Iterable[Feature],
        relations: Iterable[Relation] = (),
        center: Sequence[float] | np.ndarray | Mapping[str, float] | None = None,
        scale: Sequence[float] | np.ndarray | Mapping[str, float] | None = None,
    ) -> None:
        self.features, self.relations = tuple(features), tuple(relations)
        if not self.features or not all(isinstance(feature, Feature) for feature in self.features):
            raise BadArgument("features", "be at least one Feature", self.features)
        if not all(isinstance(relation, Relation) for relation in self.relations):
            raise BadArgument("relations", "be Relation objects", self.relations)
        by_name: dict[str, Feature] = {}
        for feature in self.features:
            if feature.name in by_name:
                raise BadArgument("features", "have different names", hint=f"{feature.name!r} is declared twice")
            by_name[feature.name] = feature
        for relation in self.relations:
            for name in relation.coefficients:
                if name not in by_name:
                    wanted = f"be between features of {', '.join(by_name)}"
                    raise unknown_name(f"relation {relation}", name, by_name, wanted)
                if by_name[name].kind == "category":
                    raise BadArgument(f"relation {relation}", "be between numbers", hint=f"{name!r} is a category")
        self.center = self._per_feature("center", center, 0.0, -np.inf, "be finite")
        scales = self._per_feature("scale", scale, 1.0, 0.0, "be finite and >= 0")
        self.scale = np.where(scales == 0, 1.0, scales)

    @property
    def names(self) -> tuple[str, ...]:
        """The F features' names."""
        return tuple(feature.name for feature in self.features)

    @property
    def width(self) -> int:
        """D, the number of columns in model coordinates."""
        return sum(feature.columns for feature in self.features)

    @property
    def column_features(self) -> np.ndarray:
        """[D] int32, the feature of each column."""
        return np.repeat(np.arange(len(self.features)), [f.columns for f in self.features]).astype(np.int32)

    def _per_feature(self, name: str, given: Any, default: float, least: float, wanted: str) -> np.ndarray:
        if given is None:
            return np.full(len(self.features), default)
        if isinstance(given, Mapping):
            if strange := [key for key in given if key not in self.names]:
                raise unknown_name(name, strange[0], self.names, f"be given for features of {', '.join(self.names)}")
            given = [given.get(own, default) for own in self.names]
        values = np.asarray(given, np.float64)
        if values.shape != (len(self.features),):
            raise BadArgument(name, f"have one number per feature, {len(self.features)}", of_shape(values.shape))
        for feature, value in zip(self.names, values, strict=True):
            if not (np.isfinite(value) and value >= least):
                raise BadArgument(f"{name} of {feature!r}", wanted, value)
        return values
