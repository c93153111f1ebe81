"""Estimate the work of each Kedro node, so that runners start long ones first and show how far they are."""

from __future__ import annotations

from transferscope.cost.passes import (
    BACKWARD,
    Sizes,
    basin_hulls,
    basin_images,
    connection_images,
    count_weights_and_modules,
    critical_runs,
    criticality_images,
    evaluated_images,
    line_images,
    merge_images,
    plane_images,
    rewinding_images,
    sizes_of,
    walk_images,
)
from transferscope.experiment.plan import Plan
from transferscope.system.errors import UserError

DRAWN = 10
"""Drawing an image takes about as long as this many passes of it through the default plan's network."""
GUESSED = (1000, 1000)


def node_costs(plan: Plan, known: Sizes | None = None) -> dict[str, float]:
    """Images through a network by Kedro node, for those nodes that take long; UserError for an unknown network.

    known: images of tasks in train and in test, where they have been counted.
    """
    sizes = {**_guessed_sizes(plan), **(known or {})}
    costs: dict[str, float] = {}
    for name, drawn in plan.study.generated.items():
        scope = f"{drawn.tasks[0]}.data_prep" if len(drawn.tasks) == 1 else "generated"
        costs[f"{scope}.draw_{name}"] = DRAWN * len(drawn.tasks) * (drawn.num_train + drawn.num_test)
    for run in plan.runs.values():
        if run.checkpoint is None:
            train, test = sizes[run.task]
            evaluated = evaluated_images(run.training, train, test)
            node = str(plan.node_of(run))
            costs[node] = costs.get(node, 0) + BACKWARD * run.training.epochs * train + evaluated
        else:
            costs[str(run.node)] = sum(sizes[run.task]) if plan.has_images(run.task) else 0
    merging = plan.study.analyses.merging
    for spec in plan.merges() if merging else ():
        assert merging is not None
        costs[f"{spec.scope}.merging.merge_{spec.name}"] = merge_images(merging, spec, sizes)
    options = plan.study.analyses.landscape
    if options is None:
        return costs
    for task in plan.targets():
        images = sum(line_images(options, task, sizes))
        for group in plan.pair_groups(task, options.pairs):
            costs[f"{task}.landscape.interpolate_{group.name}"] = images * len(group.pairs)
    for scenario in options.cross_domain:
        images = walk_images(options, scenario.evaluated_on, sizes)
        for walk in plan.cross_domain_pairs(scenario):
            costs[f"cross_domain.landscape.interpolate_{walk}"] = images
    for plane in options.planes:
        costs[f"{plane.task}.landscape.plane_{plane.name}"] = plane_images(plane, sizes)
    if options.basin:
        for (task, kind), runs in basin_hulls(plan, options.basin).items():
            costs[f"{task}.landscape.basin_{kind}"] = basin_images(options.basin, len(runs), sizes[task][1])
    if options.connection:
        _, modules = count_weights_and_modules(plan)
        for task in plan.targets():
            for pair in plan.connected(task):
                images = connection_images(plan, options.connection, pair, sizes, modules)
                costs[f"{task}.landscape.connect_{pair.name}"] = images
    if options.criticality:
        _, modules = count_weights_and_modules(plan)
        for name in sorted(critical_runs(plan, options.criticality)):
            images = criticality_images(plan, options.criticality, name, sizes, modules)
            images += rewinding_images(plan, options.criticality, name, sizes, modules)
            costs[f"{plan.runs[name].task}.landscape.criticality_{plan.runs[name].name}"] = images
    return costs


def _guessed_sizes(plan: Plan) -> Sizes:
    """As the plan says; where it does not, as good as any, since the speed of the first nodes sets it right."""
    guessed: dict[str, tuple[int, int]] = {}
    for task in plan.study.tasks:
        try:
            guessed[task] = sizes_of(plan, task, guessed)
        except UserError:
            guessed[task] = GUESSED
    return guessed
