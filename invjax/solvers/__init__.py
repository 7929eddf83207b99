"""The steps methods are made of, and a plain ``minimize``.

Every solver is a :class:`Solver` of pure functions of one example (``init, ask, propose, accept, tell``) on the one
:class:`State`; the gradient comes from outside.
"""

from __future__ import annotations

from invjax.core.meant import suggest_names
from invjax.solvers import linesearch, momentum
from invjax.solvers.minimize import Proximable, Solution, minimize
from invjax.solvers.momentum import Prox, Restart, Solver, State, averaging, extrapolation, look_ahead, next_beta
from invjax.solvers.nesterov import gd, nag, pnag
from invjax.solvers.proximal import fista, forward_backward, gradient_mapping, identity, prox_grad

__all__ = [
    "Prox",
    "Proximable",
    "Restart",
    "Solution",
    "Solver",
    "State",
    "averaging",
    "extrapolation",
    "fista",
    "forward_backward",
    "gd",
    "gradient_mapping",
    "identity",
    "linesearch",
    "look_ahead",
    "minimize",
    "momentum",
    "nag",
    "next_beta",
    "pnag",
    "prox_grad",
]

suggest_names(__name__)
