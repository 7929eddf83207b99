"""invjax: inverse classification in JAX.

Given a trained classifier and an input, find the smallest change that makes the classifier say something else:
adversarial attacks, counterfactual explanations and learning from them, one mathematics and one engine.
"""

import invjax.core.interrupts as _interrupts  # noqa: F401 -- first: what follows takes seconds
from invjax import attacks
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

__all__ = [
    "UNTARGETED", "BadArgument", "Bounds", "Context", "Density", "Eval", "Evaluator", "LogitsFn", "LogitsModel",
    "Method", "Outcome", "Problem", "Result", "Status", "as_logits", "attacks", "install_canonical_convolutions",
    "minimize", "open_run", "run_batch", "run_queue", "solve", "trace", "white_box",
]  # fmt: skip
__version__ = "0.1.0"
