"""Nodes of merging. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

import pandas as pd

from transferscope.experiment.merges import MergeSpec
from transferscope.experiment.options import MergingOptions
from transferscope.pipelines.types import Bench, CheckpointSeries, MergedModel, PackedSplit
from transferscope.pipelines.wiring import named

logger = logging.getLogger(__name__)


def merge_models(
    spec: MergeSpec, options: MergingOptions, **entries: CheckpointSeries | PackedSplit
) -> tuple[pd.DataFrame, MergedModel]:
    """Merge candidates by every method: what each merge scores, and the chosen one with its card.

    entries: series by the full name of the run, and splits as `real.test_split`. Without rows, and without weights,
    where a run diverged.
    """
    from transferscope.claims.merging import with_verdicts
    from transferscope.measure.merging import COLUMNS, merge
    from transferscope.models.merged import MergedModel as Merged
    from transferscope.models.series import Checkpoints
    from transferscope.models.series import CheckpointSeries as Series

    series = {name: one for name, one in entries.items() if isinstance(one, Series)}
    diverged = ", ".join(name for name, one in series.items() if one.status == "diverged")
    if diverged:
        logger.warning("%s: nothing is merged, for %s diverged", spec.name, diverged)
        table = with_verdicts(pd.DataFrame(columns=list(COLUMNS)))
        return named(table, merge=spec.name, label=spec.label), Merged({"reason": f"{diverged} diverged"})
    merging = merge(
        [_bench(task, entries) for task in spec.tasks],
        Checkpoints([series[name] for name in spec.candidates], options.epoch),
        options,
        methods=spec.methods,
        parent=None if spec.parent is None else partial(series[spec.parent].load, spec.parent_epoch),
        union=None if spec.union is None else partial(series[spec.union].load, options.epoch),
    )
    table = with_verdicts(merging.table)
    chosen = table[(table["kind"] == "merge") & table["chosen"]]
    verdicts = dict(zip(chosen["task"], chosen["verdict"], strict=True))
    card = {"merge": spec.name, **merging.card, "verdicts": verdicts}
    return named(table, merge=spec.name, label=spec.label), Merged(card, merging.checkpoint)


def _bench(task: str, entries: Mapping[str, CheckpointSeries | PackedSplit]) -> Bench:
    """The bench of a task; validation images choose where there are any."""
    from transferscope.images.split import PackedSplit as Split
    from transferscope.measure.bench import Bench as OfSplits

    splits = {name: one for name, one in entries.items() if isinstance(one, Split)}
    parts = {part: splits.get(f"{task}.{part}_split") for part in ("train", "test", "validation")}
    return OfSplits({part: split for part, split in parts.items() if split is not None})
