"""Estimate the cost of a plan: images through networks, hours on one device, disk; per run and per figure.

Hours follow from two speeds of one device, measured (`device_speed`) or given, and from counts of images (`passes`).
Names that are imported as themselves stood here once, and stay for code of users.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import pandas as pd

from transferscope.cost.device_speed import Speeds, speed_of
from transferscope.cost.device_speed import measure_speed as measure_speed
from transferscope.cost.node_costs import node_costs as node_costs
from transferscope.cost.other_work import (
    FIGURE,
    NODE,
    START,
    cores,
    drawing_seconds,
    packing_seconds,
    spectrum_seconds,
)
from transferscope.cost.passes import (
    Sizes,
    at_most,
    basin_hulls,
    basin_images,
    connection_images,
    count_weights_and_modules,
    critical_runs,
    criticality_images,
    evaluated_images,
    line_images,
    merge_images,
    num_checkpoints,
    plane_images,
    rewinding_images,
    task_sizes,
    walk_images,
)
from transferscope.experiment.options import LandscapeOptions
from transferscope.experiment.pairs import Pair
from transferscope.experiment.plan import Plan
from transferscope.experiment.study import pictures_of

BYTES_PER_WEIGHT = 4


def plan_costs(
    plan: Plan, given: Sizes, speed: Speeds, *, num_figures: int = 0, num_nodes: int = 0
) -> dict[str, pd.DataFrame]:
    """Tables by title: per figure, per run, the packed splits, and the whole plan by kind of work.

    given: sizes of tasks that the plan does not know, or knows only as a limit. num_figures, num_nodes: of the whole
    run, where its pipelines are known.

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
        "Whole plan": whole_costs(plan, sizes, speed, runs, modules, num_figures=num_figures, num_nodes=num_nodes),
    }


RUN_COLUMNS = (
    "run", "label", "epochs", "images_trained", "images_evaluated", "hours", "checkpoints", "gigabytes",
)  # fmt: skip


def run_costs(plan: Plan, sizes: Sizes, speed: Speeds, num_weights: Mapping[str, int]) -> pd.DataFrame:
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
        evaluated = evaluated_images(options, train, test)
        of_run = speed_of(speed, run.full_name)
        seconds = trained / of_run.train + evaluated / of_run.forward
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
    plan: Plan, sizes: Sizes, speed: Speeds, runs: pd.DataFrame, num_modules: Mapping[str, int]
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
                "evaluation_hours": _analysis_seconds(speed, needed, images) / 3600,
                "gigabytes": disk[trained].sum(),
            }
        )
    return pd.DataFrame(rows)


def _analysis_seconds(speed: Speeds, runs: set[str], images: int) -> float:
    """Of images that are shared evenly between the networks of some runs."""
    return images * sum(1 / speed_of(speed, run).in_analyses for run in runs) / len(runs) if runs else 0.0


def whole_costs(
    plan: Plan,
    sizes: Sizes,
    speed: Speeds,
    runs: pd.DataFrame,
    num_modules: Mapping[str, int],
    *,
    num_figures: int,
    num_nodes: int,
) -> pd.DataFrame:
    """A row per kind of work: work, count (of images, checkpoints, figures or nodes), hours, gigabytes; then the total.

    Hours are those of one device, where a run of everything uses it all the time: work of no network is spread over
    the cores. runs: of `run_costs`.
    """
    speeds = [speed_of(speed, run) for run in runs["run"]]
    needs = _needs(plan, sizes, num_modules).values()
    spectra, of_spectra = spectrum_seconds(plan)
    own = {task: sum(sizes[task]) for task, options in plan.study.tasks.items() if not options.union}
    drawn = sum(len(item.tasks) * (item.num_train + item.num_test) for item in plan.study.generated.values())
    trained, evaluated = runs["images_trained"], runs["images_evaluated"]
    work = [
        ("optimizer steps", trained.sum(), sum(trained / [one.train for one in speeds]), runs["gigabytes"].sum()),
        ("evaluation in training", evaluated.sum(), sum(evaluated / [one.forward for one in speeds]), 0.0),
        (
            "analyses",
            sum(images for _, images in needs),
            sum(_analysis_seconds(speed, used, images) for used, images in needs),
            0.0,
        ),
        ("images drawn", drawn, drawing_seconds(plan) / cores(), 0.0),
        (
            "images packed",
            sum(own.values()),
            packing_seconds(plan, sizes) / cores(),
            sum(split_bytes(plan, sizes).values()) / 1e9,
        ),
        ("spectra of checkpoints", spectra, of_spectra / cores(), 0.0),
        ("figures", num_figures, FIGURE * num_figures / cores(), 0.0),
        ("nodes, and the start", num_nodes, START * bool(num_nodes) + NODE * num_nodes / cores(), 0.0),
    ]
    table = pd.DataFrame(work, columns=["work", "count", "hours", "gigabytes"])
    table["hours"] /= 3600
    total = pd.DataFrame([("total", math.nan, table["hours"].sum(), table["gigabytes"].sum())], columns=table.columns)
    return pd.concat([table, total], ignore_index=True)


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
    lines = [line_images(options, task, sizes) for task, _ in pairs]
    needs = {"Figures 12 to 17": (_runs_of(pairs), sum(inside for inside, _ in lines))}
    if options.extrapolation:
        needs["Figure 18"] = _runs_of(pairs), sum(outside for _, outside in lines)
    for scenario in options.cross_domain:
        across = [(scenario.evaluated_on, pair) for pair in plan.cross_domain_pairs(scenario).values()]
        images = len(across) * walk_images(options, scenario.evaluated_on, sizes)
        needs[scenario.figure.replace("_", " ").capitalize()] = _runs_of(across), images
    connected = [(task, pair) for task in plan.targets() for pair in plan.connected(task)]
    if options.connection and connected:
        images = sum(connection_images(plan, options.connection, pair, sizes, num_modules) for _, pair in connected)
        needs["Ways between models"] = _runs_of(connected), images
    critical = options.criticality
    if critical:
        used = critical_runs(plan, critical)
        images = sum(
            count(plan, critical, run, sizes, num_modules)
            for run in used
            for count in (criticality_images, rewinding_images)
        )
        needs["Figure 30, Figure 5"] = used, images
    if options.planes:
        used = {f"{name.task}.{name.run}" for plane in options.planes for name in plane.names}
        needs["Planes"] = used, sum(plane_images(plane, sizes) for plane in options.planes)
    if options.basin:
        hulls = basin_hulls(plan, options.basin)
        used = {run for members in hulls.values() for run in members}
        images = sum(basin_images(options.basin, len(runs), sizes[task][1]) for (task, _), runs in hulls.items())
        needs["Basins"] = used, images
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
