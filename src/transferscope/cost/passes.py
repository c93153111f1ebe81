"""Count images through networks: of a training, an evaluation, a connection, a merge, the criticality of a run.

Counts are exact for training and evaluation, and upper bounds for criticality, whose nodes reuse what lies in front of
a module, but without the further draws of noise that decide mu.
"""

from __future__ import annotations

from collections.abc import Mapping

from transferscope.experiment.merges import MergeSpec
from transferscope.experiment.options import (
    FROM_PARENT,
    MERGE_METHODS,
    BasinOptions,
    ConnectionOptions,
    CriticalityOptions,
    LandscapeOptions,
    MergingOptions,
    PlaneOptions,
    TrainingOptions,
)
from transferscope.experiment.pairs import Pair
from transferscope.experiment.plan import Plan
from transferscope.system.errors import UserError

Sizes = Mapping[str, tuple[int, int]]
"""Task -> images in train and in test."""
REFINEMENTS = 3
"""Halvings of the length of rays that leave a basin (`measure.basins`)."""
BACKWARD = 3
"""A training step costs about as much as this many forward passes."""


def task_sizes(plan: Plan, given: Sizes) -> dict[str, tuple[int, int]]:
    """Images of every task: as given, as the plan says, or the study's samples; UserError where that is not known."""
    unknown = sorted(set(given) - set(plan.study.tasks))
    if unknown:
        raise UserError(f"--images {unknown[0]}: no such task; there are: {', '.join(plan.study.tasks)}")
    return {task: sizes_of(plan, task, given) for task in plan.study.tasks}


def sizes_of(plan: Plan, task: str, given: Sizes) -> tuple[int, int]:
    """Images of a task in train and in test; UserError where its size is not known."""
    options = plan.study.tasks[task]
    if task in given:
        return given[task]
    if options.union:
        parts = [sizes_of(plan, part, given) for part in options.union]
        return sum(train for train, _ in parts), sum(test for _, test in parts)
    drawn = [(item.num_train, item.num_test) for item in plan.study.generated.values() if task in item.tasks]
    sampled = options.layout.sample_sizes() if options.layout else None
    known = [*drawn, *([sampled] if sampled else [])]
    if known:
        return min(train for train, _ in known), min(test for _, test in known)
    raise UserError(f"--images {task}=TRAIN,TEST is missing: how many images task {task} has is not in the plan")


def count_weights_and_modules(plan: Plan) -> tuple[dict[str, int], dict[str, int]]:
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


def num_evaluations(options: TrainingOptions) -> int:
    """Of the untrained model, after every `evaluate_every` epochs, and after the last."""
    return 1 + -(-options.epochs // options.evaluate_every)


def evaluated_images(options: TrainingOptions, train: int, test: int) -> int:
    """Images through the network in all evaluations of a training."""
    return num_evaluations(options) * (at_most(options.evaluate_train_on, train) + test)


def num_checkpoints(options: TrainingOptions) -> int:
    """Epoch 0, those kept, the best and the final one."""
    if options.keep_epochs == "all":
        return options.epochs + 1
    return len({0, *(epoch for epoch in options.keep_epochs if epoch < options.epochs), options.epochs}) + 1


def connection_images(
    plan: Plan, options: ConnectionOptions, pair: Pair, sizes: Sizes, num_modules: Mapping[str, int]
) -> int:
    """Images through a network for all ways of a pair; one through the training of a curve counts as several."""
    train, test = sizes[pair.run_a.task]
    each = at_most(options.max_examples, train) + at_most(options.max_examples, test)
    inside, few = len(options.alphas.values()) - 2, at_most(options.statistics, train)
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


def merge_images(options: MergingOptions, spec: MergeSpec, sizes: Sizes) -> int:
    """Images through a network for all merges of some candidates, and for the models beside them.

    At most, where BatchNorm's statistics are recomputed for every trial; one of Fisher information counts as several.
    """
    test = sum(sizes[task][1] for task in spec.tasks)
    few = sum(at_most(options.statistics, sizes[task][0]) for task in spec.tasks)
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
            each = max(at_most(options.fisher_examples, sizes[task][0]) for task in spec.tasks)
            images += BACKWARD * number * each
        elif method in ("regmean", "aligned_rescaled"):
            images += (number + 1) * few
    return images


def _methods_of(options: MergingOptions, spec: MergeSpec) -> list[str]:
    wanted = spec.methods or options.methods or MERGE_METHODS
    return [method for method in wanted if spec.parent is not None or method not in FROM_PARENT]


def critical_runs(plan: Plan, options: CriticalityOptions) -> set[str]:
    """Runs whose modules are rewound."""
    tasks = options.tasks or plan.targets()
    return {name for name, run in plan.runs.items() if run.task in tasks and run.name in options.runs}


def criticality_images(
    plan: Plan, options: CriticalityOptions, run: str, sizes: Sizes, num_modules: Mapping[str, int]
) -> int:
    """Images through a network for all modules of a run, positions, sizes of noise and draws."""
    places = {"direct": len(options.positions.values()), "optimization": num_checkpoints(plan.runs[run].training)}
    moves = sum(places[path] for path in options.paths) * len(options.sigmas) * options.draws * len(options.ends)
    images = sum(at_most(options.max_examples, size) for size in sizes[plan.runs[run].task])
    return num_modules[run] * moves * images


def rewinding_images(
    plan: Plan, options: CriticalityOptions, run: str, sizes: Sizes, num_modules: Mapping[str, int]
) -> int:
    """Test images, all of them, through a network for each of its modules set back, and for the network as it is."""
    return (1 + num_modules[run] * len(options.rewind_epochs)) * sizes[plan.runs[run].task][1]


def plane_images(options: PlaneOptions, sizes: Sizes) -> int:
    """Test images through a network for the grid of a plane and its three models."""
    return (options.points**2 + 3) * at_most(options.max_examples, sizes[options.task][1])


def basin_hulls(plan: Plan, options: BasinOptions) -> dict[tuple[str, str], list[str]]:
    """(task, kind) -> the runs whose hull is analysed: all kinds that have two or more on the task."""
    hulls = {
        (task, kind): [run.full_name for run in plan.runs_of(task) if run.kind == kind]
        for task in options.tasks or plan.targets()
        for kind in options.kinds
    }
    return {place: runs for place, runs in hulls.items() if len(runs) > 1}


def basin_images(options: BasinOptions, num_runs: int, num_test: int) -> int:
    """Test images through a network for the hull of some runs, its rays, and three halvings of their length."""
    directions = (2 if num_runs == 2 else 4) * options.rays
    networks = options.points + directions * (1 + len(options.deltas) + REFINEMENTS)
    return networks * at_most(options.max_examples, num_test)


def line_images(options: LandscapeOptions, task: str, sizes: Sizes) -> tuple[int, int]:
    """Images for the lines between two runs of a task: at points between them, and at points beyond them."""
    train, test = (at_most(options.max_examples, size) for size in sizes[task])
    outside = len(options.extrapolation.outside()) if options.extrapolation else 0
    ends = len(options.ends)
    return ends * len(options.alphas_for(task)) * (train + test), ends * outside * test


def walk_images(options: LandscapeOptions, evaluated_on: str, sizes: Sizes) -> int:
    """Images for a line between models of two tasks, on the test images of one."""
    return len(options.alphas_for(evaluated_on)) * at_most(options.max_examples, sizes[evaluated_on][1])


def at_most(limit: int | None, size: int) -> int:
    """The size, or the limit where there is one and it is smaller."""
    return size if limit is None else min(limit, size)
