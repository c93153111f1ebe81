"""Series of checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from damage import flip
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata, save_checkpoint
from transferscope.models.series import CheckpointSeries, epoch_file, write_series
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError
from transferscope.system.stored import DamagedError

INDEX = {"task": "clipart", "run": "pt_1", "fingerprint": "abc", "best": 5, "final": 10}


def save_epoch(folder: Path, epoch: int | None, name: str | None = None) -> Path:
    path = folder / (name or epoch_file(epoch or 0))
    metadata = CheckpointMetadata(epoch=epoch, num_classes=2)
    save_checkpoint(Checkpoint({"a": torch.tensor([float(epoch or 0)])}, metadata), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Epochs 0, 5 and 10."""
    for epoch in (0, 5, 10):
        save_epoch(tmp_path, epoch)
    write_series(tmp_path, epochs=[10, 0, 5], **INDEX)
    return tmp_path


def test_a_series_is_what_its_index_says(folder: Path) -> None:
    """Name, epochs in order, best, final, fingerprint, status."""
    series = CheckpointSeries.open(folder)
    assert (series.name, series.epochs, series.best, series.final) == ("clipart.pt_1", (0, 5, 10), 5, 10)
    assert (series.fingerprint, series.status) == ("abc", "finished")
    assert series.path("final") == folder / "epoch_0010.safetensors"


def test_loading_by_name_and_by_number(folder: Path) -> None:
    """`best` and `final` are names of epochs."""
    series = CheckpointSeries.open(folder)
    loaded = {which: series.load(which) for which in ("best", "final", 0, 5)}
    assert {which: c.state_dict["a"].item() for which, c in loaded.items()} == {"best": 5, "final": 10, 0: 0, 5: 5}
    assert [loaded[which].metadata.epoch_name for which in ("best", 5)] == ["best", None]


@pytest.mark.parametrize("which", [7, -1, "last"])
def test_an_epoch_that_does_not_exist_is_answered_with_those_that_do(folder: Path, which: int | str) -> None:
    """By number or by a name that is none."""
    with pytest.raises(
        UserError, match=f"clipart.pt_1 has no checkpoint of epoch {which}: there are 0, 5, 10, best and final"
    ):
        CheckpointSeries.open(folder).load(which)  # type: ignore[arg-type]


def test_a_diverged_run_is_marked(folder: Path) -> None:
    """And extra entries of the index do no harm."""
    assert write_series(folder, epochs=[0, 5, 10], status="diverged", identity="x", **INDEX).status == "diverged"


def test_a_folder_without_index_is_no_series(tmp_path: Path) -> None:
    """So a killed run leaves none."""
    save_epoch(tmp_path, 0)
    with pytest.raises(UserError, match=r"is no checkpoint series: it has no series\.json"):
        CheckpointSeries.open(tmp_path)


@pytest.mark.parametrize("content", ['{"task": "clip', "[]", '{"task": "a", "run": "b"}', ""])
def test_a_broken_index_is_named(folder: Path, content: str) -> None:
    """Cut off, of another kind, without an entry, or empty: it is not what was written."""
    (folder / "series.json").write_text(content)
    with pytest.raises(
        DamagedError, match=r"series\.json is damaged \(it bears no digest, as .*\): `kedro run` trains"
    ):
        CheckpointSeries.open(folder)


def test_a_changed_index_is_named(folder: Path) -> None:
    """Another best epoch, by hand."""
    path = folder / "series.json"
    path.write_text(path.read_text().replace('"best": 5', '"best": 0'))
    with pytest.raises(DamagedError, match=r"series\.json is damaged \(its content is not what was written\)"):
        CheckpointSeries.open(folder)


def test_a_listed_file_that_is_gone_is_named(folder: Path) -> None:
    """On opening, not in the middle of an analysis."""
    (folder / epoch_file(5)).unlink()
    with pytest.raises(
        UserError, match=r"epoch_0005\.safetensors is damaged \(it is missing, and series\.json lists it\)"
    ):
        CheckpointSeries.open(folder)


def test_one_bit_of_a_weight_is_noticed(folder: Path) -> None:
    """Also after the file was read before by the same process; the message has the command that repairs it."""
    series = CheckpointSeries.open(folder)
    series.load(5)
    flip(folder / epoch_file(5), -1)
    with pytest.raises(DamagedError, match=r"epoch_0005.* is damaged .*`kedro run --nodes clipart\.training\.pt_1`"):
        series.load(5)
    with pytest.raises(DamagedError):
        series.check()


@pytest.mark.parametrize("other", ["of another run", "of another epoch"])
def test_another_whole_file_in_the_place_of_a_checkpoint_is_noticed(folder: Path, other: str, tmp_path: Path) -> None:
    """Its own digest is right, but the index lists another."""
    if other == "of another run":
        (tmp_path / "elsewhere").mkdir()
        source = save_epoch(tmp_path / "elsewhere", 5)
        save_checkpoint(Checkpoint({"a": torch.tensor([5.0])}, CheckpointMetadata(epoch=5, run="x")), source)
        shutil.copy(source, folder / epoch_file(5))
    else:
        shutil.copy(folder / epoch_file(10), folder / epoch_file(5))
    with pytest.raises(DamagedError, match=r"it is another file than series\.json lists"):
        CheckpointSeries.open(folder).load("best")


def test_one_file_is_a_series_of_its_best_and_final(tmp_path: Path) -> None:
    """With the epoch it says."""
    series = CheckpointSeries.from_file(save_epoch(tmp_path, 30), "mine")
    assert (series.name, series.epochs, series.best, series.final, series.status) == ("mine", (30,), 30, 30, "finished")
    assert series.load("best").state_dict["a"].item() == 30


def test_a_file_that_says_no_epoch_is_not_taken_for_untrained(tmp_path: Path) -> None:
    """It counts as epoch 1."""
    series = CheckpointSeries.from_file(save_epoch(tmp_path, None, "x.safetensors"), "mine")
    assert series.epochs == (1,)
    assert series.load("final").metadata.epoch == 1


def test_a_file_of_torch_can_be_analysed_once_its_architecture_is_named(tmp_path: Path) -> None:
    """Number of classes from the weights."""
    weights = build_model("fixup_resnet_small", 4, seed=0, widths=[4, 4, 4]).state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}, "epoch": 9}, tmp_path / "a.pth.tar")
    about = {"architecture": "fixup_resnet_small", "model_options": {"widths": [4, 4, 4]}}
    model = CheckpointSeries.from_file(tmp_path / "a.pth.tar", "mine", **about).load("final").build()
    assert torch.equal(model.fc.weight, weights["fc.weight"])


def test_what_contradicts_a_file_is_refused(tmp_path: Path) -> None:
    """The file says 2 classes."""
    series = CheckpointSeries.from_file(save_epoch(tmp_path, 3), "mine", num_classes=5)
    with pytest.raises(UserError, match=r"epoch_0003\.safetensors has num_classes 2, not 5"):
        series.load("final")


def test_files_made_elsewhere_form_a_series_by_epoch(tmp_path: Path) -> None:
    """In order of epochs; the last is final, and best unless another is named."""
    files = {9: save_epoch(tmp_path, 9), 1: save_epoch(tmp_path, 1), 4: save_epoch(tmp_path, 4)}
    series = CheckpointSeries.from_files(files, "mine", best=4)
    assert (series.epochs, series.best, series.final) == ((1, 4, 9), 4, 9)
    assert CheckpointSeries.from_files(files, "mine").best == 9


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Before any analysis."""
    with pytest.raises(UserError, match=r"gone\.pth does not exist"):
        CheckpointSeries.from_file(tmp_path / "gone.pth", "mine")
