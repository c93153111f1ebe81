"""Singular values of each run's layers and of the whole network (appendix C)."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from transferscope.pipelines.spectrum import nodes
from transferscope.pipelines.wiring import draw, gather
from transferscope.plan import Plan, RunSpec

STEP = "spectrum"


def create_pipeline(plan: Plan) -> Pipeline:
    """`checkpoints → singular values, summaries → tables, figures`, per task."""
    options = plan.study.analyses.spectrum
    if options is None:
        return Pipeline([])
    found: list[Node] = []
    for task in dict.fromkeys(run.task for run in plan.runs.values()):
        runs = [run for run in plan.runs_of(task) if run.kind in options.kinds]
        if runs:
            found += _task(plan, task, runs)
    return Pipeline(found)


def _task(plan: Plan, task: str, runs: list[RunSpec]) -> list[Node]:
    measured = [_measure(run) for run in runs]
    summaries = [f"{run.full_name}.spectrum" for run in runs]
    nodes_of_task = [*measured, gather(STEP, task, "spectrum", summaries)]
    return [*nodes_of_task, *_figures(plan, task, runs)] if task in plan.targets() else nodes_of_task


def _measure(run: RunSpec) -> Node:
    return Node(
        nodes.measure_spectrum,
        inputs=[
            f"{run.full_name}.checkpoints",
            f"params:plan.runs.{run.full_name}",
            f"params:plan.tasks.{run.task}.test",
            "params:analyses.spectrum",
        ],
        outputs=[f"{run.full_name}.singular_values", f"{run.full_name}.spectrum"],
        name=f"spectrum_{run.name}",
        namespace=f"{run.task}.{STEP}",
    )


def _figures(plan: Plan, task: str, runs: list[RunSpec]) -> list[Node]:
    """P itself is drawn beside the models that were fine-tuned from it."""
    kinds = plan.study.analyses.spectrum.kinds if plan.study.analyses.spectrum else ()
    origins = [plan.runs[run.pretrained] for run in runs if run.pretrained in plan.runs]
    shown = {run.full_name: run for run in [*runs, *(origin for origin in origins if origin.kind in kinds)]}
    values = [f"{name}.singular_values" for name in shown]
    figures = {
        "spectrum_histogram": nodes.draw_histogram,
        "spectrum_lower_part": nodes.draw_lower_part,
        "spectrum_counts": nodes.draw_counts,
        "norm_ratios": nodes.draw_norm_ratios,
    }
    inputs = dict.fromkeys(figures, values) | {"norm_ratios": [f"{task}.spectrum.table"]}
    return [draw(STEP, task, name, function, inputs[name]) for name, function in figures.items()]
