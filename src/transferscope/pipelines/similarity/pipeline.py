"""CKA between the features of all models of a task at once, and distances between weights (appendix B.3)."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from transferscope.experiment.pairs import Pair, PairGroup
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec
from transferscope.pipelines.similarity import nodes
from transferscope.pipelines.wiring import ON_A_GPU, draw, draw_matrix, gather, pair_inputs, tagged

NAME = "similarity"


def create_pipeline(plan: Plan) -> Pipeline:
    """`checkpoints → cka, distances → figures`, per task."""
    options = plan.study.analyses.similarity
    if options is None:
        return Pipeline([])
    made: list[Node] = []
    for task in plan.targets():
        groups = plan.pair_groups(task, options.pairs)
        if groups:
            made += _task(task, groups, options.feature_tables())
            made += tagged("cka", draw_matrix(NAME, plan, task, "cka", "cka", groups))
            near = [group for group in groups if all(_has_distance(pair) for pair in group.pairs)]
            made += tagged("distances", draw_matrix(NAME, plan, task, "distance", "distances", near))
            made += tagged("distances", _identities(plan, task, groups))
    return Pipeline(made, tags=NAME)


def _task(task: str, groups: list[PairGroup], feature_tables: list[str]) -> list[Node]:
    runs = list({run.full_name: run for group in groups for run in group.runs}.values())
    own = [run for run in runs if run.task == task and run.checkpoint is None]
    inside = [group for group in groups if all(_has_distance(pair) for pair in group.pairs)]
    distances = [
        *(f"{task}.{group.name}.distances" for group in inside),
        *(f"{run.full_name}.distances" for run in own),
    ]
    travelled = [f"{run.full_name}.distance_travelled" for run in own]
    tables = [
        *feature_tables,
        *(["distances"] if distances else []),
        *(["distance_travelled"] if travelled else []),
    ]
    figures = {
        figure: draw(NAME, task, figure, plot, [f"{task}.{table}.table"])
        for figure, (plot, table) in FIGURES.items()
        if table in tables and (own or figure != "distance_to_initialisation")
    }
    return [
        *tagged("cka", [_cka(task, runs, feature_tables)]),
        *tagged(
            "distances",
            [
                *(_distance(task, group) for group in inside),
                *(_distance_travelled(run) for run in own),
                *([gather(NAME, task, "distances", distances)] if distances else []),
                *([gather(NAME, task, "distance_travelled", travelled)] if travelled else []),
            ],
        ),
        *(node.tag("cka" if figure.startswith("cka") else "distances") for figure, node in figures.items()),
    ]


def _has_distance(pair: Pair) -> bool:
    """True if the weights of two runs are compared: of one network, on one task or of a file and its parent."""
    return pair.same_network and (pair.run_a.task == pair.run_b.task or pair.is_of_parent)


FIGURES = {
    "cka": ("cka:cka_bars", "cka"),
    "cka_heat_map": ("cka:cka_heat_map", "cka_layers"),
    "distance_per_module": ("distances:distance_per_module", "distances"),
    "distance_to_initialisation": ("distances:distance_to_initialisation", "distances"),
    "distance_travelled": ("distances:distance_travelled", "distance_travelled"),
}
"""Figure -> the function of `plots`, and the table that it draws."""


def _cka(task: str, runs: list[RunSpec], tables: list[str]) -> Node:
    """All pairs among m models cost m forward passes, so one node serves them all."""
    return Node(
        nodes.measure_cka,
        inputs={
            "pairs": f"params:plan.similarity_pairs.{task}",
            "runs": f"params:plan.runs_of.{task}",
            "options": "params:analyses.similarity",
            "precision": "params:analyses.precision",
            "compiled": "params:analyses.compile",
            "test_split": f"{task}.test_split",
            **{f"{run.task}_{run.name}": f"{run.full_name}.checkpoints" for run in runs},
        },
        outputs={name: f"{task}.{name}.table" for name in tables},
        name="measure_cka",
        namespace=f"{task}.{NAME}",
        tags=ON_A_GPU,
    )


def _distance(task: str, group: PairGroup) -> Node:
    if group.together:
        return Node(
            nodes.measure_distances,
            inputs=pair_inputs(task, group, "checkpoints")
            | {"options": "params:analyses.similarity", "modules": "params:analyses.modules"},
            outputs=f"{task}.{group.name}.distances",
            name=f"distance_{group.name}",
            namespace=f"{task}.{NAME}",
        )
    (pair,) = group.pairs
    return Node(
        nodes.measure_distance,
        inputs=[
            f"params:plan.pairs.{task}.{pair.name}",
            f"{pair.run_a.full_name}.checkpoints",
            f"{pair.run_b.full_name}.checkpoints",
            "params:analyses.similarity",
            "params:analyses.modules",
        ],
        outputs=f"{task}.{pair.name}.distances",
        name=f"distance_{pair.name}",
        namespace=f"{task}.{NAME}",
    )


def _identities(plan: Plan, task: str, groups: list[PairGroup]) -> list[Node]:
    """Ask of every pair of checkpoint files whether they are one function; of trained runs it is not asked."""
    asked = [group for group in groups if all(run.role == "file" for run in group.runs)]
    if not asked:
        return []
    names = ("identity", "aligned_distances")
    return [
        *(_identify(plan, task, group, names) for group in asked),
        *(gather(NAME, task, name, (f"{task}.{group.name}.{name}" for group in asked)) for name in names),
    ]


def _identify(plan: Plan, task: str, group: PairGroup, outputs: tuple[str, str]) -> Node:
    inputs = {
        "part": f"params:plan.tasks.{task}.test",
        "options": "params:analyses.similarity",
        "modules": "params:analyses.modules",
    }
    if plan.has_images(task):
        inputs["test_split"] = f"{task}.test_split"
    if group.together:
        inputs |= pair_inputs(task, group, "checkpoints")
    else:
        (pair,) = group.pairs
        inputs["pair"] = f"params:plan.pairs.{task}.{pair.name}"
        inputs |= {
            f"series_{side}": f"{run.full_name}.checkpoints" for side, run in (("a", pair.run_a), ("b", pair.run_b))
        }
    return Node(
        nodes.identify_pairs if group.together else nodes.identify_pair,
        inputs=inputs,
        outputs=[f"{task}.{group.name}.{name}" for name in outputs],
        name=f"identify_{group.name}",
        namespace=f"{task}.{NAME}",
        tags=ON_A_GPU,
    )


def _distance_travelled(run: RunSpec) -> Node:
    return Node(
        nodes.measure_distance_travelled,
        inputs=[
            f"{run.full_name}.checkpoints",
            f"params:plan.runs.{run.full_name}",
            "params:analyses.similarity",
            "params:analyses.modules",
        ],
        outputs=[f"{run.full_name}.distances", f"{run.full_name}.distance_travelled"],
        name=f"distance_travelled_{run.name}",
        namespace=f"{run.task}.{NAME}",
    )
