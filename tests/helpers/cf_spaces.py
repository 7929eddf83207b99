"""Random feature spaces of every kind, and a judge of answers that reads the model's columns as they are.

``FeatureSpace.decode`` snaps numbers onto their range and grid: what it returns looks better than what the network was
shown. :func:`breaches` undoes the scaling in float64 and nothing else, and allows for float32's rounding alone.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax.numpy as jnp
import nets
import numpy as np

import invjax
from invjax.constraints import Feature, FeatureSpace, Relation

KINDS = ("continuous", "integer", "continuous", "category", "ordinal", "continuous", "grid", "category")


class People(NamedTuple):
    """A space, rows that obey it, and a linear classifier of two classes that is about undecided among them."""

    space: FeatureSpace
    table: dict[str, np.ndarray]
    task: nets.Task


def draw(seed: int, count: int, *, related: bool) -> People:
    """One layout (so one program per method); ranges, steps, units, directions, costs, transitions drawn."""
    rng = np.random.default_rng(seed)
    features, center, scale = [], [], []
    for i, kind in enumerate(KINDS):
        name = f"f{i}"
        direction = str(rng.choice(["both", "up", "down", "none"], p=[0.55, 0.15, 0.15, 0.15]))
        cost = float(rng.choice([0.5, 1.0, 3.0]))
        low, size = float(10.0 ** rng.integers(-2, 4) * rng.normal()), float(10.0 ** rng.uniform(-2, 4))
        if kind == "integer":
            low, size = float(rng.integers(-50, 50)), float(rng.integers(3, 3000))
            made = Feature(name, kind, low, low + size, direction=direction, cost=cost)
        elif kind == "ordinal":
            low, size = 0.0, 4.0
            made = Feature(name, kind, levels=tuple("abcde"), direction=direction, cost=cost)
        elif kind == "category":
            barred: Any = {(s, t): None for s, t in itertools.permutations("pqrs", 2) if rng.random() < 0.3}
            direction = "none" if direction == "none" else "both"
            made = Feature(name, kind, levels=tuple("pqrs"), transitions=barred, direction=direction, cost=cost)
        else:
            step = size * float(rng.uniform(0.01, 0.4)) if kind == "grid" else None
            made = Feature(name, lower=low, upper=low + size, step=step, direction=direction, cost=cost)
        features.append(made)
        center.append(low + size * rng.uniform())
        scale.append(size * rng.uniform(0.2, 1.0))
    bare = FeatureSpace(features, (), center, scale)
    table = rows(bare, rng, count)
    relations = []
    if related:  # through the loosest of the rows, so that all of them obey, and some stand at it
        for names in (("f0", "f1"), ("f2", "f6", "f4")):
            sizes = [np.ptp(np.asarray(bare.features[bare.names.index(n)].range)) for n in names]
            terms = {n: float(rng.choice([1.0, -1.0]) / s) for n, s in zip(names, sizes, strict=True)}
            terms = {n: float(f"{c:.3g}") for n, c in terms.items()}
            left = np.sum([c * numbers(bare, table, n) for n, c in terms.items()], axis=0)
            relations.append(Relation(terms, float(left.max() + 1e-9 * np.abs(left).max())))
    space = FeatureSpace(features, relations, center, scale)
    x = space.encode(table)
    w = rng.normal(size=(space.width, 2))
    w[:, 1] = -w[:, 0]
    z = x @ (w[:, 0] - w[:, 1])
    b = np.array([-np.median(z), 0.0]) / 2
    net = invjax.LogitsModel({"w": np.float32(w), "b": np.float32(b - b[::-1])}, nets._linear)
    label = np.asarray(net(jnp.asarray(x))).argmax(1).astype(np.int32)
    return People(space, table, nets.Task(net, x, label, 1 - label))


def rows(space: FeatureSpace, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Rows in range and on the grid, a fifth of the numbers at an end of their range."""
    table: dict[str, np.ndarray] = {}
    for feature in space.features:
        if feature.levelled:
            table[feature.name] = np.array(feature.levels)[rng.integers(0, len(feature.levels), count)]
            continue
        low, high = feature.range
        share = np.where(rng.random(count) < 0.2, rng.integers(0, 2, count), rng.random(count))
        value = low + share * (high - low)
        if feature.grid:
            value = np.clip(low + np.rint((value - low) / feature.grid) * feature.grid, low, high)
        table[feature.name] = value
    return table


def numbers(space: FeatureSpace, table: dict[str, np.ndarray], name: str) -> np.ndarray:
    """[N] float64: raw values, positions of an ordinal feature."""
    feature = space.features[space.names.index(name)]
    if feature.levelled:
        return np.array([feature.levels.index(level) for level in table[name].tolist()], float)
    return np.asarray(table[name], float)


def breaches(space: FeatureSpace, clean: np.ndarray, answer: np.ndarray) -> list[str]:
    """What each row's answer [N, D] breaks, by the columns themselves; "" where nothing. clean [N, D]."""
    said = [""] * len(clean)
    owner = space.column_features
    for n, (x, u) in enumerate(zip(clean, answer, strict=True)):
        raw: dict[str, float] = {}
        slack: dict[str, float] = {}
        moved: set[str] = set()
        for i, feature in enumerate(space.features):
            own, was = u[owner == i], x[owner == i]
            if (own != was).any():
                moved.add(feature.name)
            elif feature.kind == "category":
                continue
            if feature.kind == "category":
                if sorted(own.tolist()) != [0.0] * (len(own) - 1) + [1.0]:
                    said[n] += f"{feature.name} is no level: {own}; "
                    continue
                pair = feature.levels[int(was.argmax())], feature.levels[int(own.argmax())]
                if feature.transitions.get(pair, 1.0) is None or feature.direction == "none":
                    said[n] += f"{feature.name} {pair} is forbidden; "
                continue
            center, scale = space.center[i], space.scale[i]
            value = float(own[0]) * scale + center
            raw[feature.name] = value
            slack[feature.name] = 8 * np.finfo(clean.dtype).eps * (scale * (1 + abs(float(own[0]))) + abs(center))
            if feature.name not in moved:
                continue
            rounding, (low, high) = slack[feature.name], feature.range
            if not low - rounding <= value <= high + rounding:
                said[n] += f"{feature.name} = {value} outside [{low}, {high}]; "
            if feature.grid:
                steps = (value - feature.origin) / feature.grid
                if abs(steps - round(steps)) > rounding / feature.grid + 1e-5:
                    said[n] += f"{feature.name} = {value} off its grid; "
            if feature.direction == "none" or (feature.direction != "both" and
                                               (own[0] > was[0]) != (feature.direction == "up")):  # fmt: skip
                said[n] += f"{feature.name} may not go from {was[0]} to {own[0]} ({feature.direction}); "
        for relation in space.relations:
            if moved & set(relation.coefficients):
                left = sum(c * raw[name] for name, c in relation.coefficients.items())
                rounding = sum(abs(c) * slack[name] for name, c in relation.coefficients.items())
                if left > relation.upper + rounding + 1e-9 * abs(relation.upper):
                    said[n] += f"{relation}: {left} > {relation.upper}; "
    return said


def changes(space: FeatureSpace, clean: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """[N] how many features differ."""
    moved = clean != answer
    return np.stack([moved[:, space.column_features == i].any(1) for i in range(len(space.features))], 1).sum(1)
