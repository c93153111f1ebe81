"""Lines between pairs, planes, basins, and criticality of modules (appendix B.4 to B.9, Definition 3.1)."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from transferscope.experiment.options import CriticalityOptions, CrossDomainOptions, LandscapeOptions
from transferscope.experiment.pairs import Pair, PairGroup
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec
from transferscope.pipelines.landscape import nodes
from transferscope.pipelines.wiring import ON_A_GPU, draw, draw_matrix, draw_pages, gather, pair_inputs, tagged

NAME = "landscape"
ACROSS = "cross_domain"
"""Task in the names of results that belong to several tasks."""
STORE = "landscape_measurements"
PRECISION, COMPILED = "params:analyses.precision", "params:analyses.compile"
TABLES = ("interpolation", "barriers")
"""Tables of every pair."""
CONNECTIONS = ("connection", "connection_points", "connection_modules")
"""Tables of a pair between which ways are measured."""


def create_pipeline(plan: Plan) -> Pipeline:
    """`checkpoints → interpolation, criticality → barriers, figures`, per task and per cross-domain scenario."""
    options = plan.study.analyses.landscape
    if options is None:
        return Pipeline([])
    made: list[Node] = []
    groups = {task: plan.pair_groups(task, options.pairs) for task in plan.targets()}
    compared = [task for task in groups if groups[task]]
    for task in compared:
        made += tagged("lines", _interpolation(task, groups[task]))
        made += tagged("lines", draw_matrix(NAME, plan, task, "barrier", "barriers", groups[task]))
    across = tagged("cross_domain", _cross_domain(plan, options))
    scopes = [*compared, *([ACROSS] if across else [])]
    made += [*tagged("lines", across), *(tagged("lines", _all_barriers(scopes)) if scopes else [])]
    for task in plan.targets():
        made += tagged("connection", _connections(task, plan.connected(task)))
    for task in plan.study.tasks:
        made += [*tagged("planes", _planes(task, options)), *tagged("basin", _basin(plan, task, options))]
        runs = _critical_runs(plan, task, options)
        if runs and options.criticality:
            made += tagged("criticality", _criticality(task, runs, options.criticality))
    return Pipeline(made, tags=NAME)


def _interpolation(task: str, groups: list[PairGroup]) -> list[Node]:
    table, panels = [f"{task}.interpolation.table"], "barriers:barrier_panels"
    return [
        *(_walks(task, group) if group.together else _walk(task, group.pairs[0]) for group in groups),
        *(gather(NAME, task, name, (f"{task}.{group.name}.{name}" for group in groups)) for name in TABLES),
        draw(NAME, task, "barrier", panels, table, between=True),
        draw(NAME, task, "loss_barrier", panels, table, between=True, metric="loss"),
        draw(NAME, task, "extrapolation", panels, table, splits=("test",), title=f"{task}, test"),
    ]


def _walk(task: str, pair: Pair) -> Node:
    return Node(
        nodes.interpolate_pair,
        inputs=[
            f"params:plan.pairs.{task}.{pair.name}",
            f"{pair.run_a.full_name}.checkpoints",
            f"{pair.run_b.full_name}.checkpoints",
            f"{task}.train_split",
            f"{task}.test_split",
            "params:analyses.landscape",
            PRECISION,
            COMPILED,
            STORE,
        ],
        outputs=[f"{task}.{pair.name}.{table}" for table in TABLES],
        name=f"interpolate_{pair.name}",
        namespace=f"{task}.{NAME}",
        tags=ON_A_GPU,
    )


def _walks(task: str, group: PairGroup) -> Node:
    return Node(
        nodes.interpolate_pairs,
        inputs=pair_inputs(task, group, "checkpoints")
        | {
            "train_split": f"{task}.train_split",
            "test_split": f"{task}.test_split",
            "options": "params:analyses.landscape",
            "precision": PRECISION,
            "compiled": COMPILED,
            "store": STORE,
        },
        outputs=[f"{task}.{group.name}.{table}" for table in TABLES],
        name=f"interpolate_{group.name}",
        namespace=f"{task}.{NAME}",
        tags=ON_A_GPU,
    )


def _connections(task: str, pairs: list[Pair]) -> list[Node]:
    """The ways between some pairs, and a card of each that is no run and its copy: these share one figure."""
    if not pairs:
        return []
    measured = [
        Node(
            nodes.connect_pair,
            inputs=[
                f"params:plan.connected.{task}.{pair.name}",
                f"{pair.run_a.full_name}.checkpoints",
                f"{pair.run_b.full_name}.checkpoints",
                f"{task}.train_split",
                f"{task}.test_split",
                "params:analyses.landscape",
                "params:analyses.modules",
                PRECISION,
                STORE,
            ],
            outputs=[f"{task}.{pair.name}.{table}" for table in CONNECTIONS],
            name=f"connect_{pair.name}",
            namespace=f"{task}.{NAME}",
            tags=ON_A_GPU,
        )
        for pair in pairs
    ]
    cards = [
        draw(
            NAME,
            task,
            f"connection_{pair.name}",
            "connections:connection_card",
            [f"{task}.{pair.name}.{table}" for table in ("connection_points", "connection", "connection_modules")],
            title=f"{task}, {_named(pair)}",
        )
        for pair in pairs
        if pair.split_epoch is None
    ]
    gathered = [gather(NAME, task, name, (f"{task}.{pair.name}.{name}" for pair in pairs)) for name in CONNECTIONS]
    splits = _split_runs(task) if any(pair.split_epoch is not None for pair in pairs) else []
    return [*measured, *gathered, *cards, *splits]


def _named(pair: Pair) -> str:
    """The labels of two checkpoint files, as everywhere in their report; of trained runs the names, with replicas."""
    a, b = pair.run_a, pair.run_b
    return pair.kind if a.checkpoint and b.checkpoint and a.label != b.label else f"{a.name} & {b.name}"


def _split_runs(task: str) -> list[Node]:
    """Barriers between runs and their copies against the epoch of the split."""
    return [
        Node(
            nodes.gather_split_runs,
            inputs=[f"params:plan.runs_of.{task}", f"{task}.connection.table"],
            outputs=f"{task}.split_runs.table",
            name="gather_split_runs",
            namespace=f"{task}.{NAME}",
        ),
        draw(NAME, task, "split_runs", "split_runs:barrier_by_split", [f"{task}.split_runs.table"]),
    ]


def _all_barriers(scopes: list[str]) -> list[Node]:
    """The barriers of all tasks and scenarios, as one table and one figure."""
    barriers = {scope: f"{scope}.barriers.table" for scope in scopes}
    return [
        Node(
            nodes.summarise_barriers,
            inputs=barriers,
            outputs=f"{ACROSS}.barrier_summary.table",
            name="summarise_barriers",
            namespace=f"{ACROSS}.{NAME}",
        ),
        draw(
            NAME,
            ACROSS,
            "all_barriers",
            "barriers:barrier_heights",
            barriers.values(),
            joined=True,
            metric=None,
            title=None,
        ),
    ]


def _planes(task: str, options: LandscapeOptions) -> list[Node]:
    planes = [plane for plane in options.planes if plane.task == task]
    if not planes:
        return []
    measured = [
        Node(
            nodes.measure_plane,
            inputs=[
                f"params:plan.planes.{task}.{plane.name}",
                *(f"{checkpoint.run_name}.checkpoints" for checkpoint in plane.names),
                f"{task}.train_split",
                f"{task}.test_split",
                PRECISION,
                COMPILED,
                STORE,
            ],
            outputs=f"{task}.{plane.name}.plane",
            name=f"plane_{plane.name}",
            namespace=f"{task}.{NAME}",
            tags=ON_A_GPU,
        )
        for plane in planes
    ]
    figures = [
        draw(NAME, task, f"plane_{plane.name}", "planes:plane_contours", [f"{task}.{plane.name}.plane"], title=None)
        for plane in planes
    ]
    gathered = gather(NAME, task, "planes", (f"{task}.{plane.name}.plane" for plane in planes))
    return [*measured, gathered, *figures]


def _basin(plan: Plan, task: str, options: LandscapeOptions) -> list[Node]:
    """The hull of all runs of each kind that has two or more."""
    if options.basin is None or task not in (options.basin.tasks or plan.targets()):
        return []
    runs = {kind: [run for run in plan.runs_of(task) if run.kind == kind] for kind in options.basin.kinds}
    hulls = {kind: members for kind, members in runs.items() if len(members) > 1}
    measured = [
        Node(
            nodes.measure_basin,
            inputs=[
                f"params:plan.runs.{members[0].full_name}",
                f"{task}.train_split",
                f"{task}.test_split",
                "params:plan.basin",
                PRECISION,
                COMPILED,
                STORE,
                *(f"{run.full_name}.checkpoints" for run in members),
            ],
            outputs=f"{task}.{kind}.basin",
            name=f"basin_{kind}",
            namespace=f"{task}.{NAME}",
            tags=ON_A_GPU,
        )
        for kind, members in hulls.items()
    ]
    if not measured:
        return []
    gathered = gather(NAME, task, "basin", (f"{task}.{kind}.basin" for kind in hulls))
    return [*measured, gathered, draw(NAME, task, "basin", "planes:basin_walls", [f"{task}.basin.table"])]


def _critical_runs(plan: Plan, task: str, options: LandscapeOptions) -> list[RunSpec]:
    if options.criticality is None or task not in (options.criticality.tasks or plan.targets()):
        return []
    trained = [run for run in plan.runs_of(task) if run.checkpoint is None]
    return [run for run in trained if run.name in options.criticality.runs]


def _criticality(task: str, runs: list[RunSpec], options: CriticalityOptions) -> list[Node]:
    namespace = f"{task}.{NAME}"
    tables = ("criticality", "module_criticality", "rewinding")
    measured = [
        Node(
            nodes.measure_criticality,
            inputs=[
                f"params:plan.runs.{run.full_name}",
                f"{run.full_name}.checkpoints",
                f"{task}.train_split",
                f"{task}.test_split",
                "params:plan.criticality",
                "params:analyses.modules",
                PRECISION,
                COMPILED,
                STORE,
            ],
            outputs=[f"{run.full_name}.{table}" for table in tables],
            name=f"criticality_{run.name}",
            namespace=namespace,
            tags=ON_A_GPU,
        )
        for run in runs
    ]
    bars = {"module_criticality": "criticality:module_criticality_bars", "rewinding": "criticality:rewinding_bars"}
    return [
        *measured,
        *(gather(NAME, task, table, (f"{run.full_name}.{table}" for run in runs)) for table in tables),
        *(node for run in runs for node in _heat_maps(task, run, options.pages)),
        *(draw(NAME, task, name, plot, [f"{task}.{name}.table"]) for name, plot in bars.items()),
    ]


def _heat_maps(task: str, run: RunSpec, pages: bool) -> list[Node]:
    """The first module of a run as a figure, and all of them as pages."""
    table, maps = [f"{task}.criticality.table"], "criticality:criticality_pages"
    one = "criticality:first_criticality_page"
    first = draw(NAME, task, f"criticality_heat_maps_{run.name}", one, table, run=run.name)
    entry = f"criticality_{run.name}"
    every = draw_pages(NAME, task, f"criticality_pages_{run.name}", maps, table, entry, run=run.name)
    return [first, every] if pages else [first]


def _cross_domain(plan: Plan, options: LandscapeOptions) -> list[Node]:
    walks: dict[str, Node] = {}
    for scenario in options.cross_domain:
        for name, pair in plan.cross_domain_pairs(scenario).items():
            walks[name] = _walk_across(scenario, name, pair)
    if not walks:
        return []
    figures = [
        draw(
            NAME,
            ACROSS,
            item.figure,
            "barriers:cross_domain_panels",
            [f"{ACROSS}.interpolation.table"],
            scenario=item.figure,
            title=f"on {item.evaluated_on}, test: {item.tasks[0]} to {item.tasks[1]}",
        )
        for item in options.cross_domain
    ]
    gathered = [gather(NAME, ACROSS, table, (f"{ACROSS}.{name}.{table}" for name in walks)) for table in TABLES]
    return [*walks.values(), *gathered, *figures]


def _walk_across(scenario: CrossDomainOptions, name: str, pair: Pair) -> Node:
    return Node(
        nodes.interpolate_across,
        inputs=[
            f"params:plan.cross_domain_pairs.{name}",
            f"{pair.run_a.full_name}.checkpoints",
            f"{pair.run_b.full_name}.checkpoints",
            f"{scenario.evaluated_on}.train_split",
            f"{scenario.evaluated_on}.test_split",
            "params:analyses.landscape",
            PRECISION,
            COMPILED,
            STORE,
        ],
        outputs=[f"{ACROSS}.{name}.{table}" for table in TABLES],
        name=f"interpolate_{name}",
        namespace=f"{ACROSS}.{NAME}",
        tags=ON_A_GPU,
    )
