"""What each command is asked for: one frozen dataclass per command, which is also the argument of its function.

The text under a field is its help, ``Meta`` the word that the help shows for its value, and ``GROUPS`` has the order of
the help. A program can fill in the same options and call :func:`invjax.cli.attack.run_attack` itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple


class Meta(NamedTuple):
    """How the help shows the value of an option."""

    metavar: str | None


@dataclass(frozen=True)
class DemoOptions:
    """Attack real digits with the shipped classifier, print one table and write one page. Downloads nothing."""

    out: Annotated[Path, Meta("DIR")] = Path("invjax-demo")
    """Folder of the page, report.html. It is created if it does not exist."""
    n: int = 30
    """Number of digits. Each is attacked towards the nine other classes."""
    seed: int = 0
    """Seed of the choice of digits."""
    lanes: int | Literal["auto"] = "auto"
    """Number of pairs computed at once. "auto": as many as keep this device busy."""
    learn: bool = False
    """Also train networks on counterfactuals and measure their worst group. Takes about 40 s more."""
    no_progress: bool = False
    """Hide the progress bar. (It is always hidden where stderr is not a terminal.)"""


@dataclass(frozen=True)
class AttackOptions:
    """Attack the images of a file or data set. An interrupted run resumes when the same command is given again.

    DIR then holds results.npz (answers and measures), results.csv (a row per image and target), report.html, and run/,
    from which an interrupted run resumes.
    """

    images: Annotated[str, Meta("FILE.npz|tfds:NAME")]
    """Images: an npz with `images` (uint8 or float, [N,H,W,C] or [N,H,W]) and `labels` [N], or the name or folder of a
    prepared tensorflow_datasets data set."""
    model: Annotated[str, Meta("NAME|MODULE:NAME")]
    """Architecture of the network: resnet20, cnn, mlp, resnet50, efficientnet_lite0, ...; vit_b_16, ...;
    mnist_cnn and vit_mnist, the classifiers of digits that come with invjax; or your own, imported from the working
    folder: a function [B, H, W, C] -> logits [B, K], a LogitsModel, an nnx.Module, or a pair (Linen module, variables).
    It gets images in the data range."""
    out: Annotated[Path, Meta("DIR")]
    """Folder of the results. It is created if it does not exist; if it holds the same run, the run resumes."""
    weights: Annotated[Path | None, Meta("FILE")] = None
    """Weights of the network: .safetensors or .pth with torch's names, or the .npz that `python -m invjax.models.train`
    writes for cnn, mlp and vit. mnist_cnn, vit_mnist and MODULE:NAME bring their own, and efficientnet_lite0, 1 and 2
    need none: a package has theirs (extra imagenet)."""
    attack: Annotated[str, Meta("NAME")] = "gse"
    """The attack: gse, strattack, fwnucl, homotopy, sapf, saif, sigma-zero, fmn, pgd0, spgd, sparse-rs, ... (An unknown
    name lists all of them.)"""
    targets: Annotated[str, Meta("all|untargeted|1,4,7|FILE")] = "all"
    """Target classes: all others; any other; offsets added to the label; or a file (.npy, .txt, or .npz with `targets`)
    with one row per image of --images."""
    labels: Annotated[str | None, Meta("FILE|predicted")] = None
    """Labels that replace those of --images: a file (.npy, .txt, or .npz with `labels`), or what the network
    predicts."""
    split: str = "test"
    """Split of a tfds data set."""
    start: int = 0
    """Index of the first image considered."""
    n: Annotated[int | None, Meta("INT")] = None
    """Number of images. By default all from --start on."""
    all_images: bool = False
    """Also attack images that the network classifies wrongly. By default they are counted and left out."""
    mean: Annotated[tuple[float, ...] | None, Meta("NUMBER ...")] = None
    """The network's input is (x - mean) / std; one number, or one per channel. By default what the file of weights
    records, and 0.5 for resnet20."""
    std: Annotated[tuple[float, ...] | None, Meta("NUMBER ...")] = None
    """See --mean."""
    bounds: Annotated[tuple[float, float], Meta("LOWER UPPER")] = (0.0, 1.0)
    """The data range, onto which 8-bit pixels are mapped."""
    eps: Annotated[str | None, Meta("NUMBER")] = None
    """Radius of attacks that have one, in the data range. Fractions such as 8/255 are accepted."""
    set: Annotated[tuple[str, ...], Meta("NAME=VALUE ...")] = ()
    """Further constants of the attack, e.g. --set steps=100 step_size=1/255."""
    seed: int = 0
    """Seed of the attack's random draws."""
    lanes: int | Literal["auto"] = "auto"
    """Number of pairs computed at once. Memory grows with it, not with the number of images. "auto": as many as keep
    this device busy, as far as its memory allows."""
    no_progress: bool = False
    """Hide the progress bar. (It is always hidden where stderr is not a terminal.)"""


@dataclass(frozen=True)
class ExplainOptions:
    """Say, row by row of a table, what would have to change for the model to decide otherwise.

    DIR then holds counterfactuals.csv (a row per answer), report.html, summary.json, and model.npz if the model was
    trained here.
    """

    out: Annotated[Path, Meta("DIR")]
    """Folder of the results. It is created if it does not exist."""
    data: Annotated[str | None, Meta("NAME")] = None
    """A known data set: housing, wine, breast-cancer, wine-quality, adult, german."""
    csv: Annotated[Path | None, Meta("FILE")] = None
    """Your own table: a CSV file with a header."""
    label: Annotated[str | None, Meta("COLUMN")] = None
    """The column of --csv that holds the class."""
    schema: Annotated[Path | None, Meta("FILE.json")] = None
    """How each feature of --csv may change. By default it may move both ways within its range in the rows.
    --save-schema writes a first draft."""
    delimiter: Annotated[str | None, Meta("CHAR")] = None
    """What separates the cells of --csv and --people; tab is a word for it. By default whichever of comma, semicolon
    and tab is most frequent in the header."""
    decimal: Annotated[str | None, Meta(".|,")] = None
    """The mark of decimals, where the cells of --csv leave it open (1,234)."""
    categories: Annotated[str, Meta("A,B,...")] = ""
    """Columns of --csv whose numbers are names of categories."""
    drop: Annotated[str, Meta("A,B,...")] = ""
    """Columns of --csv to leave out."""
    missing: Annotated[str, Meta("error|drop")] = "error"
    """What to do with a row of --csv that has a missing cell: stop, or leave the row out and say so."""
    missing_values: Annotated[str, Meta("A,B,...")] = ""
    """Texts that are missing cells, besides the empty cell (and ?, NA, NaN, null, none in columns of numbers)."""
    rows: Annotated[str | None, Meta("0:10|3,7|test|all")] = None
    """Rows of the table to explain, counted from 0 as they stand in the file. By default the first ten test rows."""
    people: Annotated[Path | None, Meta("FILE.csv")] = None
    """Other rows to explain: a CSV file with the same columns. A column named id holds their names."""
    model: Annotated[str, Meta("mlp|logistic|forest|FILE.npz|MODULE:NAME")] = "mlp"
    """The classifier: trained here, read from the weights of an MLP, or your own: a fitted predictor, which is asked in
    raw columns, by name, or a function of the encoded columns."""
    classes: Annotated[str, Meta("A=B,...")] = ""
    """Which class of a fitted predictor is which class of the table (0=bad,1=good), where names and values do not say
    it."""
    threshold: Annotated[float | None, Meta("SHARE")] = None
    """Probability at which a fitted predictor decides for the second of its two classes. By default one half."""
    gradient: Annotated[str, Meta("surrogate|antithetic")] = "surrogate"
    """Where the gradient of a model without one (a forest) comes from: a network that imitates it, or differences."""
    target: Annotated[str | None, Meta("CLASS")] = None
    """The target class. A known data set has one by default. With --csv this option or --undesired must be given."""
    undesired: Annotated[str | None, Meta("CLASS")] = None
    """The class to get out of, into whichever the model holds next likely; rows of other classes need no answer."""
    probability: Annotated[float | None, Meta("SHARE")] = None
    """Probability that the target class must have in an answer. By default the class must win."""
    method: Annotated[str, Meta("NAME")] = "s-cfe"
    """s-cfe, wachter, cfe-l2, cem, dcfe, dice, dice-genetic, s-cfe-released, face or pcfe."""
    max_changes: Annotated[int | None, Meta("INT")] = None
    """How many features may change. By default 3 for s-cfe."""
    plausibility: Annotated[float, Meta("SHARE")] = 0.25
    """Required plausibility: an answer must be at least as dense as all but this share of the class's training rows;
    0 switches it off."""
    tau: Annotated[float | None, Meta("NUMBER")] = None
    """Weight of plausibility. By default it follows from the data."""
    immutable: Annotated[str, Meta("A,B,...")] = ""
    """Features that may not change, in addition to those of the schema."""
    answers: int = 1
    """Up to so many answers per row. Each further one leaves alone what each one before it moved most."""
    frontier: bool = False
    """Also find the best answers with 1, 2, ... --max-changes changes."""
    certify: bool = False
    """Also prove for each row how few changes suffice, plausible or not (mlp, logistic and small ReLU networks)."""
    time_limit: float = 30.0
    """Seconds allowed for each proof."""
    save_schema: Annotated[Path | None, Meta("FILE.json")] = None
    """Write the schema that was used, to be edited and given back as --schema."""
    keep_formulas: bool = False
    """Write text that begins with =, +, - or @ into counterfactuals.csv as it is. By default it gets an apostrophe in
    front, so that a spreadsheet shows it and does not run it."""
    seed: int = 0
    """Seed of the training and of the method's random draws."""
    lanes: int | Literal["auto"] = "auto"
    """Number of rows computed at once. "auto": as many as keep this device busy."""
    no_progress: bool = False
    """Hide the progress bar. (It is always hidden where stderr is not a terminal.)"""


COMMANDS: dict[str, type] = {"demo": DemoOptions, "attack": AttackOptions, "explain": ExplainOptions}
DESCRIPTION = "Inverse classification: the smallest change that makes a classifier say something else."
# The options of each command as its help shows them.
GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "demo": {"options": ("out", "n", "learn", "seed", "lanes", "no_progress")},
    "attack": {
        "images": ("images", "labels", "bounds", "start", "n", "all_images", "split"),
        "network": ("model", "weights", "mean", "std"),
        "attack and targets": ("attack", "eps", "set", "targets", "seed"),
        "run": ("out", "lanes", "no_progress"),
    },
    "explain": {
        "table (a known one, or your own file)": ("data", "csv", "label", "schema", "save_schema", "immutable", "drop"),
        "cells of your own file": ("delimiter", "decimal", "categories", "missing", "missing_values"),
        "people, and what they want": ("rows", "people", "target", "undesired", "probability"),
        "model": ("model", "classes", "threshold", "gradient"),
        "answers": (
            "method", "max_changes", "plausibility", "tau", "answers", "frontier", "certify", "time_limit", "seed",
        ),
        "run": ("out", "keep_formulas", "lanes", "no_progress"),
    },
}  # fmt: skip
EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("invjax demo",),
    "attack": (
        "invjax attack --images digits.npz --model mnist_cnn --out run",
        "invjax attack --images photos.npz --model my_nets:model --attack pgd --eps 8/255 --out run",
    ),
    "explain": (
        "invjax explain --data german --out run",
        "invjax explain --csv loans.csv --label paid --target yes --immutable age --out run",
    ),
}
WITHOUT_OPTION = {"demo": "n", "attack": "images", "explain": "csv"}  # what a word without an option is taken for
