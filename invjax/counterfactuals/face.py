"""FACE: a feasible and actionable path through the data to the target class.

    G = (training rows; an edge where two are near and the change is allowed),   w_ij = f((x_i + x_j) / 2) ‖x_i - x_j‖
    x' = argmin over rows j with P(t | x_j) >= t_p and log p(x_j) >= t_d of the length of the shortest path x -> j   (1)

Source: Poyiadzi, Sokol, Santos-Rodriguez, De Bie, Flach 2020, "FACE: Feasible and Actionable Counterfactual
Explanations". f falls with the density. The paper's -log p is negative where p > 1, and a path could then shrink by
going on; here ``f = 1 + max_ij log p_ij - log p_ij``, so that the densest edge counts its length and sparser ones more.
All rows are nodes (no subsample), the end is the shortest path by length, not by hops, and the constraints forbid edges
rather than reject answers: every step of a path, and the whole of it, is an allowed change.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree  # type: ignore[attr-defined]

from invjax import losses
from invjax.core.errors import BadArgument, Words, of_shape
from invjax.core.logits import as_logits_fn
from invjax.core.numerics import at_least_float32
from invjax.densities import fit_kde
from invjax.densities.common import evaluate, log_prob_of
from invjax.engine import checks
from invjax.types import ArrayLike, Bounds, HeldOut, Problem, Result, Status


class Paths(NamedTuple):
    """The answers of :func:`face`."""

    result: Result  # [N]
    path: list[np.ndarray]  # N arrays of rows of train_x, from the first step to the answer; empty where none
    length: np.ndarray  # [N] of the path as (1) weighs it; infinity where none


@jax.jit
def _logits(network: Any, x: Any) -> Any:
    return at_least_float32(network(x))


@jax.jit
def _allowed(constraints: Any, x: Any, u: Any) -> Any:
    return jax.vmap(constraints.satisfied)(x, u)


@jax.jit
def _permitted(constraints: Any, x: Any) -> Any:
    return jax.vmap(constraints.permits)(x)


def _in_chunks(function: Any, first: Any, *rows: Any, chunk: int = 4096) -> np.ndarray:
    """``function(first, *rows)`` over [n, ...] rows, at one compiled shape."""
    parts = []
    for begin in range(0, len(rows[0]), chunk):
        part = [row[begin : begin + chunk] for row in rows]
        wide = chunk if len(rows[0]) > chunk else 1 << (len(part[0]) - 1).bit_length()
        filled = [np.concatenate([p, np.repeat(p[:1], wide - len(p), 0)]) for p in part]
        parts.append(np.asarray(function(first, *filled))[: len(part[0])])
    return np.concatenate(parts)


class Edges(NamedTuple):
    """Directed: from a node to a row of the training data."""

    start: np.ndarray  # [E] int
    end: np.ndarray  # [E] int
    distance: np.ndarray  # [E] > 0


def near(nodes: np.ndarray, rows: np.ndarray, graph: str, neighbours: int, epsilon: float | None) -> Edges:
    """Edges from ``nodes`` [n, D] to their nearest ``rows`` [M, D], without those of length 0.

    graph: "knn", the ``neighbours`` nearest others; "epsilon", all within ``epsilon``.
    """
    tree = cKDTree(rows)
    if graph == "epsilon":
        lists = tree.query_ball_point(nodes, float(epsilon or 0.0))
        start = np.repeat(np.arange(len(nodes)), [len(one) for one in lists])
        end = np.fromiter((j for one in lists for j in one), int, len(start))
    else:
        # One more: a node of the data finds itself. Copies of it take places too, which only makes the graph sparser.
        _, found = tree.query(nodes, k=min(neighbours + 1, len(rows)))
        found = np.asarray(found).reshape(len(nodes), -1)
        start, end = np.repeat(np.arange(len(nodes)), found.shape[1]), found.reshape(-1)
    distance = np.linalg.norm(nodes[start] - rows[end], axis=1)
    apart = distance > 0
    start, end, distance = start[apart], end[apart], distance[apart]
    if graph == "knn":
        rank = np.arange(len(start)) - np.searchsorted(start, start)  # start is sorted, and so is each node's list
        kept = rank < neighbours
        start, end, distance = start[kept], end[kept], distance[kept]
    return Edges(start, end, distance)


def shortest(edges: Edges, weight: np.ndarray, sources: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and predecessors [n, count] of the shortest paths from each of ``sources``, by Dijkstra."""
    matrix = coo_matrix((weight, (edges.start, edges.end)), shape=(count, count)).tocsr()
    lengths, before = dijkstra(matrix, directed=True, indices=sources, return_predecessors=True)
    return np.atleast_2d(lengths), np.atleast_2d(before)


def face(
    model: Any,
    x: ArrayLike,
    label: ArrayLike,
    target: ArrayLike,
    *,
    train_x: ArrayLike,
    train_y: ArrayLike,
    space: Any = None,
    bounds: Bounds | tuple[ArrayLike, ArrayLike] | None = None,
    density: Any = None,
    graph: str = "knn",
    neighbours: int = 20,
    epsilon: float | None = None,
    weight: str = "density",
    probability: float = 0.5,
    alpha: float = 0.25,
    kappa: float = 0.0,
) -> Paths:
    """Counterfactuals that are real rows, reached through dense regions: formula (1) of the module.

    Args:
      model: logits [B, D] -> [B, K]; only called, so a black box will do.
      x: [N, D] rows in model coordinates, or [D] with a scalar ``label``. label, target: [N] int.
      train_x, train_y: [M, D] rows and their classes [M]: the nodes, and what the density is fitted to.
      space: what each feature may become: an edge that changes it otherwise is forbidden, and so is an end that is no
        allowed change of x. Or bounds: the box of x, [0, 1] by default; rows outside it are no ends.
      density: with ``log_prob(x, label)``; None: :func:`invjax.densities.fit_kde` of the rows. An edge into class t is
        weighed by the density of ALL rows, the classes by their frequency.
      graph, neighbours, epsilon: see :func:`near`. x itself is joined to its nearest rows likewise.
      weight: "density", w_ij of (1), or "distance", f = 1.
      probability: t_p, in (0, 1). Also asked: the target wins with the margin kappa (logit units, >= 0).
      alpha: t_d is the α-quantile of log p(x_j | t) over the target's rows, in [0, 1).

    Returns:
      Paths. ``result.forwards`` is 1: the rows are classified once for all. NOT_FOUND: no path; INFEASIBLE: x
      breaks its own schema.

    Raises:
      ValueError: an argument.
    """
    for name, value, good, what in (
        ("graph", graph, graph in ("knn", "epsilon"), "'knn' or 'epsilon'"),
        ("weight", weight, weight in ("density", "distance"), "'density' or 'distance'"),
        ("neighbours", neighbours, neighbours >= 1, "at least 1"),
        ("epsilon", epsilon, graph == "knn" or (epsilon is not None and epsilon > 0), "a radius > 0"),
        ("probability", probability, 0 < probability < 1, "in (0, 1)"),
        ("alpha", alpha, 0 <= alpha < 1, "in [0, 1)"),
        ("kappa", kappa, kappa >= 0, "a margin >= 0"),
    ):
        if not good:
            raise BadArgument(name, f"be {what}", value)
    if target is None:
        raise BadArgument("target", "be the wanted class of each row", Words("None"))
    network = as_logits_fn(model)
    problems, single = checks.make_problems(network, x, label, target=target, bounds=bounds, space=space)
    problems = jax.tree.map(np.asarray, problems)
    rows, classes = np.asarray(train_x, problems.x.dtype), np.asarray(train_y)
    if rows.ndim != 2 or rows.shape[1:] != problems.x.shape[1:] or not np.isfinite(rows).all():
        raise BadArgument("train_x", f"be finite rows [M, {problems.x.shape[1]}]", of_shape(rows.shape))
    density = fit_kde(rows, classes) if density is None else density
    if classes.shape != (len(rows),):
        raise BadArgument("train_y", "have one class per row of train_x", of_shape(classes.shape))
    answer = _search(
        network, problems, rows, classes.astype(np.int32), space, density, graph, neighbours, epsilon, weight,
        (probability, alpha, kappa),
    )  # fmt: skip
    if single:
        return Paths(answer.result.rows(0), answer.path, answer.length)
    return answer


def _search(
    network: Any, problems: Problem, rows: np.ndarray, classes: np.ndarray, space: Any, density: Any, graph: str,
    neighbours: int, epsilon: float | None, weight: str, thresholds: tuple[float, float, float],
) -> Paths:  # fmt: skip
    probability, alpha, kappa = thresholds
    count, known = len(problems.x), len(rows)
    constraints = None if space is None else checks.compile_space(space, rows.dtype)

    # Nodes: the training rows, then the N factuals, which nothing leads to.
    nodes = np.concatenate([rows, problems.x])
    edges = near(nodes, rows, graph, neighbours, epsilon)
    inner = edges.start < known
    back = Edges(edges.end[inner], edges.start[inner], edges.distance[inner])  # a neighbour either way is an edge
    edges = Edges(*(np.concatenate(pair) for pair in zip(edges, back, strict=True)))
    _, once = np.unique(edges.start * known + edges.end, return_index=True)  # coo_matrix would add copies up
    edges = Edges(*(part[once] for part in edges))
    if constraints is not None and len(edges.start):
        allowed = _in_chunks(_allowed, constraints, nodes[edges.start], rows[edges.end])
        edges = Edges(*(part[allowed] for part in edges))
    cost = edges.distance
    if weight == "density" and len(cost):
        middle = ((nodes[edges.start] + rows[edges.end]) / 2).astype(rows.dtype)
        log_p = _mixture(density, middle, classes)
        cost = cost * (1 + log_p.max() - log_p)

    own = np.asarray(_in_chunks(_logits, network, rows), np.float64)
    clean = np.asarray(_in_chunks(_logits, network, problems.x))
    dense = {}
    for t in np.unique(problems.target):
        members = classes == t
        values = evaluate(log_prob_of, density, rows, np.full(known, t, np.int32))
        if isinstance(density, HeldOut):  # a row is no witness of its own density
            values = np.where(members, density.held_out_log_prob(rows, classes), values)
        dense[int(t)] = values >= np.quantile(values[members], alpha) if members.any() else np.zeros(known, bool)

    found, status = problems.x.copy(), np.full(count, Status.NOT_FOUND, np.int32)
    lengths, paths = np.full(count, np.inf), [np.empty(0, int) for _ in range(count)]
    permitted = np.ones(count, bool) if constraints is None else _in_chunks(_permitted, constraints, problems.x)
    for n in range(count):
        t, y = int(problems.target[n]), int(problems.label[n])
        if not permitted[n] or np.isnan(clean[n]).any():
            status[n] = Status.INFEASIBLE if not permitted[n] else Status.NONFINITE
            continue
        if bool(losses.reached(jnp.asarray(clean[n]), y, t)):
            status[n] = Status.ALREADY_TARGET
            continue
        others = np.where(np.arange(own.shape[1]) == t, -np.inf, own)
        log_odds = own[:, t] - np.logaddexp.reduce(others, axis=1)
        wins = (own[:, t] - others.max(1) > kappa) & (log_odds >= np.log(probability / (1 - probability)))
        ends = wins & dense[t] & ((rows >= problems.lower[n]) & (rows <= problems.upper[n])).all(1)
        if constraints is not None and ends.any():
            among = np.flatnonzero(ends)
            ends[among] = _in_chunks(_allowed, constraints, np.repeat(problems.x[n][None], len(among), 0), rows[among])
        if not ends.any():
            continue
        length, before = (a[0] for a in shortest(edges, cost, np.array([known + n]), known + count))
        reach = np.where(ends, length[:known], np.inf)
        end = int(np.argmin(reach))
        if not np.isfinite(reach[end]):
            continue
        found[n], status[n], lengths[n] = rows[end], Status.FOUND, reach[end]
        path = [end]
        while before[path[-1]] != known + n:
            path.append(int(before[path[-1]]))
        paths[n] = np.array(path[::-1])
    zeros = np.zeros(count, np.int32)
    return Paths(Result(found, found - problems.x, status, zeros, zeros + 1, found.copy()), paths, lengths)


def _mixture(density: Any, x: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """log Σ_k (share of k) p(x_i | k), [n]: the density of all rows."""
    parts = []
    for k, number in enumerate(np.bincount(classes)):
        if number:
            values = evaluate(log_prob_of, density, x, np.full(len(x), k, np.int32))
            parts.append(np.asarray(values, np.float64) + np.log(number / len(classes)))
    return np.logaddexp.reduce(np.stack(parts), axis=0)
