"""``python -m benchmarks NAME [options]`` runs one benchmark; without a name, it lists them all."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from invjax.core.errors import BadArgument, unknown_name
from invjax.core.meant import did_you_mean


class Benchmark(NamedTuple):
    """Where a benchmark is, and what it measures in a line."""

    module: str  # below this package; it has add_arguments(parser) and run(options)
    line: str


BENCHMARKS = {
    "attacks": Benchmark("attacks.comparison", "all attacks on CIFAR-10 or ImageNet pictures, beside published tables"),
    "gse-cifar10": Benchmark("attacks.gse_cifar10", "GSE on CIFAR-10, beside the published table"),
    "gse-torch": Benchmark("attacks.gse_torch", "GSE beside its authors' code under torch, or the loop beside XLA"),
    "attacks-peers": Benchmark("attacks.peer_comparison", "our attacks beside adv-lib's and Foolbox's at equal steps"),
    "engine-overhead": Benchmark("engine.overhead", "run time of an attack over that of its bare gradients"),
    "lanes": Benchmark("engine.lanes", "the lanes that lanes=auto chooses beside fixed numbers, on this device"),
    "accelerator": Benchmark("accelerator.program", "a GPU or TPU: attacks, tables and training, beside torch"),
    "memory": Benchmark("engine.memory", "peak memory while long lists of PGD pairs go through 64 lanes"),
    "on-disk": Benchmark("engine.on_disk", "runs whose list and answers are files: memory, seconds and bytes"),
    "conv-loop": Benchmark("engine.conv_loop", "an input gradient inside a compiled loop and outside, on this device"),
    "regression": Benchmark("regression.comparison", "this checkout against another one: ratios of times and memory"),
    "cfe": Benchmark("counterfactuals.comparison", "counterfactual methods on four tables and MNIST: quality, speed"),
    "cfe-peers": Benchmark("counterfactuals.peer_comparison", "DiCE and jax-relax on the rows and network of cfe"),
    "scfe-torch": Benchmark("counterfactuals.scfe_torch", "S-CFE beside its authors' code under torch"),
    "cfe-certify": Benchmark("counterfactuals.certify", "S-CFE without plausibility against the certified optimum"),
    "learn": Benchmark("learn.comparison", "networks trained on counterfactuals, measured by the worst group"),
    "learn-angle": Benchmark("learn.angle", "cosines between adversarial perturbations and plausible ones"),
    "learn-kumano": Benchmark("learn.kumano", "MNIST learnt from adversarial perturbations alone (Kumano et al. 2024)"),
}
FORMER = {"attacks-cifar10": "attacks --data cifar10", "attacks-imagenet": "attacks --data imagenet"}


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line, as the commands do."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def _unexpected(word: str, parser: argparse.ArgumentParser) -> str:
    """About a word that the benchmark has no use for."""
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    meant = did_you_mean(word.partition("=")[0], known, quoted=False)
    return f"there is no option {word}" + (f"; {meant}" if meant and word.startswith("-") else "")


def listing() -> str:
    """The help: all benchmarks, a line each."""
    width = max(map(len, BENCHMARKS))
    lines = (f"  {name.ljust(width)}  {benchmark.line}" for name, benchmark in BENCHMARKS.items())
    return "\n".join(
        ["usage: python -m benchmarks NAME [options]     (python -m benchmarks NAME --help: its options)", "", *lines]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark and return its exit code. Bad input: one line on stderr and exit code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(listing())
        return 0
    name, *rest = words
    if name not in BENCHMARKS:
        renamed = f"{name} is now: python -m benchmarks {FORMER[name]}" if name in FORMER else None
        unknown = unknown_name("NAME", name, BENCHMARKS, f"be one of {', '.join(BENCHMARKS)}")
        print(f"benchmarks: error: {renamed or unknown}", file=sys.stderr)
        return 2
    parser = _Parser(prog=f"python -m benchmarks {name}", description=BENCHMARKS[name].line)
    options = None
    try:
        module = importlib.import_module(f"benchmarks.{BENCHMARKS[name].module}")
        module.add_arguments(parser)
        options, left = parser.parse_known_args(rest)
        if left:
            parser.error(_unexpected(left[0], parser))
        return module.run(options)
    except (ValueError, ImportError) as error:
        print(f"benchmarks {name}: error: {_line(error, options)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"benchmarks {name}: interrupted", file=sys.stderr)
        return 130


def _line(error: Exception, options: argparse.Namespace | None) -> str:
    """The message in one line; a bad argument that is an option is called by the option's name."""
    if isinstance(error, BadArgument) and hasattr(options, error.name):
        error = error.renamed(f"--{error.name.replace('_', '-')}")
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
