"""The study of learning from counterfactuals as a library call: methods by name, over seeds, by the worst group.

    task = load_task("digits-spurious")
    records = ablation(task, ["erm", "p-cfe", "density-only"], seeds=(0, 1, 2))
    records["p-cfe"]["wga"], records["p-cfe"]["wga_ci"]

For each seed a network is trained on the data set as it is. Every method then moves the training examples towards
targets drawn at random, and a fresh network is trained on the moved examples, labelled with their targets. It is
measured on the untouched test set. ``python -m benchmarks learn`` is the command line of this study.
"""

from invjax.core.meant import suggest_names
from invjax.learn.study.ablation import ablation, manifest_of
from invjax.learn.study.methods import DESCRIPTIONS, chosen_methods, grid_names, run_method
from invjax.learn.study.records import over_seeds, percent, record_of, table_row
from invjax.learn.study.study import MethodRun, Study, first_step
from invjax.learn.study.tasks import DENSITIES, NETWORKS, POLICIES, TASKS, Moves, Task, load_task

__all__ = [
    "DENSITIES",
    "DESCRIPTIONS",
    "NETWORKS",
    "POLICIES",
    "TASKS",
    "MethodRun",
    "Moves",
    "Study",
    "Task",
    "ablation",
    "chosen_methods",
    "first_step",
    "grid_names",
    "load_task",
    "manifest_of",
    "over_seeds",
    "percent",
    "record_of",
    "run_method",
    "table_row",
]

suggest_names(__name__)
