"""Seconds of ``import invjax`` in a fresh process."""

import json
import time

begin = time.perf_counter()
import invjax  # noqa: E402

seconds = time.perf_counter() - begin
print(json.dumps({"where": invjax.__file__, "measured": {"import_s": seconds}, "exact": {}}))
