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
# # Counterfactual explanations
#
# <!-- [![Open in Colab][colab-badge]][colab] -->
#
# [colab]: https://colab.research.google.com/github/owner/invjax/blob/main/notebooks/02_counterfactuals.ipynb
# [colab-badge]: https://colab.research.google.com/assets/colab-badge.svg
#
# What would have to be different for the classifier to say something else? The answer should change few features, by
# little, only those that can change, and it should look like real data. S-CFE asks for all of it at once:
#
# $$\min_{x'} \|x'-x\|_2^2 - \tau \log q(x', t), \quad \|x'-x\|_0 \le m,\ x' \in A(x),\ f(x') = t$$
#
# ($q$: the density of the wanted class $t$; $A(x)$: what may become of $x$; $m$: features that may change.)
#
# First a table, then pictures. The whole takes about a minute on two CPU cores.

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
import jax.numpy as jnp
import numpy as np

import invjax
from invjax import viz
from invjax.constraints import FeatureSpace
from invjax.counterfactuals import SCFE, certify, frontier
from invjax.data import load_tabular, mnist_digits
from invjax.densities import fit_gmm, fit_kde, hinge
from invjax.engine.blackbox import surrogate
from invjax.metrics import density_rank
from invjax.models import black_box, distill, mnist_cnn, with_surrogate
from invjax.recourse import classifier, explain_rows

# %% [markdown]
# ## What would make these houses expensive?
#
# Boston Housing: 506 suburbs, and whether their houses cost at least the median. (The column that encodes race is left
# out.) A small network learns it, and `explain_rows` says what would have to change for suburbs that it calls cheap.

# %%
data = load_tabular("housing").without("B")
network = classifier(data, "mlp")
print(f"{network.words}; {network.accuracy:.0%} right on {len(data.test)} others")

# %%
predicted = np.asarray(network.model(data.x)).argmax(1)
cheap = data.test[predicted[data.test] == 0]
expensive = "at least the median"
explain_rows(data, network.model, cheap[:10], target=expensive, max_changes=3)

# %% [markdown]
# ## What may change
#
# Some of this is no advice: nobody moves a suburb closer to work. A *feature space* says in raw units what may become
# of each feature; all that is not named keeps the range that occurs. Models, densities and distances see standardised
# numbers, people do not.

# %%
space = FeatureSpace.infer(
    data.table,
    CRIM={"direction": "down"},  # crime may only fall
    NOX={"direction": "down"},  # and so may nitric oxides
    RM={"direction": "up"},  # rooms per house may only grow
    TAX={"kind": "integer"},  # whole dollars
    PTRATIO={"direction": "down", "step": 0.1},  # pupils per teacher, one decimal
    **{name: {"direction": "none"} for name in ("ZN", "AGE", "DIS", "RAD", "LSTAT")},  # fixed
)
data = data._replace(space=space, x=space.encode(data.table))
told = explain_rows(data, network.model, cheap[:10], target=expensive, max_changes=3)
for person in told.people:
    print(f"suburb {person.id}: {person.text}")

# %% [markdown]
# Every answer obeys the rules and is judged as it is printed. `told.to_pandas()` has it as a table, and
# `invjax explain` does the same on the command line.

# %%
told.to_pandas().head()

# %% [markdown]
# ## One solve for a list
#
# Below that stands `invjax.solve`, as for attacks, with the space and a method. Here without plausibility: the nearest
# points that the network calls expensive.

# %%
x, label = data.x[cheap], predicted[cheap]
target = 1 - label
ask = {"target": target, "space": space}
result = invjax.solve(network.model, x, label, **ask, method=SCFE(max_changes=3))
answers = space.decode(result.x, data.rows(cheap))  # in raw units
print("violations:", sum(map(len, space.violations(data.rows(cheap), answers))))
result

# %% [markdown]
# ## What one more change buys
#
# The frontier: the best answers with 1, 2, … features changed, all from one compiled solve. Each thin line is a suburb.

# %% mystnb={"image": {"alt": "Distance of twenty answers against the number of features that may change: it falls"}}
counts = [1, 2, 3, 4, 5]
few = slice(0, 20)
ask = {"target": target[few], "space": space}
path = frontier(network.model, x[few], label[few], **ask, max_changes=counts)
distance = np.where(path.found, np.linalg.norm(path.delta, axis=2), np.nan)
viz.sparsity(counts, distance, ylabel="distance (standard deviations)")

# %% [markdown]
# ## How near is that to the best there is?
#
# For a small ReLU network the question can be settled by a mixed-integer program: the least number of features that
# must change, with a proof. Same space, same margin.

# %%
fewest = np.where(path.found.any(axis=1), path.found.argmax(axis=1), -1)  # place among the counts
row = [int(fewest.argmax())]  # the suburb that needs most
best = path[row, fewest[row]]
proof = certify(network.model, x[row], label[row], target[row], best, space=space, norm="l0")
least = np.ceil(proof.bound[0] - 1e-6)
print(f"changed {proof.found[0]:g}, proven: at least {least:g} ({proof.status[0]})")

# %% [markdown]
# ## A black box
#
# A forest has no gradient. A small network that imitates it lends its own; whether an answer is valid is always decided
# by the forest itself. Here with plain bounds instead of a feature space: 178 wines, 13 features, is it cultivar 0?

# %%
from sklearn.ensemble import RandomForestClassifier

wine = load_tabular("wine")
train_x, train_y = wine.x[wine.train], wine.label[wine.train]
forest = RandomForestClassifier(100, random_state=0).fit(train_x, train_y)

# %%
imitation = distill(forest.predict_proba, train_x, key=jax.random.key(0))
exact = black_box(forest.predict_proba, 2, floor=1e-3, example=train_x[0])
box = with_surrogate(exact, imitation)

# %%
wines = wine.x[wine.test][:20]
says = forest.predict(wines)
ask = {"target": 1 - says, "bounds": (wine.x.min(0), wine.x.max(0)), "evaluator": surrogate}
found = invjax.solve(box, wines, says, **ask, method=SCFE(max_changes=4))
hit = np.asarray(found.found)
print("the forest agrees:", bool((forest.predict(np.asarray(found.x))[hit] != says[hit]).all()))
found

# %% [markdown]
# ## Valid is not yet plausible
#
# Two features of the wines, and a line that tells cultivar 0 from the rest. Without a density the answers stop just
# across the line. `hinge` cuts a log density at a quantile: as dense as the denser half of the cultivar is dense enough
# here, and then `tau` hardly matters.

# %%
pair = ("alcohol", "flavanoids")
points = wine.x[:, [wine.space.names.index(name) for name in pair]]
wide = np.c_[points, np.ones(len(points))]
w = np.zeros(3)
for _ in range(500):  # logistic regression
    w += 0.5 * wide.T @ (wine.label - 1 / (1 + np.exp(-wide @ w))) / len(wide)
w = w.astype(np.float32)


def margin(z):
    return z @ w[:2] + w[2]


def line(z):  # the logits of the two classes
    return jnp.stack([jnp.zeros(z.shape[:-1]), margin(z)], axis=-1)


# %% mystnb={"image": {"alt": "Wines in a plane: answers at the line without plausibility, among the wines with it"}}
kde = fit_kde(points, wine.label)
dense = hinge(kde, points, wine.label, 0.5)
others = points[(margin(points) < 0) & (wine.label == 0)][::4]
zero, one = np.zeros(len(others), int), np.ones(len(others), int)  # from which class to which
ask = {"target": one, "density": dense, "bounds": (points.min(0), points.max(0))}
ends = {}
for name, tau in {"without plausibility": 0.0, "with plausibility": 20.0}.items():
    ends[name] = invjax.solve(line, others, zero, **ask, method=SCFE(max_changes=2, tau=tau)).x


def log_prob(z):  # of cultivar 0
    return jax.vmap(kde.log_prob, (0, None))(jnp.asarray(z, jnp.float32), jnp.int32(1))


viz.plane(
    points, wine.label, others, ends, margin=margin, log_prob=log_prob,
    level=float(dense.threshold[1]), names=pair, class_names=wine.classes,
)  # fmt: skip

# %% [markdown]
# ## A 9 made a 4, in three ways
#
# The same with pictures. Sparsity alone scatters dots: an adversarial example. Plausibility alone smears. Both together
# change few pixels where a four differs: the stroke that closes the nine fades. The kernel is wide on purpose (a narrow
# one redraws the picture as one particular four), and `tau` was chosen by eye.

# %% mystnb={"image": {"alt": "Nines made fours in three ways: by few pixels, by plausible ones, by both"}}
model, digits = mnist_cnn(), mnist_digits()
known = np.arange(len(digits.labels)) % 2 == 0  # for the density; the others to explain and judge
density = fit_kde(digits.images[known], digits.labels[known], bandwidth=2.0)
nines = digits.images[~known & (digits.labels == 9)]
nines = nines[model(nines).argmax(1) == 9]
nines = nines[np.linspace(0, len(nines) - 1, 8).round().astype(int)]
nine, four = np.full(len(nines), 9), np.full(len(nines), 4)
ways = {"sparsity only": (32, 0.0), "plausibility only": (784, 14.0), "both": (32, 14.0)}
drawn = {}
for name, (m, tau) in ways.items():
    method = SCFE(max_changes=m, tau=tau, probability=0.9, steps=50, polish=30)
    drawn[name] = invjax.solve(model, nines, nine, target=four, method=method, density=density)
    print(f"{name}: {int(drawn[name].found.sum())} of {len(nines)} nines read as fours")
viz.ways(nines, drawn)

# %% [markdown]
# A judge that no method was given: a Gaussian mixture of other fours. How many real fours does it find less likely?

# %%
fours = digits.images[~known & (digits.labels == 4)]
some = fours[::2]
how = {"components": 8, "covariance": "diag", "floor": 0.1, "restarts": 1}
judge = fit_gmm(some, np.zeros(len(some), int), **how)
for name, way in drawn.items():
    _, rank = density_rank(judge, way.x, 0 * nine, fours[1::2], np.zeros(len(fours[1::2]), int))
    pixels = np.median((np.asarray(way.delta) != 0).sum((1, 2, 3)))
    print(f"{name}: {pixels:.0f} pixels changed, {rank.mean():.0%} of real fours less likely")
