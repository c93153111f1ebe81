"""The project's datasets: what is saved is what is loaded, and nothing is left half."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.io import DatasetError
from matplotlib.figure import Figure
from PIL import Image

from transferscope.answers.answer import Answer, AnswerCard
from transferscope.claims.evidence import TaskResults
from transferscope.datasets.answers import AnswersDataset
from transferscope.datasets.checkpoint_series import CheckpointSeriesDataset
from transferscope.datasets.figure import FigureDataset
from transferscope.datasets.measurements import MeasurementsDataset
from transferscope.datasets.merged_model import MergedModelDataset
from transferscope.datasets.packed_split import PackedSplitDataset
from transferscope.datasets.pages import PagesDataset
from transferscope.datasets.results import ResultsDataset
from transferscope.datasets.table import TableDataset
from transferscope.datasets.tensors import TensorsDataset
from transferscope.datasets.text import TextDataset
from transferscope.experiment.options import PictureOptions
from transferscope.generated.draw import generate_domains
from transferscope.images.domainnet import read_domainnet
from transferscope.images.pack import pack_split
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata, save_checkpoint
from transferscope.models.merged import MergedModel
from transferscope.models.series import CheckpointSeries, epoch_file, write_series
from transferscope.plots.rendered import SavedFigure
from transferscope.system import stored

TABLE = pd.DataFrame({"task": ["clipart", "None"], "value": [1 / 3, np.nan], "count": [1, 2], "ok": [True, False]})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_comes_back_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    """Floats, missing values, booleans and the word None survive the file."""
    dataset = TableDataset(filepath=str(tmp_path / f"table.{suffix}"))
    assert not dataset.exists()
    dataset.save(TABLE)
    pd.testing.assert_frame_equal(dataset.load(), TABLE)


def test_the_preview_of_a_table_is_plain(tmp_path: Path) -> None:
    """Kedro-Viz gets columns and rows that JSON can hold."""
    dataset = TableDataset(filepath=str(tmp_path / "table.csv"))
    dataset.save(TABLE)
    preview = dataset.preview(rows=1)
    assert preview["columns"] == list(TABLE.columns)
    assert preview["data"][0][0] == "clipart"


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    """Also those that are not contiguous."""
    dataset = TensorsDataset(filepath=str(tmp_path / "tensors.safetensors"))
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).T
    dataset.save({"test": logits})
    assert torch.equal(dataset.load()["test"], logits)


def test_a_figure_is_saved_twice_with_the_same_bytes(tmp_path: Path) -> None:
    """PNG and PDF hold no date: the same figure is the same file."""
    saved = []
    for name in ("a", "b"):
        figure = Figure(figsize=(2, 2))
        figure.add_subplot().plot([1, 2])
        dataset = FigureDataset(filepath=str(tmp_path / f"{name}.png"))
        dataset.save(figure)
        loaded = dataset.load()
        saved.append((loaded.png.read_bytes(), loaded.pdf.read_bytes()))
    assert saved[0] == saved[1]
    assert saved[0][0].startswith(b"\x89PNG")
    assert saved[0][1].startswith(b"%PDF")


def test_results_hold_tables_and_refer_to_figures(tmp_path: Path) -> None:
    """Tables are copied, figures are found relative to the results, also after both were moved."""
    figure = SavedFigure(tmp_path / "clipart" / "barrier.png")
    dataset = ResultsDataset(filepath=str(tmp_path / "clipart" / "results"))
    dataset.save(TaskResults("clipart", {"generated": True}, {"runs": TABLE}, {"barrier": figure}))
    (tmp_path / "clipart").rename(tmp_path / "moved")
    loaded = ResultsDataset(filepath=str(tmp_path / "moved" / "results")).load()
    assert loaded.task == "clipart"
    assert loaded.facts == {"generated": True}
    assert loaded.figures["barrier"].png.resolve() == tmp_path / "moved" / "barrier.png"
    pd.testing.assert_frame_equal(loaded.tables["runs"], TABLE)


def test_an_older_table_among_newer_results_is_damage(tmp_path: Path) -> None:
    """With its own digest beside it: the index holds those of the tables that it was written with."""
    dataset, files = ResultsDataset(filepath=str(tmp_path / "results")), ("runs.csv", ".runs.csv.sha256")
    dataset.save(TaskResults("clipart", {}, {"runs": TABLE.iloc[:1]}, {}))
    older = {name: (tmp_path / "results" / name).read_bytes() for name in files}
    dataset.save(TaskResults("clipart", {}, {"runs": TABLE}, {}))
    assert dataset.exists()
    for name, content in older.items():
        (tmp_path / "results" / name).write_bytes(content)
    assert not dataset.exists()
    with pytest.raises(DatasetError, match=r"runs\.csv is damaged \(it is another version than results\.json"):
        dataset.load()


@pytest.mark.parametrize("kind", ["table", "figure", "pdf", "results", "tensors", "merged"])
def test_the_file_of_another_task_does_not_exist(tmp_path: Path, kind: str) -> None:
    """With all that proves its content, so that it is made anew; loading it names its own place."""
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([1, 2])
    both: list[Any] = []
    for task in ("real", "clipart"):
        folder = tmp_path / "08_reporting" / task / "of"
        made: dict[str, tuple[Any, Any]] = {
            "table": (TableDataset(filepath=str(folder / "file.csv")), TABLE),
            "figure": (FigureDataset(filepath=str(folder / "file.png")), figure),
            "results": (ResultsDataset(filepath=str(folder / "file")), TaskResults(task, {}, {"runs": TABLE}, {})),
            "tensors": (TensorsDataset(filepath=str(folder / "file.safetensors")), {"test": torch.ones(1)}),
            "merged": (MergedModelDataset(filepath=str(folder / "file")), MergedModel({"reason": task})),
        }
        dataset, content = made["figure" if kind == "pdf" else kind]
        dataset.save(content)
        assert dataset.exists()
        both.append(dataset)
    real, clipart = (tmp_path / "08_reporting" / task for task in ("real", "clipart"))
    for path in real.rglob("*"):
        if path.is_file() and (kind != "pdf" or ".pdf" in path.name):
            shutil.copy(path, clipart / path.relative_to(real))
    assert not both[1].exists()
    with pytest.raises(DatasetError, match=r"it was written as (08_reporting/)?real/of/file"):
        both[1].load()


def test_text_is_utf8(tmp_path: Path) -> None:
    """Characters beyond ASCII come back."""
    dataset = TextDataset(filepath=str(tmp_path / "report.html"))
    dataset.save("ℓ₂ ‖W‖")
    assert dataset.load() == "ℓ₂ ‖W‖"


def make_series(folder: Path) -> CheckpointSeries:
    for epoch in (0, 1):
        metadata = CheckpointMetadata(architecture="fixup_resnet_small", num_classes=2, epoch=epoch)
        weights = {"weight": torch.full((2,), float(epoch))}
        save_checkpoint(Checkpoint(weights, metadata), folder / epoch_file(epoch))
    return write_series(folder, task="clipart", run="pt_1", fingerprint="f", epochs=[0, 1], best=1, final=1)


def test_answers_come_back_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has not written the file takes it by the digest in it, and refuses another content."""
    path = tmp_path / "answers.json"
    dataset = AnswersDataset(filepath=str(path))
    card = AnswerCard("A study", (), (Answer("one_basin", "Are they in one basin?", "No.", "no", 0.1, 0.05, 0.2),))
    dataset.save(card)
    monkeypatch.setattr(stored, "_whole", {})
    assert dataset.exists()
    assert dataset.load() == card
    assert json.loads(dataset.preview())["answers"][0]["answer"] == "No."
    monkeypatch.setattr(stored, "_whole", {})
    path.write_text(path.read_text().replace("No.", "Yes."))
    assert not dataset.exists()
    with pytest.raises(DatasetError, match="its content is not what was written"):
        dataset.load()


def test_a_series_trained_elsewhere_is_copied_to_its_place(tmp_path: Path) -> None:
    """All epochs come along; the dataset exists only when the series is complete."""
    dataset = CheckpointSeriesDataset(filepath=str(tmp_path / "models" / "pt_1"))
    assert not dataset.exists()
    dataset.save(make_series(tmp_path / "work" / "pt_1"))
    assert dataset.exists()
    assert dataset.load().epochs == (0, 1)
    assert dataset.preview()["data"][1][:2] == [1, "best, final"]


def test_a_series_in_its_place_is_left_alone(tmp_path: Path) -> None:
    """Saving what was trained in place copies nothing."""
    folder = tmp_path / "pt_1"
    series = make_series(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    CheckpointSeriesDataset(filepath=str(folder)).save(series)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_the_preview_of_a_split_is_a_contact_sheet(tmp_path: Path) -> None:
    """A PNG of its images, drawn when it is asked for."""
    root = generate_domains(tmp_path / "images", domains=("clipart",), num_train=40, num_test=20, size=16, seed=0)
    source = read_domainnet(root, "clipart")
    pack_split(source, "train", PictureOptions(store_size=16), tmp_path / "split")
    preview = PackedSplitDataset(filepath=str(tmp_path / "split")).preview()
    picture = Image.open(io.BytesIO(base64.b64decode(preview)))
    assert picture.format == "PNG"
    assert min(picture.size) > 100


def test_pages_are_one_file_with_the_same_bytes(tmp_path: Path) -> None:
    """A page for each figure, and no date."""

    def pages() -> Iterator[Figure]:
        for top in (1, 2, 3):
            figure = Figure(figsize=(2, 2))
            figure.add_subplot().plot([0, top])
            yield figure

    contents = []
    for name in ("a", "b"):
        dataset = PagesDataset(filepath=str(tmp_path / f"{name}.pdf"))
        assert not dataset.exists()
        dataset.save(pages)
        contents.append(dataset.load().read_bytes())
    assert contents[0] == contents[1]
    assert len(re.findall(rb"/Type /Page\b", contents[0])) == 3


def test_measurements_come_back_bit_for_bit(tmp_path: Path) -> None:
    """Numbers, arrays and words by any key; another key has nothing, nor has one whose file is damaged."""
    folder = MeasurementsDataset(filepath=str(tmp_path / "store")).load()
    assert folder.get("a/b") is None
    value = {"test/loss": 1 / 3, "draws": np.array([0.1, np.nan]), "split": np.array(["train", "test"])}
    folder["a/b"] = value
    again = MeasurementsDataset(filepath=str(tmp_path / "store")).load()
    loaded = again.get("a/b")
    assert loaded is not None
    assert list(loaded) == list(value)
    assert all(np.array_equal(loaded[name], value[name], equal_nan=name == "draws") for name in value)
    assert again.get("a") is None
    (file,) = (tmp_path / "store").rglob("*.safetensors")
    for content in (file.read_bytes()[:-9], b"", b"nothing of this kind"):
        file.write_bytes(content)
        assert again.get("a/b") is None


def test_measurements_may_be_put_by_several_threads(tmp_path: Path) -> None:
    """The same key from many threads: a whole value at every moment, and no temporary file is left."""
    folder = MeasurementsDataset(filepath=str(tmp_path)).load()
    value = {"draws": np.arange(2000.0)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: folder.__setitem__("key", value), range(40)))
        loaded = list(pool.map(lambda _: folder.get("key"), range(40)))
    assert all(np.array_equal(one["draws"], value["draws"]) for one in loaded)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
