"""invjax: inverse classification in JAX.

Given a trained classifier and an input, find the smallest change that makes the classifier say something else:
adversarial attacks, counterfactual explanations and learning from them, one mathematics and one engine.
"""

from invjax import attacks as attacks
from invjax.core.logits import LogitsModel as LogitsModel
from invjax.core.logits import as_logits as as_logits
from invjax.engine import install_canonical_convolutions as install_canonical_convolutions
from invjax.engine import run_batch as run_batch
from invjax.engine import run_queue as run_queue
from invjax.engine import solve as solve
from invjax.engine import trace as trace
from invjax.engine import white_box as white_box
from invjax.solvers import minimize as minimize
from invjax.types import UNTARGETED as UNTARGETED
from invjax.types import Bounds as Bounds
from invjax.types import Context as Context
from invjax.types import Eval as Eval
from invjax.types import Method as Method
from invjax.types import Outcome as Outcome
from invjax.types import Problem as Problem
from invjax.types import Result as Result
from invjax.types import Status as Status

__version__ = "0.1.0"
