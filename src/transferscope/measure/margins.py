"""The factors of the generalisation bounds that need images: margin, norm and dimension of the inputs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from transferscope.analysis.margin import margin_row
from transferscope.images.split import PackedSplit
from transferscope.measure.bench import Bench, feed_of, inputs, network
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.layers import image_channels
from transferscope.system.progress import progress_bar
from transferscope.training.evaluation import BATCH_SIZE, predict


def margin(bench: Bench, checkpoint: Checkpoint, *, name: str = "margin") -> pd.DataFrame:
    """Measure the margin that a network leaves on all training examples: one row.

    Columns margin, margin_median (logits, see `analysis.margin`), input_norm (the largest l2 norm of a normalised
    image), input_dimension (its number of values), num_examples. `name` is shown beside the progress.
    """
    model, train = network(checkpoint), bench.split("train")
    with progress_bar(name, len(train)) as advance:
        logits = predict(model, train, progress=advance)
    row = {
        **margin_row(logits, torch.as_tensor(np.asarray(train.labels))),
        **_inputs(train, image_channels(model)),
        "num_examples": len(train),
    }
    return pd.DataFrame([row])


def _inputs(split: PackedSplit, channels: int) -> dict[str, float]:
    largest, dimension = 0.0, 0
    rows = (np.arange(start, min(start + BATCH_SIZE, len(split))) for start in range(0, len(split), BATCH_SIZE))
    for images in inputs(feed_of(split, keep_resident=False), rows, channels):
        flat = images.flatten(1)
        largest, dimension = max(largest, float(flat.norm(dim=1).max())), flat.shape[1]
    return {"input_norm": largest, "input_dimension": dimension}
