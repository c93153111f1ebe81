"""The factors of the generalisation bounds that need images: margin, norm and dimension of the inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from transferscope.analysis.evaluation import prepare
from transferscope.analysis.margin import margin_row
from transferscope.images.augment import EvaluationTransform
from transferscope.models.layers import image_channels
from transferscope.models.series import CheckpointSeries
from transferscope.system.progress import progress_bar
from transferscope.training.device import choose_device
from transferscope.training.evaluation import BATCH_SIZE, predict


def margin_table(series: CheckpointSeries, run: dict[str, Any], train_split: Any) -> pd.DataFrame:
    """One row, of the final epoch, over all training examples.

    Columns task, run, label, epoch, margin, margin_median (logits, see `analysis.margin`), input_norm (the largest l2
    norm of a normalised image), input_dimension (its number of values), num_examples.
    """
    model = prepare(series.load("final").build(), choose_device(None))
    with progress_bar(f"margin of {series.name}", len(train_split)) as advance:
        logits = predict(model, train_split, progress=advance)
    row = {
        "task": run["task"],
        "run": run["name"],
        "label": run["label"],
        "epoch": series.epoch("final"),
        **margin_row(logits, torch.as_tensor(np.asarray(train_split.labels))),
        **_inputs(train_split, image_channels(model)),
        "num_examples": len(train_split),
    }
    return pd.DataFrame([row])


def _inputs(split: Any, channels: int) -> dict[str, float]:
    transform = EvaluationTransform(split.pictures, channels)
    largest, dimension = 0.0, 0
    for start in range(0, len(split), BATCH_SIZE):
        images = transform(split.gather(np.arange(start, min(start + BATCH_SIZE, len(split))))).flatten(1)
        largest = max(largest, float(images.norm(dim=1).max()))
        dimension = images.shape[1]
    return {"input_norm": largest, "input_dimension": dimension}
