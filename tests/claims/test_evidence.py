"""Which rows of the tables a claim gets, and the numbers behind claims where the tables lack something."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from drawn_study import change_study
from transferscope.claims import criticality, mistakes, similarity, spectrum, training
from transferscope.claims.comparisons import Comparison
from transferscope.claims.evidence import Evidence, TaskResults
from transferscope.claims.registry import registered
from transferscope.experiment.plan import Plan
from transferscope.system.errors import UserError


def evidence(plan: Plan, task: str = "clipart", **tables: pd.DataFrame) -> Evidence:
    return Evidence(plan, {task: TaskResults(task, tables=tables)})


def pair(first: str, second: str, **columns: Any) -> dict[str, Any]:
    """A row of a table of pairs on clipart."""
    names = {"checkpoint_a": f"clipart.{first}", "checkpoint_b": f"clipart.{second}"}
    return names | {"pair_kind": "labels decide nothing"} | columns


def pairs_of(table: list[dict[str, Any]], plan: Plan, *roles: Any) -> list[str]:
    found = evidence(plan, cka=pd.DataFrame(table)).pairs("clipart", "cka", *roles)
    return [] if found.rows.empty else list(found.rows["pair"])


def test_roles_choose_the_rows(plan: Plan) -> None:
    """Replicas of both roles: no variant of a kind, no untrained weights, no model with itself, no other task's."""
    table = [
        pair("pt_1@final", "rit_1@final"),
        pair("pt_large_lr_1@final", "rit_1@final"),
        pair("pt_1@final", "rit_1@0"),
        pair("pt_1@final", "pt_1@final"),
        pair("pt_1@final", "pt_2@final"),
        pair("rit_1@0", "rit_2@0"),
        {"checkpoint_a": "clipart.pt_1@final", "checkpoint_b": "shapes.p_1@final"},
        {"checkpoint_a": "real.pt_1@final", "checkpoint_b": "real.rit_1@final"},
    ]
    a = "clipart.pt_1@final"
    assert pairs_of(table, plan, "fine_tuned", "from_scratch") == [f"{a} & clipart.rit_1@final"]
    assert pairs_of(table, plan, "fine_tuned", "fine_tuned") == [f"{a} & clipart.pt_2@final"]
    assert pairs_of(table, plan, "fine_tuned", "source") == [f"{a} & shapes.p_1@final"]
    assert pairs_of(table, plan, "from_scratch", "from_scratch") == []


def test_shared_weights_are_those_of_the_other_run(plan: Plan) -> None:
    """A pair with the same initialisation is one of the same replica; two other replicas share nothing."""
    table = [pair("rit_1@final", "rit_same_init_1@final"), pair("rit_1@final", "rit_same_init_2@final")]
    assert pairs_of(table, plan, "from_scratch", "shared_init") == [
        "clipart.rit_1@final & clipart.rit_same_init_1@final"
    ]


def test_the_order_in_a_table_does_not_matter(plan: Plan) -> None:
    """A pair that the plan names the other way round is turned, with its columns of both sides."""
    row = pair("rit_1@final", "pt_1@final", uncommon_ratio_a=0.7, uncommon_ratio_b=0.2, accuracy_a_low=0.1, kappa=0.4)
    rows = evidence(plan, mistakes=pd.DataFrame([row])).pairs("clipart", "mistakes", "fine_tuned", "from_scratch").rows
    (turned,) = rows.to_dict("records")
    assert turned["pair"] == "clipart.pt_1@final & clipart.rit_1@final"
    assert (turned["uncommon_ratio_a"], turned["uncommon_ratio_b"], turned["kappa"]) == (0.2, 0.7, 0.4)
    assert turned["accuracy_b_low"] == 0.1


def test_final_epochs_count_where_there_are_some(plan: Plan) -> None:
    """Best weights are compared only where the table has no final ones."""
    best, final = pair("pt_1@best", "pt_2@best"), pair("pt_1@final", "pt_2@final")
    both = ("fine_tuned", "fine_tuned")
    assert pairs_of([best, final], plan, *both) == ["clipart.pt_1@final & clipart.pt_2@final"]
    assert pairs_of([best], plan, *both) == ["clipart.pt_1@best & clipart.pt_2@best"]


def test_travelled_is_from_a_run_to_its_own_start(plan: Plan) -> None:
    """Not to another run's initial weights."""
    table = pd.DataFrame([pair("pt_1@final", "pt_1@0"), pair("pt_1@final", "pt_2@0"), pair("rit_1@final", "rit_1@0")])
    rows = evidence(plan, distances=table).travelled("clipart", "fine_tuned").rows
    assert list(rows["pair"]) == ["clipart.pt_1@final & clipart.pt_1@0"]


def test_a_run_of_another_plan_is_refused(plan: Plan) -> None:
    """One line that names it, and no silent gap."""
    history = pd.DataFrame({"run": ["old_1"], "epoch": [1], "lr": [0.1], "test_accuracy": [0.5]})
    with pytest.raises(UserError, match=r"clipart\.old_1, which the plan does not have"):
        list(training.final_score(evidence(plan, history=history)))


def cka(**values: float) -> pd.DataFrame:
    """One pair of two runs from scratch at one layer, a row for each estimator."""
    rows = [pair("rit_1@final", "rit_2@final", estimator=name, cka=value) for name, value in values.items()]
    return pd.DataFrame(rows).assign(features="pooled", layer="conv1")


def firsts(comparisons: Any) -> list[float]:
    return [one.first for one in comparisons]


def test_the_floor_is_not_held_against_a_biased_estimate(plan: Plan) -> None:
    """Of unrelated features that is far above 0; the unbiased one beside it decides, and alone it says nothing."""
    assert firsts(similarity.cka_floor(evidence(plan, cka=cka(biased=0.5, minibatch=0.03)))) == [0.03]
    assert firsts(similarity.cka_floor(evidence(plan, cka=cka(minibatch=0.03, debiased=0.02)))) == [0.02]
    assert firsts(similarity.cka_floor(evidence(plan, cka=cka(biased=0.5)))) == []


def test_ratios_are_compared_on_the_classes_that_both_have(plan: Plan) -> None:
    """A model without mistakes in a class has no ratio there; the other's must not count either."""
    rows = [
        pair("pt_1@final", "rit_1@final", class_name="A", uncommon_ratio_a=np.nan, uncommon_ratio_b=1.0),
        pair("pt_1@final", "rit_1@final", class_name="B", uncommon_ratio_a=0.3, uncommon_ratio_b=0.2),
    ]
    (one,) = mistakes.uncommon_mistakes(evidence(plan, mistakes=pd.DataFrame(rows)))
    assert np.isclose(one.value, -0.1)


def test_a_pair_without_any_ratio_is_named(plan: Plan) -> None:
    """It is left out, not forgotten."""
    rows = [pair("pt_1@final", "rit_1@final", class_name="A", uncommon_ratio_a=np.nan, uncommon_ratio_b=1.0)]
    (one,) = mistakes.uncommon_mistakes(evidence(plan, mistakes=pd.DataFrame(rows)))
    assert (one.counted, one.note) == (False, "no finite value")


def test_a_large_learning_rate_that_diverged_in_its_warm_up_is_the_large_one(plan: Plan) -> None:
    """Its history has seen a small part of it only."""
    history = pd.DataFrame(
        {
            "run": ["pt_1", "pt_1", "pt_large_lr_1"],
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
    (one,) = training.pt_small_lr(evidence(plan, history=history, runs=runs))
    assert (one.first, one.second, one.value) == (0.7, 0.0, 0.7)


def test_extremes_of_the_rate_are_compared() -> None:
    """Of three rates the smallest and the largest, whatever the kinds are called and however they are ordered."""
    lr = {"pt": 0.02, "pt_large_lr": 0.3, "rit_small_lr": 0.1}
    plan = change_study(
        runs__rit_small_lr={
            "label": "x",
            "tasks": ["clipart"],
            "initialisation": "pretrained",
            "pretrained": "shapes.p_1",
        }
    )
    history = pd.DataFrame(
        [{"run": f"{kind}_1", "epoch": 1, "lr": rate, "test_accuracy": 1 - rate} for kind, rate in lr.items()]
    )
    (one,) = training.pt_small_lr(evidence(plan, history=history))
    assert one.unit == "clipart.pt_1 : clipart.pt_large_lr_1"


def finding(first: str, second: str, name: str, predicted: int, common: int) -> dict[str, Any]:
    ratio = 10 / (10 + common)
    return pair(
        f"{first}@final", f"{second}@final", class_name=name, num_predicted_a=predicted, num_predicted_b=0,
        common_mistakes=common, only_a_correct=10, only_b_correct=10, uncommon_ratio_a=ratio, uncommon_ratio_b=ratio,
    )  # fmt: skip


def test_findings_that_neither_model_predicts_are_left_out_of_mistakes(plan: Plan) -> None:
    """In all kinds of pairs, so that means are over the same findings; a row names them."""
    table = pd.DataFrame(
        [
            finding("pt_1", "pt_2", "edema", 5, 80),
            finding("pt_1", "rit_1", "edema", 5, 30),
            finding("pt_1", "pt_2", "atelectasis", 5, 80),
            finding("pt_1", "rit_1", "atelectasis", 0, 80),
        ]
    )
    one, left_out = mistakes.shared_mistakes_mixed(evidence(plan, mistakes=table))
    assert np.isclose(one.value, 80 / 100 - 30 / 50)
    assert (left_out.counted, left_out.unit, left_out.note) == (
        False,
        "clipart: atelectasis",
        "predicted by neither model",
    )


def test_small_values_are_counted_below_one_threshold_for_all_tasks(plan: Plan) -> None:
    """Shares of two tasks stand side by side, so they must be of the same thing."""

    def task(name: str, below_small: int, below_large: int) -> TaskResults:
        table = pd.DataFrame({"run": ["pt_1", "rit_1"], "epoch": 1, "module": "all", "num_values": 100})
        counts = {"count_below_0.01": [below_small, below_small + 2], "count_below_0.1": [below_large, below_large + 4]}
        return TaskResults(name, tables={"spectrum": table.assign(**counts)})

    both = Evidence(plan, {"real": task("real", 9, 60), "clipart": task("clipart", 1, 11)})
    assert {(one.place, round(one.first, 2)) for one in spectrum.near_zero(both)} == {("real", 0.11), ("clipart", 0.03)}


def rise(values: list[float], run: str = "pt_1") -> list[Comparison]:
    """The claim on depth of one run with these criticalities and a classifier."""
    plan = change_study()
    rows = [
        {"run": run, "module": str(i), "path": "direct", "end": "final", "epsilon": 0.1, "mu": mu}
        for i, mu in enumerate([*values, 0.0])
    ]
    return list(criticality.criticality_depth(evidence(plan, module_criticality=pd.DataFrame(rows))))


def test_depth_is_a_rank_correlation() -> None:
    """scipy's Spearman coefficient, also where criticality is infinite."""
    from scipy.stats import spearmanr

    for values in ([0.1, 0.3, 0.2, 5.0], [0.0, 0.0, 2.0, np.inf], [3.0, 2.0, 1.0]):
        ranks = pd.Series(values).rank()
        (one,) = rise(values)
        assert np.isclose(one.first, spearmanr(range(len(values)), ranks).statistic)


def test_depth_says_nothing_where_all_modules_are_alike() -> None:
    """Such a run is named, one from scratch is not asked, and two modules are no trend."""
    (one,) = rise([0.0, 0.0, 0.0])
    assert (one.counted, one.unit, one.note) == (False, "clipart.pt_1", "the same criticality in all modules")
    assert rise([0.1, 0.2, 0.3], run="rit_1") == []
    assert rise([0.1, 0.2]) == []


def test_runs_that_failed_are_named_by_every_claim_that_leaves_them_out(plan: Plan, drawn: Any) -> None:
    """Also where nothing is left to compare: no claim passes over a run in silence."""
    results = drawn()
    for task in ("real", "clipart", "chest", "real_clipart"):
        runs = results[task].tables["runs"].assign(learned=False)
        results[task] = TaskResults(task, tables=results[task].tables | {"runs": runs})
    silent = {
        claim.id
        for claim in registered().values()
        if "not learned" not in {one.note for one in claim.measure(Evidence(plan, results))}
    }
    assert silent == {"final_score", "speed", "pt_small_lr", "rit_large_lr"}  # these count every run


def test_without_a_threshold_that_tells_runs_apart_spectra_are_not_compared(plan: Plan) -> None:
    """All counts are 0 or all values: the runs are named."""
    table = pd.DataFrame({"run": ["pt_1", "rit_1"], "epoch": 1, "module": "all", "num_values": 100, "count_below_1": 0})
    found = list(spectrum.near_zero(evidence(plan, spectrum=table)))
    assert [(one.unit, one.counted) for one in found] == [("clipart.rit_1", False), ("clipart.pt_1", False)]
