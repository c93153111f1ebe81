"""Numbers behind the claims, where the tables lack something."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from transferscope.claims.results import TaskResults

from transferscope.claims import effects
from transferscope.claims.evidence import Evidence


def evidence(**tables: pd.DataFrame) -> Evidence:
    return Evidence({}, {"clipart": TaskResults("clipart", tables=tables)})


def cka(**values: float) -> pd.DataFrame:
    """One pair of RI-T at one layer, a row for each estimator."""
    rows: list[dict[str, Any]] = [{"estimator": name, "cka": value} for name, value in values.items()]
    pair = {"pair_kind": "RI-T & RI-T", "checkpoint_a": "clipart.rit_1@final", "checkpoint_b": "clipart.rit_2@final"}
    return pd.DataFrame(rows).assign(features="pooled", layer="conv1", **pair)


def test_the_floor_is_not_held_against_a_biased_estimate() -> None:
    """Of unrelated features that is far above 0; the unbiased one beside it decides, and alone it says nothing."""
    assert [effect.first for effect in effects.cka_floor(evidence(cka=cka(biased=0.5, minibatch=0.03)))] == [0.03]
    assert [effect.first for effect in effects.cka_floor(evidence(cka=cka(minibatch=0.03, debiased=0.02)))] == [0.02]
    assert effects.cka_floor(evidence(cka=cka(biased=0.5))) == []


def test_ratios_are_compared_on_the_classes_that_both_have() -> None:
    """A model without mistakes in a class has no ratio there; the other's must not count either."""
    pair = {"pair_kind": "P-T & RI-T", "checkpoint_a": "clipart.pt_1@final", "checkpoint_b": "clipart.rit_1@final"}
    ratios = {"uncommon_ratio_a": [np.nan, 0.3], "uncommon_ratio_b": [1.0, 0.2]}
    (effect,) = effects.uncommon_ratio(evidence(mistakes=pd.DataFrame(ratios).assign(class_name=["A", "B"], **pair)))
    assert np.isclose(effect.value, -0.1)


def test_a_large_learning_rate_that_diverged_in_its_warm_up_is_the_large_one() -> None:
    """Its history has seen a small part of it only."""
    history = pd.DataFrame(
        {
            "task": "clipart",
            "run": ["pt_1", "pt_1", "pt_large_lr_1"],
            "label": ["P-T", "P-T", "P-T large lr"],
            "epoch": [0, 1, 0],
            "lr": [np.nan, 0.01, 0.05 / 38],
            "test_accuracy": [0.1, 0.7, 0.1],
        }
    )
    runs = pd.DataFrame(
        {
            "run": ["pt_1", "pt_large_lr_1"],
            "lr": [0.01, 0.05],
            "status": ["finished", "diverged"],
            "learned": [True, False],
            "optimization_speed": [0.6, np.nan],
        }
    )
    (effect,) = effects.pt_prefers_smaller_lr(evidence(history=history, runs=runs))
    assert effect.value == 0.7


def mistakes(kind: str, name: str, predicted: int, common: int) -> dict[str, Any]:
    runs = {"P-T & P-T": ("pt_1", "pt_2"), "P-T & RI-T": ("pt_1", "rit_1")}[kind]
    pair = {f"checkpoint_{side}": f"chest.{run}@final" for side, run in zip("ab", runs, strict=True)}
    counts = {"common_mistakes": common, "only_a_correct": 10, "only_b_correct": 10}
    ratios = dict.fromkeys(("uncommon_ratio_a", "uncommon_ratio_b"), 10 / (10 + common))
    return {
        "pair_kind": kind,
        "class_name": name,
        "num_predicted_a": predicted,
        "num_predicted_b": 0,
        **pair,
        **counts,
        **ratios,
    }


def test_findings_that_nobody_predicts_are_left_out_of_mistakes() -> None:
    """In all kinds of pairs, so that means are over the same findings; the claim names them."""
    table = pd.DataFrame(
        [
            mistakes("P-T & P-T", "edema", 5, 80),
            mistakes("P-T & RI-T", "edema", 5, 30),
            mistakes("P-T & P-T", "atelectasis", 5, 80),
            mistakes("P-T & RI-T", "atelectasis", 0, 80),
        ]
    )
    found = evidence(mistakes=table)
    (effect,) = effects.shared_mistakes_over_mixed(found)
    assert np.isclose(effect.value, 80 / 100 - 30 / 50)
    assert list(found.left_out) == ["clipart: atelectasis (predicted by neither model)"]


def test_small_values_are_counted_below_one_threshold_for_all_tasks() -> None:
    """Shares of two tasks stand side by side, so they must be of the same thing."""
    runs = pd.DataFrame({"run": ["pt_1", "rit_1"], "status": "finished", "learned": True, "lr": 0.1})
    history = pd.DataFrame(
        {"run": ["pt_1", "rit_1"], "label": ["P-T", "RI-T"], "epoch": 1, "lr": 0.1, "test_accuracy": 0.9}
    )

    def task(name: str, below_small: int, below_large: int) -> TaskResults:
        spectrum = pd.DataFrame({"run": ["pt_1", "rit_1"], "epoch": 1, "module": "all", "num_values": 100})
        counts = {"count_below_0.01": [below_small, below_small + 2], "count_below_0.1": [below_large, below_large + 4]}
        tables = {"spectrum": spectrum.assign(**counts), "runs": runs, "history": history.assign(task=name)}
        return TaskResults(name, tables=tables)

    both = Evidence({}, {"a": task("a", 9, 60), "b": task("b", 1, 11)})
    assert {(effect.place, round(effect.first, 2)) for effect in effects.near_zero(both)} == {("a", 0.11), ("b", 0.03)}
