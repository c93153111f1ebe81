"""What a run says of itself: before, during, after, and when it failed."""

from __future__ import annotations

import logging
import shlex
from types import SimpleNamespace

import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from transferscope.cost.device_speed import Speed
from transferscope.cost.node_costs import node_costs
from transferscope.cost.plan_cost import plan_costs
from transferscope.framework.runners.failures import repeat_command
from transferscope.framework.runners.node_progress import Ended, NodeProgress
from transferscope.framework.runners.run_status import Status, duration
from transferscope.framework.runners.run_tables import failures_table, plan_table, runs_table, tables_after
from transferscope.system.errors import UserError
from transferscope.tables.terminal import print_tables


def chain() -> NodeProgress:
    """`a → b → c`, and `d` by itself."""
    nodes = [
        Node(lambda: 1, None, "a.out", name="a"),
        Node(lambda _: 1, "a.out", "b.out", name="b"),
        Node(lambda _: 1, "b.out", "c.out", name="c"),
        Node(lambda: 1, None, "d.out", name="d"),
    ]
    return NodeProgress(Pipeline(nodes))


def by_name(steps: NodeProgress) -> dict[str, Node]:
    return {node.name: node for node in steps.all}


def test_what_is_left_follows_the_costs(caplog: pytest.LogCaptureFixture) -> None:
    """By hand: 60 images took 30 s, so 20 and 10 take 10 and 5; `d`, of unknown cost, takes as long as `e` did, 3 s.

    `d` has run for 1 s of it, and steps have run for 34 s in 17 s: two at once. So (10 + 5 + 2) / 2 s are left.
    """
    nodes = [*chain().all, Node(lambda: 1, None, "e.out", name="e")]
    steps = NodeProgress(Pipeline(nodes))
    status = Status(steps, {"a": 60, "b": 20, "c": 10}, line_seconds=0)
    node = by_name(steps)
    assert [ready.name for ready in steps.take_ready()] == ["a", "d", "e"]
    assert steps.take_ready() == []
    steps.start(node["a"])
    assert status.seconds_left() is None
    assert status.line() == "0 of 5 done, 4 wait, 1 running (a)"
    steps.end(Ended(node["a"], 30.0))
    assert [ready.name for ready in steps.take_ready()] == ["b"]
    assert status.seconds_left() is None
    steps.end(Ended(node["e"], 3.0))
    steps.start(node["d"])
    steps._started[node["d"]] -= 1
    status._begin -= 17
    assert status.seconds_left() == pytest.approx(8.5, rel=0.02)
    caplog.set_level(logging.INFO, "transferscope")
    with status.shown() as update:
        update()
    assert "2 of 5 done, 2 wait, 1 running (d), about 8 s left" in caplog.text


def test_a_step_that_was_found_finished_tells_nothing_of_the_speed() -> None:
    """Costs of 60 done in a moment: as long as no other has run, nobody knows how long 20 and 10 take."""
    steps = chain()
    node = by_name(steps)
    status = Status(steps, {"a": 60, "b": 20, "c": 10, "d": 60})
    steps.end(Ended(node["a"], 0.1))
    assert status.seconds_left() is None
    steps.end(Ended(node["d"], 60.0))
    status._begin -= 60.1
    assert status.seconds_left() == pytest.approx(30, rel=0.02)


def test_failures_are_counted_with_what_they_stop() -> None:
    steps = chain()
    node = by_name(steps)
    steps.take_ready()
    steps.start(node["a"])
    steps.end(Ended(node["a"], 1.0, OSError("disk on fire")))
    assert not steps.are_over
    steps.start(node["d"])
    steps.end(Ended(node["d"], 1.0))
    assert steps.are_over
    assert Status(steps, {}).line() == "1 of 4 done, 1 failed, 2 cannot run"
    table = failures_table(steps)
    assert table.to_dict("records") == [{"failed": "a", "why": "OSError: disk on fire", "nodes_not_run": 2}]


def test_the_command_repeats_what_failed_with_the_same_options() -> None:
    """All that chose what was run, and how, stays; `--from-nodes` takes what was skipped along."""
    steps = chain()
    steps.end(Ended(by_name(steps)["a"], 1.0, UserError("no")))
    options = {
        "env": "paper",
        "pipeline_names": ["training"],
        "runtime_params": {"training": {"epochs": 3, "precision": None}},
        "tags": (),
        "runner": "transferscope.framework.runners.RayRunner",
        "runner_params": {"address": "head:6379"},
        "only_missing_outputs": True,
    }
    assert shlex.split(repeat_command(steps, options)) == [
        *("kedro", "run", "--env", "paper", "--runner", "transferscope.framework.runners.RayRunner"),
        *("--runner-params", "address=head:6379", "--params", "training.epochs=3,training.precision=null"),
        *("--pipelines", "training", "--only-missing-outputs", "--from-nodes", "a"),
    ]
    assert repeat_command(steps, {}) == "kedro run --from-nodes a"


def test_before_and_after_a_run() -> None:
    """How many steps of each part; the last row of each history with the time that it took."""
    nodes = [
        Node(lambda: 1, None, "t.one.history", name="one", namespace="t.training"),
        Node(lambda: 1, None, "u.two.history", name="two", namespace="u.training"),
        Node(lambda: 1, None, "claims", name="decide", namespace="report"),
    ]
    assert plan_table(nodes).to_dict("list") == {"part": ["training", "report"], "nodes": [2, 1]}
    assert plan_table([Node(lambda: 1, None, "a", name="a")]).to_dict("list") == {"part": ["other"], "nodes": [1]}
    history = pd.DataFrame({"epoch": [0, 1], "train_loss": [None, 0.5], "test_accuracy": [0.1, 0.75]})
    catalog = DataCatalog({"t.one.history": MemoryDataset(history), "claims": MemoryDataset(1)})
    table = runs_table({nodes[0]: 61.26, nodes[2]: 1.0}, catalog)
    assert table.to_dict("records") == [
        {"run": "t.one", "epochs": 1, "train_loss": 0.5, "test_accuracy": 0.75, "seconds": 61.3}
    ]


@pytest.mark.parametrize("tasks", [("photos",), ("photos", "sketches")])
def test_checkpoint_files_are_models_and_no_trainings(tasks: tuple[str, ...]) -> None:
    """By the names that the card has, with what was measured; the images are named where there are several."""
    runs = {
        f"{task}.{kind}_1": SimpleNamespace(full_name=f"{task}.{kind}_1", label=label, in_series=False, task=task)
        for task in tasks
        for kind, label in (("a", "first"), ("b", "second"))
    }
    plan = SimpleNamespace(runs=runs, compares_files=True)
    history = pd.DataFrame(
        {"epoch": [1], "lr": [None], "train_loss": [None], "test_loss": [0.5], "test_accuracy": [0.75]}
    )
    entries = {f"{name}.history": MemoryDataset(history) for name in runs}
    nodes = {Node(lambda: 1, None, entry, name=entry): 2.0 for entry in entries}
    tables = tables_after(nodes, DataCatalog(entries), plan)  # type: ignore[arg-type]
    assert list(tables) == ["Models"]
    images = [{"images": task} if len(tasks) > 1 else {} for task in tasks]
    assert tables["Models"].to_dict("records") == [
        {"model": label, **shown, "test_accuracy": 0.75, "test_loss": 0.5}
        for shown in images
        for label in ("first", "second")
    ]
    weights = DataCatalog({entry: MemoryDataset(history[["epoch"]]) for entry in entries})
    assert tables_after(nodes, weights, plan) == {}  # type: ignore[arg-type]
    assert tables_after({}, weights, None) == {}


def test_a_training_that_diverged_says_so() -> None:
    """In the table of trainings, beside the epoch; a checkpoint file, which has no loss either, has not diverged."""
    node = Node(lambda: 1, None, "t.one.history", name="one", namespace="t.training")
    history = pd.DataFrame(
        {"epoch": [0, 1], "lr": [None, 0.1], "train_loss": [None, None], "test_accuracy": [0.1, None]}
    )
    for rows, shown in ((history, "1, diverged"), (history[:1], 0)):
        catalog = DataCatalog({"t.one.history": MemoryDataset(rows)})
        assert runs_table({node: 1.0}, catalog)["epochs"].tolist() == [shown]


def test_an_error_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets in it are no markup."""
    print_tables({"What failed": pd.DataFrame({"failed": ["a"], "why": ["[/b/pair.cc:545] closed"]})})
    assert "[/b/pair.cc:545] closed" in capsys.readouterr().out


def test_durations() -> None:
    assert [duration(value) for value in (3.2, 600, 9000)] == ["3 s", "10 min", "2.5 h"]


def test_costs_by_step_are_those_of_the_plan(project) -> None:
    """Every name is a node of the study; trainings and lines add up to what `kedro cost` says, one image a second."""
    with project.session() as session:
        session.load_context()
        from kedro.framework.project import pipelines

        from transferscope.framework.config import active_plan

        plan, names = active_plan(), {node.name for node in pipelines["__default__"].nodes}
    costs = node_costs(plan)
    assert set(costs) <= names
    tables = plan_costs(plan, {}, Speed(1.0, 1.0))
    runs = tables["Trainings"]
    ours = sum(costs[str(run.node)] for run in plan.runs.values())
    assert ours == 3 * runs["images_trained"].sum() + runs["images_evaluated"].sum()
    figures = tables["Tables and figures"].set_index("figure")["evaluation_hours"]
    lines = sum(value for name, value in costs.items() if ".interpolate_" in name)
    walks = (
        figures[["Figures 12 to 17", "Figure 18"]].sum() + figures[figures.index.str.match(r"Figure (19|2\d)$")].sum()
    )
    assert lines == pytest.approx(walks * 3600)
