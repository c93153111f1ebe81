"""What a run's history says: how far it came, how fast, and whether it learned at all."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

CHANCE_MARGIN = 3.0
"""Standard errors above chance from which a run counts as having learned."""


def summarise(
    history: pd.DataFrame,
    class_sizes: pd.DataFrame,
    status: Mapping[str, str],
    learning_rates: Mapping[str, float],
) -> pd.DataFrame:
    """A row per run: final and best metrics, optimisation speed, status.

    history: rows of one task, a row per run and epoch, columns run, kind, label, epoch, lr, train_accuracy,
    test_accuracy, ... (AUC where the task is multi-label). class_sizes: columns part, class_name, count, negatives.
    status: run -> "finished" or "diverged". learning_rates: the largest of each run's schedule, by plan: a run that
    diverges in its warm-up never sees it; nan for a run without one.

    Metrics are those of the last epoch that has the task's metric; all nan where none has. `metric` is what the task is
    judged by: AUC of a multi-label task, else accuracy. `best_epoch` is the best trained one on the part `chosen_on`:
    validation where the history has it, else test, as the authors chose. `optimization_speed` is the train metric
    averaged over the measured epochs from 1 on (facts of the main text, Figure 3); nan for a checkpoint file, whose
    training is not known.
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
                "chance": chance,
                "learned": bool(final > chance + CHANCE_MARGIN * error),
            }
        )
    return pd.DataFrame(rows)


def chance_level(class_sizes: pd.DataFrame, metric: str) -> tuple[float, float]:
    """What a model without knowledge reaches on the test part, and the standard error of that.

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
