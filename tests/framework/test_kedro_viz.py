"""The pipelines in the site of a finished study: what a user sees of them, by what the page loads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.project import settings
from kedro_viz.api.rest.responses.run_events import transform_events_to_structured_format
from kedro_viz.data_access.repositories import ModularPipelinesRepository
from kedro_viz.utils import _hash_input_output

from forked_kedro import kedro
from tiny_project import ROOT, Project
from transferscope.framework.config import PlanConfigLoader
from transferscope.framework.viz_view import drawn, hand_over, keep
from transferscope.pipeline_registry import register_pipelines

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
    """Of the tiny study, with previews; the project has no documentation."""
    done = kedro(project.folder, "site")
    assert done.returncode == 0, done.stdout + done.stderr
    return project.folder / "data" / "site"


def load(site: Path, name: str) -> Any:
    """An answer to the page, as the script gives it that the page loads."""
    script = (site / "pipelines" / "api" / f"{name}.js").read_text()
    given = re.fullmatch(r"kedroVizAnswer\('([^']+)', (.*)\);\n", script, re.DOTALL)
    assert given is not None
    assert given[1] == name
    return json.loads(given[2])


def test_the_page_needs_no_server_and_no_other_machine(site: Path) -> None:
    """Its script is inside; the files that it loads are there; a policy refuses other machines, and no link names one."""
    page = (site / "pipelines" / "index.html").read_text()
    head = page.partition("<script")[0]
    assert "Content-Security-Policy" in head
    linked = re.findall(r'<(?:link|script)[^>]*?(?:href|src)="([^"]+)"', page.partition("</head>")[0])
    assert linked
    assert [name for name in linked if not (site / "pipelines" / name).is_file()] == []
    assert '<script type="module">' in page
    assert "window.fetch" in page


def test_the_first_page_leads_to_report_and_pipelines(site: Path) -> None:
    """By relative links to files that are there; without documentation it names none."""
    links = re.findall(r'href="([^"]+)"', (site / "index.html").read_text())
    assert links == ["report.html", "pipelines/index.html"]
    assert all((site / link).is_file() for link in links)


def test_no_page_names_a_place_of_the_machine(site: Path, project: Project) -> None:
    """Kedro-Viz gives the whole path of every entry; here it is that in the project."""
    pages = [path for path in site.rglob("*") if path.suffix in (".html", ".js")]
    assert [page.name for page in pages if str(project.folder) in page.read_text()] == []
    (claims,) = (node for node in load(site, "main")["nodes"] if node["name"] == "claims")
    assert load(site, f"nodes/{claims['id']}")["filepath"].startswith("data/")


def first_page(pipeline: Any) -> tuple[int, int]:
    """Numbers of boxes and entries, as Kedro-Viz itself arranges them."""
    repository = ModularPipelinesRepository()
    repository.populate_tree(pipeline)
    kinds = [child.type.value for child in repository.tree["__root__"].children]
    return kinds.count("modularPipeline"), kinds.count("data")


def test_the_default_and_its_report_open_on_a_page_that_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 12 boxes and 25 entries of the study that a user runs first; without grouping there are twice as many."""
    monkeypatch.chdir(ROOT)
    PlanConfigLoader(str(ROOT / "conf"), env="base", **settings.CONFIG_LOADER_ARGS)
    pipelines = register_pipelines()
    for name in ("__default__", "report"):
        boxes, entries = first_page(drawn(pipelines[name]))
        assert boxes <= 12
        assert entries <= 25
    assert first_page(pipelines["__default__"])[1] > 50
    assert first_page(pipelines["report"])[1] > 250


def test_it_opens_on_a_handful_of_boxes(site: Path) -> None:
    """Every task is one of them, beside what lies across tasks and the report."""
    children = load(site, "main")["modular_pipelines"]["__root__"]["children"]
    boxes = {child["id"] for child in children if child["type"] == "modularPipeline"}
    assert {"clipart", "chest", "cross_domain", "report"} <= boxes
    assert len(boxes) <= 12
    assert len([child for child in children if child["type"] == "data"]) <= 25


def test_what_is_drawn_together_is_read_through_and_nothing_else_changes() -> None:
    """Each node keeps its name and identity; one that read a member reads its group, and others what they did."""
    PlanConfigLoader(str(ROOT / "conf"), env="base", **settings.CONFIG_LOADER_ARGS)
    before = register_pipelines()["__default__"]
    after = drawn(before)
    added = [node for node in after.nodes if node.func in (hand_over, keep)]
    nodes = {str(node): node for node in after.nodes if node not in added}
    assert nodes.keys() == {str(node) for node in before.nodes}
    stands_for = {node.outputs[0]: set(node.inputs) for node in added if node.outputs}
    for node in before.nodes:
        drawn_node = nodes[str(node)]
        assert (drawn_node.name, drawn_node.outputs, drawn_node.tags) == (node.name, node.outputs, node.tags)
        read = {member for name in drawn_node.inputs for member in stands_for.get(name, {name})}
        assert set(node.inputs) <= read


def test_layers_are_in_order_in_the_default_view_and_shown_in_all(site: Path) -> None:
    """Kedro-Viz shows none where layers go in a circle, be it through closed boxes."""
    assert load(site, "main")["layers"] == LAYERS
    for step in STEPS:
        assert load(site, f"pipelines/{step}")["layers"], step


def test_every_step_has_its_status_and_duration(site: Path, project: Project) -> None:
    """After a whole run, and the boxes that they are in; that training takes longer than an instant shows that the times are those of the work."""
    drawn_only = ("hand_over", "keep")
    nodes = [node for node in load(site, "main")["nodes"] if node["type"] == "task"]
    tasks = {node["id"]: node["full_name"] for node in nodes if not node["name"].lower().startswith(drawn_only)}
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
        ("clipart.pt_1.predictions", "TablePreview"),
        ("clipart.weights", "TablePreview"),
    ],
)
def test_an_entry_has_its_preview(site: Path, entry: str, kind: str) -> None:
    """A contact sheet of a split, the epochs of a run, rows of a table, a figure, what a group stands for."""
    shown = load(site, f"nodes/{_hash_input_output(entry)}")
    assert shown["preview_type"] == kind
    assert shown["preview"]


def test_every_entry_has_a_preview(site: Path) -> None:
    """Also those that are neither table nor figure, such as images as distributed, predictions, PDFs and the report."""
    entries = [node for node in load(site, "main")["nodes"] if node["type"] == "data"]
    assert len(entries) > 100
    assert [node["name"] for node in entries if not load(site, f"nodes/{node['id']}").get("preview")] == []
