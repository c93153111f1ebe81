"""What is refused before a run starts."""

from __future__ import annotations

from typing import Any

import pytest
from kedro.io import AbstractDataset, DataCatalog
from kedro.pipeline import Node, Pipeline

from transferscope.framework.config import CommandLineError
from transferscope.framework.hooks import StudyHooks
from transferscope.system.errors import UserError


class Damaged(AbstractDataset[Any, Any]):
    """A series of which a file was deleted."""

    def load(self) -> Any:
        raise UserError("data/06_models/clipart/pt_1/epoch_0003.safetensors is missing")

    def save(self, data: Any) -> None:
        raise NotImplementedError

    def _describe(self) -> dict[str, Any]:
        return {}

    def _exists(self) -> bool:
        return True


def test_a_damaged_series_is_one_line_before_anything_runs() -> None:
    """Kedro wraps what a data set raises; the user sees what is missing."""
    pipeline = Pipeline([Node(lambda _: 1, "clipart.pt_1.checkpoints", "x", name="compare")])
    with pytest.raises(CommandLineError, match=r"epoch_0003.safetensors is missing$"):
        StudyHooks().before_pipeline_run({}, pipeline, DataCatalog({"clipart.pt_1.checkpoints": Damaged()}))
