"""Types of the catalog's entries, for the annotations of nodes.

Kedro evaluates the annotations of every node when a run begins, to find the types of parameters. The classes would
import torch and matplotlib then, and whenever pipelines are listed; so for a type checker these names are the classes,
and at run time `object`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from transferscope.analysis.evaluator import Store
    from transferscope.answers.answer import AnswerCard
    from transferscope.images.source import ImageSource
    from transferscope.images.split import PackedSplit
    from transferscope.measure.bench import Bench
    from transferscope.models.checkpoint import Checkpoint
    from transferscope.models.merged import MergedModel
    from transferscope.models.series import CheckpointSeries
else:
    AnswerCard = Bench = Checkpoint = CheckpointSeries = Figure = ImageSource = MergedModel = PackedSplit = Store = (
        Tensor
    ) = object

__all__ = [
    "AnswerCard", "Bench", "Checkpoint", "CheckpointSeries", "Figure", "ImageSource", "MergedModel", "PackedSplit",
    "Predictions", "Store", "Tensor",
]  # fmt: skip

Predictions = dict[str, Tensor]
"""Logits of a run by part of the task."""
