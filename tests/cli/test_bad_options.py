"""Every option of every command with a wrong value: exit code 2, one line that names it, and nothing written.

The options are found in the commands' dataclasses: a new one fails here until ``WRONG`` has a value that it refuses.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from invjax.cli import main as cli
from invjax.cli.help import _texts
from invjax.cli.options import COMMANDS, EXAMPLES, GROUPS
from invjax.cli.parse import parse

HUGE = "9" * 5000
LONG = "n" * 300  # more than a file system takes
NUMBERS = ("x", "1.5", "nan", HUGE, "4294967296000")
OUT = ("images.npz/out", LONG)
# By command and option. Of a switch: what stands behind it, which is no value of it.
WRONG: dict[str, dict[str, tuple[str, ...]]] = {
    "demo": {
        "out": OUT, "n": ("0", "1001", *NUMBERS), "seed": ("-1", *NUMBERS), "lanes": ("0", *NUMBERS), "learn": ("x",),
        "no_progress": ("x",),
    },
    "attack": {
        "images": ("nowhere.npz", "table.csv", "tfds:", LONG, "."),
        "model": ("", "vgg", "no_such:net", "os:getcwd", "json:", ":x", LONG, HUGE),
        "out": OUT, "weights": ("nowhere", ".", LONG, "table.csv"), "attack": ("", "pdg", LONG),
        "targets": ("some", "0", "1,1", HUGE, LONG, "images.npz", "-1", "1.5"),
        "labels": ("nowhere", LONG, "words.txt", "deep.json", ".", "table.csv"),
        "start": ("6", "-1", *NUMBERS), "n": ("0", "-1", *NUMBERS), "all_images": ("x",),
        "mean": ("x", "nan", "inf", HUGE), "std": ("0", "x", "nan", "inf"), "bounds": ("x", "nan", "inf", "1"),
        "eps": ("x", "-1", "nan", "1/0", "inf", ""),
        "set": (
            "steps", "steps=", "=3", "steps=0", "steps=2.5", "steps=1e99", f"steps={HUGE}", "steps=nan",
            "step_size=inf", "step_size=1/0", "norm=l9", "loss=", "random_start=2", "pace=1", "iterations=3", "eps=-1",
        ),
        "seed": NUMBERS, "lanes": ("0", "-1", *NUMBERS), "no_progress": ("x",),
        "split": (),  # of a tfds data set alone
    },
    "explain": {
        "out": OUT, "data": ("moon", "", LONG), "csv": ("nowhere.csv", LONG, ".", "images.npz", "deep.json"),
        "label": ("", "shoe"), "schema": ("nowhere.json", LONG, ".", "deep.json", "table.csv", "images.npz"),
        "delimiter": ("xx", "", "e"), "decimal": ("x", ""), "categories": ("shoe",), "drop": ("shoe",),
        "missing": ("x", ""), "missing_values": (), "rows": ("x", "70", "3:1", "-1", HUGE, "1.5", "0,"),
        "people": ("nowhere.csv", LONG, ".", "images.npz"),
        "model": ("tree", "no.npz", "images.npz", "no_such:net", "os:getcwd", "json:loads", "", LONG),
        "classes": ("x", "0=", "=a"), "threshold": ("x", "nan", "2"), "gradient": ("x", ""), "target": ("maybe", ""),
        "undesired": ("maybe", ""), "probability": ("0", "1", "nan", "x", "-1"), "method": ("lime", ""),
        "max_changes": ("0", "-1", *NUMBERS), "plausibility": ("-1", "1", "nan", "inf", "x"),
        "tau": ("-1", "nan", "inf", "x", HUGE), "immutable": ("shoe",), "answers": ("0", "-1", *NUMBERS),
        "frontier": ("x",), "certify": ("x",), "time_limit": ("0", "-1", "nan", "x"),
        "save_schema": ("images.npz/x", LONG, "."), "seed": NUMBERS, "lanes": ("0", *NUMBERS), "no_progress": ("x",),
        "keep_formulas": ("x",),
    },
}  # fmt: skip
BASE: dict[str, dict[str, str]] = {
    "demo": {"out": "out"},
    "attack": {"images": "images.npz", "model": "one_s_own:net", "out": "out", "attack": "pgd"},
    "explain": {
        "csv": "table.csv", "label": "paid", "target": "yes", "out": "out", "model": "one_s_own:payers", "rows": "0:2",
    },
}  # fmt: skip


def test_every_option_has_a_wrong_value() -> None:
    for command, kind in COMMANDS.items():
        options = {field.name for field in dataclasses.fields(kind)}
        assert options == set(WRONG[command]), "give each option values in WRONG"
    assert sum(len(values) for options in WRONG.values() for values in options.values()) > 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a table, models of one's own, and files of other kinds."""
    folder, rng = tmp_path_factory.mktemp("options"), np.random.default_rng(0)
    np.savez(folder / "images.npz", images=rng.integers(0, 256, (6, 8, 8), dtype=np.uint8), labels=np.arange(6) % 4)
    rows = [f"{a:.1f},{b:.1f},{'yes' if a > b else 'no'}" for a, b in rng.uniform(0, 100, (60, 2))]
    (folder / "table.csv").write_text("\n".join(["income,debt,paid", *rows]))
    (folder / "pipes.csv").write_text("income|debt|paid\n1|2|yes\n2|1|no\n")
    (folder / "words.txt").write_text("one two\n")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "one_s_own.py").write_text(
        "import jax.numpy as jnp\n\n\ndef net(x):\n    return x.reshape(len(x), -1)[:, :4]\n\n\n"
        "def payers(x):\n    z = 5 * (x[:, 0] - x[:, 1])\n    return jnp.stack([-z, z], 1)\n"
    )
    return folder


def words_of(command: str, option: str, value: str, kind: Any) -> list[str]:
    """The command with this option in the place of what the valid one has for it."""
    given = {name: words for name, words in BASE[command].items() if name != option}
    if option == "data":  # in the place of a file
        given = {"out": "out"}
    if option == "people":
        del given["rows"]
    if option == "undesired":
        del given["target"]
    if option == "weights":
        given["model"] = "cnn"
    flag = f"--{option.replace('_', '-')}"
    switch = kind.__dataclass_fields__[option].default is False
    wrong = [flag, value] if switch or not value.startswith("-") else [f"{flag}={value}"]
    wrong += ["1"] if option == "bounds" else []
    return [command, *(word for name, words in given.items() for word in (f"--{name}", words)), *wrong]


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, options in WRONG.items() for option in options]
)
def test_wrong_values(command: str, option: str, folder: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("INVJAX_CACHE", "0")
    before = sorted(folder.iterdir())
    for value in WRONG[command][option]:
        assert cli.main(words_of(command, option, value, COMMANDS[command])) == 2, value[:40]
        said = capsys.readouterr().err
        assert said.startswith(f"invjax {command}: error: "), (value[:40], said)
        assert said.count("\n") == 1, (value[:40], said)
        assert len(said) < 500, (value[:40], said)
    after = [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"]
    assert after == [path for path in before if path.name != "__pycache__"]


# What a newcomer types, and what the one line must hold besides "(see ... --help)".
MEANT = {
    "atack --images x": "there is no command 'atack'; did you mean invjax attack?",
    "help": "did you mean invjax --help?",
    "--verison": "did you mean --version?",
    "--out x demo": "the command comes first: invjax demo --out",
    "attack --image x": "there is no option --image; did you mean --images?",
    "attack --batch_size 3": "did you mean --lanes?",
    "attack --epsilon=0.1": "did you mean --eps?",
    "attack --steps 3": "a constant of the attack is given as --set steps=VALUE",
    "attack -n 3": "there is no option -n; did you mean --n?",
    "attack images.npz": "'images.npz' follows no option; did you mean --images images.npz?",
    "attack --all-images no": "--all-images takes no value, was followed by 'no'",
    "attack --all-images=no": "--all-images takes no value, was followed by 'no'",
    "attack --images --model cnn": "--images must be followed by FILE.npz|tfds:NAME, was nothing (see",
    "attack --bounds -1": "--bounds must be followed by LOWER UPPER, was '-1'",
    "attack --n 2.5": "--n must be a whole number, was '2.5'",
    "attack --lanes all": "--lanes must be a whole number or 'auto', was 'all'",
    "attack --n 2 --n": "--n must be followed by INT, was nothing",
    "attack": "--images, --model, --out must be given",
    "explain table.csv --label paid": "did you mean --csv table.csv?",
    "explain --people --people.csv": "a value that begins like an option is written --people=--people.csv",
    "explain --max_change 3": "did you mean --max-changes?",
    "demo 10": "did you mean --n 10?",
    "explain --csv table.csv --label Paid --target yes --out o": "was 'Paid'; did you mean 'paid'?",
    "explain --csv table.csv --label paid --target Yes --out o": "was 'Yes'; did you mean 'yes'?",
    "explain --csv table.csv --label paid --target yes --out o --drop dept": "was 'dept'; did you mean 'debt'?",
    "explain --csv table.csv --label paid --target yes --out o --immutable Debt": "did you mean 'debt'?",
    "explain --csv table.csv --label paid --target yes --out o --method scfe": "did you mean 's-cfe'?",
    "explain --csv table.csv --label paid --target yes --out o --gradient surogate": "did you mean 'surrogate'?",
    "explain --csv table.csv --label paid --target yes --out o --model one_s_own:payer": "did you mean 'payers'?",
    "explain --csv pipes.csv --label paid --target yes --out o": "is its delimiter '|'?",
    "explain --data adlt --out o": "did you mean 'adult'?",
    "attack --images images.npz --model one_s_own:nett --out o": "did you mean 'net'?",
    "attack --images images.npz --model resnet-20 --out o": "did you mean 'resnet20'?",
    "attack --images images.npz --model r.pth --out o": "a file of weights is given as weights",
    "attack --images images.npz --model one_s_own:net --out o --attack PDG": "did you mean 'pgd'?",
    "attack --images images.npz --model one_s_own:net --out o --eps 0.1": "--eps must be left out for attack 'gse'",
    "attack --images images.npz --model one_s_own:net --out o --attack pgd --eps -1": "--eps must be a radius >= 0",
    "attack --images images.npz --model one_s_own:net --out o --attack pgd --set norm=Linf": "did you mean 'linf'?",
    "attack --images images.npz --model one_s_own:net --out o --attack pgd --set epsilon=1": "did you mean 'eps'?",
    "attack --images image.npz --model one_s_own:net --out o": "did you mean 'images.npz'?",
    "attack --images images.npz --model one_s_own:net --out o --targets 10": "offsets are added to the label",
}


@pytest.mark.parametrize("words", MEANT)
def test_what_was_meant(words: str, folder: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("INVJAX_CACHE", "0")
    assert cli.main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("invjax")
    assert MEANT[words] in said
    assert said.count("\n") == 1
    assert len(said) < 500
    assert not (folder / "o").exists()


def test_values_are_read_by_their_kind() -> None:
    words = "attack --images=a.npz --model m --out o --bounds -1 1 --mean .5 --mean .25 --all-images --set a=1 b=2"
    options = parse([*words.split(), "--set", "c=3", "--lanes", "4", "--eps=-1", "--n", "3"])
    assert (options.images, options.out, options.bounds, options.mean) == ("a.npz", Path("o"), (-1.0, 1.0), (0.5, 0.25))
    assert (options.set, options.all_images, options.lanes) == (("a=1", "b=2", "c=3"), True, 4)
    assert (options.eps, options.n, options.weights, options.start) == ("-1", 3, None, 0)
    assert parse(["explain", "--out", "o", "--max_changes", "3", "--lanes", "auto"]).max_changes == 3


def test_help_has_every_option_once_and_says_what_it_is(capsys: Any) -> None:
    for command, kind in COMMANDS.items():
        grouped = [name for names in GROUPS[command].values() for name in names]
        assert sorted(grouped) == sorted(field.name for field in dataclasses.fields(kind))
        assert parse([command, "--n", "3", "--help", "me"] if command != "explain" else [command, "-h"]) is None
        said = capsys.readouterr().out
        assert all(f"  --{name.replace('_', '-')}" in said for name in grouped)
        assert all(len(text) > 10 for text in _texts()[kind.__name__].values())
        assert set(_texts()[kind.__name__]) == set(grouped)
        for example in EXAMPLES[command]:
            assert example in said
            parse(example.split()[1:])
    assert parse(["--help"]) is None
    said = capsys.readouterr().out
    assert all(f"  {command} " in said for command in COMMANDS)
    assert len(said.splitlines()) < 30
