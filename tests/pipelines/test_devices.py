"""Whatever runs networks runs them on the device that it was granted, and gives what it gives on the CPU."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from pretended_device import PretendedTensor, pretended_device
from transferscope.analysis.batchnorm import recompute_statistics
from transferscope.experiment.options import (
    BasinOptions,
    CriticalityOptions,
    LandscapeOptions,
    PlaneOptions,
    SimilarityOptions,
)
from transferscope.experiment.plan import make_plan
from transferscope.experiment.run import RunSpec
from transferscope.measure.bench import feed_of, stream
from transferscope.measure.criticality import measure_modules
from transferscope.measure.line import Ends, line
from transferscope.measure.margin import margin_table
from transferscope.measure.similarity import cka
from transferscope.measure.surfaces import basin, plane
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata, save_checkpoint
from transferscope.models.modules import find_modules
from transferscope.models.series import CheckpointSeries
from transferscope.models.zoo import build_model
from transferscope.pipelines.landscape import create_pipeline as landscape
from transferscope.pipelines.mistakes import create_pipeline as mistakes
from transferscope.pipelines.mistakes.nodes import predict_test
from transferscope.pipelines.similarity import create_pipeline as similarity
from transferscope.pipelines.spectrum import create_pipeline as spectrum
from transferscope.pipelines.training import create_pipeline as training
from transferscope.training.adopt import adopt

pytestmark = pytest.mark.xdist_group("project")

ASK_FOR_THE_DEVICE = (
    "transferscope.measure.bench.choose_device",
    "transferscope.measure.similarity.choose_device",
    "transferscope.measure.margin.choose_device",
    "transferscope.training.device.choose_device",
    "transferscope.training.adopt.choose_device",
)


STUDY: dict[str, Any] = {
    "tasks": {name: {"format": "domainnet", "root": "somewhere"} for name in ("real", "clipart")},
    "runs": {
        "p": {"label": "P", "tasks": ["real"]},
        "pt": {
            "label": "P-T", "tasks": ["clipart"], "replicas": 2, "initialisation": "pretrained", "pretrained": "real.p_1",
        },
        "rit": {"label": "RI-T", "tasks": ["clipart"]},
        "rit_same_init": {"label": "RI-T same init", "tasks": ["clipart"], "shares_initialisation_with": "rit"},
    },
}  # fmt: skip


class Study:
    """What the measurements need of the tiny study."""

    def __init__(self, project: Any) -> None:
        self.splits = {part: project.load(f"clipart.{part}_split") for part in ("train", "test")}
        self.series = {name: project.load(f"clipart.{name}.checkpoints") for name in ("pt_1", "pt_2", "rit_1")}


@pytest.fixture(scope="module")
def study(project) -> Study:
    return Study(project)


@pytest.fixture
def with_batchnorm(study: Study, tmp_path) -> Ends:
    """Two networks with BatchNorm layers, trained by nobody."""
    made = []
    for seed in (1, 2):
        model = build_model("shufflenet_v2_x0_5", study.splits["train"].num_classes, seed=seed)
        recompute_statistics(model, lambda: stream(feed_of(study.splits["train"])))
        metadata = CheckpointMetadata(architecture="shufflenet_v2_x0_5", num_classes=10)
        save_checkpoint(Checkpoint(model.state_dict(), metadata), tmp_path / f"{seed}.safetensors")
        made.append(CheckpointSeries.from_file(tmp_path / f"{seed}.safetensors", f"clipart.bn_{seed}"))
    return Ends({"kind": "x", "run_a": "clipart.bn_1", "run_b": "clipart.bn_2"}, *made)


def elsewhere(measure: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `measure` gives on the pretended device; fails where no network ran there."""
    seen: set[type] = set()
    own = nn.Conv2d.forward

    def forward(self: nn.Conv2d, images: Tensor) -> Tensor:
        seen.update((type(self.weight), type(images)))
        return own(self, images)

    with monkeypatch.context() as patch, pretended_device() as device:
        for name in ASK_FOR_THE_DEVICE:
            patch.setattr(name, lambda _: device)
        patch.setattr(nn.Conv2d, "forward", forward)
        found = measure()
    assert seen == {PretendedTensor}
    return found


def on_both(measure: Callable[[], tuple[pd.DataFrame, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are the same."""
    for here, there in zip(measure(), elsewhere(measure, monkeypatch), strict=True):
        assert len(here)
        pd.testing.assert_frame_equal(here, there, rtol=1e-4)


def test_lines(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points and barriers with their intervals, on train and test and beyond the ends."""
    pair = {"kind": "P-T & RI-T", "run_a": "clipart.pt_1", "run_b": "clipart.rit_1"}
    ends = Ends(pair, study.series["pt_1"], study.series["rit_1"])
    options = LandscapeOptions.model_validate({"alphas": {"at": (0, 0.5, 1)}, "resamples": 5})
    on_both(lambda: line(ends, study.splits, study.splits["train"], [-1.0], options, {}), monkeypatch)


def test_lines_of_networks_with_batchnorm(study: Study, with_batchnorm: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their statistics are recomputed where the network is."""
    options = LandscapeOptions.model_validate({"alphas": {"at": (0, 0.5, 1)}, "resamples": 5})
    on_both(lambda: line(with_batchnorm, study.splits, study.splits["train"], [], options, {}), monkeypatch)


def test_planes_and_basins(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through three models, and around the hull of two."""
    chosen = {"name": "x", "task": "clipart", "checkpoints": ["pt_1@0", "pt_1", "pt_2"], "points": 2}
    through = PlaneOptions.model_validate(chosen)
    hull = BasinOptions.model_validate({"points": 2, "rays": 1, "deltas": (0.5,)})
    first, second = study.series["pt_1"], study.series["pt_2"]
    parts = (study.splits["train"], study.splits["test"])
    on_both(lambda: (plane(through, [first, first, second], *parts, {}),), monkeypatch)
    on_both(lambda: (basin("P-T", [first, second], *parts, hull, {}),), monkeypatch)


def test_modules(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Criticality on both paths, and modules set back."""
    series = study.series["rit_1"]
    grid = {"positions": {"points": 2}, "sigmas": (0.0, 0.1), "draws": 1, "max_examples": 16}
    options = CriticalityOptions.model_validate(grid)
    run = {"task": "clipart", "name": "rit_1", "label": "RI-T"}
    modules = find_modules(series.load("final").build())
    on_both(lambda: measure_modules(run, series, modules, study.splits, options, {}), monkeypatch)


def test_cka(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """All estimators, the heat map and the second opinion, of pooled and flattened features."""
    series = {found.name: found for found in study.series.values()}
    pair = {"run_a": "clipart.pt_1", "run_b": "clipart.rit_1", "kind": "P-T & RI-T"}
    pairs = [pair | {"label_a": "P-T", "label_b": "RI-T"}]
    runs = {name: {"initialisation": "random", "init_seed": seed} for seed, name in enumerate(study.series)}
    options = SimilarityOptions.model_validate({"features": ("pooled", "flattened"), "heat_map_pairs": 1})
    on_both(lambda: tuple(cka(pairs, runs, series, study.splits["test"], options).values()), monkeypatch)


def test_predictions(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits come back to the CPU."""

    def measure() -> Tensor:
        return predict_test(study.series["pt_1"], study.splits["test"], {})["test"]

    assert torch.equal(measure(), elsewhere(measure, monkeypatch))


def test_a_checkpoint_file(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its metrics on both parts, when it is taken in as a run."""
    file = str(study.series["pt_1"].path("final"))
    run = RunSpec(task="clipart", name="mine_1", initialisation="checkpoint", checkpoint=file, fingerprint="f")

    def measure() -> tuple[pd.DataFrame]:
        return (adopt(run, study.splits["train"], study.splits["test"], folder=tmp_path / uuid.uuid4().hex)[1],)

    on_both(measure, monkeypatch)


def test_margins(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the last network, on its training examples."""
    run = {"task": "clipart", "name": "pt_1", "label": "P-T"}
    on_both(lambda: (margin_table(study.series["pt_1"], run, study.splits["train"]),), monkeypatch)


def test_a_checkpoint_file_asks_for_a_device() -> None:
    """As a training does; each gets one of its own."""
    photos = {"photos": {"format": "image_folder", "root": "photos"}}
    runs = {"a": {"label": "a", "tasks": ["photos"], "initialisation": "checkpoint", "checkpoint": "a.pth"}}
    none = dict.fromkeys(("mistakes", "similarity", "landscape", "spectrum"))
    nodes = training(make_plan({"tasks": photos, "runs": runs, "analyses": none})).nodes
    assert [node.name for node in nodes if "gpus-1" in node.tags] == ["photos.training.a_1"]


def test_each_asks_for_a_device_of_its_own() -> None:
    """Runners read it from the tag. What reads weights alone, and figures, have none."""
    plan = make_plan(STUDY)
    nodes = [node for create in (landscape, mistakes, similarity, spectrum) for node in create(plan).nodes]
    asked = {node.name for node in nodes if "gpus-1" in node.tags}
    read = {node.name: [name.rpartition(".")[2] for name in node.inputs] for node in nodes}
    assert asked == {
        name
        for name, kinds in read.items()
        if "checkpoints" in kinds and {"train_split", "test_split"} & {*kinds} and "draw_" not in name
    }
    assert {name.split(".")[1] for name in asked} == {"landscape", "mistakes", "similarity", "spectrum"}
