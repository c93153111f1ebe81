"""Kedro-Viz is told of whole, partial, threaded and failed runs."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro.runner import AbstractRunner, SequentialRunner
from kedro_viz.api.rest.responses.run_events import RunStatusAPIResponse, transform_events_to_structured_format
from kedro_viz.integrations.kedro.hooks_utils import hash_node
from kedro_viz.utils import _hash_input_output

from transferscope.datasets.table import TableDataset
from transferscope.framework import viz_status as run_status
from transferscope.framework.runners import GpuRunner
from transferscope.framework.viz_status import RunStatus


def _fail(_: pd.DataFrame) -> int:
    raise ValueError("too few rows")


TABLE = Node(lambda: pd.DataFrame({"a": [1, 2, 3], "b": 0}), None, "one.table", name="make", namespace="one")
COUNT = Node(len, "one.table", "rows", name="count", namespace="one")
BROKEN = Node(_fail, "one.table", "broken", name="fail", namespace="two.inner")


def run(folder: Path, nodes: list[Node], runner: AbstractRunner) -> None:
    """As a session does: hooks before and after, and the error's hook where the runner raises."""
    status, catalog = RunStatus(), DataCatalog({"one.table": TableDataset(filepath=str(folder / "one.csv"))})
    for name in ("rows", "broken"):
        catalog[name] = MemoryDataset()
    manager = _create_hook_manager()
    manager.register(status)
    status.after_context_created(SimpleNamespace(project_path=folder))  # type: ignore[arg-type]
    status.after_catalog_created(catalog)
    status.before_pipeline_run()
    try:
        runner.run(Pipeline(nodes), catalog, manager)
    except Exception as error:
        status.on_pipeline_error(error)
    else:
        status.after_pipeline_run()


def shown(folder: Path) -> RunStatusAPIResponse:
    """What Kedro-Viz itself makes of the file."""
    events: list[dict[str, Any]] = json.loads((folder / ".viz/kedro_pipeline_events.json").read_text())
    return transform_events_to_structured_format(events)


@pytest.mark.parametrize("runner", [SequentialRunner(), GpuRunner(max_workers=2)], ids=["sequential", "threads"])
def test_every_step_and_entry_of_a_run_has_its_status(tmp_path: Path, runner: AbstractRunner) -> None:
    """Two steps that succeeded, with their durations; the table with its size, rows and columns."""
    run(tmp_path, [TABLE, COUNT], runner)
    status = shown(tmp_path)
    assert {identity: node.status for identity, node in status.nodes.items()} == {
        hash_node(TABLE): "success",
        hash_node(COUNT): "success",
        "one": "success",
    }
    steps = status.nodes[hash_node(TABLE)].duration + status.nodes[hash_node(COUNT)].duration
    assert status.nodes["one"].duration == pytest.approx(steps)
    assert 0 < status.nodes[hash_node(TABLE)].duration <= status.pipeline.duration
    size = (tmp_path / "one.csv").stat().st_size
    assert status.datasets[_hash_input_output("one.table")].size == size
    stats = json.loads((tmp_path / ".viz/stats.json").read_text())
    assert stats == {"one.table": {"rows": 3, "columns": 2, "file_size": size}}


def test_a_partial_run_leaves_the_status_of_the_others(tmp_path: Path) -> None:
    """A failure of one node beside what an earlier run did; the run itself failed, and no longer once repaired."""
    run(tmp_path, [TABLE, COUNT], SequentialRunner())
    before = shown(tmp_path).nodes[hash_node(COUNT)]
    run(tmp_path, [BROKEN], GpuRunner(max_workers=1))
    status = shown(tmp_path)
    assert status.nodes[hash_node(COUNT)] == before
    failed = status.nodes[hash_node(BROKEN)]
    assert (failed.status, failed.error.message if failed.error else "") == ("failed", "too few rows")
    assert status.pipeline.status == "failed"
    assert {box: status.nodes[box].status for box in ("one", "two", "two.inner")} == {
        "one": "success",
        "two": "failed",
        "two.inner": "failed",
    }
    repaired = Node(len, "one.table", "broken", name="fail", namespace="two.inner")
    run(tmp_path, [repaired], SequentialRunner())
    status = shown(tmp_path)
    assert status.pipeline.status == "success"
    assert set(status.nodes) >= {hash_node(TABLE), hash_node(COUNT)}
    assert {node.status for node in status.nodes.values()} == {"success"}


@pytest.mark.parametrize(
    "left", ['[{"event": ', "{}", '[{"event": "on_pipeline_error", "node": "a.b", "node_id": "c"}]']
)
def test_a_file_that_holds_something_else_is_begun_anew(tmp_path: Path, left: str) -> None:
    """Half a file, or what another program has left, costs the history and not the run."""
    (tmp_path / ".viz").mkdir()
    (tmp_path / ".viz/kedro_pipeline_events.json").write_text(left)
    run(tmp_path, [TABLE], SequentialRunner())
    assert set(shown(tmp_path).nodes) == {hash_node(TABLE), "one"}


SHAPES = {
    "no JSON": "{",
    "nothing": "",
    "an object": "{}",
    "a number": "1",
    "texts": '["a"]',
    "lists": "[[]]",
    "no kind": '[{"node": "one.make"}]',
    "kind is a list": '[{"event": []}]',
    "no node": '[{"event": "after_node_run", "duration": 1}]',
    "no duration": '[{"event": "after_node_run", "node": "one.make", "node_id": "x"}]',
    "duration is text": '[{"event": "after_node_run", "node": "one.other", "node_id": "x", "duration": "1"}]',
    "node is a list": '[{"event": "on_node_error", "node": ["one"], "error": "x"}]',
    "entry without id": '[{"event": "after_dataset_saved", "dataset": "x"}]',
    "deep": "[" * 100_000,
    "latin-1": "\udce9",
}


@pytest.mark.parametrize("content", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", ["kedro_pipeline_events.json", "stats.json"])
def test_status_of_another_shape_begins_anew(
    tmp_path: Path, name: str, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning that names the file; the run goes on, and its own status is shown and can be read again."""
    (tmp_path / ".viz").mkdir()
    (tmp_path / ".viz" / name).write_bytes(content.encode(errors="surrogateescape"))
    run(tmp_path, [TABLE, COUNT], SequentialRunner())
    is_fine = name == "stats.json" and content == "{}"
    assert caplog.text.count("run status begins anew") == (0 if is_fine else 1)
    assert is_fine or f"{name} cannot be used (" in caplog.text
    assert {node.status for node in shown(tmp_path).nodes.values()} == {"success"}
    caplog.clear()
    run(tmp_path, [TABLE], SequentialRunner())
    assert "anew" not in caplog.text


@pytest.mark.parametrize("obstacle", ["file", "link", "read-only"])
def test_status_that_cannot_be_written_is_left_out(
    tmp_path: Path, obstacle: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the place of `.viz`, a link to nowhere, storage that takes nothing: one line, and the run goes on."""
    if obstacle == "file":
        (tmp_path / ".viz").touch()
    elif obstacle == "link":
        (tmp_path / ".viz").symlink_to(tmp_path / "nowhere" / "deep")
    else:

        def refuse(*_: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path))

        monkeypatch.setattr(run_status, "_write", refuse)
    run(tmp_path, [TABLE, COUNT], SequentialRunner())
    assert caplog.text.count("Kedro-Viz will not show this run") == 1
    assert (tmp_path / "one.csv").exists()
