"""Pipelines on networks that are laid out, parametrised or fed in other ways than a residual network is."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from transferscope.experiment.options import PictureOptions, SimilarityOptions, SpectrumOptions
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.measure import Bench, cka, distance, line, margin, spectrum
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata, save_checkpoint
from transferscope.models.series import CheckpointSeries
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError
from transferscope.training.evaluation import predict

SIDE = 32
THIN_SWIN = {"img_size": SIDE, "window_size": 2, "embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
THIN_NF_RESNET = {
    "channels": (8, 16, 16, 16),
    "depths": (1, 1, 1, 1),
    "stem_chs": 8,
    "group_size": 4,
    "std_conv_eps": 1e-30,
}
SHALLOW_XCIT = {"img_size": SIDE, "depth": 2}


@pytest.fixture
def split() -> PackedSplit:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (12, 3, SIDE, SIDE), dtype=np.uint8)
    info = SplitInfo("toy", "test", ("ant", "bee", "cat"), False, True, PictureOptions(store_size=SIDE), "toy")
    sizes = np.full((12, 2), SIDE, dtype=np.int32)
    return PackedSplit(info, images, np.arange(12) % 3, [str(index) for index in range(12)], sizes)


def series_of(folder: Path, name: str, architecture: str, seed: int, factor: float = 1, **options: Any) -> Any:
    model = build_model(architecture, 3, seed=seed, **options)
    state = {
        key: value * factor if "conv" in key and key.endswith(".weight") else value
        for key, value in model.state_dict().items()
    }
    metadata = CheckpointMetadata(architecture=architecture, num_classes=3, model_options=options)
    path = folder / f"{name}.safetensors"
    save_checkpoint(Checkpoint(state, metadata), path)
    return CheckpointSeries.from_file(path, f"toy.{name}")


ALPHAS = (0, 0.5, 1)


def similarity(split: PackedSplit, a: Any, b: Any, **options: Any) -> pd.DataFrame:
    """Of a with itself and with b."""
    chosen = SimilarityOptions(batch_size=6, features=("pooled",), **options)
    return cka(Bench({"test": split}), {"a": a.load(), "b": b.load()}, [("a", "a"), ("a", "b")], chosen)["cka"]


def bench_of(split: PackedSplit) -> Bench:
    return Bench({"train": split, "test": split})


def test_swin_has_cka_1_with_itself_and_less_with_another(tmp_path: Path, split: PackedSplit) -> None:
    """Channels-last blocks of timm pass through the pipeline; layouts are found once for both networks."""
    name = "timm/swin_tiny_patch4_window7_224"
    a, b = (series_of(tmp_path, run, name, seed, **THIN_SWIN) for run, seed in (("a", 1), ("b", 2)))
    table = similarity(split, a, b)
    own = table[table["checkpoint_b"] == "a"]
    assert own["cka"].to_numpy() == pytest.approx(1, abs=1e-6)
    assert table["cka"].notna().all()
    assert table["layer"].nunique() > 2


def test_layers_without_features_are_left_out_by_name_unless_they_are_asked_for(
    tmp_path: Path, split: PackedSplit, caplog: pytest.LogCaptureFixture
) -> None:
    """XCiT's position embedding depends on no image."""
    name = "timm/xcit_nano_12_p16_224"
    a, b = (series_of(tmp_path, run, name, seed, **SHALLOW_XCIT) for run, seed in (("a", 1), ("b", 2)))
    with caplog.at_level(logging.WARNING):
        table = similarity(split, a, b)
    assert "left out: layer pos_embed of Xcit" in caplog.text
    assert "pos_embed" not in set(table["layer"])
    with pytest.raises(UserError, match=r"layer pos_embed of Xcit puts out .*no axis holds the examples"):
        similarity(split, a, b, layers=("pos_embed",), heat_map_pairs=0)


def test_networks_of_one_channel_pass_every_analysis(tmp_path: Path, split: PackedSplit) -> None:
    """Colour images reach a network of one channel as grey; next to one of three channels, too."""
    options = {"in_chans": 1}
    a, b = (series_of(tmp_path, run, "timm/lcnet_035", seed, **options) for run, seed in (("a", 1), ("b", 2)))
    colour = series_of(tmp_path, "c", "timm/lcnet_035", 3)
    assert predict(a.load().build(), split).shape == (12, 3)
    assert similarity(split, a, b)["cka"].notna().all()
    assert similarity(split, a, colour)["cka"].notna().all()
    points, _ = line(bench_of(split), a.load(), b.load(), ALPHAS)
    assert points["value"].notna().all()
    assert margin(bench_of(split), a.load()).iloc[0]["input_dimension"] == SIDE**2
    table, _ = spectrum(a, SIDE, SpectrumOptions(epochs=("final",), along_training=False))
    assert not table.empty


def test_networks_of_four_channels_are_refused_in_one_line(tmp_path: Path, split: PackedSplit) -> None:
    """By whatever reaches for images; spectra and distances need none."""
    a, b = (series_of(tmp_path, run, "timm/lcnet_035", seed, in_chans=4) for run, seed in (("a", 1), ("b", 2)))
    for measure in (
        lambda: predict(a.load().build(), split),
        lambda: similarity(split, a, b),
        lambda: line(bench_of(split), a.load(), b.load(), ALPHAS),
    ):
        with pytest.raises(UserError, match="takes images of 4 channels"):
            measure()
    assert distance(a.load(), b.load())["l2"].gt(0).all()


def test_ten_times_the_standardised_weights_give_the_same_tables(tmp_path: Path, split: PackedSplit) -> None:
    """timm's normaliser-free network scaled by 10: the same distances, lines and spectra, and no distance to itself.

    Without the 1e-5 that timm adds to variances, with which the scaled network would be another function.
    """
    a, b, scaled = (
        series_of(tmp_path, run, "timm/nf_resnet26", seed, factor, **THIN_NF_RESNET)
        for run, seed, factor in (("a", 1, 1), ("b", 2, 1), ("s", 2, 10))
    )
    tables = [distance(a.load(), other.load()).set_index("module") for other in (b, scaled)]
    np.testing.assert_allclose(tables[0]["l2"], tables[1]["l2"], rtol=1e-5)
    assert distance(b.load(), scaled.load())["relative"].max() < 1e-6
    lines = [line(bench_of(split), a.load(), other.load(), ALPHAS).points for other in (b, scaled)]
    losses = [table[table["metric"] == "loss"]["value"].to_numpy() for table in lines]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    chosen = SpectrumOptions(epochs=("final",), along_training=False)
    values = [spectrum(run, SIDE, chosen).values["value"].to_numpy() for run in (b, scaled)]
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-6)


def test_a_parent_of_other_classes_has_a_distance_without_its_classifier(tmp_path: Path) -> None:
    """All tensors but the classifier's, as if it had never been there; with equal classes it counts."""
    options = {"widths": [4, 8, 8]}
    child = series_of(tmp_path, "child", "fixup_resnet_small", 1, **options).load()
    other = series_of(tmp_path, "other", "fixup_resnet_small", 2, **options).load()
    state = other.state_dict | {"fc.weight": torch.zeros(5, 8), "fc.bias": torch.zeros(5)}
    parent = Checkpoint(state, replace(other.metadata, num_classes=5))
    with_classifier, without = (distance(child, one).set_index("module") for one in (other, parent))
    assert with_classifier.loc["all", "num_parameters"] - without.loc["all", "num_parameters"] == 3 * 8 + 3
    one, two = child.state_dict, other.state_dict
    classifier = sum(float((one[key] - two[key]).square().sum()) for key in ("fc.weight", "fc.bias"))
    assert with_classifier.loc["all", "squared"] - without.loc["all", "squared"] == pytest.approx(classifier, rel=1e-4)


def test_half_precision_files_give_the_mirrored_curve_when_swapped(tmp_path: Path, split: PackedSplit) -> None:
    """A bfloat16 file and a float32 one: weights between them are computed in float32."""
    options = {"widths": [4, 8, 8]}
    a, b = (series_of(tmp_path, run, "fixup_resnet_small", seed, **options) for run, seed in (("a", 1), ("b", 2)))
    half = a.load()
    state = {key: (value + 0.02 * torch.randn(value.shape)).bfloat16() for key, value in half.state_dict.items()}
    save_checkpoint(Checkpoint(state, half.metadata), a.path("final"))
    alphas = (0, 0.25, 0.5, 0.75, 1)
    there, back = (
        line(bench_of(split), first.load(), second.load(), alphas).points for first, second in ((a, b), (b, a))
    )
    for metric in ("loss", "accuracy"):
        forth, reverse = (
            table[(table["metric"] == metric) & (table["split"] == "test")]["value"].tolist() for table in (there, back)
        )
        assert forth == reverse[::-1]
