"""What is refused before a run starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kedro.framework.hooks import hook_impl
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import AbstractDataset, DataCatalog
from kedro.pipeline import Node, Pipeline
from PIL import Image

from transferscope.datasets.image_source import ImageSourceDataset
from transferscope.framework.config import CommandLineError
from transferscope.framework.hooks import StudyHooks
from transferscope.system.errors import UserError


class Damaged(AbstractDataset[Any, Any]):
    """A series of which a file was deleted."""

    def load(self) -> Any:
        raise UserError("data/06_models/clipart/pt_1/epoch_0003.safetensors is missing")

    def save(self, data: Any) -> None:
        raise AssertionError("the checks write nothing")

    def _describe(self) -> dict[str, Any]:
        return {}

    def _exists(self) -> bool:
        return True


def test_a_damaged_series_is_one_line_before_anything_runs() -> None:
    """Kedro wraps what a data set raises; the user sees what is missing."""
    pipeline = Pipeline([Node(lambda _: 1, "clipart.pt_1.checkpoints", "x", name="compare")])
    with pytest.raises(CommandLineError, match=r"epoch_0003.safetensors is missing$"):
        StudyHooks().before_pipeline_run({}, pipeline, DataCatalog({"clipart.pt_1.checkpoints": Damaged()}))


def test_images_that_cannot_be_read_stop_before_anything_runs(tmp_path: Path) -> None:
    """Lists, names and parts of every data set are read before the first node, so before any image is decoded."""
    (tmp_path / "cat").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "cat/1.png")
    options = {"format": "image_folder", "test_share": 0.5, "class_list": None}
    source = ImageSourceDataset(filepath=str(tmp_path), task="clipart", options=options)
    pipeline = Pipeline([Node(lambda _: 1, "clipart.source", "clipart.test_split", name="pack")])
    with pytest.raises(CommandLineError, match=r"one class only \(cat\): a task needs two classes"):
        StudyHooks().before_pipeline_run({}, pipeline, DataCatalog({"clipart.source": source}))


class Recorder:
    """Hooks that note whether they heard of the end of a run."""

    heard = False

    @hook_impl
    def on_pipeline_error(self) -> None:
        self.heard = True


def test_all_hooks_hear_of_an_error() -> None:
    """The user's mistake is raised after the others have written what was made and given back what they hold."""
    manager, recorders = _create_hook_manager(), [Recorder(), Recorder()]
    for hooks in (recorders[0], StudyHooks(), recorders[1]):
        manager.register(hooks)
    with pytest.raises(CommandLineError, match="the disk is full"):
        manager.hook.on_pipeline_error(
            error=UserError("the disk is full"), run_params={}, pipeline=Pipeline([]), catalog=DataCatalog()
        )
    assert all(recorder.heard for recorder in recorders)
