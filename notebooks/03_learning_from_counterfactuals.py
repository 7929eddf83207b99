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
# # Learning from counterfactuals
#
# <!-- [![Open in Colab][colab-badge]][colab] -->
#
# [colab]: https://colab.research.google.com/github/owner/invjax/blob/main/notebooks/03_learning_from_counterfactuals.ipynb
# [colab-badge]: https://colab.research.google.com/assets/colab-badge.svg
#
# Move every training image towards another class, label it with that class, and train a fresh network on the result.
# What it then knows of the classes it has from the changes alone. Does it matter how the images were moved: by an
# adversarial attack, or by a plausible counterfactual (p-CFE)?
#
# $$\min_{x'} \|x'-x\|_2^2 + \gamma L(f(x'), t) - \tau \log q(x', t) + \beta \|x'-x\|_0$$
#
# The test is a set in which something else goes with the class by accident: the accuracy of the *worst group* says
# whether a network leans on it. The whole takes one to two minutes on two CPU cores.

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
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

from invjax import viz
from invjax.attacks import PGD
from invjax.counterfactuals import FixedWeights
from invjax.data import load_groups
from invjax.densities import fit_knn
from invjax.learn import Optimiser, evaluate, fit, group_dro, make_perturbed_dataset
from invjax.learn.study import ablation, load_task
from invjax.models import MLP

# %% tags=["parameters"]
STEPS = 500  # of each training
GRADIENTS = 40  # for each image that is moved
SEEDS = (0, 1, 2)  # of the comparison at the end

# %% [markdown]
# ## A set with a misleading strip
#
# Digits 0–4 against 5–9. The two rows of pixels under the digit are dark or bright; in training that agrees with the
# class 95 times of 100, in the test half of the time. So there are four groups, two of them rare in training.

# %% mystnb={"image": {"alt": "Digits of each group with a dark or a bright strip below them"}}
data = load_groups("digits-spurious", seed=0)
train, test = data.split("train"), data.split("test")
print(data.describe())

figure, axes = plt.subplots(1, 4, figsize=(9, 1.7))
for group, axis in enumerate(axes):
    first = train.x[train.group == group][:3]
    axis.imshow(np.concatenate(first[..., 0], axis=1), cmap="gray", vmin=0, vmax=1)
    axis.set_title(data.groups[group], fontsize=10)
    axis.set(xticks=[], yticks=[])

# %% [markdown]
# ## Ordinary training
#
# `fit` trains any NNX module on arrays; `evaluate` counts by group, with intervals.

# %%
adam = Optimiser(rule="adam", rate=1e-3)


def learn(x, y, seed=1, **how):
    network = MLP((80, 128, 128, 2), rngs=nnx.Rngs(seed))
    how = {"steps": STEPS, "optimiser": adam, **how}
    return fit(network, x, y, key=jax.random.key(seed), **how).model


def show(name, model):
    found = evaluate(model, test.x, test.y, test.group, train_groups=train.group)
    worst = test.groups[found.worst_group]
    print(f"{name:14s} accuracy {found.average:.3f}, worst group {found.worst:.3f}: {worst}")


plain = learn(train.x, train.y, seed=0)
show("as they are", plain)

# %% [markdown]
# The rare groups suffer: the network reads the strip. Who knows the groups in training can do something about it:

# %%
show("group DRO", learn(train.x, train.y, **group_dro(train.group, convention="wilds")))

# %% [markdown]
# ## Perturbed sets
#
# `make_perturbed_dataset` moves the whole set with any attack or counterfactual method of the library. Who the targets
# are is an argument: `"other"` draws another class for every image, `"all"` draws from all classes, so that images
# whose target is their own class stay as they are. So are the failures: kept as tried, put back, or dropped.
#
# The density: the pull towards the five nearest digits of the wanted class.

# %%
density = fit_knn(train.x, train.y, k=5)
generators = {
    "PGD": PGD(eps=2.0, step_size=0.4, steps=GRADIENTS, norm="l2", stop_early=False),
    "p-CFE": FixedWeights(gamma=5.0, tau=8.0, beta=0.02, steps=GRADIENTS, step_size=0.06),
    "density only": FixedWeights(gamma=0.0, tau=8.0, beta=0.02, steps=GRADIENTS, step_size=0.06),
}
sets = {
    name: make_perturbed_dataset(
        generator, "other", plain, train.x, train.y,
        density=None if name == "PGD" else density, lanes=256, key=jax.random.key(4),
    )
    for name, generator in generators.items()
}  # fmt: skip

# %% mystnb={"image": {"alt": "Eight digits, what PGD, p-CFE and the density alone make of them, the changes"}}
titles = [f"→ {data.classes[k]}" for k in sets["PGD"].y[:8]]
viz.perturbed(train.x, sets, range(8), titles=titles)

# %%
for name, made in sets.items():
    print(f"{name}: {made!r}")

# %% [markdown]
# Not one of these images has its right label. All the same the networks that learn from them get most test images
# right: the changes carry the class.

# %%
for name, made in sets.items():
    show(name, learn(made.x, made.y))

# %% [markdown]
# ## The comparison
#
# One seed says little, and one number less. `python -m benchmarks learn` runs all methods over several seeds, with
# the controls that tell where an effect comes from: labels without changes, the density without the classifier, the
# density of the wrong class, p-CFE without its failures, a grid of γ and τ, and the peers that know the groups. Here a
# part of it, with targets from all classes as in the published experiments.

# %%
from tqdm.auto import tqdm

task = load_task("digits-spurious", steps=STEPS, iterations=GRADIENTS)
methods = ["erm", "random-labels", "pgd-l2", "cfe-l2"]
methods += ["p-cfe", "density-only", "permuted-density", "resample"]
with tqdm(total=len(methods) * len(SEEDS), unit="network") as bar:
    records = ablation(task, methods, seeds=SEEDS, policy="all", say=lambda line: bar.update())

# %% mystnb={"image": {"alt": "Accuracy and worst group of each method with intervals, beside plain training"}}
viz.worst_groups(records)

# %%
for name, record in records.items():
    low, high = record["wga_ci"]
    accuracy, worst = record["accuracy"], record["wga"]
    print(f"{name:18s} accuracy {accuracy:.3f}, worst group {worst:.3f} [{low:.3f}, {high:.3f}]")

# %% [markdown]
# In these means the density does the work: what is made with it teaches a network more than an attack does, without the
# classifier's term even more, and with the density of the wrong class the gain is gone. But the intervals of three
# seeds overlap, so this is a direction and no proof. The page *Learning from counterfactuals* of the documentation has
# the tables, and those of larger sets, where nothing that perturbs beats plain training.
