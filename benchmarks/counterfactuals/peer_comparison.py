"""``cfe-peers``: DiCE and jax-relax on the rows, the network and the limits of the ``cfe`` protocol.

Each peer runs in an environment of its own, which is made where it does not exist. A peer that cannot be installed or
run is skipped with the reason.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import check_json, pick, write_json
from benchmarks.counterfactuals.peers import exchange as files
from benchmarks.counterfactuals.peers.exchange import Exchange, Outcome
from benchmarks.counterfactuals.protocol import protocol
from benchmarks.peers.environments import Skipped, call, environment
from invjax.core.errors import BadArgument, check_whole

SCRIPTS = Path(files.__file__).parent
NEIGHBOURS = 20  # of the local outlier factor
TOLERANCE = 1e-4  # a feature that moved by less has not changed


class Peer(NamedTuple):
    """How one peer is installed and run."""

    environment: str  # folder below --envs, which peers may share
    requirements: tuple[str, ...]  # what pip installs there
    imports: str  # a statement that shows whether the environment works
    script: str
    method: str
    rows: int | None = None  # default of --n for a peer that needs many seconds per row; None for all


# The pinned releases are the ones first measured. jax-relax imports fastcore and nbdev without declaring them, and
# needs pydantic 1 and Keras before 3.4.
_DICE = ("dice-ml==0.12",)
_TORCH = "torch==2.13.0"  # for the gradient; where pip finds no CPU build, it downloads several gigabytes
_RELAX = ("jax-relax==0.2.9", "pydantic<2", "keras>=3.0.3,<3.4", "fastcore", "nbdev")

PEERS = {
    "dice-gradient": Peer("dice-torch", (*_DICE, _TORCH), "import dice_ml, torch", "run_dice.py", "gradient", 20),
    "dice-genetic": Peer("dice", _DICE, "import dice_ml", "run_dice.py", "genetic"),
    "dice-random": Peer("dice", _DICE, "import dice_ml", "run_dice.py", "random"),
    "relax": Peer("relax", _RELAX, "import relax.methods", "run_relax.py", "vanilla"),
    "relax-jit": Peer("relax", _RELAX, "import relax.methods", "run_relax.py", "vanilla-jit"),
    "relax-bce": Peer("relax", _RELAX, "import relax.methods", "run_relax.py", "bce"),
    "relax-bce-jit": Peer("relax", _RELAX, "import relax.methods", "run_relax.py", "bce-jit"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--data", choices=["housing", "wine"], default="housing")
    parser.add_argument("--exchange", help="npz of rows and network instead of --data (see peers/exchange.py)")
    parser.add_argument("--peers", default="all", help="all, or names separated by commas: " + ", ".join(PEERS))
    parser.add_argument(
        "--n",
        type=int,
        help="only the first N test rows (default: all; 20 for dice-gradient, which needs seconds per row)",
    )
    parser.add_argument("--envs", help="folder of the environments, kept for the next run (default: a temporary one)")
    parser.add_argument("--no-install", action="store_true", help="use the environments of --envs and install nothing")
    parser.add_argument(
        "--timeout", type=float, default=3600.0, help="most seconds of a peer's run, and of an installation"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the peers")
    parser.add_argument("--json", help="file for the record")


# --- running ----------------------------------------------------------------------------------------------------------


def run_peer(python: Path, peer: Peer, given: Exchange, *, seed: int = 0, timeout: float = 3600.0) -> Outcome:
    """Run the peer's script on the rows.

    Raises Skipped: it failed, it took too long, or its result does not fit the rows.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "exchange.npz"), Path(folder, "outcome.npz")
        files.write_exchange(source, given)
        words = [python, SCRIPTS / peer.script, source, target, "--method", peer.method, "--seed", str(seed)]
        call(words, "running", timeout)
        if not target.is_file():
            raise Skipped("running failed: no result was written")
        outcome = files.read_outcome(target)
    if outcome.x.shape != given.test_x.shape or not np.isfinite(outcome.x).all():
        raise Skipped(f"running failed: the result has shape {outcome.x.shape}, or is not finite")
    return outcome


# --- judging ----------------------------------------------------------------------------------------------------------


def judge(given: Exchange, x: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """Measures of counterfactuals x [N, D]: means over the valid rows, NaN if none is valid.

        valid_i = found_i and sign z(x'_i) is the target's, z in float64                                            (1)
        l2 = |x' - x|_2,    l0 = #{j: |x'_j - x_j| > 1e-4}
        LOF = local outlier factor (k = 20) among the target class's training rows: 1 inside, larger outside

    Returns:
      ``rows``, ``found`` and ``valid`` (counts), ``outside`` (valid rows that leave the limits by more than 1e-4),
      ``l2``, ``l0``, ``lof``, and ``per_row`` with the lists.

    Raises ImportError if scikit-learn is missing.
    """
    try:
        from sklearn.neighbors import LocalOutlierFactor
    except ImportError as error:
        raise ImportError("cfe-peers needs scikit-learn: pip install 'invjax[test]'") from error
    rows = np.asarray(given.test_x, np.float64)
    x = np.asarray(x, np.float64)
    valid = np.asarray(found, bool) & ((files.network(given.weights, x) > 0) == (given.target == 1))
    moved = np.abs(x - rows)
    l2, l0 = np.linalg.norm(x - rows, axis=-1), (moved > TOLERANCE).sum(-1)
    lof = np.full(len(rows), np.nan)
    for label in np.unique(given.target):
        mine = given.target == label
        reference = given.train_x[given.train_y == label].astype(np.float64)
        if len(reference) > 1:
            fitted = LocalOutlierFactor(min(NEIGHBOURS, len(reference) - 1), novelty=True).fit(reference)
            lof[mine] = -fitted.score_samples(x[mine])
    outside = ((x < given.lower - TOLERANCE) | (x > given.upper + TOLERANCE)).any(-1)
    mean = lambda values: float(values[valid].mean()) if valid.any() else float("nan")  # noqa: E731
    return {
        "rows": len(rows),
        "found": int(np.sum(found)),
        "valid": int(valid.sum()),
        "outside": int((outside & valid).sum()),
        "l2": mean(l2),
        "l0": mean(l0),
        "lof": mean(lof),
        "per_row": {"valid": valid.tolist(), "l2": l2.tolist(), "l0": l0.tolist(), "lof": lof.tolist()},
    }


def real_rows(given: Exchange) -> dict[str, Any]:
    """The two baselines of the table: ``{"real": ..., "nearest": ...}``.

    real: the test rows themselves, judged in the class that the network gives them. nearest: for each row the nearest
    training row of the target class that the network accepts.
    """
    own = judge(given._replace(target=given.predicted), given.test_x, np.ones(len(given.test_x), bool))
    x, found = given.test_x.astype(np.float64), np.zeros(len(given.test_x), bool)
    accepted = (files.network(given.weights, given.train_x) > 0) == (given.train_y == 1)
    for label in np.unique(given.target):
        pool = given.train_x[accepted & (given.train_y == label)].astype(np.float64)
        mine = np.flatnonzero(given.target == label)
        if len(pool):
            distance = np.linalg.norm(x[mine, None] - pool[None], axis=-1)
            x[mine], found[mine] = pool[distance.argmin(1)], True
    return {"real": own, "nearest": judge(given, x, found)}


# --- the command ------------------------------------------------------------------------------------------------------


def _line(name: str, row: dict[str, Any]) -> str:
    if "skipped" in row:
        return f"{name:14s}  skipped: {row['skipped']}"
    speed = f"{row['rows_per_s']:10.2f}  {row['first_s']:9.2f}" if "rows_per_s" in row else ""
    valid = f"{row['valid']}/{row['rows']}"
    return f"{name:14s}  {valid:>9s}  {row['l2']:6.3f}  {row['l0']:6.2f}  {row['lof']:6.3f}  {speed}".rstrip()


def compare(
    given: Exchange, names: Sequence[str], envs: Path, *, n: int | None, install: bool, timeout: float, seed: int
) -> dict[str, dict[str, Any]]:
    """Run the named peers one after another and judge them; print a line as each ends."""
    record = real_rows(given.first(n))
    print(f"{'':14s}  {'valid':>9s}  {'l2':>6s}  {'l0':>6s}  {'LOF':>6s}  {'rows/s':>10s}  {'first, s':>9s}")
    for name, row in record.items():
        print(_line(name, row), flush=True)
    for name in names:
        peer = PEERS[name]
        part = given.first(peer.rows if n is None else n)
        try:
            requirements = peer.requirements if install else None
            python = environment(envs / peer.environment, peer.imports, requirements, timeout=timeout)
            outcome = run_peer(python, peer, part, seed=seed, timeout=timeout)
        except Skipped as reason:
            record[name] = {"skipped": str(reason)}
        else:
            record[name] = judge(part, outcome.x, outcome.found) | {
                "seconds": outcome.seconds,
                "first_s": outcome.first_s,
                "rows_per_s": len(part.test_x) / outcome.seconds,
                "versions": outcome.versions,
            }
        print(_line(name, record[name]), flush=True)
    return record


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    names = pick("peers", options.peers, PEERS)
    if options.n is not None:
        check_whole("n", options.n)
    if options.no_install and options.envs is None:
        raise BadArgument("envs", "be the folder of existing environments", hint="--no-install makes none")
    if options.exchange is None:
        given = protocol(options.data)
    else:
        try:
            given = files.read_exchange(options.exchange)
        except OSError as error:
            raise BadArgument(
                "exchange", "be a file that can be read", options.exchange, hint=error.strerror
            ) from error
    settings = {"n": options.n, "install": not options.no_install, "timeout": options.timeout, "seed": options.seed}
    print(f"{options.exchange or options.data}: {len(given.train_x)} training rows, {len(given.test_x)} to explain")
    if options.envs is None:
        with tempfile.TemporaryDirectory() as folder:
            record = compare(given, names, Path(folder), **settings)
    else:
        record = compare(given, names, Path(options.envs).absolute(), **settings)
    write_json(options.json, {"data": options.exchange or options.data, "seed": options.seed, "rows": record})
    return 0
