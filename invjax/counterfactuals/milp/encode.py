"""The ReLU network as rows of a mixed-integer program, and the tightening of its bounds.

A hidden neuron with l <= z <= u, l < 0 < u, and y = max(0, z) is, with a binary a,

    y >= z,    y >= 0,    y <= z - l (1 - a),    y <= u a                                                          (1)

(Tjeng, Xiao, Tedrake 2019); a neuron of one sign needs no binary: y = z or y = 0. With 0 <= a <= 1 real, (1) is the
triangle relaxation, whose linear programs tighten l and u neuron by neuron.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from invjax.counterfactuals.milp.domain import Domain, place
from invjax.counterfactuals.milp.network import Box, Layers, interval, pieces
from invjax.counterfactuals.milp.program import TOLERANCE, Program
from invjax.types import UNTARGETED


class Encoded(NamedTuple):
    """Where the network stands in a program."""

    logits: np.ndarray  # [K] variables
    active: list[np.ndarray]  # of each hidden layer the binaries' variables [out]; -1: the sign is known
    margin: np.ndarray  # the rows that ask for the margin, `logit - other >= kappa` each


def hidden(program: Program, entering: np.ndarray, layer: tuple[np.ndarray, np.ndarray], box: Box) -> tuple:
    """One hidden layer by (1): (variables of y [out], of the binaries [out], -1 where there is none)."""
    weight, bias = layer
    y = program.variables(np.maximum(box.lower, 0.0), np.maximum(box.upper, 0.0))
    binary = np.full(len(y), -1)
    on, unsure = np.flatnonzero(box.lower >= 0), np.flatnonzero((box.lower < 0) & (box.upper > 0))
    program.rows([(y[on], 1.0), (entering, -weight[:, on].T)], bias[on], bias[on])
    if unsure.size:
        low, high, rows, at = box.lower[unsure], box.upper[unsure], weight[:, unsure].T, bias[unsure]
        binary[unsure] = a = program.variables(np.zeros(unsure.size), 1.0, whole=True)
        program.rows([(y[unsure], 1.0), (entering, -rows)], lower=at)
        program.rows([(y[unsure], 1.0), (entering, -rows), (a, -low)], upper=at - low)
        program.rows([(y[unsure], 1.0), (a, -high)], upper=0.0)
    return y, binary


def encode(
    program: Program, x: np.ndarray, layers: Layers, boxes: list[Box], label: int, target: int, kappa: float
) -> Encoded:
    """Write the network and its wanted answer into the program; x: the variables of the input [D]."""
    entering, active = x, []
    for layer, box in zip(layers[:-1], boxes[:-1], strict=True):
        entering, binary = hidden(program, entering, layer, box)
        active.append(binary)
    weight, bias = layers[-1]
    logits = program.variables(*_loose(boxes[-1]))
    program.rows([(logits, 1.0), (entering, -weight.T)], bias, bias)
    return Encoded(logits, active, ask_margin(program, logits, boxes[-1], label, target, kappa))


def ask_margin(program: Program, logits: np.ndarray, box: Box, label: int, target: int, kappa: float) -> np.ndarray:
    """The rows of ``logit_target - other >= kappa`` for all others; untargeted: some other class beats the label."""
    if target != UNTARGETED:
        others = np.delete(logits, target)
        return program.rows([(np.repeat(logits[target], len(others)), 1.0), (others, -1.0)], lower=kappa)
    keep = np.arange(len(logits)) != label
    others = logits[keep]
    chosen = program.variables(np.zeros(len(others)), 1.0, whole=True)
    program.total(chosen, 1.0, 1.0, 1.0)
    low, high = _loose(box)
    least = low[keep] - high[label]  # what the difference is at the least
    slack = np.maximum(kappa - least, 0.0)
    terms = [(others, 1.0), (np.repeat(logits[label], len(others)), -1.0), (chosen, -slack)]
    return program.rows(terms, lower=kappa - slack)


def tightened(
    layers: Layers, domain: Domain, method: str = "lp", until: float = np.inf, exact: float = np.inf, **placed: object
) -> list[Box]:
    """Bounds of every layer's z over the domain: intervals, then a program per neuron of either sign.

    method: "ibp" intervals alone; "lp" the triangle relaxation; "milp" the layers before exactly. until, exact: the
    times of ``time.monotonic`` after which intervals stay as they are, and after which programs are relaxed. placed: of
    :func:`invjax.counterfactuals.milp.domain.place`: an objective with a limit (`most`), which cuts off all that is
    worse than an answer already known.
    """
    boxes = interval(layers, domain.lower, domain.upper)
    if method == "ibp" or len(layers) == 1:
        return boxes
    program = Program()
    entering = place(program, domain, **placed)  # type: ignore[arg-type]
    # The first layer's intervals are exact over a box; other rules of the domain make a program worth its time.
    plain = not len(domain.limit) and not domain.category.any() and not placed
    for depth, (weight, bias) in enumerate(layers):
        last = depth == len(layers) - 1
        refined = _refine(boxes[depth], interval(layers[depth:], *_range(program, entering))[0])
        if depth or not plain:
            unsure = np.flatnonzero((refined.lower < 0) & (refined.upper > 0)) if not last else np.arange(len(bias))
            # Looser by the solver's own tolerance, of the numbers that it adds up: a bound must hold.
            room = TOLERANCE * (np.maximum(*np.abs(_range(program, entering))) @ np.abs(weight) + np.abs(bias))
            for neuron in unsure:
                for side, sign in ((refined.lower, 1.0), (refined.upper, -1.0)):
                    cost = dict(zip(entering.tolist(), (sign * weight[:, neuron]).tolist(), strict=True))
                    whole = method == "milp" and depth > 0 and time.monotonic() < exact
                    found = program.solve(cost=cost, relaxed=not whole, until=min(exact, until) if whole else until)
                    if found.status == "infeasible":
                        continue  # the whole program will say so
                    if np.isfinite(found.bound):
                        limit = sign * found.bound + bias[neuron] - sign * room[neuron]
                        side[neuron] = max(side[neuron], limit) if sign > 0 else min(side[neuron], limit)
        boxes[depth] = refined
        if not last:
            entering, _ = hidden(program, entering, (weight, bias), refined)
    return boxes


def _loose(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The sides of a box, looser by the solver's tolerance."""
    room = TOLERANCE * np.maximum(np.abs(box.lower), np.abs(box.upper))
    return box.lower - room, box.upper + room


def _range(program: Program, variables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = np.concatenate(program.lower), np.concatenate(program.upper)
    return lower[variables], upper[variables]


def _refine(first: Box, second: Box) -> Box:
    return Box(np.maximum(first.lower, second.lower), np.minimum(first.upper, second.upper))


def inside_piece(
    program: Program, x: np.ndarray, layers: Layers, pattern: list[np.ndarray], domain: Domain,
    label: int, target: int, kappa: float,
) -> np.ndarray:  # fmt: skip
    """Keep x in the polytope of an activation pattern, where the network is affine, and ask for the margin there.

    No binary of (1) is left. Returns the margin's rows.
    """
    affine = pieces(layers, pattern)
    for (matrix, shift), on in zip(affine[:-1], pattern, strict=True):
        sign = np.where(on, 1.0, -1.0)
        program.rows([(x, (sign * matrix).T)], lower=-sign * shift)
    matrix, shift = affine[-1]
    box = interval([(matrix, shift)], domain.lower, domain.upper)[0]
    logits = program.variables(*_loose(box))
    program.rows([(logits, 1.0), (x, -matrix.T)], shift, shift)
    return ask_margin(program, logits, box, label, target, kappa)
