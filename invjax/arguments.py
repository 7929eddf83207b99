"""The options of the command line, as tyro reads them: the text under a field is its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

arg = tyro.conf.arg
Flag = tyro.conf.FlagCreatePairsOff[bool]


@dataclass
class Demo:
    """Attack real digits with the shipped classifier; print one table and write a page. Needs no download."""

    out: Annotated[Path, arg(metavar="DIR")] = Path("invjax-demo")
    """Folder of the page, report.html; made if need be."""
    n: int = 30
    """How many digits; each is attacked towards the nine other classes."""
    seed: int = 0
    """Draws the digits."""
    lanes: int = 64
    """Pairs worked on at once."""
    no_progress: Flag = False
    """No progress bar. (There is none either where stderr is no terminal.)"""


@dataclass
class Attack:
    """Attack the images of a file or data set: a bulk job that can be interrupted and goes on when called again.

    DIR then holds results.npz (answers and numbers), results.csv (a row per image and target), report.html, and run/,
    from which an interrupted job goes on.
    """

    images: Annotated[str, arg(metavar="FILE.npz|tfds:NAME")]
    """Images: an npz with `images` (uint8 or float, [N,H,W,C] or [N,H,W]) and `labels` [N], or a prepared data set of
    tensorflow_datasets by name or folder."""
    weights: Annotated[Path, arg(metavar="FILE")]
    """Weights of the network: .safetensors or .pth for resnet20, .npz of `python -m invjax.models.train` for others."""
    model: Annotated[str, arg(metavar="NAME")]
    """The network: resnet20, cnn or mlp."""
    out: Annotated[Path, arg(metavar="DIR")]
    """Folder of the results; made if need be. A folder of the same job: it goes on from there."""
    attack: Annotated[str, arg(metavar="NAME")] = "gse"
    """The attack: gse, pgd, fgsm, ..."""
    targets: Annotated[str, arg(metavar="all|untargeted|1,4,7|FILE")] = "all"
    """Wanted classes: all others; any other; offsets added to the label; or a file (.npy, .txt, .npz with `targets`)
    with a row per image of --images."""
    labels: Annotated[str | None, arg(metavar="FILE|predicted", help_behavior_hint="")] = None
    """Labels in the place of those of --images: a file (.npy, .txt, .npz with `labels`), or what the network says."""
    split: str = "test"
    """Split of a tfds data set."""
    start: int = 0
    """Index of the first image looked at."""
    n: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """How many images; by default all from --start on."""
    all_images: Flag = False
    """Also attack the images that the network gets wrong."""
    mean: Annotated[tuple[float, ...] | None, arg(metavar="NUMBER ...", help_behavior_hint="")] = None
    """The network's input is (x - mean) / std: one number, or one per channel. By default what the weights' file
    records; for resnet20 0.5."""
    std: Annotated[tuple[float, ...] | None, arg(metavar="NUMBER ...", help_behavior_hint="")] = None
    """See --mean."""
    bounds: Annotated[tuple[float, float], arg(metavar="LOWER UPPER")] = (0.0, 1.0)
    """The data range. Pixels of 8 bits are mapped onto it."""
    eps: Annotated[str | None, arg(metavar="NUMBER", help_behavior_hint="")] = None
    """Radius of the attacks that have one, in the data range; 8/255 may be written so."""
    set: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE ...", help_behavior_hint="")] = ()
    """Any constants of the attack, e.g. --set steps=100 step=1/255."""
    seed: int = 0
    """Of the attack's random draws."""
    lanes: int = 64
    """Pairs worked on at once. Memory grows with it, not with the number of images."""
    no_progress: Flag = False
    """No progress bar. (There is none either where stderr is no terminal.)"""


@dataclass
class Bench:
    """Re-measure a published table: `invjax bench NAME ...` is `python -m invjax.bench NAME ...`."""


COMMANDS = {"demo": Demo, "attack": Attack, "bench": Bench}
DESCRIPTION = (
    "Inverse classification: the smallest change that makes a classifier say something else. "
    "`invjax --version` prints the version."
)
