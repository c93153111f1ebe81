"""The runner of a cluster, on a real one of two machines in this one."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro_viz.api.rest.responses.run_events import transform_events_to_structured_format
from kedro_viz.integrations.kedro.hooks_utils import hash_node
from kedro_viz.utils import _hash_input_output

from transferscope.datasets.table import TableDataset
from transferscope.datasets.text import TextDataset
from transferscope.framework import staleness as made_by
from transferscope.framework.config import CommandLineError
from transferscope.framework.runners import RayRunner
from transferscope.framework.runners import node_runner as steps_runner
from transferscope.framework.runners.failures import NodesFailed
from transferscope.framework.runners.run_status import Status
from transferscope.framework.staleness import MadeBy
from transferscope.framework.tracking import Tracking
from transferscope.framework.viz_status import RunStatus

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of two machines with two cores each; one has four GPUs, as it says."""
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 4, "include_dashboard": False})
    cluster.add_node(num_cpus=2, num_gpus=1)
    yield cluster.address
    cluster.shutdown()


def run(nodes: list[Node], folder: Path, address: str, **options: Any) -> DataCatalog:
    outputs = [name for node in nodes for name in node.outputs]
    catalog = DataCatalog({name: TextDataset(filepath=str(folder / name)) for name in outputs})
    RayRunner(address=address, **options).run(Pipeline(nodes), catalog)
    return catalog


def step(function: Callable[..., Any], name: str, *, inputs: Any = None, gpus: int | str | None = None) -> Node:
    tags = [] if gpus is None else [f"gpus-{gpus}"]
    return Node(function, inputs=inputs, outputs=f"{name}_out", name=name, tags=tags)


def test_steps_run_in_workers_with_their_gpus(tmp_path: Path, address: str) -> None:
    """Results come back through the catalog; a node sees as many GPUs as its tag says, `auto` those of one machine."""

    def look() -> str:
        import torch

        return f"{os.getpid()} {len(os.environ['CUDA_VISIBLE_DEVICES'].split(','))} {torch.get_num_threads()}"

    nodes = [
        step(look, "two", gpus=2),
        step(look, "all", gpus="auto"),
        step(lambda a, b: f"{a};{b}", "join", inputs=["two_out", "all_out"]),
    ]
    catalog = run(nodes, tmp_path, address)
    two, every = (catalog.load(f"{name}_out").split() for name in ("two", "all"))
    assert two[1:] == ["2", "1"]
    assert every[1:] == ["4", "1"]
    assert int(two[0]) != os.getpid()
    assert catalog.load("join_out") == f"{' '.join(two)};{' '.join(every)}"


def test_a_worker_that_had_gpus_ends_with_its_step(tmp_path: Path, address: str) -> None:
    """CUDA keeps to the GPUs that a process saw first, and to their memory; workers without GPUs serve again."""
    nodes = [step(lambda: str(os.getpid()), "a", gpus=2)]
    for name, before in (("b", "a"), ("c", "b"), ("d", "c")):
        nodes.append(step(lambda _: str(os.getpid()), name, inputs=f"{before}_out", gpus=2 if name == "b" else None))
    catalog = run(nodes, tmp_path, address)
    workers = {name: int(catalog.load(f"{name}_out")) for name in "abcd"}
    assert workers["a"] != workers["b"]
    assert not any(psutil.pid_exists(workers[name]) for name in "ab")


def test_steps_without_room_wait(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray has all three at once, but the only machine with two GPUs has cores for one of them: the status says so."""
    seen: list[tuple[int, int]] = []

    class Watched(Status):
        def seconds_left(self) -> float | None:
            seen.append((len(self._progress.running), self._progress.num_waiting))
            return super().seconds_left()

    monkeypatch.setattr(steps_runner, "Status", Watched)
    nodes = [step(lambda: str(time.sleep(3)), name, gpus=2) for name in ("a", "b", "c")]
    run(nodes, tmp_path, address)
    assert {(1, 2), (1, 1), (1, 0)} <= set(seen)
    assert max(running for running, _ in seen) == 1


def test_a_lost_worker_is_retried(tmp_path: Path, address: str, caplog: pytest.LogCaptureFixture) -> None:
    """The first worker kills itself; the second finds what the first left and goes on, and the log says so."""
    mark = tmp_path / "mark"

    def dies_once() -> str:
        if not mark.exists():
            mark.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{mark.read_text()} done"

    assert run([step(dies_once, "a")], tmp_path, address).load("a_out") == "half done"
    assert "a: its worker or machine was lost; it begins again on " in caplog.text


def test_errors_come_back_in_one_line(tmp_path: Path, address: str) -> None:
    """As with the other runners: independent steps go on; an error is not retried, and a user's mistake is his."""
    count = tmp_path / "count"

    def bad() -> str:
        from transferscope.system.errors import UserError

        count.write_text(f"{count.read_text() if count.exists() else ''}x")
        raise UserError("images: 3 files cannot be read")

    def broken() -> str:
        return str(1 / 0)

    nodes = [
        step(bad, "bad"),
        step(broken, "broken"),
        step(lambda: "x", "good"),
        step(lambda a: a, "after", inputs="bad_out"),
    ]
    with pytest.raises(NodesFailed, match="2 nodes failed: ") as caught:
        run(nodes, tmp_path, address)
    steps = caught.value.progress
    assert {node.name: str(error) for node, error in steps.failed.items()} == {
        "bad": "images: 3 files cannot be read",
        "broken": "ZeroDivisionError: division by zero",
    }
    assert [node.name for node in steps.seconds] == ["good"]
    assert [node.name for node in steps.skipped] == ["after"]
    assert count.read_text() == "x"


def test_a_training_gets_at_most_the_gpus_of_one_machine(tmp_path: Path, address: str) -> None:
    """Five GPUs there are, but not in one machine: a node that asks for five runs on four."""
    run([step(lambda: "x", "a", gpus=5)], tmp_path, address)


def test_entries_in_memory_are_named_before_anything_starts(tmp_path: Path) -> None:
    """No cluster is looked for."""
    nodes = [step(lambda: 1, "a"), step(lambda a: a, "b", inputs="a_out")]
    catalog = DataCatalog({"a_out": MemoryDataset(), "b_out": TextDataset(filepath=str(tmp_path / "b"))})
    with pytest.raises(CommandLineError, match="RayRunner: in memory only: a_out; "):
        RayRunner(address="localhost:1").run(Pipeline(nodes), catalog)


def test_an_address_where_nobody_is(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(CommandLineError, match="address=localhost:1: no Ray cluster answers there"):
        run([step(lambda: "x", "a")], tmp_path, "localhost:1")
    assert time.monotonic() - begin < 60


def _break(_: pd.DataFrame) -> str:
    raise ValueError("too few rows")


def test_what_hooks_record_comes_back(tmp_path: Path, address: str) -> None:
    """Kedro-Viz shows the nodes' status, durations, sizes of tables and the error, as after a run in one process."""
    table = Node(lambda: pd.DataFrame({"a": [1, 2, 3], "b": 0}), None, "table", name="make")
    count = Node(lambda rows: str(len(rows)), "table", "count", name="count")
    broken = Node(_break, "table", "broken", name="fail")
    catalog = DataCatalog({name: TextDataset(filepath=str(tmp_path / name)) for name in ("count", "broken")})
    catalog["table"] = TableDataset(filepath=str(tmp_path / "table.csv"))
    status, hooks = RunStatus(), _create_hook_manager()
    hooks.register(status)
    status.after_context_created(SimpleNamespace(project_path=tmp_path))  # type: ignore[arg-type]
    status.after_catalog_created(catalog)
    status.before_pipeline_run()
    with pytest.raises(NodesFailed) as failure:
        RayRunner(address=address).run(Pipeline([table, count, broken]), catalog, hooks)
    status.on_pipeline_error(failure.value)
    shown = transform_events_to_structured_format(
        json.loads((tmp_path / ".viz/kedro_pipeline_events.json").read_text())
    )
    seen = {identity: node.status for identity, node in shown.nodes.items()}
    assert seen == {hash_node(table): "success", hash_node(count): "success", hash_node(broken): "failed"}
    assert shown.nodes[hash_node(table)].duration > 0
    error = shown.nodes[hash_node(broken)].error
    assert error is not None
    assert error.message == "too few rows"
    size = (tmp_path / "table.csv").stat().st_size
    assert shown.datasets[_hash_input_output("table")].size == size
    assert json.loads((tmp_path / ".viz/stats.json").read_text()) == {
        "table": {"rows": 3, "columns": 2, "file_size": size}
    }


def test_results_of_a_run_are_known_as_made_by_its_plan(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one node has made, though the next one failed."""
    nodes = [step(lambda: "x", "a"), step(lambda _: str(1 / 0), "b", inputs="a_out")]
    monkeypatch.setattr(made_by, "pipelines", {"__default__": Pipeline(nodes)})
    catalog = DataCatalog({name: TextDataset(filepath=str(tmp_path / name)) for name in ("a_out", "b_out")})
    recorder, hooks = MadeBy(), _create_hook_manager()
    hooks.register(recorder)
    loader = {"globals": {"data": "results"}}
    recorder.after_context_created(SimpleNamespace(project_path=tmp_path, config_loader=loader))  # type: ignore[arg-type]
    recorder.before_pipeline_run({}, Pipeline(nodes), catalog)
    with pytest.raises(NodesFailed):
        RayRunner(address=address).run(Pipeline(nodes), catalog, hooks)
    recorder.on_pipeline_error()
    assert list(json.loads((tmp_path / "results" / made_by.FILE).read_text())["made"]) == ["a_out"]


def test_a_run_is_recorded_in_mlflow(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A history that a worker has written is a learning curve, and the record ends as finished; workers know no store."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    measured = {"train_loss": [2.0, 1.0], "test_accuracy": [0.25, 0.75]}
    history = pd.DataFrame({"task": "a", "run": "p_1", "epoch": [0, 1], **measured})
    pipeline = Pipeline([Node(lambda: history, None, "a.p_1.history", name="train")])
    catalog = DataCatalog({"a.p_1.history": TableDataset(filepath=str(tmp_path / "p_1.csv"))})
    hooks = _create_hook_manager()
    hooks.register(Tracking())
    given = {"run_params": {"env": "mine"}, "pipeline": pipeline, "catalog": catalog}
    hooks.hook.before_pipeline_run(**given)
    RayRunner(address=address).run(pipeline, catalog, hooks)
    hooks.hook.after_pipeline_run(run_result={}, **given)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("transferscope")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    curve = client.get_metric_history(run.info.run_id, "a/p_1/test_accuracy")
    assert [(point.step, point.value) for point in curve] == [(0, 0.25), (1, 0.75)]
