"""What a run says of itself: before, during, after, and when it failed."""

from __future__ import annotations

import logging

import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from transferscope.cost import Speed, plan_costs, step_costs
from transferscope.errors import UserError
from transferscope.runners.failures import repeat_command
from transferscope.runners.status import Status, duration
from transferscope.runners.steps import Steps
from transferscope.runners.tables import failures_table, plan_table, runs_table


def chain() -> Steps:
    """`a → b → c`, and `d` by itself."""
    nodes = [
        Node(lambda: 1, None, "a.out", name="a"),
        Node(lambda _: 1, "a.out", "b.out", name="b"),
        Node(lambda _: 1, "b.out", "c.out", name="c"),
        Node(lambda: 1, None, "d.out", name="d"),
    ]
    return Steps(Pipeline(nodes))


def by_name(steps: Steps) -> dict[str, Node]:
    return {node.name: node for node in steps.all}


def test_the_share_follows_the_costs(caplog: pytest.LogCaptureFixture) -> None:
    """Of 100 images 60 are behind us: 60 % are done, and what is left takes two thirds of the time until now."""
    steps = chain()
    status = Status(steps, {"a": 60, "b": 20, "c": 10, "d": 10}, line_seconds=0)
    node = by_name(steps)
    assert [ready.name for ready in steps.take_ready()] == ["a", "d"]
    assert steps.take_ready() == []
    steps.start(node["a"])
    assert status.seconds_left() is None
    assert status.line() == "0 of 4 done, 1 running (a), 3 wait"
    steps.finish(node["a"])
    assert [ready.name for ready in steps.take_ready()] == ["b"]
    assert status.share == pytest.approx(0.6)
    status._begin -= 3600
    assert status.seconds_left() == pytest.approx(2400, rel=1e-3)
    caplog.set_level(logging.INFO, "transferscope")
    with status.shown() as update:
        update()
    assert "1 of 4 done, 3 wait, about 40 min left" in caplog.text


def test_failures_are_counted_with_what_they_stop() -> None:
    steps = chain()
    node = by_name(steps)
    steps.take_ready()
    steps.start(node["a"])
    steps.fail(node["a"], OSError("disk on fire"))
    assert not steps.are_over
    steps.start(node["d"])
    steps.finish(node["d"])
    assert steps.are_over
    assert Status(steps, {}).line() == "1 of 4 done, 1 failed, 2 cannot run"
    table = failures_table(steps)
    assert table.to_dict("records") == [{"failed": "a", "why": "OSError: disk on fire", "steps_not_run": 2}]


def test_the_command_repeats_what_failed_with_the_same_options() -> None:
    """Environment, parameters and pipelines are those of the run; `--from-nodes` takes what was skipped along."""
    steps = chain()
    node = by_name(steps)
    steps.start(node["a"])
    steps.fail(node["a"], UserError("no"))
    params = {"env": "paper", "pipeline_names": ["training"], "runtime_params": {"training": {"epochs": 3}}, "tags": ()}
    expected = "kedro run --env paper --params training.epochs=3 --pipelines training --from-nodes a"
    assert repeat_command(steps, params) == expected
    assert repeat_command(steps, {}) == "kedro run --from-nodes a"


def test_before_and_after_a_run() -> None:
    """How many steps of each part; the last row of each history with the time that it took."""
    nodes = [
        Node(lambda: 1, None, "t.one.history", name="one", namespace="t.training"),
        Node(lambda: 1, None, "u.two.history", name="two", namespace="u.training"),
        Node(lambda: 1, None, "claims", name="decide", namespace="report"),
    ]
    assert plan_table(nodes).to_dict("list") == {"part": ["training", "report"], "steps": [2, 1]}
    assert plan_table([Node(lambda: 1, None, "a", name="a")]).to_dict("list") == {"part": ["other"], "steps": [1]}
    history = pd.DataFrame({"epoch": [0, 1], "train_loss": [None, 0.5], "test_accuracy": [0.1, 0.75]})
    catalog = DataCatalog({"t.one.history": MemoryDataset(history), "claims": MemoryDataset(1)})
    table = runs_table({nodes[0]: 61.26, nodes[2]: 1.0}, catalog)
    assert table.to_dict("records") == [
        {"run": "t.one", "epochs": 1, "train_loss": 0.5, "test_accuracy": 0.75, "seconds": 61.3}
    ]


def test_durations() -> None:
    assert [duration(value) for value in (3.2, 600, 9000)] == ["3 s", "10 min", "2.5 h"]


def test_costs_by_step_are_those_of_the_plan(project) -> None:
    """Every name is a node of the study; trainings and lines add up to what `kedro cost` says, one image a second."""
    with project.session() as session:
        session.load_context()
        from kedro.framework.project import pipelines

        from transferscope.config import active_plan

        plan, names = active_plan(), {node.name for node in pipelines["__default__"].nodes}
    costs = step_costs(plan)
    assert set(costs) <= names
    tables = plan_costs(plan, {}, Speed(1.0, 1.0))
    runs = tables["Trainings"]
    ours = sum(value for name, value in costs.items() if ".training." in name)
    assert ours == 3 * runs["images_trained"].sum() + runs["images_evaluated"].sum()
    figures = tables["Tables and figures"].set_index("figure")["evaluation_hours"]
    lines = sum(value for name, value in costs.items() if ".interpolate_" in name)
    walks = (
        figures[["Figures 12 to 17", "Figure 18"]].sum() + figures[figures.index.str.match(r"Figure (19|2\d)$")].sum()
    )
    assert lines == pytest.approx(walks * 3600)
