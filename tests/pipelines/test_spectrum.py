"""Measuring a run's spectra: which epochs, which method, and what is said where there is none."""

from __future__ import annotations

import logging

import pandas as pd
import pytest
import torch
from torch import nn

from transferscope.analysis.spectrum import conv_singular_values
from transferscope.experiment.node_parameters import Runs
from transferscope.experiment.options import SpectrumOptions
from transferscope.experiment.plan import make_plan
from transferscope.measure import spectrum
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata
from transferscope.pipelines.spectrum.nodes import compare_small_values
from transferscope.pipelines.spectrum.pipeline import create_pipeline
from transferscope.system.errors import UserError


class Network(nn.Module):
    """A strided convolution, a linear layer, and an embedding that no spectrum is defined for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.fc = nn.Linear(4, 2)
        self.places = nn.Embedding(5, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(images).mean((2, 3)))


class Series:
    """Epochs 0, 1 and 3 of one network, in memory."""

    name = "clipart.pt_1"
    epochs = (0, 1, 3)

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.states = {epoch: Network().state_dict() for epoch in self.epochs}

    def epoch(self, which: str | int) -> int:
        return 3 if which in ("best", "final") else int(which)

    def load(self, which: str | int) -> Checkpoint:
        states = self.states

        class Saved:
            state_dict = states[self.epoch(which)]
            source = "in memory"
            metadata = CheckpointMetadata(architecture="fixup_resnet_small")  # of plain layers, as this network

            def build(self) -> nn.Module:
                return Network()

        return Saved()  # type: ignore[return-value]


def test_summaries_of_all_epochs_and_values_of_some() -> None:
    """Values at 0 and final; summaries at every epoch, or at those only where `along_training` is off."""
    values, summaries = spectrum(Series(), 8, SpectrumOptions())
    assert list(values["epoch"].unique()) == [0, 3]
    assert list(summaries["epoch"].unique()) == [0, 1, 3]
    _, summaries = spectrum(Series(), 8, SpectrumOptions(along_training=False))
    assert list(summaries["epoch"].unique()) == [0, 3]


def test_the_table_names_layers_without_a_spectrum() -> None:
    """An embedding has weights and none; every row says so, as the log does."""
    _, summaries = spectrum(Series(), 8, SpectrumOptions())
    assert set(summaries["left_out"]) == {"places"}


@pytest.mark.parametrize(("honour", "word", "method"), [(True, "honoured", "auto"), (False, "ignored", "published")])
def test_the_table_says_whether_the_stride_is_honoured(honour: bool, word: str, method: str) -> None:
    """And the values are those of that method."""
    series = Series()
    values, summaries = spectrum(series, 8, SpectrumOptions(honour_stride=honour))
    assert set(summaries["stride"]) == {word}
    expected, _ = conv_singular_values(series.states[3]["conv.weight"], 8, stride=2, method=method)
    singular = values[(values["epoch"] == 3) & (values["module"] == "conv")]["value"]
    assert singular.to_numpy() == pytest.approx(expected.numpy())


def test_layers_without_a_spectrum_are_listed_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning a run, whatever the number of epochs, with name and type."""
    with caplog.at_level(logging.WARNING):
        spectrum(Series(), 8, SpectrumOptions())
    (record,) = caplog.records
    assert "spectrum of clipart.pt_1 leaves out" in record.message
    assert "places (Embedding)" in record.message


def test_a_diverged_epoch_is_named_with_its_layer() -> None:
    """Run, epoch and layer of weights that are not finite, or of the wrong rank."""
    series = Series()
    series.states[1]["fc.weight"][0, 0] = float("inf")
    with pytest.raises(UserError, match=r"clipart\.pt_1, epoch 1, layer fc: weight holds values that are not finite"):
        spectrum(series, 8, SpectrumOptions())
    series.states[1]["fc.weight"] = torch.ones(2, 4, 1, 1)
    with pytest.raises(UserError, match=r"clipart\.pt_1, epoch 1, layer fc: weight of shape .* two dimensions"):
        spectrum(series, 8, SpectrumOptions())


def test_small_values_are_compared_between_roles_whatever_their_labels() -> None:
    """Runs from scratch against fine-tuned ones, under the user's words; runs of other roles take no part."""
    runs = {
        "p": {"label": "Source", "tasks": ["photos"]},
        "a": {"label": "Fine-tuned", "tasks": ["mine"], "initialisation": "pretrained", "pretrained": "photos.p_1"},
        "b": {"label": "Scratch", "tasks": ["mine"]},
        "c": {"label": "Twin", "tasks": ["mine"], "shares_initialisation_with": "b"},
    }
    tasks = {name: {"format": "image_folder", "root": name} for name in ("photos", "mine")}
    others = dict.fromkeys(("mistakes", "similarity", "landscape"))
    analyses = others | {"spectrum": {"kinds": ["a", "b", "c"]}}
    plan = make_plan({"tasks": tasks, "runs": runs, "analyses": analyses})
    (node,) = (node for node in create_pipeline(plan).nodes if node.short_name == "compare_small_values")
    assert node.inputs[2:] == ["mine.b_1.singular_values", "mine.a_1.singular_values"]
    values = [
        pd.DataFrame({"module": "fc", "value": [1.0, low], "multiplicity": 1, "epoch": 1}).assign(
            **plan.runs[run].columns
        )
        for run, low in (("mine.b_1", 0.05), ("mine.a_1", 0.5))
    ]
    table = compare_small_values(SpectrumOptions(thresholds=(0.1,)), Runs(tuple(plan.runs_of("mine"))), *values)
    row = table.iloc[0]
    assert (row["label_a"], row["label_b"], row["difference"]) == ("Scratch", "Fine-tuned", 0.5)
