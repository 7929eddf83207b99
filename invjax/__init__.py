"""invjax: inverse classification in JAX.

Given a trained classifier and an input, find the smallest change that makes the classifier say something else:
adversarial attacks, counterfactual explanations and learning from them, one mathematics and one engine.
"""

import importlib
import typing

import invjax.core.interrupts as _interrupts  # noqa: F401 -- first: what follows takes seconds
from invjax import attacks
from invjax.core import meant
from invjax.core.errors import BadArgument
from invjax.core.logits import LogitsModel, as_logits
from invjax.engine import install_canonical_convolutions, open_run, run_batch, run_queue, solve, trace, white_box
from invjax.solvers import minimize
from invjax.types import (
    UNTARGETED,
    Bounds,
    Context,
    Density,
    Eval,
    Evaluator,
    LogitsFn,
    Method,
    Outcome,
    Problem,
    Result,
    Status,
)  # fmt: skip

if typing.TYPE_CHECKING:
    from invjax import attribution as attribution
    from invjax import campaign as campaign
    from invjax import constraints as constraints
    from invjax import counterfactuals as counterfactuals
    from invjax import data as data
    from invjax import densities as densities
    from invjax import engine as engine
    from invjax import learn as learn
    from invjax import losses as losses
    from invjax import metrics as metrics
    from invjax import models as models
    from invjax import penalties as penalties
    from invjax import projections as projections
    from invjax import prox as prox
    from invjax import recourse as recourse
    from invjax import report as report
    from invjax import solvers as solvers
    from invjax import types as types
    from invjax import viz as viz

__all__ = [
    "UNTARGETED", "BadArgument", "Bounds", "Context", "Density", "Eval", "Evaluator", "LogitsFn", "LogitsModel",
    "Method", "Outcome", "Problem", "Result", "Status", "as_logits", "attacks", "install_canonical_convolutions",
    "minimize", "open_run", "run_batch", "run_queue", "solve", "trace", "white_box",
]  # fmt: skip
__version__ = "0.1.0"

_PARTS = (
    "attacks", "attribution", "campaign", "constraints", "counterfactuals", "data", "densities", "engine", "learn",
    "losses", "metrics", "models", "penalties", "projections", "prox", "recourse", "report", "solvers", "types", "viz",
)  # fmt: skip


if not typing.TYPE_CHECKING:  # a checker of types would take every name for one

    def __getattr__(name: str) -> typing.Any:
        """The parts that ``import invjax`` leaves out, loaded when they are first asked for."""
        if name in _PARTS:
            return importlib.import_module(f"invjax.{name}")
        place = meant.place_of(name, __path__[0], _PARTS)
        raise meant.no_attribute(__name__, name, place and f"it is invjax.{place}.{name}")


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__, *_PARTS})
