"""The attack section: for each image the original, then for each target the adversarial image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check_whole, of_shape
from invjax.core.labels import check_indices, whole_numbers
from invjax.metrics import changed_pixels, l2
from invjax.metrics.attack import LengthUnit
from invjax.report.page import Section, escape, folded, image_tag, shown_width
from invjax.types import UNTARGETED, Result, Status
from invjax.viz.pixels import LOWERED, RAISED, SUPPORT, perturbation_pixels, picture_pixels, support_pixels

_FAILED = {
    Status.NOT_FOUND: "not found",
    Status.NONFINITE: "network not finite",
    Status.INFEASIBLE: "infeasible",
    Status.NO_GRADIENT: "no gradient",
    Status.PENDING: "not finished",
}


@kinds_checked
def attack_section(
    images: Any,
    labels: Any,
    targets: Any,
    results: Mapping[str, Result],
    table: Sequence[Mapping[str, Any]] = (),
    *,
    title: str = "Attacks",
    text: str = "",
    note: str = "",
    facts: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    bounds: tuple[Any, Any] = (0.0, 1.0),
    unit: LengthUnit = "model",
    max_images: int = 12,
    open_images: int = 3,
    size: int = 84,
) -> Section:
    """Pictures of attacks, one card per image: the original, then per attack a strip with a column per target.

    The first cards are open, all others are folded, each under a line that says what came of it.

    A column holds the adversarial image, its perturbation (scaled by its own largest change), the mask of changed
    pixels, their number and the l2 norm. If the attack failed, the column says how.

    Args:
        images: [n, H, W, C] clean images in the data range.
        labels: [n] int, their classes.
        targets: [n, T] int, the wanted classes; ``UNTARGETED`` is shown as "any".
        results: attack name -> :class:`~invjax.types.Result` with fields [n, T, ...].
        table: rows for the table above the pictures, as :func:`invjax.metrics.attack_rows` gives them (grouped by
            "case" if the rows have it).
        title, text, note, facts: of the section, as in :class:`~invjax.report.page.Section`.
        class_names: K names, for classes that are not digits.
        bounds: data range.
        unit: of the l2 norm, as in :func:`invjax.metrics.l2`; the default is the unit of the published tables.
        max_images: the largest number of cards; the section says how many images there were.
        open_images: how many of the cards are not folded.
        size: approximate width of a picture in CSS pixels.

    Raises:
        ValueError: shapes that do not fit, naming which.
    """
    pictures, wanted = np.asarray(images), whole_numbers("targets", targets, "be classes as whole numbers")
    if pictures.ndim != 4:
        raise BadArgument("images", "be [n, H, W, C]", of_shape(pictures.shape))
    classes = check_indices("labels", labels, len(pictures))
    if wanted.ndim != 2 or len(wanted) != len(pictures):
        raise BadArgument("targets", f"be [{len(pictures)}, T]", of_shape(wanted.shape))
    most = int(max(classes.max(initial=0), wanted.max(initial=0)))
    if class_names is not None and len(class_names) <= most:
        raise BadArgument("class_names", f"name each class, as far as class {most}", Words(f"{len(class_names)} names"))
    check_whole("max_images", max_images, 0)
    check_whole("open_images", open_images, 0)
    check_whole("size", size)
    if not all(isinstance(row, Mapping) for row in table):
        raise BadArgument("table", "be rows as attack_rows gives them", Words(f"of type {type(table).__name__}"))
    for name, result in results.items():
        if not isinstance(result, Result):
            raise BadArgument(f"results[{name!r}]", "be a Result", Words(f"a {type(result).__name__}"))
    host = {name: jax.tree.map(np.asarray, result) for name, result in results.items()}
    for name, result in host.items():
        if result.delta.shape != (*wanted.shape, *pictures.shape[1:]):
            expected = (*wanted.shape, *pictures.shape[1:])
            raise BadArgument(f"results[{name!r}].delta", f"be of shape {expected}", of_shape(result.delta.shape))
    shown = min(len(pictures), max_images)
    look = _Look(class_names, bounds, shown_width(pictures.shape[1], pictures.shape[2], size))
    norms = {name: l2(result.delta[:shown], unit, bounds) for name, result in host.items()}
    cards = []
    for n, x in enumerate(pictures[:shown]):
        strips = [_strip(name, x, wanted[n], result[n], norms[name][n], look) for name, result in host.items()]
        card = _card(x, classes[n], strips, look)
        if n >= open_images:
            came = {name: result[n] for name, result in host.items()}
            card = folded(_line(x, classes[n], came, look), card)
        cards.append(card)
    if rest := cards[open_images:]:
        more = folded(f"{len(rest)} more image{'s' if len(rest) > 1 else ''}", "\n".join(rest))
        cards = [*cards[:open_images], more]
    if shown < len(pictures):
        cards.append(f"<figcaption>{shown} of {len(pictures)} images shown.</figcaption>")
    grouped = "case" if any("case" in row for row in table) else None
    return Section(
        title=title,
        text=text,
        facts=facts or {},
        table=table,
        group=grouped,
        note=note,
        markup="\n".join([_legend(pictures.shape[-1], unit), *cards]) if shown else "",
    )


def _legend(channels: int, unit: str) -> str:
    entries = [("changed pixel (mask)", SUPPORT, "")]
    if channels == 3:
        scaling = "perturbation: grey means that a channel does not change; scaled to its largest change"
    else:
        entries = [("raised", RAISED, ' class="change"'), ("lowered", LOWERED, ' class="change"'), *entries]
        scaling = "perturbations scaled to their largest change"
    marks = "".join(
        f'<span><i{kind} style="background:rgb{colour}"></i>{name}</span>' for name, colour, kind in entries
    )
    units = "l2 in data units" if unit == "data" else "l2 in [−1, 1] units"
    return f'<div class="legend">{marks}<span>{scaling}</span><span>{units}</span></div>'


class _Look(NamedTuple):
    """How all pictures of a section are drawn."""

    names: Sequence[str] | None
    bounds: tuple[Any, Any]
    width: int  # CSS pixels of a picture

    def name(self, label: Any) -> str:
        if int(label) == UNTARGETED:
            return "any"
        return str(int(label)) if self.names is None else str(self.names[int(label)])


def _card(x: np.ndarray, label: Any, strips: Sequence[str], look: _Look) -> str:
    original = image_tag(picture_pixels(x, look.bounds), f"original, class {look.name(label)}", look.width)
    return (
        f'<div class="example"><figure>{original}<figcaption>original<br><b>{escape(look.name(label))}</b>'
        f"</figcaption></figure><div>{''.join(strips)}</div></div>"
    )


def _line(x: np.ndarray, label: Any, results: Mapping[str, Result], look: _Look) -> str:
    """What stands above a folded card: a thumbnail, the class, and how many targets each attack reached."""
    small = image_tag(
        picture_pixels(x, look.bounds), f"class {look.name(label)}", shown_width(x.shape[0], x.shape[1], 28)
    )
    told = ", ".join(f"{escape(name)} {_reached(result)}" for name, result in results.items())
    return f"{small}<b>{escape(look.name(label))}</b><span>{told}</span>"


def _reached(result: Result) -> str:
    counted = int(np.sum(result.status != Status.ALREADY_TARGET))
    return f"{int(np.sum(result.status == Status.FOUND))} of {counted}"


def _strip(attack: str, x: np.ndarray, targets: np.ndarray, result: Result, norms: np.ndarray, look: _Look) -> str:
    """One attack on one image: a column per target."""
    width, height = look.width, round(look.width * x.shape[0] / x.shape[1])
    pixels = changed_pixels(result.delta)
    head, rows = "<th></th>", {"adversarial": "", "perturbation": "", "mask": "", "changed": ""}
    for t, target in enumerate(targets):
        aim = look.name(target)
        head += f'<th scope="col" title="{escape(aim)}"><div style="width:{width}px">→ {escape(aim)}</div></th>'
        state = Status(int(result.status[t]))
        blank = f'<div class="blank" style="width:{width}px;height:{height}px">'
        cells = dict.fromkeys(rows, f"<td>{blank}</div></td>") | {"changed": "<td></td>"}
        if state == Status.FOUND:
            delta = result.delta[t]
            drawn = {
                "adversarial": picture_pixels(result.x[t], look.bounds),
                "perturbation": perturbation_pixels(delta),
                "mask": support_pixels(delta),
            }
            cells = {}
            for row, image in drawn.items():
                change = row == "perturbation" and delta.shape[-1] != 3
                cells[row] = f"<td>{image_tag(image, f'{attack} to {aim}, {row}', width, change)}</td>"
            cells["changed"] = f'<td class="small">{pixels[t]} px<br>l2 {norms[t]:.2f}</td>'
        else:
            said = f"already {aim}" if state == Status.ALREADY_TARGET else _FAILED[state]
            cells["adversarial"] = f"<td>{blank}{escape(said)}</div></td>"
        rows = {row: markup + cells[row] for row, markup in rows.items()}
    if not np.any(result.status == Status.FOUND):  # nothing to draw: a single row says why
        rows = {"adversarial": rows["adversarial"]}
    body = "".join(f'<tr><th scope="row">{row}</th>{cells}</tr>' for row, cells in rows.items())
    return (
        f"<h3>{escape(attack)} <span>{_reached(result)} targets reached</span></h3>"
        f'<div class="strip"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )
