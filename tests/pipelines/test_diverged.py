"""A study in which runs diverge goes through every pipeline, and says so."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch

from tiny_project import Project, make_project
from transferscope.experiment.node_parameters import PairSpec
from transferscope.experiment.options import LandscapeOptions, ModulesOptions, PictureOptions
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.models.series import CheckpointSeries
from transferscope.pipelines.landscape.nodes import connect_pair

pytestmark = pytest.mark.xdist_group("diverged")

STUDY = """
inherit_study: false
generated:
  shapes: {draws: source, tasks: [shapes], num_train: 48, num_test: 24, size: 24}
  domains: {draws: domains, tasks: [clipart], num_train: 48, num_test: 40, size: 24}
  chest: {draws: chest, tasks: [chest], num_train: 40, num_test: 40, size: 24}
tasks:
  shapes: {format: image_folder, root: images/shapes}
  clipart: {format: domainnet, root: images/domains}
  chest: {format: chexpert, root: images/chest, num_train: 32, num_test: 36, pictures: {store_size: 16, style: chest}}
pictures: {store_size: 16}
model: {options: {widths: [4, 8, 8]}}
training: {epochs: 2, evaluate_every: 1, keep_epochs: [1]}
runs:
  p: {label: P, tasks: [shapes]}
  pt: {label: P-T, tasks: [clipart, chest], replicas: 2, initialisation: pretrained, pretrained: shapes.p_1}
  rit: {label: RI-T, tasks: [clipart, chest], replicas: 2, training: {lr: 1.0e+30}}
analyses:
  mistakes: {bootstrap: 20}
  similarity: {max_examples: 24, batch_size: 8}
  landscape:
    pairs: [[pt, pt], [pt, rit], [rit, rit]]
    alphas: {points: 3}
    extrapolation: {points: 4}
    resamples: 20
    planes:
      - {name: rit_rit_pt, task: clipart, checkpoints: [rit_1, rit_2, pt_1], points: 3}
      - {name: gone, task: clipart, checkpoints: [rit_1@0, rit_1, pt_1], points: 3}
    basin: {points: 3, rays: 2, deltas: [0.5]}
    criticality:
      {rewind_epochs: [0, 1], positions: {points: 2}, sigmas: [0.0, 0.1], draws: 1, max_examples: 16, pages: false}
  spectrum: {epochs: [0, 1, final], layer_pages: []}
"""
BROKEN = ("clipart.rit_1", "clipart.rit_2", "chest.rit_1", "chest.rit_2")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """On clipart the loss leaves the numbers in the first epoch; on chest in the second, after weights of 1e28."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DO_NOT_TRACK", "1")
        made = make_project(tmp_path_factory.mktemp("diverged"))
        study = STUDY.replace("root: images", f"root: {made.folder}/images")
        (made.folder / "conf" / "local" / "parameters.yml").write_text(study)
        made.run()
        yield made


def table(project: Project, name: str) -> pd.DataFrame:
    return project.load(f"{name}.table")


def test_they_are_marked_with_their_last_whole_epoch(project: Project) -> None:
    """Series, history and the table of runs agree; runs that did not diverge are not marked."""
    assert project.load("clipart.rit_1.checkpoints").final == 0
    assert project.load("chest.rit_1.checkpoints").final == 1
    for task, epochs in (("clipart", [0, 1]), ("chest", [0, 1, 2])):
        history = project.load(f"{task}.rit_1.history")
        assert history["epoch"].tolist() == epochs
        assert math.isnan(history["train_loss"].iloc[-1])
        runs = table(project, f"{task}.runs").set_index("run")
        assert runs["status"].to_dict() == {
            "pt_1": "finished", "pt_2": "finished", "rit_1": "diverged", "rit_2": "diverged",
        }  # fmt: skip
        assert not runs.loc["rit_1", "learned"]


def test_what_has_no_value_is_missing_and_costs_the_others_nothing(project: Project) -> None:
    """Features that overflow have no CKA; those of the P-T beside them do. Rewinding knows no epoch that never was."""
    cka = table(project, "chest.cka")
    broken = cka["checkpoint_a"].str.contains("rit_1@final") & (cka["layer"] == "layer3")
    assert broken.any()
    assert cka.loc[broken, "cka"].isna().all()
    assert cka.loc[cka["pair_kind"] == "P-T & P-T", "cka"].notna().all()
    rewound = table(project, "clipart.rewinding")
    assert {0, 1} <= set(rewound.loc[rewound["run"] == "pt_1", "epoch"])
    assert rewound.loc[rewound["run"] == "rit_1", "epoch"].max() == 0


def test_claims_leave_them_out(project: Project) -> None:
    """By name, in every claim that would compare them."""
    claims = project.load("claims").set_index("id")
    for claim in ("final_score", "shared_mistakes_mixed", "cka_mixed", "l2", "near_zero"):
        assert "chest.rit_1 (diverged)" in claims.at[claim, "reason"], claim


def test_a_plane_that_is_left_with_two_points_is_left_out(project: Project) -> None:
    """The final weights of a run that diverged at once are its initial ones."""
    assert set(table(project, "clipart.planes")["plane"]) == {"rit_rit_pt"}
    assert len(project.load("clipart.gone.plane")) == 0


def test_report_and_summary_name_them(project: Project) -> None:
    """In the list of runs that have not learned, and under every figure of their tasks; the summary too."""
    page, summary = project.load("report"), project.load("summary")
    for run in BROKEN:
        assert f"{run} (diverged)" in page
        assert run.replace("_", "\\_") in summary
    assert page.count("✗ diverged: clipart.rit_1, clipart.rit_2") > 10


def test_there_are_no_ways_to_a_run_that_diverged(caplog: pytest.LogCaptureFixture) -> None:
    """The pair is left out by the run's name, with tables without rows, and nothing is read or measured."""
    info = SplitInfo("clipart", "train", ("a", "b"), False, True, PictureOptions(store_size=8), "")
    sizes = np.full((2, 2), 8, dtype=np.int32)
    split = PackedSplit(info, np.zeros((2, 3, 8, 8), np.uint8), np.arange(2), ["0", "1"], sizes)
    series = [
        CheckpointSeries(f"clipart.rit_{number}", {}, 0, 0, status=status)
        for number, status in ((1, "finished"), (2, "diverged"))
    ]
    pair = PairSpec(kind="RI-T & RI-T", run_a="clipart.rit_1", run_b="clipart.rit_2", label_a="RI-T", label_b="RI-T")
    tables = connect_pair(pair, *series, split, split, LandscapeOptions(), ModulesOptions(), "float32", {})
    assert [len(one) for one in tables] == [0, 0, 0]
    assert all("checkpoint_a" in one for one in tables)
    assert "no ways between these two, for clipart.rit_2 diverged" in caplog.text
