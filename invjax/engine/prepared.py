"""The checked and normalised arguments of a run."""

from __future__ import annotations

from typing import NamedTuple

from invjax.core.shown import short_repr
from invjax.engine import checks
from invjax.types import Array, Config, Context, Method, Problem


class Prepared(NamedTuple):
    """Checked and normalised arguments of an executor: ``run_batch(*prepared.batch(), method=prepared.method)``."""

    ctx: Context
    problems: Problem  # leaves [N, ...]; ``key`` None
    config: Config
    method: Method
    key: Array  # []
    single: bool  # one example was given, without the axis [N]

    __repr__ = short_repr

    def batch(self) -> tuple[Context, Problem, Config]:
        """What :func:`run_batch` takes: each problem with its own key."""
        return self.ctx, checks.with_keys(self.problems, self.key), self.config
