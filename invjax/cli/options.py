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
    learn: Flag = False
    """Also train networks on counterfactuals and measure their worst group: some 40 s more."""
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
    model: Annotated[str, arg(metavar="NAME")]
    """The network: resnet20, cnn, mlp, resnet50, efficientnet_lite0, ..."""
    out: Annotated[Path, arg(metavar="DIR")]
    """Folder of the results; made if need be. A folder of the same job: it goes on from there."""
    weights: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Weights of the network: .safetensors or .pth in torch's names; of cnn and mlp, .npz of `python -m
    invjax.models.train`. efficientnet_lite0, 1 and 2 need none: theirs is a package (extra imagenet)."""
    attack: Annotated[str, arg(metavar="NAME")] = "gse"
    """The attack: gse, strattack, fwnucl, homotopy, sapf, saif, sigma-zero, fmn, pgd0, spgd, sparse-rs, ... (an unknown
    name is answered with all of them)."""
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
class Explain:
    """Say for rows of a table what would have to be different for another answer of the model, person by person.

    DIR then holds counterfactuals.csv (a row per person), report.html, summary.json, and model.npz where the model was
    trained here.
    """

    out: Annotated[Path, arg(metavar="DIR")]
    """Folder of the results; made if need be."""
    data: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """A known data set: housing, wine, breast-cancer, wine-quality, adult, german."""
    csv: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """A table of one's own: a CSV file with a header."""
    label: Annotated[str | None, arg(metavar="COLUMN", help_behavior_hint="")] = None
    """The column of --csv with the class."""
    schema: Annotated[Path | None, arg(metavar="FILE.json", help_behavior_hint="")] = None
    """What each feature of --csv may become; by default its range in the rows, both ways. --save-schema gives a first
    draft."""
    missing: Annotated[str, arg(metavar="error|drop")] = "error"
    """What to do with a row of --csv that has an empty cell."""
    rows: Annotated[str | None, arg(metavar="0:10|3,7|test|all", help_behavior_hint="")] = None
    """Rows of the table to explain, numbered from 0; by default the first ten of the test rows."""
    people: Annotated[Path | None, arg(metavar="FILE.csv", help_behavior_hint="")] = None
    """Other rows to explain: a CSV file with the same columns; one named id names them."""
    model: Annotated[str, arg(metavar="mlp|logistic|forest|FILE.npz|MODULE:NAME")] = "mlp"
    """The classifier: trained here, the weights of an MLP, or a function of yours on the encoded columns."""
    gradient: Annotated[str, arg(metavar="surrogate|antithetic")] = "surrogate"
    """How a model without a gradient (a forest) gets one: of a network that imitates it, or by differences."""
    target: Annotated[str | None, arg(metavar="CLASS", help_behavior_hint="")] = None
    """The wanted class; by default for each row the one the model holds second most likely."""
    method: Annotated[str, arg(metavar="NAME")] = "s-cfe"
    """s-cfe, wachter, cfe-l2, cem, dcfe, dice, dice-genetic, s-cfe-released, face or pcfe."""
    max_changes: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """How many features may change; 3 for s-cfe."""
    plausibility: Annotated[float, arg(metavar="SHARE")] = 0.25
    """An answer is to be as plausible as all but this share of the class's own rows; 0: no matter."""
    tau: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint="")] = None
    """Weight of plausibility; by default it follows from the data."""
    immutable: Annotated[str, arg(metavar="A,B,...")] = ""
    """Features that may not change, besides those of the schema."""
    frontier: Flag = False
    """Also the best answers with 1, 2, ... --max-changes changes."""
    certify: Flag = False
    """Also prove for each row how few changes would do, plausible or not (mlp, logistic and small ReLU networks)."""
    time_limit: float = 30.0
    """Seconds for each proof."""
    save_schema: Annotated[Path | None, arg(metavar="FILE.json", help_behavior_hint="")] = None
    """Write the schema that was used, to be corrected by hand and given back as --schema."""
    seed: int = 0
    """Of the training and of the method's draws."""
    lanes: int = 64
    """Rows worked on at once."""
    no_progress: Flag = False
    """No progress bar. (There is none either where stderr is no terminal.)"""


COMMANDS = {"demo": Demo, "attack": Attack, "explain": Explain}
DESCRIPTION = (
    "Inverse classification: the smallest change that makes a classifier say something else. "
    "`invjax --version` prints the version."
)
