"""Measurements as a notebook makes them: checkpoints on a bench, without Kedro and without a plan."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from transferscope import measure
from transferscope.experiment.options import CriticalityOptions, GridOptions, PictureOptions, SimilarityOptions
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.measure import Bench, cka, criticality, line, mistakes, plane, predict, rewinding
from transferscope.measure.bench import workspace
from transferscope.measure.criticalities import modules_of
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata, save_checkpoint
from transferscope.models.parts import split_at_modules
from transferscope.models.series import Checkpoints, CheckpointSeries
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

SIDE = 16


def split_of(part: str, number: int = 40) -> PackedSplit:
    generator = np.random.default_rng(number)
    images = generator.integers(0, 256, (number, 3, SIDE, SIDE), dtype=np.uint8)
    info = SplitInfo("toy", part, ("ant", "bee", "cat"), False, True, PictureOptions(store_size=SIDE), part)
    sizes = np.full((number, 2), SIDE, dtype=np.int32)
    return PackedSplit(info, images, np.arange(number) % 3, [str(index) for index in range(number)], sizes)


def checkpoint_of(seed: int, architecture: str = "fixup_resnet_small") -> Checkpoint:
    options = {"widths": [8, 8, 8]} if architecture == "fixup_resnet_small" else {}
    model = build_model(architecture, 3, seed=seed, **options)
    return Checkpoint(
        model.state_dict(), CheckpointMetadata(architecture=architecture, num_classes=3, model_options=options)
    )


def test_public_names_are_functions_whatever_was_imported_first() -> None:
    """No module of the package has the name of a function, which would stand in its place."""
    modules = {path.stem for path in Path(measure.__file__).parent.glob("*.py")}
    assert not modules & set(measure.__all__)
    assert all(callable(getattr(measure, name)) for name in measure.__all__)


def test_a_bench_does_not_change() -> None:
    """What was measured belongs to its examples; another number of them makes another bench."""
    bench = Bench({"test": split_of("test")})
    with pytest.raises(FrozenInstanceError):
        bench.resamples = 3  # type: ignore[misc]
    few = bench.limited(8)
    assert (len(bench.split("test")), len(few.split("test"))) == (40, 8)
    assert few.limited(8).split("test").digest == bench.limited(8).split("test").digest
    assert bench.limited(None).split("test") is bench.split("test")


def test_results_are_remembered_by_content() -> None:
    """The same weights on the same images are measured once; other resamples, another precision or images are not."""
    store: dict[str, dict[str, object]] = {}
    first, second = checkpoint_of(1), checkpoint_of(2)
    bench = Bench({"test": split_of("test")}, store)
    points = line(bench, first, second, (0, 1)).points
    assert len(store) == 2
    pd.testing.assert_frame_equal(points, line(bench, first, second, (0, 1)).points)
    assert len(store) == 2
    for other in (
        Bench(bench.splits, store, resamples=5),
        Bench(bench.splits, store, "bfloat16"),
        Bench({"test": split_of("test", 39).subset(np.arange(30))}, store),
    ):
        before = len(store)
        line(other, first, second, (0, 1))
        assert len(store) == before + 2


def test_a_part_that_is_missing_is_named() -> None:
    """Of a network with BatchNorm layers, whose statistics come from the training images, before any pass is made."""
    a, b = (checkpoint_of(seed, "shufflenet_v2_x0_5") for seed in (1, 2))
    with pytest.raises(UserError, match=r"^the bench has no train images, only test: add splits\['train'\]$"):
        line(Bench({"test": split_of("test")}), a, b, (0, 1))


def test_mistakes_of_two_checkpoints_are_those_of_their_predictions() -> None:
    """Counts by hand from the arg-max of the logits."""
    split = split_of("test")
    bench = Bench({"test": split})
    a, b = (predict(bench, checkpoint_of(seed)) for seed in (1, 2))
    table = mistakes(split, a, b, resamples=10)
    right_a, right_b = (logits.argmax(dim=1).numpy() == split.labels for logits in (a, b))
    row = table[table["class_name"] == "all"].iloc[0] if "all" in set(table["class_name"]) else table.iloc[0]
    assert row["only_a_correct"] == (right_a & ~right_b).sum()
    assert row["common_mistakes"] == (~right_a & ~right_b).sum()


def test_pairs_without_a_kind_go_by_their_names() -> None:
    """The heat map has the names of the two checkpoints, and no control is added."""
    bench, options = Bench({"test": split_of("test")}), SimilarityOptions(batch_size=20, features=("pooled",))
    tables = cka(bench, {"a": checkpoint_of(1), "b": checkpoint_of(2)}, [("a", "b")], options)
    assert set(tables["cka"]["pair_kind"]) == {"a & b"}
    assert set(tables["cka_layers"]["label_a"]) == {"a"}
    assert set(tables["cka_layers"]["label_b"]) == {"b"}


def test_networks_without_a_layer_name_in_common_have_a_heat_map_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A table layer by layer has the pairs that can be compared so, here the control; without any there is none."""
    bench, known = (
        Bench({"test": split_of("test")}),
        {"a": checkpoint_of(1), "b": checkpoint_of(2, "mobilenet_v3_small")},
    )
    options = SimilarityOptions(batch_size=20)
    tables = cka(bench, known, {("a", "b"): "A & B", ("a", "a"): "same model"}, options)
    assert set(tables["cka"]["pair_kind"]) == set(tables["second_opinion"]["pair_kind"]) == {"same model"}
    apart = tables["cka_layers"].query("pair_kind == 'A & B'")
    assert apart["cka"].notna().all()
    assert not set(apart["layer"]) & set(apart["layer_b"])
    assert "a and b have no layer name in common (conv1, " in caplog.text
    assert set(cka(bench, known, [("a", "b")], options)) == {"cka_layers"}
    assert cka(bench, known, [("a", "b")], options.model_copy(update={"heat_map_pairs": 0})) == {}


def test_checkpoints_of_several_runs_go_by_name(tmp_path: Path) -> None:
    """Each is that of its series and epoch; a name that is not there is an error of the series."""
    made = checkpoint_of(1)
    for epoch in (0, 3):
        save_checkpoint(made.with_metadata(epoch=epoch), tmp_path / f"{epoch}.safetensors")
    series = CheckpointSeries.from_files({epoch: tmp_path / f"{epoch}.safetensors" for epoch in (0, 3)}, "toy.a_1")
    checkpoints = Checkpoints([series])
    assert list(checkpoints) == ["toy.a_1@0", "toy.a_1@3"]
    assert len(checkpoints) == 2
    assert (checkpoints["toy.a_1@final"].metadata.epoch, checkpoints["toy.a_1@0"].metadata.epoch) == (3, 0)
    with pytest.raises(UserError, match="no checkpoint of epoch 2"):
        checkpoints["toy.a_1@2"]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Graphs that torch compiles, by a backend that makes no code, so that values stay the same."""
    made: list[object] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> object:
        made.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return made


def test_each_stage_of_criticality_is_compiled_once_for_each_shape(graphs: list[object], tmp_path: Path) -> None:
    """No stage again for another group of modules or position, none left out, and the same tables, rewinding included."""
    series = trained(tmp_path)
    splits = {"train": split_of("train", 140), "test": split_of("test")}  # batches of 128, 12 and 40
    options = CriticalityOptions(positions=GridOptions(points=2), sigmas=(0.0, 0.1), draws=1, max_draws=1)
    modules = modules_of(series.load("final"))
    plain, compiled = (criticality(Bench(splits, compiled=on), series, modules, options) for on in (False, True))
    pd.testing.assert_frame_equal(compiled.noise, plain.noise)
    pd.testing.assert_frame_equal(compiled.mu, plain.mu)
    stages = split_at_modules(workspace(series.load("final")))
    assert len(graphs) == 3 * len(stages) > 8
    before = len(graphs)
    back = [rewinding(Bench(splits, compiled=on), series, modules) for on in (False, True)]
    pd.testing.assert_frame_equal(*back)
    assert len(graphs) == before + 1


def test_planes_and_cka_are_compiled_once_for_an_architecture(graphs: list[object]) -> None:
    """Three networks of one architecture take one graph for each shape and kind of features; values are the same."""
    splits = {"train": split_of("train"), "test": split_of("test", 44)}
    corners = {str(seed): checkpoint_of(seed) for seed in range(3)}
    tables = [plane(Bench(splits, compiled=on), corners, points=2) for on in (False, True)]
    pd.testing.assert_frame_equal(*tables)
    assert len(graphs) == 1
    options = SimilarityOptions(batch_size=32, heat_map_pairs=0)  # 32 and 12
    pairs = [("0", "1"), ("1", "2")]
    plain, compiled = (cka(Bench(splits, compiled=on), corners, pairs, options) for on in (False, True))
    for name, table in plain.items():
        pd.testing.assert_frame_equal(compiled[name], table)
    assert len(graphs) == 1 + 2 * 2


def test_only_compiled_measurements_have_another_key() -> None:
    """What was remembered before stays known, and values of compiled networks are kept apart, as they are rounded."""
    splits = {"test": split_of("test")}
    plain, compiled = (Bench(splits, compiled=on).key(checkpoint_of(0), "x") for on in (False, True))
    assert plain == json.dumps([json.dumps([1, "fixup_resnet_small", {"widths": [8, 8, 8]}, "float32"]), "x"])
    assert compiled != plain


@pytest.mark.slow
def test_compiled_code_gives_the_same_up_to_rounding() -> None:
    """Torch's own compiler, on the CPU: CKA of two small networks."""
    made = [build_model("fixup_resnet_small", 3, seed=seed, blocks=[1], widths=[4]) for seed in (1, 2)]
    about = CheckpointMetadata("fixup_resnet_small", {"blocks": [1], "widths": [4]}, 3)
    pair = {str(place): Checkpoint(model.state_dict(), about) for place, model in enumerate(made)}
    splits, options = {"test": split_of("test", 24)}, SimilarityOptions(features=("pooled",), heat_map_pairs=0)
    plain, compiled = (cka(Bench(splits, compiled=on), pair, [("0", "1")], options)["cka"] for on in (False, True))
    pd.testing.assert_frame_equal(compiled, plain, rtol=1e-4, atol=1e-6)
    assert not compiled["cka"].equals(plain["cka"]), "compiled code rounds in other places"


def trained(folder: Path) -> CheckpointSeries:
    """A run with weights at epochs 0 and 1 of which none is zero."""
    for epoch in (0, 1):
        one, generator = checkpoint_of(epoch), torch.Generator().manual_seed(epoch)
        state = {
            key: value + 0.05 * torch.randn(value.shape, generator=generator) for key, value in one.state_dict.items()
        }
        save_checkpoint(Checkpoint(state, one.metadata).with_metadata(epoch=epoch), folder / f"{epoch}.safetensors")
    return CheckpointSeries.from_files({epoch: folder / f"{epoch}.safetensors" for epoch in (0, 1)}, "toy.a_1")


def test_nothing_of_kedro_is_imported() -> None:
    """By any module of the package, and no pandera, which takes half a second."""
    names = sorted(path.stem for path in Path(measure.__file__).parent.glob("*.py") if path.stem != "__init__")
    imports = "".join(f"import transferscope.measure.{name}\n" for name in names)
    script = f"import sys\n{imports}assert not {{'kedro', 'pandera'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
