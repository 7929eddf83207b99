"""FACE: a feasible and actionable path through the data to the target class.

    G = (training rows; an edge where two are near and the change is allowed),   w_ij = f((x_i + x_j) / 2) ‖x_i - x_j‖
    x' = argmin over rows j that have the target and log p(x_j) >= t_d of the length of the shortest path x -> j   (1)

Source: Poyiadzi, Sokol, Santos-Rodriguez, De Bie, Flach 2020, "FACE: Feasible and Actionable Counterfactual
Explanations". f falls with the density. The paper's -log p is negative where p > 1, and a longer path could then weigh
less. Here ``f = 1 + max_ij log p_ij - log p_ij``, so that the densest edge counts its length and sparser ones more. All
rows are nodes (no subsample), and the shortest path is that of least length, not of fewest hops. The constraints forbid
edges rather than reject answers: every step of a path, and the whole of it, is an allowed change.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree  # type: ignore[attr-defined]

from invjax.core.arguments import kinds_checked
from invjax.core.config import refuse_old_names
from invjax.core.density import check_density
from invjax.core.errors import BadArgument, check_choice, check_number, check_whole, of_shape
from invjax.core.host import own_work
from invjax.core.labels import check_indices
from invjax.core.logits import num_classes
from invjax.core.numerics import at_least_float32
from invjax.core.rows import map_rows
from invjax.core.shown import short_repr
from invjax.counterfactuals.parts.query import CHUNK, Query, check_rows_of_targets, make_query
from invjax.densities import fit_kde
from invjax.densities.common import evaluate, log_prob_of
from invjax.types import Array, ArrayLike, Bounds, Density, HeldOut, LogitsFn, Result, Status

Graph = Literal["knn", "epsilon"]
Weight = Literal["density", "distance"]


class Paths(NamedTuple):
    """The answers of :func:`face`."""

    result: Result  # [N]
    path: list[np.ndarray]  # N arrays of rows of train_x, from the first step to the answer; empty where there is none
    length: np.ndarray  # [N] of the path as (1) weighs it; infinity where there is none

    __repr__ = short_repr


def _logits(network: LogitsFn, x: Array) -> Array:
    return at_least_float32(network(x))


def _satisfied(constraints: Any, x: Array, u: Array) -> Array:
    return constraints.satisfied(x, u)


def _allowed(query: Query, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """[n] bool: each row of u is an allowed change of that of x."""
    if query.ctx.constraints is None or not len(x):
        return np.ones(len(x), bool)
    return map_rows(_satisfied, query.ctx.constraints, x, u, batch=CHUNK, each=True, few_shapes=True)


class Edges(NamedTuple):
    """Directed: from a node to a row of the training data."""

    start: np.ndarray  # [E] int
    end: np.ndarray  # [E] int
    distance: np.ndarray  # [E] > 0


def near(nodes: np.ndarray, rows: np.ndarray, graph: Graph, neighbours: int, eps: float | None) -> Edges:
    """Edges from ``nodes`` [n, D] to their nearest ``rows`` [M, D], without those of length 0.

    graph: "knn", the ``neighbours`` nearest others; "epsilon", all within the radius ``eps``.
    """
    tree = cKDTree(rows)
    if graph == "epsilon":
        lists = tree.query_ball_point(nodes, float(eps or 0.0))
        start = np.repeat(np.arange(len(nodes)), [len(one) for one in lists])
        end = np.fromiter((j for one in lists for j in one), int, len(start))
    else:
        # One more, because a node of the data finds itself. Copies of it take places too, which only thins the graph.
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


@kinds_checked
@refuse_old_names({"alpha": "quantile", "epsilon": "eps"})
@own_work()
def face(
    model: LogitsFn,
    x: ArrayLike,
    label: ArrayLike,
    target: ArrayLike,
    *,
    train_x: ArrayLike,
    train_y: ArrayLike,
    space: Any = None,
    bounds: Bounds | tuple[ArrayLike, ArrayLike] | None = None,
    density: Density | None = None,
    graph: Graph = "knn",
    neighbours: int = 20,
    eps: float | None = None,
    weight: Weight = "density",
    probability: float | None = None,
    quantile: float = 0.25,
    kappa: float = 0.0,
) -> Paths:
    """Counterfactuals that are real rows, reached through dense regions: formula (1) of the module.

    Args:
      model: logits [B, D] -> [B, K]; only called, so a black box will do.
      x: [N, D] rows in model coordinates, or [D] with a scalar ``label``. label, target: [N] int.
      train_x, train_y: [M, D] rows and their classes [M]: the nodes, and the data of the default density.
      space: what each feature may become: an edge that changes it otherwise is forbidden, and so is an end that is no
        allowed change of x. Or bounds: the box of x, [0, 1] by default; rows outside it are no ends.
      density: with ``log_prob(x, label)``; by default :func:`invjax.densities.fit_kde` of the rows. An edge is weighed
        by the density of ALL rows, in which the classes count by their frequency.
      graph, neighbours, eps: see :func:`near`. x itself is joined to its nearest rows in the same way.
      weight: "density", w_ij of (1), or "distance", f = 1.
      probability: t_p, the target's softmax probability at an end, whether or not it wins, in (0, 1); None: it must
        win.
      kappa: margin of that, logit units, >= 0.
      quantile: t_d is this quantile of log p(x_j | t) over the target's rows, in [0, 1).

    Returns:
      Paths. ``result.forwards`` is 1, because the rows are classified once for all. NOT_FOUND: there is no path.
      INFEASIBLE: x breaks its own schema.

    Raises:
      ValueError: an argument.
    """
    check_choice("graph", graph, get_args(Graph))
    check_choice("weight", weight, get_args(Weight))
    neighbours = check_whole("neighbours", neighbours)
    if graph == "epsilon" or eps is not None:
        check_number("eps", eps, lambda v: v > 0, "a radius > 0")
    if probability is not None:
        check_number("probability", probability, lambda v: 0 < v < 1, "None or in (0, 1)")
    check_number("quantile", quantile, lambda v: 0 <= v < 1, "in [0, 1)")
    check_number("kappa", kappa, lambda v: v >= 0, "a margin >= 0")
    query = make_query(model, x, label, target, space=space, bounds=bounds)
    problems = query.problems
    rows = np.asarray(train_x, problems.x.dtype)
    if rows.ndim != 2 or rows.shape[1:] != problems.x.shape[1:] or not np.isfinite(rows).all():
        raise BadArgument("train_x", f"be finite rows [M, {problems.x.shape[1]}]", of_shape(rows.shape))
    total = num_classes(query.ctx.logits, rows.shape[1:], rows.dtype)
    classes = check_indices("train_y", train_y, len(rows), total)
    check_rows_of_targets(classes, problems.target)
    density = fit_kde(rows, classes) if density is None else density
    check_density(density, rows.shape[1:], rows.dtype, np.concatenate([problems.target, classes]))
    known, count = len(rows), len(problems.x)

    # Nodes: the training rows, then the N factuals, which nothing leads to.
    nodes = np.concatenate([rows, problems.x])
    edges = _joined(query, nodes, rows, near(nodes, rows, graph, neighbours, eps))
    cost = edges.distance
    if weight == "density" and len(cost):
        middle = ((nodes[edges.start] + rows[edges.end]) / 2).astype(rows.dtype)
        log_p = _mixture(density, middle, classes)
        cost = cost * (1 + log_p.max() - log_p)

    logits = map_rows(_logits, query.ctx.logits, rows, batch=CHUNK, few_shapes=True).astype(np.float64)
    ends = {int(t): _ends(logits, rows, classes, density, int(t), probability, quantile, kappa)
            for t in np.unique(problems.target)}  # fmt: skip
    found, status = problems.x.copy(), query.early(probability)
    lengths, paths = np.full(count, np.inf), [np.empty(0, int) for _ in range(count)]
    for n in np.flatnonzero(status == Status.PENDING):
        status[n] = Status.NOT_FOUND
        inside = ((rows >= problems.lower[n]) & (rows <= problems.upper[n])).all(1)
        among = np.flatnonzero(ends[int(problems.target[n])] & inside)
        among = among[_allowed(query, np.repeat(problems.x[n][None], len(among), 0), rows[among])]
        if not len(among):
            continue
        length, before = (a[0] for a in shortest(edges, cost, np.array([known + n]), known + count))
        end = int(among[np.argmin(length[among])])
        if np.isfinite(length[end]):
            found[n], status[n], lengths[n] = rows[end], Status.FOUND, length[end]
            path = [end]
            while before[path[-1]] != known + n:
                path.append(int(before[path[-1]]))
            paths[n] = np.array(path[::-1])
    zeros = np.zeros(count, np.int32)
    return Paths(query.result(found, status, zeros, zeros + 1, found.copy(), probability), paths, lengths)


def _joined(query: Query, nodes: np.ndarray, rows: np.ndarray, edges: Edges) -> Edges:
    """The allowed edges, with those between training rows in both directions."""
    inner = edges.start < len(rows)
    back = Edges(edges.end[inner], edges.start[inner], edges.distance[inner])  # a neighbour either way is an edge
    edges = Edges(*(np.concatenate(pair) for pair in zip(edges, back, strict=True)))
    _, once = np.unique(edges.start * len(rows) + edges.end, return_index=True)  # coo_matrix would add copies up
    edges = Edges(*(part[once] for part in edges))
    allowed = _allowed(query, nodes[edges.start], rows[edges.end])
    return Edges(*(part[allowed] for part in edges))


def _ends(
    logits: np.ndarray, rows: np.ndarray, classes: np.ndarray, density: Any, target: int, probability: float | None,
    quantile: float, kappa: float,
) -> np.ndarray:  # fmt: skip
    """[M] bool: the rows that have the target, sure enough, in a dense region of its class."""
    members = classes == target
    values = evaluate(log_prob_of, density, rows, np.full(len(rows), target, np.int32))
    if isinstance(density, HeldOut):  # a row is no witness of its own density
        values = np.where(members, np.asarray(density.held_out_log_prob(rows, classes)), values)
    others = np.where(np.arange(logits.shape[1]) == target, -np.inf, logits)
    if probability is None:
        wins = logits[:, target] - others.max(1) > kappa
    else:
        log_odds = logits[:, target] - np.logaddexp.reduce(others, axis=1)
        wins = log_odds >= np.log(probability / (1 - probability)) + kappa
    return wins & (values >= np.quantile(values[members], quantile))


def _mixture(density: Any, x: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """log Σ_k (share of k) p(x_i | k), [n]: the density of all rows."""
    parts = []
    for k, number in enumerate(np.bincount(classes)):
        if number:
            values = evaluate(log_prob_of, density, x, np.full(len(x), k, np.int32))
            parts.append(np.asarray(values, np.float64) + np.log(number / len(classes)))
    return np.logaddexp.reduce(np.stack(parts), axis=0)
