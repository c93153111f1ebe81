"""The card of a merged model: of which checkpoints and how it was made, and what it scores."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from transferscope.experiment.options import MergingOptions
from transferscope.measure.merge_candidates import MergeCandidates
from transferscope.measure.merge_images import MergeImages
from transferscope.measure.merge_table import COLUMNS, MeasuredModel


def card_of(
    merged: MeasuredModel,
    single: MeasuredModel,
    table: pd.DataFrame,
    candidates: MergeCandidates,
    images: MergeImages,
    options: MergingOptions,
) -> dict[str, Any]:
    """The merged checkpoints, the method and the scores as plain values.

    table: `merge_table.COLUMNS` of all models; single: the best candidate, over which gains are.
    """
    own = table[(table["kind"] == "merge") & (table["model"] == merged.model)]
    numbers = [name for name in COLUMNS if name not in ("model", "kind", "setting", "chosen")]
    scores = json.loads(own[numbers].to_json(orient="records"))
    return {
        "method": merged.model,
        "setting": merged.setting,
        "candidates": [
            {"name": name, "fingerprint": known.fingerprint, "epoch": known.epoch}
            for name, known in zip(candidates.names, candidates.metadata, strict=True)
        ],
        "parent": candidates.parent_name if candidates.parent is not None else None,
        "best_candidate": single.model,
        "batchnorm": "recomputed on training images" if candidates.network.normalised else None,
        "scores": {row.pop("task"): row for row in scores},
        "options": options.model_dump(mode="json", exclude={"merges", "methods"}),
        "images": {one.task: one.judge_split.digest for one in images.tasks},
    }
