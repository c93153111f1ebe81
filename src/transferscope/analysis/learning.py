"""Measures of a run's history: its final metric, its speed, and whether it learned at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr

from transferscope.analysis.barriers import Interval

CHANCE_MARGIN = 3.0
"""Standard errors above chance from which a run counts as having learned."""


def summarise(
    history: pd.DataFrame,
    class_sizes: pd.DataFrame,
    status: Mapping[str, str],
    learning_rates: Mapping[str, float],
    evaluated: Mapping[str, int | None] | None = None,
) -> pd.DataFrame:
    """A row per run: final and best metrics, optimisation speed, status.

    history: rows of one task, a row per run and epoch, columns run, kind, label, epoch, lr, train_accuracy,
    test_accuracy, ... (AUC where the task is multi-label). class_sizes: columns part, class_name, count, negatives,
    ignored.
    status: run -> "finished" or "diverged". learning_rates: the largest of each run's schedule, by plan: a run that
    diverges in its warm-up never sees it; nan for a run without one. evaluated: run -> number of train examples that
    its train metrics are of, where these are not all.

    Metrics are those of the last epoch that has the task's metric; all nan where none has. `metric` is what the task is
    judged by: AUC of a multi-label task, else accuracy. `best_epoch` is the best trained one on the part `chosen_on`:
    validation where the history has it, else test, as the authors chose. `optimization_speed` is the train metric
    averaged over the measured epochs from 1 on (facts of the main text, Figure 3); nan for a checkpoint file, whose
    training is not known.
    `last_rise` is what the train metric gained per epoch since it was measured before, with `last_rise_low` and
    `last_rise_high`, its 95 % interval over the train examples (`rise_at_the_end`); nan for a file or where there is
    one measurement. `still_rising` says that the lower bound is above half a point per epoch, so that the run was
    stopped before it was trained to the end.
    `learned` says that the final test metric is more than three standard errors above chance: the share of the largest
    class, or an AUC of 1/2.
    """
    metric = "auc" if "test_auc" in history else "accuracy"
    chosen_on = "validation" if f"validation_{metric}" in history else "test"
    chance, error = chance_level(class_sizes, metric)
    rows = []
    for run, epochs in history.groupby("run", sort=False):
        measured = epochs.dropna(subset=[f"test_{metric}"])
        measured = measured if len(measured) else epochs
        last = measured.iloc[-1]
        trained = measured[measured["epoch"] > 0]
        choice = trained if len(trained) else measured
        best = choice.iloc[int(choice[f"{chosen_on}_{metric}"].fillna(-math.inf).to_numpy().argmax())]
        final = last[f"test_{metric}"]
        rise = rise_at_the_end(trained, class_sizes, metric, evaluated=(evaluated or {}).get(str(run)))
        rows.append(
            {
                "task": last["task"],
                "run": run,
                "kind": last["kind"],
                "label": last["label"],
                "lr": learning_rates.get(str(run), math.nan),
                "status": status[str(run)],
                "metric": metric,
                "epochs": int(last["epoch"]),
                "final_train": last[f"train_{metric}"],
                "final_test": final,
                "best_test": best[f"test_{metric}"],
                "best_epoch": int(best["epoch"]),
                "chosen_on": chosen_on,
                "final_train_loss": last["train_loss_eval"],
                "final_test_loss": last["test_loss"],
                "optimization_speed": trained.loc[trained["lr"].notna(), f"train_{metric}"].mean(),
                "last_rise": rise.value,
                "last_rise_low": rise.low,
                "last_rise_high": rise.high,
                "still_rising": bool(rise.low > RISING),
                "chance": chance,
                "learned": bool(final > chance + CHANCE_MARGIN * error),
            }
        )
    return pd.DataFrame(rows)


RISING = 0.005
"""Gain of the train metric per epoch above which a run is not trained to the end: ten epochs would add five points."""


def rise_at_the_end(
    trained: pd.DataFrame,
    class_sizes: pd.DataFrame,
    metric: str,
    confidence: float = 0.95,
    *,
    evaluated: int | None = None,
) -> Interval:
    """Gain of the train metric per epoch between the last two measured epochs of one run, with an interval.

    trained: rows of `history` of the run, by epoch, from epoch 1 on; rows without the train metric or a learning rate
    (files) do not count. Both models see the same train examples. How many examples they answer differently is not
    recorded: the interval takes as many as possible, which is what the two error rates add up to, so that it is too
    wide rather than too narrow. For an AUC the standard error is that of Hanley and McNeil (1982) per class, the two
    epochs taken as independent. nan with fewer than two measurements.

    evaluated: number of train examples that were measured; None: all. Each class is taken to have its part of them.
    """
    known = trained[trained["lr"].notna() & trained[f"train_{metric}"].notna()]
    if len(known) < 2:
        return Interval(math.nan, math.nan, math.nan, len(known))
    before, last = (known.iloc[index] for index in (-2, -1))
    epochs = float(last["epoch"] - before["epoch"])
    first, second = float(before[f"train_{metric}"]), float(last[f"train_{metric}"])
    sizes = _sizes_of(class_sizes[class_sizes["part"] == "train"], metric, evaluated)
    error = _error_of_difference(first, second, sizes, metric) * NormalDist().inv_cdf((1 + confidence) / 2)
    rise = second - first
    return Interval(rise / epochs, (rise - error) / epochs, (rise + error) / epochs, len(known))


def _sizes_of(sizes: pd.DataFrame, metric: str, evaluated: int | None) -> pd.DataFrame:
    """The numbers of examples that are expected among `evaluated` of all; at least one of each that there is."""
    if evaluated is None:
        return sizes
    counts = sizes[["count", "negatives"]].astype(float)
    total = (
        counts["count"].sum() if metric == "accuracy" else sizes[["count", "negatives", "ignored"]].sum(axis=1).max()
    )
    drawn = counts * min(1.0, evaluated / total) if total else counts
    return sizes.assign(**drawn.clip(lower=counts.clip(upper=1)))


def _error_of_difference(first: float, second: float, sizes: pd.DataFrame, metric: str) -> float:
    positives = sizes["count"].to_numpy(dtype=float)
    if metric == "accuracy":
        num = positives.sum()
        # Of n answers a share first + second - 2 both changes at most: all errors of either model are its own.
        differ = min(2 - first - second, first + second)
        return math.sqrt(max(differ - (second - first) ** 2, 0.0) / num + 1 / num**2) if num else math.nan
    negatives = sizes["negatives"].to_numpy(dtype=float)
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return math.nan
    variances = [_auc_variance(area, positives[both], negatives[both]).sum() for area in (first, second)]
    return math.sqrt(sum(variances)) / int(both.sum())


def _auc_variance(area: float, positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hanley and McNeil (1982), equations 1 and 2."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (one - area**2) + (negatives - 1) * (two - area**2)
    return np.asarray(spread / (positives * negatives))


def chance_level(class_sizes: pd.DataFrame, metric: str) -> tuple[float, float]:
    """Metric of a model without knowledge on the test part, and the standard error of that.

    Accuracy: the share p of the largest class, sqrt(p (1 - p) / n). AUC: 1/2, and under the hypothesis of no knowledge
    sqrt((n_pos + n_neg + 1) / (12 n_pos n_neg)) per class (Mann-Whitney), the classes taken as independent.
    """
    test = class_sizes[class_sizes["part"] == "test"]
    positives = test["count"].to_numpy(dtype=float)
    if metric == "accuracy":
        share = positives.max() / positives.sum()
        return share, math.sqrt(share * (1 - share) / positives.sum())
    negatives = test["negatives"].to_numpy(dtype=float)
    both = (positives > 0) & (negatives > 0)
    variances = (positives + negatives + 1)[both] / (12 * positives * negatives)[both]
    return 0.5, math.sqrt(variances.sum()) / max(both.sum(), 1)


def standard_error(score: float, class_sizes: pd.DataFrame, metric: str) -> float:
    """Standard error of a test metric over test images.

    Accuracy p: sqrt(p (1 - p) / n). Mean AUC: that of Hanley and McNeil (1982) at this area for each class, the classes
    taken as independent. class_sizes: as in `chance_level`.
    """
    test = class_sizes[class_sizes["part"] == "test"]
    positives = test["count"].to_numpy(dtype=float)
    if metric == "accuracy":
        return math.sqrt(score * (1 - score) / positives.sum())
    negatives = test["negatives"].to_numpy(dtype=float)
    both = (positives > 0) & (negatives > 0)
    variances = _auc_variance(score, positives[both], negatives[both])
    return math.sqrt(variances.sum()) / max(int(both.sum()), 1)


def loss_without_knowledge(labels: ArrayLike) -> float:
    """Cross entropy of a model that knows the frequencies of the classes and nothing of the images, nats per example.

    labels: (N,) classes, or (N, num_classes) in {1, 0, -1}, -1 = unknown: then the mean over known labels of the
    binary cross entropy at each class's frequency. The entropy of the labels at hand, the least that any constant
    prediction can reach on them.
    """
    classes = np.asarray(labels)
    if classes.ndim == 1:
        return _entropy(np.unique(classes, return_counts=True)[1].astype(float), None)
    return _entropy((classes > 0).sum(axis=0).astype(float), (classes == 0).sum(axis=0).astype(float))


def loss_of_guessing(class_sizes: pd.DataFrame, metric: str) -> float:
    """`loss_without_knowledge` of a part of a task by its counts; NaN without labels.

    class_sizes: columns count and negatives, a row per class of the part. metric: by which the task is judged, `auc`
    where examples have several labels.
    """
    present, absent = (class_sizes[name].to_numpy(dtype=float) for name in ("count", "negatives"))
    return _entropy(present, None if metric == "accuracy" else absent) if present.any() or absent.any() else math.nan


def _entropy(present: NDArray[np.floating], absent: NDArray[np.floating] | None) -> float:
    """Of classes that exclude each other, or of findings that are known to be present or absent, weighted by these."""
    if absent is None:
        return float(entr(present / present.sum()).sum())
    known = present + absent
    rates = present / known.clip(1)
    return float(((entr(rates) + entr(1 - rates)) * known).sum() / max(known.sum(), 1))
