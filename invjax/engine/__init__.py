"""The engine: the only code that knows batches, masks, lanes and devices."""

from invjax.cpu.convolutions import install_canonical_convolutions as install_canonical_convolutions
from invjax.cpu.convolutions import uninstall_canonical_convolutions as uninstall_canonical_convolutions
from invjax.engine.batch import run_batch as run_batch
from invjax.engine.blackbox import antithetic as antithetic
from invjax.engine.blackbox import surrogate as surrogate
from invjax.engine.evaluate import white_box as white_box
from invjax.engine.queue import Part as Part
from invjax.engine.queue import run_queue as run_queue
from invjax.engine.queue import stream as stream
from invjax.engine.solve import LANES as LANES
from invjax.engine.solve import prepare as prepare
from invjax.engine.solve import run_shared as run_shared
from invjax.engine.solve import solve as solve
from invjax.engine.trace import Trace as Trace
from invjax.engine.trace import trace as trace
from invjax.types import Evaluator as Evaluator
