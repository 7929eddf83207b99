"""``python -m invjax``: the same as the command ``invjax``."""

import sys

from invjax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
