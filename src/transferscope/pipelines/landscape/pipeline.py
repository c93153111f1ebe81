"""Interpolation between pairs, within and across tasks, and criticality of modules (appendix B.4 to B.9)."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from transferscope.options import CrossDomainOptions, LandscapeOptions
from transferscope.pipelines.landscape import nodes
from transferscope.pipelines.wiring import draw, gather
from transferscope.plan import Pair, Plan, RunSpec

STEP = "landscape"


def create_pipeline(plan: Plan) -> Pipeline:
    """`checkpoints → interpolation, criticality → barriers, figures`, per task and per cross-domain scenario."""
    options = plan.study.analyses.landscape
    if options is None:
        return Pipeline([])
    found: list[Node] = []
    for task in plan.targets():
        pairs = plan.pairs(task, options.pairs)
        if pairs:
            found += _interpolation(task, pairs)
        runs = _critical_runs(plan, task, options)
        if runs:
            found += _criticality(task, runs)
    return Pipeline([*found, *_cross_domain(plan, options)])


def _interpolation(task: str, pairs: list[Pair]) -> list[Node]:
    namespace = f"{task}.{STEP}"
    walks = [
        Node(
            nodes.interpolate_pair,
            inputs=[
                f"params:plan.pairs.{task}.{pair.name}",
                f"{pair.run_a.full_name}.checkpoints",
                f"{pair.run_b.full_name}.checkpoints",
                f"{task}.train_split",
                f"{task}.test_split",
                "params:analyses.landscape",
            ],
            outputs=f"{task}.{pair.name}.interpolation",
            name=f"interpolate_{pair.name}",
            namespace=namespace,
        )
        for pair in pairs
    ]
    figures = {
        "barrier": nodes.draw_barriers,
        "loss_barrier": nodes.draw_loss_barriers,
        "extrapolation": nodes.draw_extrapolation,
    }
    table = f"{task}.interpolation.table"
    return [
        *walks,
        gather(STEP, task, "interpolation", (f"{task}.{pair.name}.interpolation" for pair in pairs)),
        _barriers(task, namespace),
        *(draw(STEP, task, name, function, [table]) for name, function in figures.items()),
    ]


def _barriers(task: str, namespace: str) -> Node:
    return Node(
        nodes.measure_barriers,
        inputs=f"{task}.interpolation.table",
        outputs=f"{task}.barriers.table",
        name="measure_barriers",
        namespace=namespace,
    )


def _critical_runs(plan: Plan, task: str, options: LandscapeOptions) -> list[RunSpec]:
    if options.criticality is None or task not in (options.criticality.tasks or plan.targets()):
        return []
    trained = [run for run in plan.runs_of(task) if run.checkpoint is None]
    return [run for run in trained if run.name in options.criticality.runs]


def _criticality(task: str, runs: list[RunSpec]) -> list[Node]:
    namespace = f"{task}.{STEP}"
    measured = [
        Node(
            nodes.measure_criticality,
            inputs=[
                f"params:plan.runs.{run.full_name}",
                f"{run.full_name}.checkpoints",
                f"{task}.train_split",
                f"{task}.test_split",
                "params:analyses.landscape.criticality",
            ],
            outputs=[
                f"{run.full_name}.criticality",
                f"{run.full_name}.module_criticality",
                f"{run.full_name}.rewinding",
            ],
            name=f"criticality_{run.name}",
            namespace=namespace,
        )
        for run in runs
    ]
    tables = ("criticality", "module_criticality", "rewinding")
    figures = {
        "module_criticality": (nodes.draw_module_criticality, "module_criticality"),
        "rewinding": (nodes.draw_rewinding, "rewinding"),
    }
    return [
        *measured,
        *(gather(STEP, task, table, (f"{run.full_name}.{table}" for run in runs)) for table in tables),
        *(
            draw(
                STEP,
                task,
                f"criticality_heat_maps_{run.name}",
                nodes.draw_criticality,
                [f"{task}.criticality.table", f"params:plan.runs.{run.full_name}.name"],
            )
            for run in runs
        ),
        *(draw(STEP, task, name, function, [f"{task}.{table}.table"]) for name, (function, table) in figures.items()),
    ]


def _cross_domain(plan: Plan, options: LandscapeOptions) -> list[Node]:
    scope = "cross_domain"
    found: list[Node] = []
    walked: list[str] = []
    for scenario in options.cross_domain:
        for name, pair in plan.cross_domain_pairs(scenario).items():
            walked.append(f"{scope}.{name}.interpolation")
            found.append(_walk_across(scope, scenario, name, pair))
    if not walked:
        return []
    table = f"{scope}.interpolation.table"
    figures = [
        draw(STEP, scope, item.figure, nodes.draw_cross_domain, [table, f"params:plan.cross_domain.{item.figure}"])
        for item in options.cross_domain
    ]
    return [*found, gather(STEP, scope, "interpolation", walked), _barriers(scope, f"{scope}.{STEP}"), *figures]


def _walk_across(scope: str, scenario: CrossDomainOptions, name: str, pair: Pair) -> Node:
    return Node(
        nodes.interpolate_across,
        inputs=[
            f"params:plan.cross_domain_pairs.{name}",
            f"{pair.run_a.full_name}.checkpoints",
            f"{pair.run_b.full_name}.checkpoints",
            f"{scenario.evaluated_on}.test_split",
            "params:analyses.landscape",
        ],
        outputs=f"{scope}.{name}.interpolation",
        name=f"interpolate_{name}",
        namespace=f"{scope}.{STEP}",
    )
