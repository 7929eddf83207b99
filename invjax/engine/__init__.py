"""The engine: the only code that knows batches, masks, lanes and devices."""

from invjax.core.meant import suggest_names
from invjax.cpu.convolutions import install_canonical_convolutions, uninstall_canonical_convolutions
from invjax.engine.batch import run_batch
from invjax.engine.blackbox import antithetic, surrogate
from invjax.engine.evaluate import white_box
from invjax.engine.queue import Part, run_queue, stream
from invjax.engine.saved import SavedRun, open_run
from invjax.engine.seen import seen_through
from invjax.engine.shared import run_saved, run_shared
from invjax.engine.solve import Prepared, prepare, solve
from invjax.engine.trace import Trace, trace
from invjax.types import Evaluator

__all__ = [
    "Evaluator", "Part", "Prepared", "SavedRun", "Trace", "antithetic", "install_canonical_convolutions",
    "open_run", "prepare", "run_batch", "run_queue", "run_saved", "run_shared", "seen_through", "solve", "stream",
    "surrogate", "trace", "uninstall_canonical_convolutions", "white_box",
]  # fmt: skip

suggest_names(__name__)
