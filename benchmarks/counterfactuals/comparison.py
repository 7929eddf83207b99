"""``cfe``: counterfactual methods side by side, on tables and on pictures.

The measures are means over the valid rows (:mod:`invjax.metrics.counterfactual`); on tables the network in float64
decides what is valid. ``rows_per_s`` is measured from NumPy to NumPy, warm, as the median of repeated calls.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks.common import check_json, write_json
from benchmarks.counterfactuals.methods import (
    DEFAULTS,
    NEAREST,
    Fitted,
    Settings,
    chosen_methods,
    found_rows,
    prepare_method,
)
from benchmarks.counterfactuals.tasks import NAMES, Task, load_task
from benchmarks.counterfactuals.timing import Gradient, Took, median, timed
from invjax.core.errors import check_number, check_whole
from invjax.metrics import measure_counterfactuals, summarize_counterfactuals
from invjax.types import Result

MEASURES = ("validity", "coverage", "l2", "l0", "lof_target", "lof_all", "logdensity_rank", "violations")
COLUMNS = (*MEASURES, "rows_per_s", "evaluations")  # columns of the table, and keys of each method in the record
REPEATS, ENOUGH = 9, 4.0  # most warm calls, and the seconds after which none is begun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--data", choices=NAMES, default="housing")
    parser.add_argument("--methods", default="all", help="all (the default), or names separated by commas")
    parser.add_argument("--n", type=int, help="the first N rows (default: 100; adult 200, mnist 50)")
    parser.add_argument("--max-changes", type=int, help="features S-CFE may change (default: 3; mnist 30 pixels)")
    parser.add_argument("--tau", type=float, help="weight of the log density in S-CFE (default: by data)")
    parser.add_argument("--bandwidth", type=float, help="width of the kernel density, model units (default: by data)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the network of a table, and of random methods")
    parser.add_argument("--json", help="file for the record")
    parser.add_argument("--no-progress", action="store_true")


def measure(task: Task, answer: Result | np.ndarray, rows: int) -> dict[str, float]:
    """The measures of the answers to the first ``rows`` rows."""
    table = None if task.table is None else {name: values[:rows] for name, values in task.table.items()}
    record = measure_counterfactuals(
        task.x[:rows], answer, task.target[:rows], predict=task.predict, space=task.space, table=table,
        train_x=task.reference_x, train_y=task.reference_y, density=task.judge,
    )  # fmt: skip
    summary = summarize_counterfactuals(record)
    if task.space is None:  # pictures: pixels outside of the box
        summary["violations"] = _outside(task, answer, rows)
    return {name: summary[name] for name in (*MEASURES, "logdensity", "ynn", "redundancy", "trivial")}


def _outside(task: Task, answer: Result | np.ndarray, rows: int) -> float:
    lower, upper = task.limits["bounds"]
    x = np.asarray(answer.x if isinstance(answer, Result) else answer)
    return float(((x < lower) | (x > upper)).sum() / rows)


def run_method(name: str, task: Task, fitted: Fitted, settings: Settings) -> dict[str, Any]:
    """One entry of the record: the measures, and the times with compilation apart."""
    prepared = prepare_method(name, task, fitted, settings)
    answer, first = timed(prepared.call)
    clock = None
    if name.startswith("scfe") and name != "scfe-released":
        clock = Gradient(task, prepared.density, float(prepared.config.tau))
    times: list[Took] = []
    while not times or (len(times) < REPEATS and sum(t.wall for t in times) < ENOUGH):
        if clock is not None:
            clock.tick()
        times.append(timed(prepared.call)[1])
    warm = median(times)
    evaluations = forwards = most = 0.0
    if isinstance(answer, Result):
        spent = np.asarray(answer.evaluations)
        evaluations, forwards, most = float(spent.mean()), float(np.mean(answer.forwards)), int(spent.max())
    record = measure(task, answer, prepared.rows) | {
        "rows_per_s": prepared.rows / warm.wall,
        "evaluations": evaluations,
        "forwards": forwards,
        "max_evaluations": most,
        "rows": prepared.rows,
        "found": found_rows(answer, task.x[: prepared.rows]),
        "compile_s": max(first.wall - warm.wall, 0.0),
        "run_s": warm.wall,
        "run_cpu_s": warm.cpu,
        "best_rows_per_s": prepared.rows / min(t.wall for t in times),
    }
    return record if clock is None else record | _relative(warm, most, clock)


def _relative(warm: Took, steps: float, clock: Gradient) -> dict[str, float]:
    """The cost of one batched evaluation, everything included, in units of the bare gradient of h."""
    call, loop = median(clock.calls), median(clock.loops)
    return {
        "gradient_us": 1e6 * call.wall,
        "gradient_in_loop_us": 1e6 * loop.wall,
        "per_evaluation_us": 1e6 * warm.wall / steps,
        "per_evaluation_over_gradient": warm.wall / steps / call.wall,
        "per_evaluation_over_gradient_cpu": warm.cpu / steps / call.cpu,
        "per_evaluation_over_gradient_in_loop": warm.wall / steps / loop.wall,
        "per_evaluation_over_gradient_in_loop_cpu": warm.cpu / steps / loop.cpu,
    }


SHAPE = (  # the table's columns: title, width, format, key
    ("cover", 6, ".2f", "coverage"),
    ("l2", 7, ".3f", "l2"),
    ("l0", 7, ".2f", "l0"),
    ("LOF", 7, ".3f", "lof_target"),
    ("LOF all", 7, ".3f", "lof_all"),
    ("rank", 6, ".3f", "logdensity_rank"),
    ("log p", 8, ".2f", "logdensity"),
    ("viol.", 6, ".2f", "violations"),
    ("rows/s", 9, ".1f", "rows_per_s"),
    ("eval.", 7, ".1f", "evaluations"),
    ("compile, s", 10, ".2f", "compile_s"),
)
HEAD = " ".join([f"{'':14s} {'valid':>9s}", *(f"{title:>{width}s}" for title, width, _, _ in SHAPE)])


def line(name: str, row: dict[str, Any]) -> str:
    """One line of the table."""
    counted = row["rows"] - row["trivial"]
    valid = 0 if np.isnan(row["validity"]) else round(row["validity"] * counted)
    cells = (f"{row[key]:{width}{form}}" for _, width, form, key in SHAPE)
    return " ".join([f"{name:14s} {f'{valid}/{counted}':>9s}", *cells])


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings, checked, with the defaults of the data set. Raises BadArgument."""
    usual = DEFAULTS[options.data]
    if options.max_changes is not None:
        check_whole("max_changes", options.max_changes)
    if options.tau is not None:
        check_number("tau", options.tau, lambda value: value >= 0, "a weight >= 0")
    if options.bandwidth is not None:
        check_number("bandwidth", options.bandwidth, lambda value: value > 0, "a length > 0")
    return Settings(
        usual.max_changes if options.max_changes is None else options.max_changes,
        usual.tau if options.tau is None else options.tau,
        usual.bandwidth if options.bandwidth is None else options.bandwidth,
        options.seed,
        False if options.no_progress else None,
    )


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    names, settings = chosen_methods(options.methods, options.data), settings_of(options)
    task = load_task(options.data, n=options.n, seed=options.seed)
    print(
        f"{task.name}: {len(task.x)} rows to explain, {len(task.train_x)} training rows, accuracy {task.accuracy:.3f}; "
        f"S-CFE with {settings.max_changes} changes, tau {settings.tau:g}\n\n{HEAD}",
        flush=True,
    )
    fitted, methods = Fitted(task, settings), {}
    for name in names:
        try:
            methods[name] = run_method(name, task, fitted, settings)
        except (ValueError, ImportError) as error:  # only this method fails: the others' numbers are not lost
            methods[name] = {"error": str(error)}
            print(f"{name:14s} failed: {error}", flush=True)
            continue
        print(line(name, methods[name]), flush=True)
    print(f"\n{NEAREST}: the nearest training row of the target class which the network accepts")
    for name, row in methods.items():
        if "gradient_us" in row:
            print(
                f"{name}: {row['per_evaluation_us']:.0f} us per evaluation of all rows at once = "
                f"{row['per_evaluation_over_gradient']:.2f} gradients of {row['gradient_us']:.0f} us asked one by one "
                f"(CPU time: {row['per_evaluation_over_gradient_cpu']:.2f}), "
                f"{row['per_evaluation_over_gradient_in_loop']:.2f} in a loop "
                f"(CPU time: {row['per_evaluation_over_gradient_in_loop_cpu']:.2f})"
            )
    record = {
        "data": task.name,
        "rows": len(task.x),
        "accuracy": task.accuracy,
        "seed": options.seed,
        "settings": {"max_changes": settings.max_changes, "tau": settings.tau, "bandwidth": settings.bandwidth},
        "methods": {name: _plain_numbers(row) for name, row in methods.items()},
    }
    write_json(options.json, record)
    return 0


def _plain_numbers(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what was not measured is null."""
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}
