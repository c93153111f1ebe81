"""Facts about trained runs, from their histories and the table of runs: score, speed, learned, diverged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from transferscope.experiment.names import RunName

MIN_OF_CLASS = 10
"""A class counts in a mean AUC where so many test images have it, and so many lack it."""


@dataclass(frozen=True)
class RunFacts:
    """Facts about a trained run.

    lr: the largest of its schedule. score: final test metric, NaN where it diverged; error: its standard error over
    test images. speed: train metric averaged over the measured epochs. fall: best test metric minus the final one.
    loss: final test loss. rise: gain of the train metric per epoch where the run was not trained to the end, else NaN.
    small_classes: those whose AUC does not count, since too few test images have, or lack, them.
    """

    name: RunName
    label: str
    lr: float
    score: float
    speed: float
    metric: str
    learned: bool
    diverged: bool
    error: float = np.nan
    fall: float = np.nan
    loss: float = np.nan
    rise: float = np.nan
    small_classes: tuple[str, ...] = ()


def facts_of_runs(
    task: str,
    history: pd.DataFrame,
    summary: pd.DataFrame,
    counts: Mapping[str, tuple[int, int]],
    num_test: int,
    label: Callable[[RunName], str],
) -> list[RunFacts]:
    """Facts about the runs of a task.

    Args:
        task: To which the runs belong.
        history: Metrics by run and epoch.
        summary: A row per run (`status`, `learned`, `optimization_speed` and the like), may be empty.
        counts: Test images that have each class, and that lack it.
        num_test: Number of test images, 0 where it is not known.
        label: The label of a run.
    """
    metric = main_metric(history)
    facts = {str(row["run"]): row for row in summary.to_dict("records")}
    counts = counts if metric == "auc" else {}
    small = tuple(name for name, both in counts.items() if min(both) < MIN_OF_CLASS)
    runs = []
    for run, epochs in history.sort_values("epoch", kind="stable").groupby("run", sort=False):
        fact: Mapping[Any, Any] = facts.get(str(run), {})
        diverged = fact.get("status") == "diverged"
        name = RunName.parse(str(run), task)
        last = epochs.iloc[-1]
        classes = [one for one in counts if one not in small and f"test_auc/{one}" in epochs]
        by_class = {one: float(last[f"test_auc/{one}"]) for one in classes}
        score = float(np.mean(list(by_class.values()))) if small and by_class else float(last[f"test_{metric}"])
        one = RunFacts(
            name=name,
            label=label(name),
            lr=float(fact.get("lr", epochs["lr"].max())),
            score=np.nan if diverged else score,
            speed=np.nan if diverged else float(fact.get("optimization_speed", np.nan)),
            metric=metric,
            learned=bool(fact.get("learned", True)) and not diverged,
            diverged=diverged,
            error=_accuracy_error(score, num_test) if metric == "accuracy" else _auc_error(by_class, counts),
            fall=float(fact.get("best_test", np.nan)) - float(fact.get("final_test", np.nan)),
            loss=float(fact.get("final_test_loss", np.nan)),
            rise=float(fact.get("last_rise", np.nan)) if fact.get("still_rising") else np.nan,
            small_classes=small,
        )
        runs.append(one)
    return runs


def main_metric(table: pd.DataFrame) -> str:
    """AUC where a task has it (multi-label), else accuracy; from a history or from a table with a column metric."""
    if "metric" in table.columns:
        return "auc" if (table["metric"] == "auc").any() else "accuracy"
    has_auc = "test_auc" in table.columns and table["test_auc"].notna().any()
    return "auc" if has_auc else "accuracy"


def _accuracy_error(accuracy: float, number: int) -> float:
    return float(np.sqrt(accuracy * (1 - accuracy) / number)) if number else np.nan


def _auc_error(by_class: Mapping[str, float], counts: Mapping[str, tuple[int, int]]) -> float:
    """Standard error of a mean AUC over test images: the mean of those of its classes, which share all images.

    Of each class by Hanley and McNeil 1982, from its AUC and the numbers of images with and without it.
    """
    errors = []
    for name, auc in by_class.items():
        positives, negatives = counts[name]
        one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
        variance = auc * (1 - auc) + (positives - 1) * (one - auc**2) + (negatives - 1) * (two - auc**2)
        errors.append(np.sqrt(variance / (positives * negatives)))
    return float(np.mean(errors)) if errors else np.nan
