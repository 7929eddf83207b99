"""``python -m invjax.data.tfds_builders``: prepare a set as array_record, without TensorFlow."""

from __future__ import annotations

import argparse
import sys

from invjax.data.tfds_builders import BUILDERS, prepare


def main(words: list[str] | None = None) -> int:
    """The command; 0 where it succeeded, 2 with one line on stderr where it could not."""
    parser = argparse.ArgumentParser(prog="python -m invjax.data.tfds_builders", description=prepare.__doc__)
    parser.description = "Prepare a data set as array_record, without TensorFlow."
    parser.add_argument("name", choices=sorted(BUILDERS))
    parser.add_argument("source", help="the folder or zip of the images")
    parser.add_argument("--data-dir", help="tfds' data folder; its own default without")
    chosen = parser.parse_args(words)
    try:
        builder = prepare(chosen.name, chosen.source, chosen.data_dir)
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(builder.data_path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
