"""What a run's history is summarised to."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from transferscope.analysis.evaluator import per_example
from transferscope.analysis.learning import chance_level, loss_without_knowledge, rise_at_the_end, summarise

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


def test_loss_without_knowledge_is_the_least_of_a_constant_prediction() -> None:
    """The least cross entropy over constant logits, found by descent, of classes and of labels of which some are unknown."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    several = torch.randint(-1, 2, (40, 3), generator=generator)
    for labels, size in ((classes, 3), (several, 3)):
        constant = torch.zeros(size, requires_grad=True)

        def loss(constant: torch.Tensor = constant, labels: torch.Tensor = labels) -> torch.Tensor:
            _, losses, known = per_example(constant.expand(len(labels), -1), labels)
            return losses.sum() / known.sum()

        optimizer = torch.optim.LBFGS([constant], max_iter=100)

        def closure(optimizer: torch.optim.Optimizer = optimizer, loss=loss) -> torch.Tensor:
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return value

        optimizer.step(closure)
        assert loss_without_knowledge(labels.numpy()) == pytest.approx(loss().item(), abs=1e-6)


def rising(train: list[float], epochs: list[int], metric: str = "accuracy") -> pd.DataFrame:
    table = history([0.5] * len(train)).drop(columns=["train_accuracy", "test_accuracy"])
    return table.assign(epoch=epochs, lr=0.1, **{f"train_{metric}": train, f"test_{metric}": 0.5})


def test_a_run_that_still_rises_is_named() -> None:
    """From 43 to 72 % in three epochs of 100 train examples: 9.7 points per epoch, beyond doubt; a flat end is not."""
    row = summarise(rising([0.2, 0.43, 0.72], [6, 9, 12]), SIZES, {"pt_1": "finished"}, RATES).iloc[0]
    assert row["last_rise"] == pytest.approx(0.29 / 3)
    assert row["last_rise_low"] < row["last_rise"] < row["last_rise_high"]
    assert row["still_rising"]
    for train in ([0.2, 1.0, 1.0], [0.2, 0.97, 0.99], [0.2, 0.8, 0.7]):
        assert not summarise(rising(train, [6, 9, 12]), SIZES, {"pt_1": "finished"}, RATES).iloc[0]["still_rising"]


def test_a_run_measured_once_and_a_file_have_no_rise() -> None:
    """One measurement says nothing of what comes next; nor does a checkpoint file, whose training is not known."""
    once = summarise(history([0.1, 0.9]), SIZES, {"pt_1": "finished"}, RATES).iloc[0]
    file = summarise(history([0.1, 0.9, 0.9]).assign(lr=math.nan), SIZES, {"pt_1": "finished"}, RATES).iloc[0]
    for row in (once, file):
        assert math.isnan(row["last_rise"])
        assert not row["still_rising"]


@pytest.mark.parametrize("num", [100, 500])
def test_intervals_of_the_rise_hold_the_true_one(num: int) -> None:
    """Of 1,000 pairs of epochs 95 % or more hold the true rise, if errors are independent and if they are nested."""
    generator = np.random.default_rng(num)
    sizes = SIZES.assign(count=[num, 0, 75, 25])
    for nested in (True, False):
        held = []
        for _ in range(1000):
            draws = generator.random((2, num)) if not nested else np.tile(generator.random(num), (2, 1))
            first, second = (draws < np.array([[0.7], [0.8]])).mean(axis=1)
            rise = rise_at_the_end(rising([first, second], [1, 2]), sizes, "accuracy")
            held.append(rise.low <= 0.1 <= rise.high)
        assert np.mean(held) >= 0.95


def test_the_error_of_an_auc_is_that_of_its_samples() -> None:
    """Hanley and McNeil's formula agrees with the spread of AUCs of exponential scores, for which it is exact."""
    generator = np.random.default_rng(0)
    positives, negatives = generator.exponential(3.0, (2000, 40)), generator.exponential(1.0, (2000, 60))
    areas = [stats.mannwhitneyu(p, n).statistic / 2400 for p, n in zip(positives[:600], negatives[:600], strict=True)]
    sizes = SIZES.assign(count=[40, 0, 1, 1], negatives=[60, 10, 1, 1])
    rise = rise_at_the_end(rising([0.75, 0.75], [1, 2], "auc"), sizes, "auc")
    assert rise.value == 0
    assert rise.high / 1.96 == pytest.approx(np.sqrt(2) * np.std(areas), rel=0.08)


@pytest.mark.parametrize(("metric", "values"), [("accuracy", [0.7, 0.8]), ("auc", [0.7, 0.8])])
def test_a_rise_that_was_measured_on_some_images_is_as_sure_as_these(metric: str, values: list[float]) -> None:
    """The interval is that of a split of that many images, which is wider than that of all; more than all is all."""
    some = SIZES.assign(count=[300, 200, 75, 25], negatives=[150, 300, 25, 75], ignored=[50, 0, 0, 0])
    whole = some.assign(**some[["count", "negatives", "ignored"]] * 10)
    trained = rising(values, [1, 2], metric)
    of_all = rise_at_the_end(trained, whole, metric)
    measured = rise_at_the_end(trained, whole, metric, evaluated=500)
    alone = rise_at_the_end(trained, some, metric)
    assert (measured.low, measured.high) == pytest.approx((alone.low, alone.high))
    assert measured.high - measured.low > 3 * (of_all.high - of_all.low)
    assert rise_at_the_end(trained, whole, metric, evaluated=10**6) == of_all


def test_a_run_is_no_longer_sure_to_rise_on_few_images() -> None:
    """A gain that all images show beyond chance, and fifty do not."""
    table = rising([0.2, 0.7, 0.75], [6, 9, 12])
    sizes = SIZES.assign(count=[30000, 20000, 75, 25])
    shown = [
        summarise(table, sizes, {"pt_1": "finished"}, RATES, {"pt_1": evaluated}).iloc[0]["still_rising"]
        for evaluated in (None, 50)
    ]
    assert shown == [True, False]
