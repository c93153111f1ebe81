"""What a run's history is summarised to."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from transferscope.analysis.learning import chance_level, summarise

SIZES = pd.DataFrame(
    {
        "part": ["train", "train", "test", "test"],
        "class_name": ["a", "b", "a", "b"],
        "count": [90, 10, 75, 25],
        "negatives": [10, 90, 25, 75],
    }
)


RATES = {"pt_1": 0.1}


def history(test: list[float]) -> pd.DataFrame:
    epochs = len(test)
    return pd.DataFrame(
        {
            "task": "clipart",
            "run": "pt_1",
            "kind": "pt",
            "label": "P-T",
            "epoch": range(epochs),
            "train_accuracy": [0.1, 0.5, 0.7][:epochs],
            "lr": [math.nan, 0.1, 0.01][:epochs],
            "train_loss_eval": 1.0,
            "test_accuracy": test,
            "test_loss": 2.0,
        }
    )


def test_final_best_and_speed() -> None:
    """The best epoch is that of the largest test metric; the speed averages the train metric from epoch 1 on."""
    row = summarise(history([0.1, 0.95, 0.9]), SIZES, {"pt_1": "finished"}, RATES).iloc[0]
    assert (row["final_test"], row["best_test"], row["best_epoch"]) == (0.9, 0.95, 1)
    assert row["optimization_speed"] == pytest.approx(0.6)
    assert row["status"] == "finished"


def test_the_learning_rate_is_that_of_the_plan() -> None:
    """Also of a run that diverged in its warm-up, whose history holds smaller ones; a file has none."""
    warming_up = history([0.1, math.nan]).assign(lr=[math.nan, 0.002])
    assert summarise(warming_up, SIZES, {"pt_1": "diverged"}, RATES).iloc[0]["lr"] == 0.1
    assert math.isnan(summarise(history([0.1, 0.9]), SIZES, {"pt_1": "finished"}, {}).iloc[0]["lr"])


def test_a_checkpoint_file_has_no_speed() -> None:
    """Its one epoch says nothing of the training that made it."""
    file = history([0.1, 0.9]).iloc[1:].assign(lr=math.nan)
    assert math.isnan(summarise(file, SIZES, {"pt_1": "finished"}, RATES).iloc[0]["optimization_speed"])


def test_learned_means_beyond_the_largest_class() -> None:
    """With 75 % of one class an accuracy of 80 % says little and 90 % says something: the error is 4.3 points."""
    assert not summarise(history([0.1, 0.8]), SIZES, {"pt_1": "finished"}, RATES).iloc[0]["learned"]
    assert summarise(history([0.1, 0.9]), SIZES, {"pt_1": "finished"}, RATES).iloc[0]["learned"]


def test_a_diverged_run_keeps_its_last_metrics_and_has_not_learned() -> None:
    """Epochs without a metric are left out; the status says why there are none."""
    row = summarise(history([0.1, 0.2, math.nan]), SIZES, {"pt_1": "diverged"}, RATES).iloc[0]
    assert row["final_test"] == 0.2
    assert row["status"] == "diverged"
    assert not row["learned"]


def test_the_error_of_an_auc_without_knowledge_is_that_of_random_scores() -> None:
    """The standard error by Mann-Whitney agrees with the spread of AUCs of random scores, mean over two classes."""
    ranks = np.random.default_rng(0).random((2, 20000, 100)).argsort(axis=-1).argsort(axis=-1) + 1
    positives = np.array([75, 25])[:, None]
    above = ranks[0, :, :75].sum(axis=-1), ranks[1, :, :25].sum(axis=-1)
    aucs = (np.array(above) - positives * (positives + 1) / 2) / (75 * 25)
    draws = aucs.mean(axis=0)
    chance, error = chance_level(SIZES, "auc")
    assert chance == 0.5
    assert np.std(draws) == pytest.approx(error, rel=0.02)


def test_a_metric_that_no_epoch_has_is_missing_and_no_more() -> None:
    """An AUC of a test part that knows one value only: the run has its row, and has not learned."""
    row = summarise(history([math.nan, math.nan]), SIZES, {"pt_1": "finished"}, RATES).iloc[0]
    assert math.isnan(row["final_test"])
    assert row["epochs"] == 1
    assert not row["learned"]


def test_the_best_epoch_is_one_that_has_the_metric() -> None:
    """Validation without a value in one epoch, as an AUC may be: never that epoch."""
    validated = history([0.1, 0.5, 0.6]).assign(validation_accuracy=[0.1, 0.4, math.nan])
    assert summarise(validated, SIZES, {"pt_1": "finished"}, RATES).iloc[0]["best_epoch"] == 1
