"""The pipeline merging on the tiny study: its table, the kept model with its card, the report, and runs that diverged."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch

from transferscope.experiment.merges import MergeSpec
from transferscope.experiment.options import MERGE_METHODS, MergingOptions
from transferscope.measure.merging import COLUMNS
from transferscope.models.checkpoint import load_checkpoint
from transferscope.pipelines.merging.nodes import merge_models

pytestmark = pytest.mark.xdist_group("project")


def test_table_and_card_tell_the_same(project: Any) -> None:
    """Every method has a row and a verdict; the card has the scores and verdicts of the chosen merge's rows."""
    table = project.load("cross_domain.merging.table")
    assert set(COLUMNS) <= set(table.columns)
    whole = table[table["task"] == "all"]
    assert list(whole[whole["kind"] == "merge"]["model"]) == list(MERGE_METHODS)
    merged = project.load("cross_domain.pt_domains.merged")
    own = table[(table["model"] == merged.card["method"]) & (table["kind"] == "merge")].set_index("task")
    assert own["chosen"].all()
    assert merged.card["verdicts"] == own["verdict"].to_dict()
    for task, scores in merged.card["scores"].items():
        for name in ("value", "gain", "behind_union"):
            assert scores[name] == pytest.approx(own.loc[task, name], abs=1e-6)
    assert [one["name"] for one in merged.card["candidates"]] == ["real.pt_1@final", "clipart.pt_1@final"]
    assert merged.card["parent"] == "shapes.p_1@final"
    assert (project.folder / "data/08_reporting/cross_domain/merging.png").is_file()


def test_kept_model_is_a_checkpoint_like_any_other(project: Any) -> None:
    """The file lies in its folder, is read without this project's catalog, and computes finite logits."""
    folder = project.folder / "data/07_model_output/cross_domain/merged/pt_domains"
    assert {path.name for path in folder.iterdir()} == {"merged.safetensors", "card.json"}
    model = load_checkpoint(folder / "merged.safetensors").build()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 16, 16)).isfinite().all()


def test_report_has_the_chapter(project: Any) -> None:
    """The page shows the section, its figure and the verdicts, and the summary the claims."""
    page = project.load("report")
    assert "Does averaging pay?" in page
    assert 'id="merging"' in page
    assert "Ours: merges, across tasks" in page
    claims = project.load("claims").set_index("id")
    assert claims.loc["merge_pays", "num_comparisons"] + ("left out" in claims.loc["merge_pays", "reason"]) == 1


def test_nothing_is_merged_where_a_run_diverged(project: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A warning names the run, the table has its columns and no rows, and the card says why there are no weights."""
    spec = MergeSpec(
        name="soup", group="soup", label="P-T", candidates=("clipart.pt_1", "clipart.pt_2"), tasks=("clipart",)
    )
    series = {name: project.load(f"{name}.checkpoints") for name in spec.candidates}
    series["clipart.pt_2"] = replace(series["clipart.pt_2"], status="diverged")
    splits = {f"clipart.{part}_split": project.load(f"clipart.{part}_split") for part in ("train", "test")}
    with caplog.at_level(logging.WARNING):
        table, merged = merge_models(spec, MergingOptions(), **series, **splits)
    assert "soup: nothing is merged, for clipart.pt_2 diverged" in caplog.text
    assert table.empty
    assert {"merge", "label", "verdict", *COLUMNS} == set(table.columns)
    assert merged.checkpoint is None
    assert merged.card == {"reason": "clipart.pt_2 diverged"}
