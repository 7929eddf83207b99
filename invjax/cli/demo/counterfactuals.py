"""The demo's counterfactuals of tables: suburbs in raw units, and the plane with and without plausibility.

Real data that comes with packages: Boston Housing (mlxtend) and Wine (scikit-learn).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax.constraints import Feature
from invjax.core.logits import LogitsModel
from invjax.counterfactuals import SCFE
from invjax.data.tables.load import load_tabular
from invjax.data.tables.table import TabularData, assemble
from invjax.densities import fit_kde, hinge
from invjax.engine import solve
from invjax.recourse import classifier, explain_rows
from invjax.report import Picture, Section, counterfactual_section
from invjax.report.text import text_table
from invjax.report.verdict import compared, share_of
from invjax.types import Density, Status
from invjax.viz import plane

_Say = Callable[[str], None]

_HOUSING: dict[str, tuple[str, dict[str, Any]]] = {  # column of the data -> its name here, and how it may change
    "CRIM": ("crime", {"direction": "down"}),
    "ZN": ("large lots", {"direction": "none"}),
    "INDUS": ("industry", {"direction": "down"}),
    "NOX": ("nitric oxides", {"direction": "down"}),
    "RM": ("rooms", {"direction": "up"}),
    "AGE": ("old houses", {"direction": "none"}),
    "DIS": ("distance to work", {"direction": "none"}),
    "RAD": ("motorways", {"direction": "none"}),
    "TAX": ("tax", {"kind": "integer"}),
    "PTRATIO": ("pupils per teacher", {"direction": "down", "step": 0.1}),
    "LSTAT": ("poverty", {"direction": "none"}),
}
SUBURBS: int | None = None  # at most so many of the cheap ones; None: all
_PRINTED = 8  # of them in the terminal
_MOST = 3  # features that may change
_PLANE = ("alcohol", "flavanoids")
_PLANE_TAU = 20.0
_DENSE = 0.5  # the dense region holds this share of the class's own rows

_HOUSING_TEXT = (
    "Each line is a suburb of Boston (1970) whose houses cost less than the median, both in the data and in the view "
    "of a small network that was trained on {trained} suburbs. S-CFE looks for a near suburb that the network calls "
    "expensive, with at most {most} features changed, and is asked for one that is not rare among the expensive "
    "suburbs in the data.\n\n"
    "Crime, industry, nitric oxides and pupils per teacher may only fall, rooms may only grow, and the tax is a whole "
    "number. Where the suburb lies and who lives there may not change. The data's column B, which is computed from the "
    "share of Black residents, is left out altogether."
)
_HOUSING_NOTE = (
    "Every answer is checked as it is printed: rounded, against the rules, and by the network. Crime and pupils per "
    "teacher are rates, tax is in dollars per 10,000 of value, rooms are the mean per house, nitric oxides are in "
    "parts per 10 million. Probability: that the suburb is expensive, according to the network, before and after the "
    "change. All this says what the network reacts to, not what makes houses expensive."
)
_PLANE_TEXT = (
    "Two features of {wines} wines. The dashed line is a logistic regression that separates cultivar 0 (amber "
    "diamonds) from the rest (blue dots). Each large point is the counterfactual of one of the other wines, and a line "
    "connects the two. The closed line surrounds the region that is as dense as the denser half of cultivar 0's own "
    "wines."
)
_PLANE_ALT = (
    "Wines in the plane of alcohol and flavanoids, {way}: {dense} of {found} counterfactuals end within the dense "
    "region of cultivar 0."
)
_PLANE_NOTE = (
    f"S-CFE with τ = 0 and τ = {_PLANE_TAU:g}; kernel density of each class, cut at its median (leave-one-out). "
    "Shades: the density of cultivar 0. Distances are in standard deviations."
)


# --- tables ----------------------------------------------------------------------------------------------------------


def _suburb_data() -> TabularData:
    """Boston Housing with readable names and with what a suburb can change; grids in raw units."""
    data = load_tabular("housing").without("B")
    table = {name: data.table[column] for column, (name, _) in _HOUSING.items()}
    features = [
        Feature(name, lower=float(table[name].min()), upper=float(table[name].max()), **options)
        for name, options in _HOUSING.values()
    ]
    return assemble("housing", table, data.label, data.classes, features, (data.train, data.test))


def housing_section(say: _Say) -> tuple[Section, str]:
    """What would have to change for a suburb's houses to be expensive."""
    data = _suburb_data()
    chosen = classifier(data, "mlp")
    logits = np.asarray(chosen.model(jnp.asarray(data.x[data.test])))
    every = data.test[(logits.argmax(1) == 0) & (data.label[data.test] == 0)]
    cheap = every[:SUBURBS]
    say(f"Housing: {len(cheap)} cheap suburbs, at most {_MOST} changes each")
    told = explain_rows(data, chosen.model, cheap, target=1, max_changes=_MOST, progress=False)
    title = "What would have to change for a suburb's houses to be expensive?"
    text = _HOUSING_TEXT.format(trained=len(data.train), most=_MOST)
    section = counterfactual_section(told, title=title, text=text, note=_HOUSING_NOTE, short="Suburbs")
    lines = told.paragraphs()
    more = [f"({len(lines) - _PRINTED} more are on the page)"] if len(lines) > _PRINTED else []
    return section, "\n".join([*lines[:_PRINTED], *more])


# --- the plane -------------------------------------------------------------------------------------------------------


class Plane(NamedTuple):
    """Two features of the wines, standardised; N rows sent across the line."""

    points: np.ndarray  # [M, 2]
    label: np.ndarray  # [M]
    weights: tuple[np.ndarray, np.float32]  # of the line: [2] and []
    x: np.ndarray  # [N, 2]
    answers: dict[str, np.ndarray]  # [N, 2]
    dense: dict[str, float]  # share of the answers within the dense region
    density: Density  # before the cut
    level: float  # log density at the border of the dense region

    def inside(self, name: str) -> int:
        """How many answers of a way lie within the dense region."""
        return round(self.dense[name] * len(self.x))

    def distance(self, name: str) -> float:
        """The median way from a row to its answer, standard deviations."""
        return float(np.nanmedian(np.linalg.norm(self.answers[name] - self.x, axis=1)))


def in_the_plane(data: TabularData) -> Plane:
    """S-CFE over two features, with a line as classifier, without and with the density of the target class."""
    columns = [data.space.names.index(name) for name in _PLANE]
    points, label = data.x[:, columns], data.label
    weights, offset = fit_line(points, label)
    model = LogitsModel((jnp.asarray(weights), jnp.asarray(offset)), _line)
    rows = points[(points @ weights + offset < 0) & (label == 0)][::4]
    kde = fit_kde(points, label)
    level = hinge(kde, points, label, _DENSE)
    bounds = (points.min(0), points.max(0))
    answers, dense = {}, {}
    for name, tau in (("without plausibility", 0.0), ("with plausibility", _PLANE_TAU)):
        zeros = np.zeros(len(rows), np.int32)
        result = solve(
            model, rows, zeros, target=zeros + 1, method=SCFE(max_changes=2, tau=tau), density=level, bounds=bounds
        )
        found = np.asarray(result.status) == Status.FOUND
        answers[name] = np.where(found[:, None], np.asarray(result.x), np.nan)
        inside = np.asarray(jax.vmap(level.log_prob, (0, None))(jnp.asarray(result.x), jnp.int32(1))) > -0.01
        dense[name] = float((inside & found).mean())
    return Plane(points, label, (weights, offset), rows, answers, dense, kde, float(level.threshold[1]))


def fit_line(x: np.ndarray, y: np.ndarray, ridge: float = 1e-2) -> tuple[np.ndarray, np.float32]:
    """Logistic regression by Newton's method: (w [D], b []) float32 with ``sigmoid(x w + b)`` the probability of 1."""
    wide = np.concatenate([x, np.ones((len(x), 1))], axis=1).astype(np.float64)
    weights = np.zeros(wide.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-wide @ weights))
        curvature = (wide * (p * (1 - p))[:, None]).T @ wide + ridge * np.eye(len(weights))
        weights -= np.linalg.solve(curvature, wide.T @ (p - y) + ridge * weights)
    return weights[:-1].astype(np.float32), np.float32(weights[-1])


def plane_figure(drawn: Plane, data: TabularData, names: Sequence[str] = ()) -> Any:
    """The figure of these answers, in raw units; by default of all."""
    units = [data.space.names.index(name) for name in _PLANE]
    center, scale = data.space.center[units], data.space.scale[units]
    weights, offset = drawn.weights

    def back(raw: np.ndarray) -> np.ndarray:
        return ((raw - center) / scale).astype(np.float32)

    return plane(
        drawn.points * scale + center,
        drawn.label,
        drawn.x * scale + center,
        {name: drawn.answers[name] * scale + center for name in names or drawn.answers},
        margin=lambda raw: back(raw) @ weights + offset,
        log_prob=lambda raw: jax.vmap(drawn.density.log_prob, (0, None))(jnp.asarray(back(raw)), jnp.int32(1)),
        level=drawn.level,
        names=_PLANE,
        class_names=data.classes,
    )


def plane_section(say: _Say) -> tuple[Section, str]:
    """The two-dimensional picture."""
    data = load_tabular("wine")
    drawn = in_the_plane(data)
    say(f"Wine: {len(drawn.x)} rows in the plane of {' and '.join(_PLANE)}, without and with plausibility")
    lines, pictures = [], []
    for name, end in drawn.answers.items():
        found = int(np.isfinite(end).all(1).sum())
        lines.append(
            {
                "wine": name,
                "answers": f"{found} of {len(drawn.x)}",
                "within the dense region": f"{100 * drawn.dense[name]:.0f} %",
                "distance (median)": f"{drawn.distance(name):.2f}",
            }
        )
        alt = _PLANE_ALT.format(way=name, dense=drawn.inside(name), found=found)
        pictures.append(Picture(plane_figure(drawn, data, [name]), width=470, alt=alt))
    section = Section(
        "Valid is not the same as plausible",
        f"{_PLANE_TEXT.format(wines=len(data.label))}\n\n{plane_words(drawn)}",
        table=lines,
        note=_PLANE_NOTE,
        figures=pictures,
        short="Wines",
    )
    return section, text_table(lines)


def plane_words(drawn: Plane) -> str:
    """What the two ways do, by their numbers."""
    without, with_it = drawn.answers
    few, many = (share_of(drawn.inside(name), len(drawn.x), "answer") for name in (without, with_it))
    near, far = drawn.distance(without), drawn.distance(with_it)
    price = compared(far, near, "longer", "shorter", "as long")
    return (
        f"Asked for nothing but the class, {few} end within that region; asked for plausibility too, {many}. The way "
        f"there is {price}: {far:.2f} standard deviations in the median, instead of {near:.2f}."
    )


def _line(params: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    z = x @ params[0] + params[1]
    return jnp.stack([jnp.zeros_like(z), z], axis=-1)
