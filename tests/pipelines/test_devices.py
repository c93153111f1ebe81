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
    MergingOptions,
    MistakesOptions,
    SimilarityOptions,
)
from transferscope.experiment.plan import make_plan
from transferscope.experiment.run import RunSpec
from transferscope.measure import Bench, basin, cka, criticality, line, margin, merge, plane, rewinding
from transferscope.measure.bench import feed_of, stream
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata
from transferscope.models.modules import find_modules
from transferscope.models.series import Checkpoints
from transferscope.models.zoo import build_model
from transferscope.pipelines.landscape import create_pipeline as landscape
from transferscope.pipelines.merging import create_pipeline as merging
from transferscope.pipelines.mistakes import create_pipeline as mistakes
from transferscope.pipelines.mistakes.nodes import predict_test
from transferscope.pipelines.similarity import create_pipeline as similarity
from transferscope.pipelines.spectrum import create_pipeline as spectrum
from transferscope.pipelines.training import create_pipeline as training
from transferscope.training.adopt import adopt

ASK_FOR_THE_DEVICE = (
    "transferscope.measure.bench.choose_device",
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

    def bench(self, resamples: int = 0) -> Bench:
        """A new one, which remembers nothing."""
        return Bench(self.splits, resamples=resamples)

    def load(self, *names: str) -> list[Checkpoint]:
        return [self.series[name].load("final") for name in names]


@pytest.fixture(scope="module")
def study(project) -> Study:
    return Study(project)


@pytest.fixture
def with_batchnorm(study: Study) -> list[Checkpoint]:
    """Two networks with BatchNorm layers, trained by nobody."""
    made = []
    for seed in (1, 2):
        model = build_model("shufflenet_v2_x0_5", study.splits["train"].num_classes, seed=seed)
        recompute_statistics(model, lambda: stream(feed_of(study.splits["train"])))
        metadata = CheckpointMetadata(architecture="shufflenet_v2_x0_5", num_classes=10)
        made.append(Checkpoint(model.state_dict(), metadata))
    return made


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
        measured = measure()
    assert seen == {PretendedTensor}
    return measured


def on_both(measure: Callable[[], tuple[pd.DataFrame, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are the same."""
    for here, there in zip(measure(), elsewhere(measure, monkeypatch), strict=True):
        assert len(here)
        pd.testing.assert_frame_equal(here, there, rtol=1e-4)


def test_lines(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points and barriers with their intervals, on train and test and beyond the ends."""
    ends = study.load("pt_1", "rit_1")
    on_both(lambda: line(study.bench(resamples=5), *ends, (0, 0.5, 1), outside=(-1.0,)), monkeypatch)


def test_lines_of_networks_with_batchnorm(
    study: Study, with_batchnorm: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their statistics are recomputed where the network is."""
    on_both(lambda: line(study.bench(resamples=5), *with_batchnorm, (0, 0.5, 1)), monkeypatch)


def test_planes_and_basins(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through three models, and around the hull of two."""
    options = BasinOptions.model_validate({"points": 2, "rays": 1, "deltas": (0.5,)})
    hull = study.load("pt_1", "pt_2")
    corners = dict(zip("abc", [study.series["pt_1"].load(0), *hull], strict=True))
    on_both(lambda: (plane(study.bench(), corners, points=2),), monkeypatch)
    on_both(lambda: (basin(study.bench(), hull, options),), monkeypatch)


def test_modules(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Criticality on both paths, and modules set back."""
    series = study.series["rit_1"]
    options = CriticalityOptions.model_validate({"positions": {"points": 2}, "sigmas": (0.0, 0.1), "draws": 1})
    modules = find_modules(series.load("final").build())

    def measure() -> tuple[pd.DataFrame, ...]:
        bench = study.bench().limited(16)
        return *criticality(bench, series, modules, options), rewinding(study.bench(), series, modules)

    on_both(measure, monkeypatch)


def test_cka(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """All estimators, the heat map and the second opinion, of pooled and flattened features."""
    pairs = [("clipart.pt_1@final", "clipart.rit_1@final")]
    options = SimilarityOptions.model_validate({"features": ("pooled", "flattened"), "heat_map_pairs": 1})
    checkpoints = Checkpoints(study.series.values())
    on_both(lambda: tuple(cka(study.bench(), checkpoints, pairs, options).values()), monkeypatch)


def test_predictions(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits come back to the CPU."""

    def measure() -> Tensor:
        return predict_test(study.series["pt_1"], study.splits["test"], MistakesOptions())["test"]

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
    (checkpoint,) = study.load("pt_1")
    on_both(lambda: (margin(study.bench(), checkpoint),), monkeypatch)


def test_merges(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two networks, where weights are merged on the CPU and measured on the device.

    Without matching, whose groups of channels are proved in float64, which networks of the pretended device lack.
    """
    options = MergingOptions(statistics=16, fisher_examples=4)
    one, two = study.load("pt_1", "pt_2")

    def measure() -> tuple[pd.DataFrame]:
        methods = ("uniform", "greedy", "fisher", "regmean")
        return (merge([study.bench()], {"one": one, "two": two}, options, methods=methods).table,)

    on_both(measure, monkeypatch)


def test_a_checkpoint_file_asks_for_a_device() -> None:
    """As a training does; each gets one of its own."""
    photos = {"photos": {"format": "image_folder", "root": "photos"}}
    runs = {"a": {"label": "a", "tasks": ["photos"], "initialisation": "checkpoint", "checkpoint": "a.pth"}}
    none = dict.fromkeys(("mistakes", "similarity", "landscape", "spectrum"))
    nodes = training(make_plan({"tasks": photos, "runs": runs, "analyses": none})).nodes
    assert [node.name for node in nodes if "gpus-1" in node.tags] == ["photos.training.a_1"]


def test_each_asks_for_a_device_of_its_own() -> None:
    """Runners read it from the tag. What reads weights alone, and figures, have none."""
    merges = {"merges": [{"name": "soup", "candidates": ["clipart.pt_1", "clipart.pt_2"]}]}
    plan = make_plan(STUDY | {"analyses": {"merging": merges}})
    nodes = [node for create in (landscape, merging, mistakes, similarity, spectrum) for node in create(plan).nodes]
    asked = {node.name for node in nodes if "gpus-1" in node.tags}
    read = {node.name: [name.rpartition(".")[2] for name in node.inputs] for node in nodes}
    assert asked == {
        name
        for name, kinds in read.items()
        if "checkpoints" in kinds and {"train_split", "test_split"} & {*kinds} and "draw_" not in name
    }
    assert {name.split(".")[1] for name in asked} == {"landscape", "merging", "mistakes", "similarity", "spectrum"}
