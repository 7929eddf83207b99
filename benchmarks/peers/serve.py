"""The peer's end of ``worker``: a line of JSON in, a line of JSON out. Standard library only."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any


def serve(actions: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer requests ``{"do": name, **arguments}`` until the input ends.

    What a library prints goes to standard error, so that it cannot mix with the answers.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = actions[request.pop("do")](**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        print(json.dumps(answer), file=answers, flush=True)
