"""The site that `kedro viz build` makes of a finished study: what a user sees in it, by what the pages load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kedro_viz.api.rest.responses.run_events import transform_events_to_structured_format
from kedro_viz.utils import _hash_input_output

from tiny_project import Project

LAYERS = ["raw", "model_input", "models", "model_output", "reporting"]
STEPS = {
    "data_prep",
    "training",
    "mistakes",
    "similarity",
    "landscape",
    "spectrum",
    "feature_reuse",
    "merging",
    "report",
}


@pytest.fixture(scope="module")
def site(project: Project) -> Path:
    """Built with previews from the tiny study."""
    done = subprocess.run(
        [sys.executable, "-m", "kedro", "viz", "build", "--include-previews"],
        cwd=project.folder,
        env=os.environ | {"DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Success" in done.stdout, done.stdout + done.stderr
    return project.folder / "build"


def load(site: Path, name: str) -> Any:
    return json.loads((site / "api" / name).read_text())


def test_the_site_has_a_page_and_its_script(site: Path) -> None:
    """`index.html` loads a script that is there."""
    page = (site / "index.html").read_text()
    scripts = [path.name for path in (site / "assets").glob("index-*.js")]
    assert any(name in page for name in scripts)


def test_it_opens_on_a_handful_of_boxes(site: Path) -> None:
    """At most a dozen namespaces at the top, and every task is one of them."""
    children = load(site, "main")["modular_pipelines"]["__root__"]["children"]
    boxes = {child["id"] for child in children if child["type"] == "modularPipeline"}
    assert {"clipart", "chest", "cross_domain", "report"} <= boxes
    assert len(boxes) <= 12


def test_layers_are_in_order_in_the_default_view_and_shown_in_all(site: Path) -> None:
    """Kedro-Viz shows none where layers go in a circle, be it through closed boxes."""
    assert load(site, "main")["layers"] == LAYERS
    for step in STEPS:
        assert load(site, f"pipelines/{step}")["layers"], step


def test_every_step_has_its_status_and_duration(site: Path, project: Project) -> None:
    """After a whole run, and the boxes that they are in; that training takes longer than an instant shows that the times are those of the work."""
    tasks = {node["id"]: node["full_name"] for node in load(site, "main")["nodes"] if node["type"] == "task"}
    assert set(tasks) <= set(load(site, "run-status")["nodes"])
    events = json.loads((project.folder / "events_of_whole_run.json").read_text())
    status = transform_events_to_structured_format(events).nodes
    assert {status[identity].status for identity in [*tasks, "clipart", "clipart.training"]} == {"success"}
    trained = [identity for identity, name in tasks.items() if name.endswith("clipart.training.pt_1")]
    assert status[trained[0]].duration > 0.05


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ("clipart.train_split", "ImagePreview"),
        ("clipart.pt_1.checkpoints", "TablePreview"),
        ("clipart.barriers.table", "TablePreview"),
        ("cross_domain.figure_19.figure", "ImagePreview"),
    ],
)
def test_an_entry_has_its_preview(site: Path, entry: str, kind: str) -> None:
    """A contact sheet of a split, the epochs of a run, rows of a table, a figure."""
    shown = load(site, f"nodes/{_hash_input_output(entry)}")
    assert shown["preview_type"] == kind
    assert shown["preview"]
