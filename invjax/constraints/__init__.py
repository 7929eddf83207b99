"""What a person may change: features with ranges, grids, directions and levels, relations, and their exact maps.

    space = FeatureSpace([Feature("age", "integer", 18, direction="up"), Feature("work", "category", levels=LEVELS)])
    x = space.encode(table)                             # [N, D] model coordinates
    result = invjax.solve(logits, x, label, space=space, method=...)
    space.violations(table, space.decode(result.x, table))

``actions(constraints, problem)`` gives a method the maps of its row: proximal map, projection, snapping, cost.
"""

from __future__ import annotations

from invjax.constraints.actions import SpaceRow, actions
from invjax.constraints.compiled import Constraints
from invjax.constraints.features import Feature, Relation
from invjax.constraints.plain import PlainRow
from invjax.constraints.space import FeatureSpace
from invjax.core.meant import suggest_names

__all__ = ["Constraints", "Feature", "FeatureSpace", "PlainRow", "Relation", "SpaceRow", "actions"]

suggest_names(__name__)
