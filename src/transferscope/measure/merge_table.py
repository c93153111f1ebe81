"""The table of merges: a row for each model and task, with its gain and how far it is behind the union."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transferscope.measure.judging import JudgedImages, Outcome, mean_interval_of_tasks

ALL_TASKS = "all"
"""The rows of the mean over several tasks."""
COLUMNS = (
    "task", "model", "kind", "setting", "metric", "value", "value_low", "value_high", "refitted", "gain", "gain_low",
    "gain_high", "behind_union", "behind_union_low", "behind_union_high", "choice_value", "chosen", "num_choice",
    "num_examples",
)  # fmt: skip


@dataclass(frozen=True)
class MeasuredModel:
    """A model that was measured."""

    model: str
    kind: str
    setting: str
    choice: float
    outcomes: dict[str, Outcome]
    refitted: dict[str, float]


def rows_of(
    one: MeasuredModel,
    single: MeasuredModel,
    union: MeasuredModel | None,
    chosen: bool,
    images: Sequence[JudgedImages],
) -> Iterator[dict[str, Any]]:
    """The rows of a model: one for each task, and where there are several one for the mean over them.

    Args:
        one: The model.
        single: The best single candidate, over which gains are.
        union: The model that was trained on all images.
        chosen: Of a candidate, whether it is the best one; of a merge, whether it is to be used.
        images: Those that chose and judged, by task.
    """
    tasks = list(one.outcomes)
    values = {task: one.outcomes[task].interval for task in tasks}
    gains = {task: one.outcomes[task].minus(single.outcomes[task]) for task in tasks} if one is not single else {}
    behind = (
        {task: union.outcomes[task].minus(one.outcomes[task]) for task in tasks} if union and one is not union else {}
    )
    refitted = dict(one.refitted)
    sizes = {each.task: (len(each.choice_split), len(each.judge_split)) for each in images}
    if len(tasks) > 1:
        refitted[ALL_TASKS] = float(np.mean(list(one.refitted.values())))
        choosing, judging = zip(*sizes.values(), strict=True)
        sizes[ALL_TASKS] = sum(choosing), sum(judging)
        for intervals in (values, gains, behind):
            if intervals:
                intervals[ALL_TASKS] = mean_interval_of_tasks(list(intervals.values()))
    none = (math.nan,) * 3
    for task in values:
        row: dict[str, Any] = {"task": task, "model": one.model, "kind": one.kind, "setting": one.setting}
        row |= {"metric": images[0].metric, "refitted": refitted[task], "choice_value": one.choice}
        for name, intervals in (("value", values), ("gain", gains), ("behind_union", behind)):
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), intervals.get(task, none), strict=True))
        yield row | {"chosen": chosen, "num_choice": sizes[task][0], "num_examples": sizes[task][1]}
