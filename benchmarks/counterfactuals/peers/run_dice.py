"""DiCE on the rows of an exchange file: ``python run_dice.py EXCHANGE.npz OUT.npz --method gradient|genetic|random``.

One counterfactual per row within the permitted range, with the library's own settings, through its public call and row
by row, as its own loop does. The method ``gradient`` needs torch; the others get the network as an object with
scikit-learn's ``predict_proba``. Nothing is compiled, so no first call is set apart.

Two settings differ from the library's. Numbers have four decimals: from z-scored data it would infer seven or eight,
with which the linear search after each result runs for minutes. For ``gradient`` that search is the library's binary
one.

R. K. Mothilal, A. Sharma, C. Tan: Explaining Machine Learning Classifiers through Diverse Counterfactual Explanations,
FAT* 2020.
"""

from __future__ import annotations

import contextlib
import io
import random
import time
import warnings
from typing import Any

import dice_ml
import numpy as np
import pandas as pd
from exchange import Exchange, Outcome, arguments, network, read_exchange, sigmoid, versions_of, write_outcome
from torch_mlp import torch_network

OUTCOME = "outcome"
DECIMALS = 4  # rounding moves a value by at most half of 1e-4, the tolerance of a changed feature


class Classifier:
    """The network with the two methods that DiCE needs of a scikit-learn classifier."""

    def __init__(self, weights: Any):
        self.weights = weights
        self.classes_ = np.array([0, 1])

    def predict_proba(self, x: Any) -> np.ndarray:
        """[N, 2] probabilities."""
        p = sigmoid(network(self.weights, np.asarray(x, np.float64)))
        return np.stack([1 - p, p], axis=-1)

    def predict(self, x: Any) -> np.ndarray:
        """[N] classes."""
        return self.predict_proba(x).argmax(-1)


def explainer(exchange: Exchange, method: str, names: list[str]) -> Any:
    """DiCE's explainer of the network, given the training rows."""
    rows = pd.DataFrame(exchange.train_x.astype(np.float64), columns=names)
    limits = zip(names, exchange.lower, exchange.upper, strict=True)
    ranges = {name: [float(low), float(high)] for name, low, high in limits}
    rows[OUTCOME] = exchange.train_y
    data = dice_ml.Data(
        dataframe=rows,
        continuous_features=names,
        outcome_name=OUTCOME,
        permitted_range=ranges,
        continuous_features_precision=dict.fromkeys(names, DECIMALS),
    )
    if method == "gradient":
        model = dice_ml.Model(model=torch_network(exchange.weights), backend="PYT", func="ohe-min-max")
    else:
        model = dice_ml.Model(model=Classifier(exchange.weights), backend="sklearn")
    return dice_ml.Dice(data, model, method=method)


def main() -> None:
    """Run one method on every row and write the outcome."""
    options = arguments(__doc__, ["gradient", "genetic", "random"])
    exchange = read_exchange(options.exchange)
    names = [f"x{i}" for i in range(exchange.test_x.shape[1])]
    warnings.filterwarnings("ignore")
    random.seed(options.seed)
    np.random.seed(options.seed)  # noqa: NPY002 -- DiCE draws from the global generators
    packages = ["dice-ml", "numpy", "pandas", "scikit-learn"]
    settings = {}
    if options.method == "gradient":
        import torch

        torch.manual_seed(options.seed)
        torch.set_num_threads(1)  # more threads slow down a network this small
        settings["posthoc_sparsity_algorithm"] = "binary"
        packages.append("torch")

    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        explain = explainer(exchange, options.method, names)
        x, found = exchange.test_x.astype(np.float64), np.zeros(len(exchange.test_x), bool)
        query = pd.DataFrame(x.copy(), columns=names)
        begin = time.perf_counter()
        for i in range(len(query)):
            try:
                answer = explain.generate_counterfactuals(
                    query[i : i + 1], total_CFs=1, desired_class=int(exchange.target[i]), **settings
                )
            except Exception as error:  # where DiCE finds nothing, it raises an exception of its own
                if "counterfactual" not in str(error).lower():
                    raise
                continue
            frame = answer.cf_examples_list[0].final_cfs_df_sparse
            frame = answer.cf_examples_list[0].final_cfs_df if frame is None else frame
            if frame is not None and len(frame):
                x[i], found[i] = frame[names].to_numpy(np.float64)[0], True
        seconds = time.perf_counter() - begin
    write_outcome(options.out, Outcome(x, found, seconds, 0.0, versions_of(*packages)))


if __name__ == "__main__":
    main()
