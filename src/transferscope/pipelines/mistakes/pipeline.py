"""Predict once per run, compare every pair, relate accuracy to class size (appendix B.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kedro.pipeline import Node, Pipeline

from transferscope.experiment.pairs import PairGroup
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec, printed_names
from transferscope.pipelines.mistakes import nodes
from transferscope.pipelines.types import Figure
from transferscope.pipelines.wiring import ON_A_GPU, draw, draw_matrix, gather, pair_inputs, tagged

NAME = "mistakes"


def create_pipeline(plan: Plan) -> Pipeline:
    """`checkpoints → predictions → pairs, classes → tables, figures`, per task."""
    options = plan.study.analyses.mistakes
    if options is None:
        return Pipeline([])
    made: list[Node] = []
    for task in plan.targets():
        groups = plan.pair_groups(task, options.pairs)
        if groups:
            made += _task(plan, task, groups)
    return Pipeline(made, tags=NAME)


def _task(plan: Plan, task: str, groups: list[PairGroup]) -> list[Node]:
    runs = list({run.name: run for group in groups for run in group.runs}.values())
    options = plan.study.analyses.mistakes
    by_class_size = not (plan.is_multi_label(task) or plan.compares_files)  # what files were trained on is not known
    replaced, stopping = options is not None and options.replace, options is not None and options.until_decided
    return [
        *([_predict_until_decided(task, runs)] if stopping else map(_predict, runs)),
        *(_measure(task, group, ["mistakes"], "compare", nodes.compare_pair, nodes.compare_pairs) for group in groups),
        gather(NAME, task, "mistakes", (f"{task}.{group.name}.mistakes" for group in groups)),
        Node(
            nodes.summarise_pairs,
            inputs=f"{task}.mistakes.table",
            outputs=f"{task}.mistakes_spread.table",
            name="summarise_pairs",
            namespace=f"{task}.{NAME}",
        ),
        draw(NAME, task, "mistakes", "mistakes:mistake_bars", [f"{task}.mistakes.table"], names=_names(runs)),
        *draw_matrix(NAME, plan, task, "disagreement", "mistakes", groups),
        *_gallery(plan, task, "uncommon_mistakes", nodes.draw_gallery),
        *(tagged("replacement", _replacement(plan, task, groups, runs)) if replaced else []),
        *(tagged("class_size", _class_sizes(task, runs)) if by_class_size else []),
    ]


def _names(runs: list[RunSpec]) -> dict[str, str]:
    """The names of files of a series, which have one label together, by the full name of the run."""
    return printed_names(run for run in runs if run.in_series)


def _replacement(plan: Plan, task: str, groups: list[PairGroup], runs: list[RunSpec]) -> list[Node]:
    """Answer whether the second run of each pair can replace the first, and how well each run is calibrated."""
    of_pairs = ("replacement", "flips")
    return [
        *(_measure(task, group, of_pairs, "replace", nodes.replace_pair, nodes.replace_pairs) for group in groups),
        _calibrate(task, runs),
        *(gather(NAME, task, name, [f"{task}.{group.name}.{name}" for group in groups]) for name in of_pairs),
        draw(NAME, task, "flips", "replacement:flip_bars", [f"{task}.flips.table"], names=_names(runs)),
        draw(NAME, task, "reliability", "replacement:reliability_diagram", [f"{task}.reliability.table"]),
        *_gallery(plan, task, "flip_gallery", nodes.draw_flip_gallery),
    ]


def _calibrate(task: str, runs: list[RunSpec]) -> Node:
    return Node(
        nodes.calibrate_runs,
        inputs={
            "runs": f"params:plan.runs_of.{task}",
            "test_split": f"{task}.test_split",
            "options": "params:analyses.mistakes",
            **{run.name: f"{run.full_name}.predictions" for run in runs},
        },
        outputs=[f"{task}.calibration.table", f"{task}.reliability.table"],
        name="calibrate_runs",
        namespace=f"{task}.{NAME}",
    )


def _class_sizes(task: str, runs: list[RunSpec]) -> list[Node]:
    """Accuracy against class size; findings of a multi-label task have no such accuracy."""
    return [
        Node(
            nodes.measure_class_accuracy,
            inputs={
                "runs": f"params:plan.runs_of.{task}",
                "test_split": f"{task}.test_split",
                "class_sizes": f"{task}.class_sizes.table",
                **{run.name: f"{run.full_name}.predictions" for run in runs},
            },
            outputs=[f"{task}.class_accuracy.table", f"{task}.class_size_correlation.table"],
            name="measure_class_accuracy",
            namespace=f"{task}.{NAME}",
        ),
        draw(
            NAME,
            task,
            "accuracy_by_class_size",
            "mistakes:accuracy_by_class_size",
            [f"{task}.class_accuracy.table", f"{task}.class_size_correlation.table"],
        ),
    ]


def _predict(run: RunSpec) -> Node:
    return Node(
        nodes.predict_test,
        inputs=[f"{run.full_name}.checkpoints", f"{run.task}.test_split", "params:analyses.mistakes"],
        outputs=f"{run.full_name}.predictions",
        name=f"predict_{run.name}",
        namespace=f"{run.task}.{NAME}",
        tags=ON_A_GPU,
    )


def _predict_until_decided(task: str, runs: list[RunSpec]) -> Node:
    """All runs in one node, since a run's last image depends on those that it is compared with."""
    return Node(
        nodes.predict_until_decided,
        inputs={
            "pairs": f"params:plan.decided_pairs.{task}",
            "test_split": f"{task}.test_split",
            "options": "params:analyses.mistakes",
            **{run.full_name: f"{run.full_name}.checkpoints" for run in runs},
        },
        outputs=[f"{run.full_name}.predictions" for run in runs],
        name="predict_until_decided",
        namespace=f"{task}.{NAME}",
        tags=ON_A_GPU,
    )


def _measure(
    task: str,
    group: PairGroup,
    outputs: Sequence[str],
    verb: str,
    of_a_pair: Callable[..., object],
    of_pairs: Callable[..., object],
) -> Node:
    """The node that makes tables of the pairs of a group, with one function for a pair and another one for many."""
    tables = [f"{task}.{group.name}.{name}" for name in outputs]
    split, options = f"{task}.test_split", "params:analyses.mistakes"
    inputs: list[str] | dict[str, str]
    if group.together:
        inputs = pair_inputs(task, group, "predictions") | {"test_split": split, "options": options}
    else:
        (pair,) = group.pairs
        predictions = [f"{run.full_name}.predictions" for run in (pair.run_a, pair.run_b)]
        inputs = [f"params:plan.pairs.{task}.{pair.name}", *predictions, split, options]
    return Node(
        of_pairs if group.together else of_a_pair,
        inputs=inputs,
        outputs=tables if len(tables) > 1 else tables[0],
        name=f"{verb}_{group.name}",
        namespace=f"{task}.{NAME}",
    )


def _gallery(plan: Plan, task: str, name: str, function: Callable[..., Figure]) -> list[Node]:
    """A gallery shows the first pair of a fine-tuned and a randomly initialised model."""
    mixed = plan.gallery_pair(task)
    if mixed is None:
        return []
    inputs = [
        f"params:plan.gallery_pairs.{task}",
        f"{mixed.run_a.full_name}.predictions",
        f"{mixed.run_b.full_name}.predictions",
        f"{task}.test_split",
        "params:analyses.mistakes",
    ]
    return [draw(NAME, task, name, function, inputs)]
