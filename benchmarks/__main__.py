"""``python -m benchmarks NAME [options]``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

BENCHMARKS = {
    "gse-cifar10": "attacks.gse_cifar10",
    "attacks-cifar10": "attacks.cifar10",
    "attacks-imagenet": "attacks.imagenet",
    "engine-overhead": "engine.overhead",
    "memory": "engine.memory",
    "conv-loop": "engine.conv_loop",
    "cfe": "counterfactuals.comparison",
    "cfe-peers": "counterfactuals.beside",
    "cfe-certify": "counterfactuals.certify",
    "learn": "learn.comparison",
    "learn-angle": "learn.angle",
    "learn-kumano": "learn.kumano",
}


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with the options of the benchmarks ``names`` (only those are imported)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, module_name in BENCHMARKS.items():
        if name not in names:
            commands.add_parser(name)
            continue
        module = importlib.import_module(f"benchmarks.{module_name}")
        module.add_arguments(commands.add_parser(name, help=module.DESCRIPTION, description=module.DESCRIPTION))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark. Bad input: one line on stderr and exit code 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    named = [word for word in argv[:1] if word in BENCHMARKS] or list(BENCHMARKS)
    options = _parser(named).parse_args(argv)
    try:
        return importlib.import_module(f"benchmarks.{BENCHMARKS[options.name]}").run(options)
    except (ValueError, ImportError) as error:
        print(f"benchmarks {options.name}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"benchmarks {options.name}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
