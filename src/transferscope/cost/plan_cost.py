"""Estimate the cost of a plan: images through networks, hours on one device, disk; per run and per figure.

Hours follow from two speeds of one device, measured (`device_speed`) or given, and from counts of images (`passes`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pandas as pd

from transferscope.cost.device_speed import Speed
from transferscope.cost.device_speed import measure_speed as measure_speed
from transferscope.cost.node_costs import node_costs as node_costs
from transferscope.cost.passes import (
    Sizes,
    at_most,
    connection_images,
    count_weights_and_modules,
    critical_runs,
    criticality_images,
    merge_images,
    num_checkpoints,
    num_evaluations,
    task_sizes,
)
from transferscope.experiment.options import LandscapeOptions
from transferscope.experiment.pairs import Pair
from transferscope.experiment.plan import Plan
from transferscope.experiment.study import pictures_of

BYTES_PER_WEIGHT = 4


def plan_costs(plan: Plan, given: Sizes, speed: Speed) -> dict[str, pd.DataFrame]:
    """Tables by title: per figure, per run, and the packed splits.

    given: sizes of tasks that the plan does not know, or knows only as a limit.

    Raises:
        UserError: For a task that does not exist, or whose size is not known.
    """
    sizes = task_sizes(plan, given)
    weights, modules = count_weights_and_modules(plan)
    runs = run_costs(plan, sizes, speed, weights)
    stored = [
        {"task": task, "train_images": sizes[task][0], "test_images": sizes[task][1], "gigabytes": size / 1e9}
        for task, size in split_bytes(plan, sizes).items()
    ]
    return {
        "Tables and figures": figure_costs(plan, sizes, speed, runs, modules),
        "Trainings": runs,
        "Packed splits": pd.DataFrame(stored),
    }


RUN_COLUMNS = (
    "run", "label", "epochs", "images_trained", "images_evaluated", "hours", "checkpoints", "gigabytes",
)  # fmt: skip


def run_costs(plan: Plan, sizes: Sizes, speed: Speed, num_weights: Mapping[str, int]) -> pd.DataFrame:
    """A row per training: run, epochs, images trained on and evaluated, hours on one device, checkpoints, gigabytes.

    num_weights: run -> parameters of its network.
    """
    rows = []
    for run in plan.runs.values():
        if run.checkpoint is not None:
            continue
        options = run.training
        train, test = sizes[run.task]
        trained = options.epochs * train
        evaluated = num_evaluations(options) * (train + test)
        seconds = trained / speed.train + evaluated / speed.forward
        checkpoints = num_checkpoints(options)
        rows.append(
            {
                "run": run.full_name,
                "label": run.label,
                "epochs": options.epochs,
                "images_trained": trained,
                "images_evaluated": evaluated,
                "hours": seconds / 3600,
                "checkpoints": checkpoints,
                "gigabytes": checkpoints * num_weights[run.full_name] * BYTES_PER_WEIGHT / 1e9,
            }
        )
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))


def split_bytes(plan: Plan, sizes: Sizes) -> dict[str, int]:
    """Bytes of the packed splits of every task; a union has none of its own."""
    by_task = {}
    for task, options in plan.study.tasks.items():
        pictures = pictures_of(plan.study, task)
        channels = 1 if pictures.style == "chest" else 3
        by_task[task] = 0 if options.union else sum(sizes[task]) * channels * pictures.store_size**2
    return by_task


def figure_costs(
    plan: Plan, sizes: Sizes, speed: Speed, runs: pd.DataFrame, num_modules: Mapping[str, int]
) -> pd.DataFrame:
    """A row per table and figure of the paper: the runs that it needs, with what they cost, and its own evaluation.

    Runs are shared: the hours of training of two rows do not add up. runs: of `run_costs`. num_modules: run -> modules.
    """
    hours = runs.set_index("run")["hours"]
    disk = runs.set_index("run")["gigabytes"]
    rows = []
    for figure, (needed, images) in _needs(plan, sizes, num_modules).items():
        trained = [run for run in _with_origins(plan, needed) if run in hours.index]
        rows.append(
            {
                "figure": figure,
                "runs": ", ".join(_grouped(plan, trained)),
                "num_runs": len(trained),
                "training_hours": hours[trained].sum(),
                "evaluation_hours": images / speed.forward / 3600,
                "gigabytes": disk[trained].sum(),
            }
        )
    return pd.DataFrame(rows)


def _needs(plan: Plan, sizes: Sizes, num_modules: Mapping[str, int]) -> dict[str, tuple[set[str], int]]:
    """Figure -> (runs whose checkpoints it reads, images through a network for it)."""
    analyses = plan.study.analyses
    own = {name for name, run in plan.runs.items() if run.task not in plan.views}
    needs: dict[str, tuple[set[str], int]] = {"Figure 2": (own, 0)} | _reuse_needs(plan, sizes)
    if analyses.mistakes:
        used = _runs_of(_pairs(plan, analyses.mistakes.pairs))
        needs["Tables 3 to 6, Figures 8, 9"] = used, sum(sizes[plan.runs[run].task][1] for run in used)
    if analyses.similarity:
        options = analyses.similarity
        used = _runs_of(_pairs(plan, options.pairs))
        images = sum(at_most(options.max_examples, sizes[plan.runs[run].task][1]) for run in used)
        needs["Tables 1, 2, 7, 8, Figures 10, 11"] = used, images * len(options.features)
    if analyses.landscape:
        needs |= _landscape_needs(plan, sizes, analyses.landscape, num_modules)
    if analyses.merging and (specs := plan.merges()):
        used = {run for spec in specs for run in (*spec.candidates, spec.parent, spec.union) if run is not None}
        needs["Merges"] = used, sum(merge_images(analyses.merging, spec, sizes) for spec in specs)
    if analyses.spectrum:
        chosen = set(analyses.spectrum.kinds)
        used = {name for name, run in plan.runs.items() if run.kind in chosen}
        needs["Figures 31 to 33"] = used, sum(sizes[plan.runs[run].task][0] for run in used)  # for their margins
    return needs


def _reuse_needs(plan: Plan, sizes: Sizes) -> dict[str, tuple[set[str], int]]:
    """Runs on shuffled images with the controls, and those from earlier epochs, of which P is measured at each."""
    needs: dict[str, tuple[set[str], int]] = {}
    for name, key in (("Figure 3", "feature_reuse"), ("Figure 7", "source_epochs")):
        varied = [one for one in plan.variants if (one.series == "epoch") == (key == "source_epochs")]
        runs = {run.full_name for one in varied for run in plan.runs_of(one.view) if run.kind == one.kind}
        runs |= {run.full_name for one in varied for run in plan.runs_of(one.task) if run.kind == one.origin}
        if runs:
            images = 0
            if key == "source_epochs":
                sources = {start for run in runs if (start := plan.runs[run].pretrained) in plan.runs}
                each = {start: sizes[plan.runs[start].task][1] for start in sources}
                images = sum(2 * each[start] * num_checkpoints(plan.runs[start].training) for start in sources)
            needs[name] = runs, images
    return needs


def _landscape_needs(
    plan: Plan, sizes: Sizes, options: LandscapeOptions, num_modules: Mapping[str, int]
) -> dict[str, tuple[set[str], int]]:
    pairs = _pairs(plan, options.pairs)
    ends = len(options.ends)
    parts = {task: [at_most(options.max_examples, size) for size in sizes[task]] for task in sizes}
    inside = sum(ends * len(options.alphas_for(task)) * sum(parts[task]) for task, _ in pairs)
    needs = {"Figures 12 to 17": (_runs_of(pairs), inside)}
    if options.extrapolation:
        outside = len(options.extrapolation.outside())
        needs["Figure 18"] = _runs_of(pairs), sum(ends * outside * parts[task][1] for task, _ in pairs)
    for scenario in options.cross_domain:
        across = [(scenario.evaluated_on, pair) for pair in plan.cross_domain_pairs(scenario).values()]
        images = len(across) * len(options.alphas_for(scenario.evaluated_on)) * parts[scenario.evaluated_on][1]
        needs[scenario.figure.replace("_", " ").capitalize()] = _runs_of(across), images
    connected = [(task, pair) for task in plan.targets() for pair in plan.connected(task)]
    if options.connection and connected:
        images = sum(connection_images(plan, options.connection, pair, sizes, num_modules) for _, pair in connected)
        needs["Ways between models"] = _runs_of(connected), images
    critical = options.criticality
    if critical:
        used = critical_runs(plan, critical)
        images = sum(criticality_images(plan, critical, run, sizes, num_modules) for run in used)
        needs["Figure 30, Figure 5"] = used, images
    return needs


def _pairs(plan: Plan, kinds: tuple[tuple[str, str], ...]) -> list[tuple[str, Pair]]:
    return [(task, pair) for task in plan.targets() for pair in plan.pairs(task, kinds)]


def _runs_of(pairs: list[tuple[str, Pair]]) -> set[str]:
    return {run.full_name for _, pair in pairs for run in (pair.run_a, pair.run_b)}


def _with_origins(plan: Plan, runs: set[str]) -> list[str]:
    """The runs and those that they are pre-trained or copied from, in the order of the plan."""
    origins = {origin for run in runs for origin in (plan.runs[run].pretrained, plan.runs[run].split_from)}
    return [run for run in plan.runs if run in runs or run in origins]


def _grouped(plan: Plan, runs: list[str]) -> list[str]:
    """Number of runs of each kind: `1 p`, `8 pt`."""
    counts = Counter(plan.runs[run].kind for run in runs)
    return [f"{count} {kind}" for kind, count in counts.items()]
