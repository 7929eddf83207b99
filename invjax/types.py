"""The vocabulary of the library: problems, evaluations, results, statuses and the method protocol.

One composite problem stands behind everything (attacks and counterfactuals alike):

    min_r  h(r) + g(r)        h smooth (classifier loss + quadratic + ...),  g with a proximal map        (1)

A *method* is pure arithmetic for ONE example (:class:`Method`); the engine alone knows batches and devices.

Letters used for shapes everywhere: B lanes, N list of examples, H W C image, D features, K classes, S shape of one
example, P points asked at once, q probes.
"""

from __future__ import annotations

import enum
import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.core
import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Array = jax.Array
ArrayLike = jax.typing.ArrayLike
AnyArray = Array | np.ndarray  # of jax, or of NumPy where it was read from a file
Values = ArrayLike | Sequence[ArrayLike] | Sequence[Sequence[float]]  # also written out: target=[1, 2, 3]
State = Any
Config = Any

UNTARGETED = -1  # value of ``Problem.target`` that asks for any class but the label


class Status(enum.IntEnum):
    """How one example ended. Failure is data: it never raises and never disturbs another example."""

    PENDING = 0  # not finished (an interrupted run)
    FOUND = 1  # x has the wanted class
    NOT_FOUND = 2  # the budget ended first; x is the clean input
    NONFINITE = 3  # the network gave NaN or infinity before anything was found; x is the clean input
    ALREADY_TARGET = 4  # the clean input already has the wanted class; x is the clean input
    INFEASIBLE = 5  # the constraints admit no answer; x is the clean input
    NO_GRADIENT = 6  # every gradient was zero wherever x may change, so nothing was tried; x is the clean input


class Bounds(NamedTuple):
    """The box ``lower <= x <= upper`` of the data range; each side a scalar or of shape [*S]."""

    lower: ArrayLike = 0.0
    upper: ArrayLike = 1.0


class Problem(NamedTuple):
    """What belongs to one example. Batched by the engine: every leaf then has a leading lane axis."""

    x: Array  # [*S] clean input, data range
    label: Array  # [] int32, class of x
    target: Array  # [] int32, wanted class, or UNTARGETED
    lower: Array  # [] or [*S] box
    upper: Array  # [] or [*S] box
    mask: Array | None  # [*S] bool, True where x may change; None: everywhere
    groups: Array | None  # [*S] int32 group index of each coordinate; None: the method's own groups
    key: Array  # [] typed PRNG key, already folded with the example's id
    id: Array  # [] int32, the example's position in the list


class LogitsFn(Protocol):
    """A classifier: a callable whose leaves, where it is a pytree, are its weights."""

    def __call__(self, x: Any, /) -> Array:
        """x [B, *S] in the data range -> logits [B, K], each row of one example alone."""
        ...


class Density(Protocol):
    """A plausibility model, as a pytree. What else some can: :class:`Anchored`, :class:`HeldOut`.

    An attribute ``classes``, a whole number, says how many classes it knows: a target beyond them is then refused.
    """

    def log_prob(self, x: Array, label: Array, /) -> Array:
        """x [*S], label [] -> [] log density of the class ``label`` at one point, up to a constant."""
        ...


@runtime_checkable
class Anchored(Protocol):
    """A density whose pull goes to one point per factual: the released S-CFE code fixes it when a run starts."""

    def anchor(self, x: Array, label: ArrayLike, /) -> Array:
        """x [*S], label [] -> [*S] the point to which a row x is pulled in the class ``label``."""
        ...


@runtime_checkable
class HeldOut(Protocol):
    """A density made of reference points (KDE, kNN, LOF): it can leave out the very point that it is asked about."""

    def held_out_log_prob(self, x: ArrayLike, y: ArrayLike, /) -> np.ndarray:
        """Points x [N, *S] of classes y [N] -> [N] log densities, each without the reference point it is, if any."""
        ...


class Context(NamedTuple):
    """What all lanes share."""

    logits: LogitsFn  # [B, *S] -> [B, K]; a pytree whose leaves are the weights
    density: Density | None = None  # a plausibility model
    constraints: Any = None  # what may change, and how: a compiled FeatureSpace; None: the box, the mask and the groups


class Eval(NamedTuple):
    """What the engine tells a method about the point it asked. With ``Method.width`` P every field has a [P] axis."""

    point: Array  # [*S] the point evaluated: what was asked, clipped to the box, unchanged where masked
    value: Array  # [] the method's loss there
    grad: Array  # [*S] its gradient with respect to the point (zeros if ``needs_grad`` is False)
    logits: Array  # [K] at least float32


class Outcome(NamedTuple):
    """What a method hands back for one example. The engine turns it into a :class:`Result`.

    A method that answers with a set of P: x and attempt [P, *S], status [P].
    """

    x: Array  # [*S] the answer; read only where status is FOUND
    status: Array  # [] int32, a Status
    attempt: Array  # [*S] the last or best point tried, whatever the status


def decided(ctx: Context, problem: Problem, config: Config, state: State) -> Array:
    """[] bool: the state has a status other than PENDING. When a method is done, unless it says otherwise."""
    return state.status != Status.PENDING


class Method(NamedTuple):
    """One inverse-classification algorithm as pure functions of one example.

    Every function takes ``(ctx, problem, config, ...)``:

    * ``init(ctx, problem, config) -> state``; no network call.
    * ``ask(ctx, problem, config, state) -> point`` [*S], or [P, *S] when ``width`` is P.
    * ``loss(ctx, problem, config, state, point, logits) -> []``; the engine differentiates it in ``point``, through
      the network and directly.
    * ``tell(ctx, problem, config, state, eval) -> state``.
    * ``done(ctx, problem, config, state) -> [] bool``; by default, when ``state.status`` has left PENDING.
    * ``result(ctx, problem, config, state) -> Outcome``; by default that of ``state.best`` (a
      :class:`invjax.solvers.best.Best`) and ``state.status``, the point asked next being the attempt.
    * ``probe(ctx, problem, config, state) -> [q, *S]`` with ``tell_probe(ctx, problem, config, state, points, logits)
      -> state``: forward-only candidates, evaluated in the same iteration after ``tell``; q static, 0 for none.

    The first point a method asks is the clean input: so ALREADY_TARGET and a broken network are known at once.
    """

    name: str
    init: Callable[..., State]
    ask: Callable[..., Array]
    loss: Callable[..., Array]
    tell: Callable[..., State]
    done: Callable[..., Array] = decided
    result: Callable[..., Outcome] | None = None
    probe: Callable[..., Array] | None = None
    tell_probe: Callable[..., State] | None = None
    width: int | None = None
    needs_grad: bool = True

    def __repr__(self) -> str:
        return f"Method({self.name!r})"


class Evaluator(Protocol):
    """How the engine looks at the network; see :mod:`invjax.engine.evaluate`.

    It honours ``method.width`` (None, or P for points [B, P, *S]) and ``method.needs_grad``: where that is False, one
    forward pass must do, and nobody reads the gradient. The engine looks at probes in that way.
    """

    def __call__(
        self, method: Method, ctx: Context, config: Config, problems: Problem, states: State, points: Array, /
    ) -> Eval:
        """points [B, *S] (or [B, P, *S]) of the lanes' problems and states -> value, gradient and logits of each."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The answers, each field with the leading axis [N] of the list (none for a single example).

    ``len(result)`` is N, ``result[3]`` the result of one example, ``result[:10]`` or ``result[result.found]`` that of
    several, and a loop goes over the examples. A result is a pytree: ``jax.tree.map`` goes over its fields.
    Of a method that answers with sets of P: x, delta and attempt [N, P, *S], status [N, P].
    """

    x: AnyArray  # [N, *S] the answer; the clean input unless FOUND
    delta: AnyArray  # [N, *S] x minus the clean input: exactly zero unless FOUND
    status: AnyArray  # [N] int32, a Status
    evaluations: AnyArray  # [N] int32, value-and-gradients asked by this example
    forwards: AnyArray  # [N] int32, forward-only evaluations (probes)
    attempt: AnyArray  # [N, *S] what was tried last (or best), also when it failed

    @property
    def found(self) -> AnyArray:
        """[N] bool: x has the wanted class (FOUND, or ALREADY_TARGET with nothing to change)."""
        return (self.status == Status.FOUND) | (self.status == Status.ALREADY_TARGET)

    if not TYPE_CHECKING:  # which would take every name for one

        def __getattr__(self, name: str) -> Any:
            """The error about a field that there is not; it says what there is, and what other libraries call x."""
            had = "x (the answers), delta (what was added), status, found, evaluations, forwards, attempt, to_pandas()"
            hint = "" if name.startswith("_") else f"; it has {had}"
            raise AttributeError(f"a Result has no {name!r}{hint}", name=name, obj=None)

    def __len__(self) -> int:
        """N, the number of examples. Raises TypeError for the result of a single one."""
        shape = self._shape()
        if not shape:
            raise TypeError("the result of a single example has no length")
        return shape[0]

    def _shape(self) -> tuple[int, ...]:
        """The leading axes; of a result whose other fields were not read, those of what there is."""
        known = (self.evaluations, self.forwards, *vars(self).values())
        return np.shape(next(field for field in known if field is not None))

    def __getitem__(self, index: Any) -> Result:
        """The examples that ``index`` selects: a number (one example), a slice, numbers, or a mask [N].

        Raises TypeError for the result of a single example, IndexError for a number beyond the list.
        """
        if not self._shape():
            raise TypeError("the result of a single example has no rows: its fields are the answer")
        if isinstance(index, str):
            raise TypeError(f"fields are attributes: write result.{index}")
        if isinstance(index, int | np.integer) and not -len(self) <= index < len(self):  # jax would take the last one
            raise IndexError(f"there is no example {index}: the result holds {len(self)}, counted from 0")
        return jax.tree.map(lambda field: field[index], self)

    def __iter__(self) -> Iterator[Result]:
        """The result of each example."""
        return (self[i] for i in range(len(self)))

    def to_pandas(self) -> pd.DataFrame:
        """One row per example: status, found, evaluations, forwards, and l0, l2, linf of ``delta`` in data units.

        The index is the position in the list (of several leading axes, e.g. [N, T]: one level each). In raw units and
        features: :meth:`invjax.constraints.FeatureSpace.to_pandas`. Raises ImportError where pandas is missing.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install pandas") from error
        status = np.asarray(self.status)
        delta = np.asarray(self.delta).astype(np.float64).reshape(status.size, -1)
        rows = np.asarray(self.evaluations).shape
        each = status.size // max(1, int(np.prod(rows)))  # answers of a row: more than one for a method that gives sets
        columns = {
            "status": [Status(int(one)).name for one in status.reshape(-1)],
            "found": np.asarray(self.found).reshape(-1),
            "evaluations": np.repeat(np.asarray(self.evaluations).reshape(-1), each),
            "forwards": np.repeat(np.asarray(self.forwards).reshape(-1), each),
            "l0": (delta != 0).sum(1),
            "l2": np.sqrt(np.square(delta).sum(1)),
            "linf": np.abs(delta).max(1),
        }
        index = pd.RangeIndex(status.size) if status.ndim < 2 else pd.MultiIndex.from_tuples(np.ndindex(*status.shape))
        return pd.DataFrame(columns, index=index)

    def _repr_html_(self) -> str:
        """In a notebook: a table of how many ended how, with the length of the changes."""
        if isinstance(self.status, jax.core.Tracer) or not hasattr(self.x, "shape"):
            return f"<pre>{html.escape(repr(self))}</pre>"
        status = np.asarray(self.status).reshape(-1)
        delta = np.asarray(self.delta).astype(np.float64).reshape(len(status), -1)
        counts = [np.asarray(field).reshape(-1) for field in (self.evaluations, self.forwards)]
        asked = [np.repeat(count, len(status) // max(count.size, 1)) for count in counts]
        lines = []
        for one in Status:
            own = status == one
            if own.any():
                l0, l2 = (delta[own] != 0).sum(1).mean(), np.sqrt(np.square(delta[own]).sum(1)).mean()
                means = l0, l2, *(count[own].mean() for count in asked)
                cells = one.name, own.sum(), *(f"{mean:.4g}" for mean in means)
                lines.append("".join(f"<td>{cell}</td>" for cell in cells))
        named = ("status", "answers", "mean l0", "mean l2", "mean evaluations", "mean forwards")
        heads = "".join(f"<th>{head}</th>" for head in named)
        table = f"<table><tr>{heads}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
        return f"<div>Result: x {self.x.dtype}{list(self.x.shape)}{table}</div>"

    def __repr__(self) -> str:
        """How many ended how; the arrays are in the fields."""
        status, shape = self.status, getattr(self.x, "shape", None)
        if shape is None or not hasattr(status, "shape") or isinstance(status, jax.core.Tracer):
            return f"Result({', '.join(f'{field.name}={getattr(self, field.name)!r}' for field in fields(self))})"
        status = np.asarray(status).reshape(-1)
        ended = ", ".join(f"{one.name} {n}" for one in Status if (n := int((status == one).sum())))
        mean = f", {np.asarray(self.evaluations).mean():.4g} evaluations on average" if status.size else ""
        return f"Result(x {self.x.dtype}{list(shape)}: {ended or 'empty'}{mean})"
