"""Estimate the cost of a plan: images through networks, hours on one device, disk; per run and per figure.

Counts are exact for training and evaluation, and upper bounds for criticality, whose nodes reuse what lies in front of
a module, but without the further draws of noise that decide mu. Hours follow from two speeds of one device, measured
here or given.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from transferscope.experiment.merges import MergeSpec
from transferscope.experiment.options import (
    FROM_PARENT,
    MERGE_METHODS,
    ConnectionOptions,
    CriticalityOptions,
    LandscapeOptions,
    MergingOptions,
    ModelOptions,
    TrainingOptions,
)
from transferscope.experiment.pairs import Pair
from transferscope.experiment.plan import Plan
from transferscope.experiment.study import pictures_of
from transferscope.system.errors import UserError

BYTES_PER_WEIGHT = 4


@dataclass(frozen=True)
class Speed:
    """Images per second of one device: of a training step, and of a forward pass."""

    train: float
    forward: float


Sizes = Mapping[str, tuple[int, int]]
"""Task -> images in train and in test."""


def plan_costs(plan: Plan, given: Sizes, speed: Speed) -> dict[str, pd.DataFrame]:
    """Tables by title: per figure, per run, and the packed splits.

    given: sizes of tasks that the plan does not know, or knows only as a limit.

    Raises:
        UserError: For a task that does not exist, or whose size nobody knows.
    """
    sizes = task_sizes(plan, given)
    weights, modules = _count_weights_and_modules(plan)
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


def _count_weights_and_modules(plan: Plan) -> tuple[dict[str, int], dict[str, int]]:
    """Parameters and modules of the network of every run."""
    from transferscope.models.modules import find_modules
    from transferscope.models.zoo import build_model

    modules = plan.study.analyses.modules.model_dump()
    counts: dict[str, tuple[int, int]] = {}
    for run in plan.runs.values():
        key = run.model.model_dump_json()
        if key not in counts:
            network = build_model(run.model.name, 2, **run.model.options)
            counts[key] = sum(weight.numel() for weight in network.parameters()), len(find_modules(network, **modules))
    of_runs = {name: counts[run.model.model_dump_json()] for name, run in plan.runs.items()}
    return {name: pair[0] for name, pair in of_runs.items()}, {name: pair[1] for name, pair in of_runs.items()}


def task_sizes(plan: Plan, given: Sizes) -> dict[str, tuple[int, int]]:
    """Images of every task: as given, as the plan says, or the study's samples; UserError where nobody says."""
    unknown = sorted(set(given) - set(plan.study.tasks))
    if unknown:
        raise UserError(f"--images {unknown[0]}: no such task; there are: {', '.join(plan.study.tasks)}")
    return {task: _sizes_of(plan, task, given) for task in plan.study.tasks}


def _sizes_of(plan: Plan, task: str, given: Sizes) -> tuple[int, int]:
    options = plan.study.tasks[task]
    if task in given:
        return given[task]
    if options.union:
        parts = [_sizes_of(plan, part, given) for part in options.union]
        return sum(train for train, _ in parts), sum(test for _, test in parts)
    drawn = [(item.num_train, item.num_test) for item in plan.study.generated.values() if task in item.tasks]
    sampled = options.layout.sample_sizes() if options.layout else None
    known = [*drawn, *([sampled] if sampled else [])]
    if known:
        return min(train for train, _ in known), min(test for _, test in known)
    raise UserError(f"--images {task}=TRAIN,TEST is missing: how many images task {task} has is not in the plan")


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
        evaluated = _num_evaluations(options) * (train + test)
        seconds = trained / speed.train + evaluated / speed.forward
        checkpoints = _num_checkpoints(options)
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


def _num_evaluations(options: TrainingOptions) -> int:
    """Of the untrained model, after every `evaluate_every` epochs, and after the last."""
    return 1 + -(-options.epochs // options.evaluate_every)


def _num_checkpoints(options: TrainingOptions) -> int:
    """Epoch 0, those kept, the best and the final one."""
    if options.keep_epochs == "all":
        return options.epochs + 1
    return len({0, *(epoch for epoch in options.keep_epochs if epoch < options.epochs), options.epochs}) + 1


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
    found: dict[str, tuple[set[str], int]] = {"Figure 2": (own, 0)} | _reuse_needs(plan, sizes)
    if analyses.mistakes:
        used = _runs_of(_pairs(plan, analyses.mistakes.pairs))
        found["Tables 3 to 6, Figures 8, 9"] = used, sum(sizes[plan.runs[run].task][1] for run in used)
    if analyses.similarity:
        options = analyses.similarity
        used = _runs_of(_pairs(plan, options.pairs))
        images = sum(_at_most(options.max_examples, sizes[plan.runs[run].task][1]) for run in used)
        found["Tables 1, 2, 7, 8, Figures 10, 11"] = used, images * len(options.features)
    if analyses.landscape:
        found |= _landscape_needs(plan, sizes, analyses.landscape, num_modules)
    if analyses.merging and (specs := plan.merges()):
        used = {run for spec in specs for run in (*spec.candidates, spec.parent, spec.union) if run is not None}
        found["Merges"] = used, sum(_merge_images(analyses.merging, spec, sizes) for spec in specs)
    if analyses.spectrum:
        chosen = set(analyses.spectrum.kinds)
        used = {name for name, run in plan.runs.items() if run.kind in chosen}
        found["Figures 31 to 33"] = used, sum(sizes[plan.runs[run].task][0] for run in used)  # for their margins
    return found


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
                images = sum(2 * each[start] * _num_checkpoints(plan.runs[start].training) for start in sources)
            needs[name] = runs, images
    return needs


def _landscape_needs(
    plan: Plan, sizes: Sizes, options: LandscapeOptions, num_modules: Mapping[str, int]
) -> dict[str, tuple[set[str], int]]:
    pairs = _pairs(plan, options.pairs)
    ends = len(options.ends)
    parts = {task: [_at_most(options.max_examples, size) for size in sizes[task]] for task in sizes}
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
        images = sum(_connection_images(plan, options.connection, pair, sizes, num_modules) for _, pair in connected)
        needs["Ways between models"] = _runs_of(connected), images
    critical = options.criticality
    if critical:
        used = _critical_runs(plan, critical)
        images = sum(_criticality_images(plan, critical, run, sizes, num_modules) for run in used)
        needs["Figure 30, Figure 5"] = used, images
    return needs


def _connection_images(
    plan: Plan, options: ConnectionOptions, pair: Pair, sizes: Sizes, num_modules: Mapping[str, int]
) -> int:
    """Images through a network for all ways of a pair; one through the training of a curve counts as several."""
    train, test = sizes[pair.run_a.task]
    each = _at_most(options.max_examples, train) + _at_most(options.max_examples, test)
    inside, few = len(options.alphas.values()) - 2, _at_most(options.statistics, train)
    images = 2 * each
    for way in dict.fromkeys(("straight", *options.ways)):
        if way in ("modules", "aligned_modules"):
            images += 4 * num_modules[pair.run_a.full_name] * each
        elif way != "tempered":
            images += inside * each
        if way.endswith(("rescaled", "repaired")):
            images += (2 + 2 * inside) * few
        if way.endswith("curve"):
            images += BACKWARD * options.curve.epochs * train
    return images


def _merge_images(options: MergingOptions, spec: MergeSpec, sizes: Sizes) -> int:
    """Images through a network for all merges of some candidates, and for the models beside them.

    At most, where BatchNorm's statistics are recomputed for every trial; one of Fisher information counts as several.
    """
    test = sum(sizes[task][1] for task in spec.tasks)
    few = sum(_at_most(options.statistics, sizes[task][0]) for task in spec.tasks)
    number = len(spec.candidates)
    trial = few + round(options.choice * test)
    images = (number + (spec.union is not None)) * (few + test)
    for method in _methods_of(options, spec):
        images += 2 * few + test
        if method == "greedy":
            images += (number - 1) * trial
        elif method == "wise_ft":
            images += len(options.alphas) * trial
        elif method in FROM_PARENT:
            images += len(options.scales) * trial
        elif method == "fisher":
            each = max(_at_most(options.fisher_examples, sizes[task][0]) for task in spec.tasks)
            images += BACKWARD * number * each
        elif method in ("regmean", "aligned_rescaled"):
            images += (number + 1) * few
    return images


def _methods_of(options: MergingOptions, spec: MergeSpec) -> list[str]:
    wanted = spec.methods or options.methods or MERGE_METHODS
    return [method for method in wanted if spec.parent is not None or method not in FROM_PARENT]


def _critical_runs(plan: Plan, options: CriticalityOptions) -> set[str]:
    tasks = options.tasks or plan.targets()
    return {name for name, run in plan.runs.items() if run.task in tasks and run.name in options.runs}


def _criticality_images(
    plan: Plan, options: CriticalityOptions, run: str, sizes: Sizes, num_modules: Mapping[str, int]
) -> int:
    places = {"direct": len(options.positions.values()), "optimization": _num_checkpoints(plan.runs[run].training)}
    moves = sum(places[path] for path in options.paths) * len(options.sigmas) * options.draws * len(options.ends)
    images = sum(_at_most(options.max_examples, size) for size in sizes[plan.runs[run].task])
    return num_modules[run] * moves * images


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


def _at_most(limit: int | None, size: int) -> int:
    return size if limit is None else min(limit, size)


def measure_speed(model: ModelOptions, side: int, *, num_classes: int = 10, seconds: float = 5.0) -> Speed:
    """Speed of this machine's first device on random images: float32 steps of SGD, and forward passes."""
    import torch

    from transferscope.models.zoo import build_model

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_model(model.name, num_classes, seed=0, **model.options).to(device)
    batch = 32 if device.type == "cpu" else 256
    images = torch.randn(batch, 3, side, side, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    def forward() -> None:
        with torch.inference_mode():
            network(images).sum().item()

    return Speed(train=batch * _rate(step, device, seconds), forward=batch * _rate(forward, device, seconds))


def _rate(action, device, seconds: float) -> float:  # type: ignore[no-untyped-def]
    """Times per second, after a first one that does not count."""
    import torch

    action()
    started, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - started < seconds:
        action()
        count += 1
    if device.type == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - started)


BACKWARD = 3
"""A training step costs about as much as this many forward passes."""


def _guessed_sizes(plan: Plan) -> Sizes:
    """As the plan says; where it does not, as good as any, since the speed of the first nodes sets it right."""
    guessed: dict[str, tuple[int, int]] = {}
    for task in plan.study.tasks:
        try:
            guessed[task] = _sizes_of(plan, task, guessed)
        except UserError:
            guessed[task] = GUESSED
    return guessed


GUESSED = (1000, 1000)

DRAWN = 10
"""Drawing an image takes about as long as this many passes of it through the default plan's network."""


def node_costs(plan: Plan, known: Sizes | None = None) -> dict[str, float]:
    """Images through a network by Kedro node, for those nodes that take long; UserError for an unknown network.

    known: images of tasks in train and in test, where they have been counted.
    """
    sizes = {**_guessed_sizes(plan), **(known or {})}
    found: dict[str, float] = {}
    for name, drawn in plan.study.generated.items():
        scope = f"{drawn.tasks[0]}.data_prep" if len(drawn.tasks) == 1 else "generated"
        found[f"{scope}.draw_{name}"] = DRAWN * len(drawn.tasks) * (drawn.num_train + drawn.num_test)
    for run in plan.runs.values():
        if run.checkpoint is None:
            train, test = sizes[run.task]
            evaluated = _num_evaluations(run.training) * (train + test)
            found[str(run.node)] = BACKWARD * run.training.epochs * train + evaluated
        else:
            found[str(run.node)] = sum(sizes[run.task])
    merging = plan.study.analyses.merging
    for spec in plan.merges() if merging else ():
        assert merging is not None
        found[f"{spec.scope}.merging.merge_{spec.name}"] = _merge_images(merging, spec, sizes)
    options = plan.study.analyses.landscape
    if options is None:
        return found
    ends = len(options.ends)
    parts = {task: [_at_most(options.max_examples, size) for size in sizes[task]] for task in sizes}
    outside = len(options.extrapolation.outside()) if options.extrapolation else 0
    for task in plan.targets():
        images = ends * (len(options.alphas_for(task)) * sum(parts[task]) + outside * parts[task][1])
        for group in plan.pair_groups(task, options.pairs):
            found[f"{task}.landscape.interpolate_{group.name}"] = images * len(group.pairs)
    for scenario in options.cross_domain:
        for walk in plan.cross_domain_pairs(scenario):
            found[f"cross_domain.landscape.interpolate_{walk}"] = (
                len(options.alphas_for(scenario.evaluated_on)) * parts[scenario.evaluated_on][1]
            )
    if options.connection:
        _, modules = _count_weights_and_modules(plan)
        for task in plan.targets():
            for pair in plan.connected(task):
                images = _connection_images(plan, options.connection, pair, sizes, modules)
                found[f"{task}.landscape.connect_{pair.name}"] = images
    if options.criticality:
        _, modules = _count_weights_and_modules(plan)
        for name in sorted(_critical_runs(plan, options.criticality)):
            images = _criticality_images(plan, options.criticality, name, sizes, modules)
            found[f"{plan.runs[name].task}.landscape.criticality_{plan.runs[name].name}"] = images
    return found
