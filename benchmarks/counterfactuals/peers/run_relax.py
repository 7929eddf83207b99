"""jax-relax on the rows of an exchange file: ``python run_relax.py EXCHANGE.npz OUT.npz --method vanilla``.

vanilla        VanillaCF with its defaults (KL divergence, 100 steps of RMSprop, step .1), through the library's own
               ``generate_cf_explanations``, which traces and compiles anew in every call
vanilla-jit    the same with the whole call under one jit, which shows what the method itself costs
bce, bce-jit   VanillaCF with binary cross-entropy and 1,000 steps, likewise

The library works on numbers in [0, 1] and keeps them there, so rows are scaled by the permitted range of the exchange
file. The target is 1 - p(x), the library's own choice. ``first_s`` includes compilation; ``seconds`` is the least time
of the calls after it.

H. Guo, X. Xiong, W. Zhang, A. Yadav: ReLax: Efficient and Scalable Recourse Explanation Benchmark using JAX, 2023.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import numpy as np
from exchange import Exchange, Outcome, arguments, read_exchange, versions_of, write_outcome

SETTINGS: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "bce": {"validity_fn": "BinaryCrossentropy", "n_steps": 1000},
}
REPEAT, ENOUGH = 6, 2.0  # most calls, and the seconds after which none is begun


def predictor(exchange: Exchange) -> Callable[[jax.Array], jax.Array]:
    """The network in the library's form: [B, D] in [0, 1] -> [B, 1] probability of class 1."""
    weights = [(jnp.asarray(kernel), jnp.asarray(bias)) for kernel, bias in exchange.weights]
    lower, width = jnp.asarray(exchange.lower), jnp.asarray(exchange.upper - exchange.lower)

    def predict(unit: jax.Array) -> jax.Array:
        x = lower + width * unit
        for i, (kernel, bias) in enumerate(weights):
            x = (jax.nn.relu(x) if i else x) @ kernel + bias
        return jax.nn.sigmoid(x)

    return predict


def scaled(exchange: Exchange) -> np.ndarray:
    """The rows to explain in [0, 1], [N, D] float32."""
    return ((exchange.test_x - exchange.lower) / (exchange.upper - exchange.lower)).astype(np.float32)


def library_call(exchange: Exchange, module: Any, predict: Any, seed: int) -> Callable[[], jax.Array]:
    """The library's own path over all rows."""
    from relax import DataModule, Feature, FeaturesList, generate_cf_explanations

    unit, raw = scaled(exchange), exchange.test_x
    # Values are passed scaled: the library would scale by the least and the greatest value of these rows alone.
    columns = [
        Feature(f"x{j}", raw[:, j : j + 1], "minmax", transformed_data=unit[:, j : j + 1]) for j in range(raw.shape[1])
    ]
    label = [Feature("label", exchange.predicted[:, None].astype(np.float32), "identity")]
    data = DataModule.from_features(FeaturesList(columns), FeaturesList(label), name="rows")
    if not np.array_equal(np.asarray(data.xs), unit):
        raise RuntimeError("this jax-relax rescales features that are scaled already: its rows would differ")
    key = jax.random.PRNGKey(seed)
    return lambda: generate_cf_explanations(module, data, predict, rng_key=key).cfs[:, 0]


def jitted_call(exchange: Exchange, module: Any, predict: Any, seed: int) -> Callable[[], jax.Array]:
    """The method on all rows as one compiled program, with the keys and targets of the library's path."""
    keys = jax.random.split(jax.random.PRNGKey(seed), len(exchange.test_x))
    rows = jnp.asarray(scaled(exchange))
    module.set_apply_constraints_fn(lambda x, cf, hard=False, **_: jnp.clip(cf, 0.0, 1.0))  # what minmax features do

    @jax.jit
    def run(rows: jax.Array, keys: jax.Array) -> jax.Array:
        targets = 1 - predict(rows)
        one = lambda x, y, key: module.generate_cf(x, pred_fn=predict, y_target=y, rng_key=key)  # noqa: E731
        return jax.vmap(one)(rows, targets, keys)

    return lambda: run(rows, keys)


def main() -> None:
    """Run one method on every row and write the outcome."""
    options = arguments(__doc__, ["vanilla", "vanilla-jit", "bce", "bce-jit"])
    exchange = read_exchange(options.exchange)
    warnings.filterwarnings("ignore")
    from relax.methods import VanillaCF

    name, _, whole = options.method.partition("-")
    prepare = jitted_call if whole else library_call
    call = prepare(exchange, VanillaCF(SETTINGS[name]), predictor(exchange), options.seed)
    times: list[float] = []
    unit: Any = None
    while len(times) < 2 or (len(times) < REPEAT and sum(times[1:]) < ENOUGH):
        begin = time.perf_counter()
        unit = jax.block_until_ready(call())
        times.append(time.perf_counter() - begin)
    lower, upper = exchange.lower.astype(np.float64), exchange.upper.astype(np.float64)
    x = lower + np.asarray(unit, np.float64) * (upper - lower)
    found = np.asarray(np.isfinite(x).all(-1))
    x = np.where(found[:, None], x, exchange.test_x)
    write_outcome(
        options.out, Outcome(x, found, min(times[1:]), times[0], versions_of("jax-relax", "jax", "keras", "numpy"))
    )


if __name__ == "__main__":
    main()
