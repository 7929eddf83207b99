"""What one feature may become, and linear relations between features: declarations in raw units."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from invjax.constraints.notation import Notation
from invjax.core.errors import BadArgument, Words, check_choice, exactly
from invjax.core.meant import explained
from invjax.core.shown import short_repr
from invjax.core.text import as_text

Kind = Literal["continuous", "integer", "ordinal", "category"]
Direction = Literal["both", "up", "down", "none"]
Level = str | int | float | bool


@explained
@dataclasses.dataclass(frozen=True)
class Feature:
    """One feature of a table, in raw units.

    * ``"continuous"``: any number in [lower, upper]; with ``step`` only ``origin + k step``.
    * ``"integer"``: ``origin + k step`` with a whole origin and a whole step (1 by default).
    * ``"ordinal"``: ``levels`` in their order; one step is one level. A relation sees the position 0, 1, …
    * ``"category"``: ``levels`` without an order; each is a 0/1 column in model coordinates.

    The origin of a grid is ``lower``, or 0 where ``lower`` is infinite.

    Args:
      name: the column of the table.
      kind: one of the above.
      lower, upper: the range, raw units; of an ordinal feature, positions in ``levels``. A category has none.
      step: the distance of grid points, > 0, raw units. Ordinal features and categories have none.
      levels: the values of an ordinal feature or a category, at least one, all different.
      direction: ``"both"``, ``"up"`` (may only grow), ``"down"`` or ``"none"`` (immutable). A category takes only
        ``"both"`` or ``"none"``.
      cost: the weight of this feature in every penalty, > 0.
      transitions: costs of the switches of a category, ``{(from, to): cost}``; None forbids a switch, and a switch
        that is not named costs 1.
      notation: how a file writes its numbers (:class:`invjax.constraints.notation.Notation`); None: as Python does.

    Raises BadArgument naming the feature and the field.
    """

    name: str
    kind: Kind = "continuous"
    lower: float = -math.inf
    upper: float = math.inf
    step: float | None = None
    levels: tuple[Level, ...] = ()
    direction: Direction = "both"
    cost: float = 1.0
    transitions: Mapping[tuple[Level, Level], float | None] = dataclasses.field(default_factory=dict)
    notation: Notation | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(_plain(level) for level in self.levels))
        object.__setattr__(self, "transitions", _transitions(self))
        self._need(isinstance(self.name, str) and self.name != "", "name", "a non-empty string")
        check_choice(f"feature {self.name!r}: kind", self.kind, get_args(Kind))
        check_choice(f"feature {self.name!r}: direction", self.direction, get_args(Direction))
        self._need(_number(self.cost) and 0 < self.cost < math.inf, "cost", "a finite number > 0")
        for side in ("lower", "upper"):
            value = getattr(self, side)
            self._need(_number(value) and not math.isnan(value), side, "a number")
            object.__setattr__(self, side, float(value))
        self._need(self.step is None or (_number(self.step) and 0 < self.step < math.inf), "step", "None or > 0")
        if self.levelled:
            self._check_levels()
        else:
            self._need(not self.levels, "levels", f"empty for a feature of kind {self.kind!r}")
        self._need(self.notation is None or not self.levelled, "notation", "None for a feature with levels")
        if self.kind == "integer":
            for field, value in (("lower", self.lower), ("step", float(self.step or 1))):
                self._need(math.isinf(value) or value.is_integer(), field, "whole for an integer feature")
        if self.kind != "category":
            self._need(self.lower <= self.upper, "lower", f"at most upper, which is {self.upper}")
        low, high = self.range
        if low > high:
            within = f"give a grid point in [{self.lower}, {self.upper}]"
            raise BadArgument(f"feature {self.name!r}: step", within, self.grid)

    @property
    def levelled(self) -> bool:
        """Whether its raw values are levels, not numbers."""
        return self.kind in ("ordinal", "category")

    @property
    def columns(self) -> int:
        """How many columns it has in model coordinates."""
        return len(self.levels) if self.kind == "category" else 1

    @property
    def grid(self) -> float:
        """The distance of its grid points, in raw units (in levels); 0 without a grid."""
        return 1.0 if self.levelled else float(self.step or (1.0 if self.kind == "integer" else 0.0))

    @property
    def origin(self) -> float:
        """One of its grid points, raw units."""
        return self.lower if math.isfinite(self.lower) and not self.levelled else 0.0

    @property
    def range(self) -> tuple[float, float]:
        """Its least and its largest admissible value, on the grid where it has one; of levels, positions."""
        low, high = self.lower, self.upper
        if self.levelled:
            low, high = max(low, 0.0), min(high, len(self.levels) - 1.0)
        if not self.grid:
            return low, high
        slack = 1e-9  # 0.3 is the third point of step 0.1
        least, most = (low - self.origin) / self.grid, (high - self.origin) / self.grid
        return (
            low if math.isinf(low) else self.origin + math.ceil(least - slack * (1 + abs(least))) * self.grid,
            high if math.isinf(high) else self.origin + math.floor(most + slack * (1 + abs(most))) * self.grid,
        )

    def describe(self) -> str:
        """Its range in words: ``"[0, 5] in steps of 0.5"``."""
        if self.levelled:
            return f"one of {', '.join(map(as_text, self.levels))}"
        low, high = (exactly(side) if self.notation is None else self.shown(side) for side in (self.lower, self.upper))
        return f"[{low}, {high}]" + (f" in steps of {exactly(self.grid)}" if self.grid else "")

    def shown(self, cell: Any) -> Any:
        """A cell as the file of the table writes it; cells that are no finite numbers stay as they are."""
        if self.notation is None or not _number(cell) or not math.isfinite(cell):
            return cell
        return self.notation.write(float(cell))

    def _check_levels(self) -> None:
        self._need(len(self.levels) > 0, "levels", "at least one level")
        self._need(len(set(self.levels)) == len(self.levels), "levels", "all different")
        self._need(len({str(level) for level in self.levels}) == len(self.levels), "levels", "different as text too")
        self._need(self.step is None, "step", "None for a feature with levels")
        if self.kind == "category":
            self._need(self.direction in ("both", "none"), "direction", "'both' or 'none' for a category")
            self._need(math.isinf(self.lower) and math.isinf(self.upper), "lower", "left out (as upper) for a category")

    def _need(self, ok: bool, field: str, what: str) -> None:
        if not ok:
            raise BadArgument(f"feature {self.name!r}: {field}", f"be {what}", getattr(self, field))


@explained
@dataclasses.dataclass(frozen=True)
class Relation:
    """``Σ_i coefficients[i] · raw_i <= upper`` between features by name, in raw units; not all coefficients are 0."""

    coefficients: Mapping[str, float]
    upper: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.coefficients, Mapping):
            raise BadArgument("Relation.coefficients", "be {name: number}", self.coefficients)
        given = {f"coefficients[{name!r}]": value for name, value in self.coefficients.items()} | {"upper": self.upper}
        for field, value in given.items():
            if not _number(value) or not math.isfinite(value):
                raise BadArgument(f"Relation.{field}", "be a finite number", value)
        if not any(self.coefficients.values()):
            raise BadArgument("Relation.coefficients", "hold a number other than 0", dict(self.coefficients))
        used = {str(name): float(value) for name, value in self.coefficients.items() if value}
        object.__setattr__(self, "coefficients", used)
        object.__setattr__(self, "upper", float(self.upper))

    @classmethod
    def at_most(cls, small: str, large: str) -> Relation:
        """``small <= large``."""
        if small == large:
            raise BadArgument("Relation.at_most", "be given two different features", Words(f"{small!r} twice"))
        return cls({small: 1.0, large: -1.0})

    def __str__(self) -> str:
        if self.upper == 0 and sorted(self.coefficients.values()) == [-1.0, 1.0]:
            (small,) = (name for name, value in self.coefficients.items() if value > 0)
            (large,) = (name for name, value in self.coefficients.items() if value < 0)
            return f"{small} <= {large}"
        terms = " + ".join(f"{value:g} {name}" for name, value in self.coefficients.items())
        return f"{terms.replace('+ -', '- ')} <= {self.upper:g}"


def _number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, str)


def _plain(level: Any) -> Level:
    """A level as a Python value, which equals its NumPy scalar: JSON knows no other."""
    return level.item() if hasattr(level, "item") else level


def _transitions(feature: Feature) -> dict[tuple[Level, Level], float | None]:
    feature._need(isinstance(feature.transitions, Mapping), "transitions", "{(from, to): cost}")
    if feature.kind != "category":
        feature._need(not feature.transitions, "transitions", f"empty for a feature of kind {feature.kind!r}")
    checked: dict[tuple[Level, Level], float | None] = {}
    for pair, cost in feature.transitions.items():
        what = f"feature {feature.name!r}: transition {pair!r}"
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise BadArgument(what, "be a pair (from, to) of levels")
        old, new = _plain(pair[0]), _plain(pair[1])
        for level in (old, new):
            if level not in feature.levels:
                raise BadArgument(what, f"be between levels, {feature.describe()}", level)
        if old == new:
            raise BadArgument(what, "be between two different levels")
        if cost is not None and not (_number(cost) and 0 <= cost < math.inf):
            raise BadArgument(what, "cost a finite number >= 0, or None to forbid it", cost)
        checked[old, new] = None if cost is None else float(cost)
    return checked
