"""Singular values of each run's layers and of the whole network (appendix C)."""

from __future__ import annotations

from collections.abc import Callable

from kedro.pipeline import Node, Pipeline

from transferscope.experiment.options import SpectrumOptions
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec
from transferscope.pipelines.spectrum import nodes
from transferscope.pipelines.wiring import ON_A_GPU, draw, draw_pages, gather, tagged

NAME = "spectrum"


def create_pipeline(plan: Plan) -> Pipeline:
    """`checkpoints → singular values, summaries → tables, figures`, per task."""
    options = plan.study.analyses.spectrum
    if options is None:
        return Pipeline([])
    made: list[Node] = []
    for task in dict.fromkeys(run.task for run in plan.runs.values()):
        runs = [run for run in plan.runs_of(task) if run.kind in options.kinds]
        if runs:
            made += _task(plan, task, runs, options)
    return Pipeline(made, tags=NAME)


def _task(plan: Plan, task: str, runs: list[RunSpec], options: SpectrumOptions) -> list[Node]:
    measured = [_measure(run) for run in runs]
    spectra = gather(NAME, task, "spectrum", [f"{run.full_name}.spectrum" for run in runs])
    margins = tagged("margin", [*(_margin(run) for run in runs), _bound_factors(task, runs)])
    nodes = [*measured, *margins, spectra]
    if task in (options.network_tasks or plan.study.tasks):
        nodes += _paddings(task, runs) if options.padding == "network" else []
        nodes += _vectors(task, runs) if options.vector_layers else []
    both = [[run for run in plan.compared(task, role) if run in runs] for role in ("from_scratch", "fine_tuned")]
    if all(both):
        nodes.append(_small_values(task, [*both[0], *both[1]]))
    return [*nodes, *_figures(plan, task, runs, options)] if task in plan.targets() else nodes


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
        namespace=f"{run.task}.{NAME}",
    )


def _paddings(task: str, runs: list[RunSpec]) -> list[Node]:
    """The network's own padding beside the circular one, as a table and a figure."""
    measured = [_of_network(nodes.measure_network_spectrum, run, "network_spectrum") for run in runs]
    table = gather(NAME, task, "network_spectrum", [f"{run.full_name}.network_spectrum" for run in runs])
    figure = draw(NAME, task, "spectrum_paddings", "spectrum:paddings", [f"{task}.network_spectrum.table"])
    return [*measured, table, figure]


def _vectors(task: str, runs: list[RunSpec]) -> list[Node]:
    """The inputs that chosen layers stretch most, as a figure."""
    measured = [_of_network(nodes.measure_singular_vectors, run, "singular_vectors") for run in runs]
    entries = [f"{run.full_name}.singular_vectors" for run in runs]
    plot = "singular_vectors:singular_vectors"
    return [*measured, draw(NAME, task, "singular_vectors", plot, entries, joined=True)]


def _of_network(function: Callable[..., object], run: RunSpec, entry: str) -> Node:
    """The node that measures the trained network of a run at the size of its images."""
    return Node(
        function,
        inputs=[
            f"{run.full_name}.checkpoints",
            f"params:plan.runs.{run.full_name}",
            f"params:plan.tasks.{run.task}.test",
            "params:analyses.spectrum",
            "params:seed",
        ],
        outputs=f"{run.full_name}.{entry}",
        name=f"{entry}_{run.name}",
        namespace=f"{run.task}.{NAME}",
    )


def _margin(run: RunSpec) -> Node:
    return Node(
        nodes.measure_margin,
        inputs=[f"{run.full_name}.checkpoints", f"params:plan.runs.{run.full_name}", f"{run.task}.train_split"],
        outputs=f"{run.full_name}.margin",
        name=f"margin_{run.name}",
        namespace=f"{run.task}.{NAME}",
        tags=ON_A_GPU,
    )


def _bound_factors(task: str, runs: list[RunSpec]) -> Node:
    return Node(
        nodes.measure_bound_factors,
        inputs=[f"{task}.spectrum.table", *(f"{run.full_name}.margin" for run in runs)],
        outputs=f"{task}.bound_factors.table",
        name="measure_bound_factors",
        namespace=f"{task}.{NAME}",
    )


def _small_values(task: str, runs: list[RunSpec]) -> Node:
    return Node(
        nodes.compare_small_values,
        inputs=[
            "params:analyses.spectrum",
            f"params:plan.runs_of.{task}",
            *(f"{run.full_name}.singular_values" for run in runs),
        ],
        outputs=f"{task}.small_values.table",
        name="compare_small_values",
        namespace=f"{task}.{NAME}",
    )


def _figures(plan: Plan, task: str, runs: list[RunSpec], options: SpectrumOptions) -> list[Node]:
    """P itself is drawn beside the models that were fine-tuned from it; checkpoints from elsewhere have no training."""
    origins = [plan.runs[run.pretrained] for run in runs if run.pretrained in plan.runs]
    shown = [*runs, *(origin for origin in origins if origin.kind in options.kinds)]
    values = list(dict.fromkeys(f"{run.full_name}.singular_values" for run in shown))
    summaries = [f"{task}.spectrum.table"]
    figures = [
        draw(NAME, task, "spectrum_histogram", "spectrum:spectrum_histogram", values, joined=True),
        draw(NAME, task, "spectrum_counts", "spectrum:count_below_threshold", values, joined=True),
        draw(NAME, task, "norm_ratios", "spectrum:norm_ratios", summaries),
    ]
    if any(run.checkpoint is None for run in runs):
        figures.append(draw(NAME, task, "spectrum_training", "spectrum:spectrum_along_training", summaries))
    if task in (options.layer_pages or plan.targets()):
        figures.append(draw_pages(NAME, task, "layer_spectra", "spectrum:layer_spectra", values, "layer_spectra"))
    return figures
