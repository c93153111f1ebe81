"""Which rows of the tables a claim gets, and the numbers behind claims where the tables lack something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy

from drawn_study import change_study
from transferscope.claims import criticality, cross_domain, landscape, mistakes, similarity, spectrum, training
from transferscope.claims.comparisons import Comparison
from transferscope.claims.evidence import Evidence, TaskResults
from transferscope.claims.registry import registered
from transferscope.claims.verdict import decide
from transferscope.experiment.plan import Plan
from transferscope.system.errors import UserError


def evidence(plan: Plan, task: str = "clipart", **tables: pd.DataFrame) -> Evidence:
    return Evidence(plan, {task: TaskResults(task, tables=tables)})


def pair(first: str, second: str, **columns: Any) -> dict[str, Any]:
    """A row of a table of pairs on clipart."""
    names = {"checkpoint_a": f"clipart.{first}", "checkpoint_b": f"clipart.{second}"}
    return names | {"pair_kind": "labels decide nothing"} | columns


def pairs_of(table: list[dict[str, Any]], plan: Plan, *roles: Any) -> list[str]:
    rows = evidence(plan, cka=pd.DataFrame(table)).pairs("clipart", "cka", *roles)
    return [] if rows.rows.empty else list(rows.rows["pair"])


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


def test_the_chosen_kind_of_a_role_gives_the_rows() -> None:
    """Rows and scores of P-T are those of the kind with `compared: true` where it runs, and of the first one elsewhere."""
    pairs = {"pairs": [["pt_large_lr", "rit"], ["pt", "rit"]]}
    analyses = {f"analyses__{name}": pairs for name in ("mistakes", "similarity", "landscape")}
    plan = change_study(runs__pt_large_lr__compared=True, **analyses)
    table = [pair("pt_1@final", "rit_1@final"), pair("pt_large_lr_1@final", "rit_1@final")]
    assert pairs_of(table, plan, "fine_tuned", "from_scratch") == ["clipart.pt_large_lr_1@final & clipart.rit_1@final"]
    runs = ["pt_1", "pt_large_lr_1", "pt_large_lr_2"]
    history = pd.DataFrame({"run": runs, "epoch": 1, "lr": 0.1, "test_accuracy": [0.9, 0.5, 0.6]})
    scores = evidence(plan, history=history).scores("clipart", "fine_tuned").values
    assert {str(name): value for name, value in scores.items()} == {
        "clipart.pt_large_lr_1": 0.5,
        "clipart.pt_large_lr_2": 0.6,
    }
    assert [run.name for run in plan.compared("real", "fine_tuned")] == ["pt_1", "pt_2"]


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


def counts(common: int, only_a: int, only_b: int, number: int = 500) -> dict[str, int]:
    return {"common_mistakes": common, "only_a_correct": only_a, "only_b_correct": only_b, "num_examples": number}


def overlap(*rows: dict[str, int]) -> list[float]:
    return mistakes.excess_overlap(pd.DataFrame(rows)).tolist()


def test_overlap_is_beyond_what_accuracy_forces() -> None:
    """1 where the better model's mistakes are all the other's, however many more that makes; 0 as by chance.

    It is kappa over its largest value, and undefined where a model makes no mistake.
    """
    assert overlap(counts(50, 200, 0), counts(50, 0, 0)) == [1.0, 1.0]
    assert np.isclose(overlap(counts(20, 80, 80))[0], 0.0)  # 100 * 100 / 500
    assert np.isnan(overlap(counts(0, 30, 0))[0])
    row = counts(60, 90, 40)
    agreed, first, second = 1 - 130 / 500, 100 / 500, 150 / 500  # of both right or both wrong; mistakes of either
    chance = first * second + (1 - first) * (1 - second)
    most = (1 - abs(first - second) - chance) / (1 - chance)
    assert np.isclose(overlap(row)[0], (agreed - chance) / (1 - chance) / most)


def test_a_pair_without_mistakes_is_named(plan: Plan) -> None:
    """It is left out, not forgotten."""
    rows = [pair("pt_1@final", other, class_name="A", **counts(0, 5, 0)) for other in ("pt_2@final", "rit_1@final")]
    comparisons = list(mistakes.shared_mistakes_mixed(evidence(plan, mistakes=pd.DataFrame(rows))))
    assert {(one.counted, one.note) for one in comparisons} == {(False, "no finite value")}


def test_a_learning_rate_at_which_a_run_diverged_is_named(plan: Plan) -> None:
    """Its history has seen a small part of the rate only, and it carries no verdict."""
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
    assert (one.counted, one.unit, one.note) == (False, "clipart.pt_large_lr_1", "diverged")


@pytest.mark.parametrize(("positives", "auc"), [(2, 1.0), (0, np.nan)])
def test_findings_with_few_images_do_not_count_in_a_mean_auc(plan: Plan, positives: int, auc: float) -> None:
    """The final metric is the mean over the others, which the claim says; its error is Hanley and McNeil's."""
    history = pd.DataFrame(
        [
            {"run": run, "epoch": 1, "lr": 0.1, "test_auc": 0.9, "test_auc/A": known, "test_auc/B": auc}
            for run, known in (("pt_1", 0.8), ("rit_1", 0.7))
        ]
    )
    counts = {"count": [50, positives], "negatives": [150, 200 - positives]}
    sizes = pd.DataFrame({"part": "test", "class_name": ["A", "B"], **counts})
    comparisons = list(training.final_score(evidence(plan, history=history, class_sizes=sizes)))
    (one,) = [row for row in comparisons if row.counted]
    assert np.isclose(one.effect, 0.1)
    assert [row.unit for row in comparisons if not row.counted] == ["clipart: B"]
    squares = [
        (a * (1 - a) + 49 * (a / (2 - a) - a**2) + 149 * (2 * a**2 / (1 + a) - a**2)) / (50 * 150) for a in (0.8, 0.7)
    ]
    assert np.isclose(one.error, np.sqrt(sum(squares)))


SEVERAL_P: dict[str, Any] = {
    "runs__p__replicas": 2,
    "runs__pt_large_lr": {
        "label": "P-T",
        "tasks": ["clipart"],
        "replicas": 2,
        "initialisation": "pretrained",
        "pretrained": "shapes.p_2",
        "training": {"lr": 0.01},
    },
}
"""A kind that starts from a second replica of P and is trained like the first one."""


def test_replicas_of_p_give_replicas_of_its_children() -> None:
    """Kinds from two replicas of P are compared together, each P is a unit, and pairs do not mix them."""
    plan = change_study(**SEVERAL_P)
    both = [pair("pt_1@final", other) for other in ("pt_2@final", "pt_large_lr_1@final")]
    assert pairs_of(both, plan, "fine_tuned", "fine_tuned") == ["clipart.pt_1@final & clipart.pt_2@final"]
    names = [f"{kind}_{i}" for kind in ("pt", "pt_large_lr", "rit") for i in (1, 2)]
    scores = dict(zip(names, (0.9, 0.8, 0.7, 0.6, 0.3, 0.2), strict=True))
    history = pd.DataFrame([{"run": run, "epoch": 1, "lr": 0.1, "test_accuracy": x} for run, x in scores.items()])
    drawn = evidence(plan, history=history)
    rows = [one for one in training.final_score(drawn) if one.counted]
    assert len(rows) == 8
    verdict = decide(rows, drawn.kinship())
    assert verdict.covers == "other P and other runs on this task"
    assert verdict.verdict == "cannot tell"  # two P, 1 degree of freedom


def test_a_start_from_another_epoch_of_p_is_a_variant() -> None:
    """Such runs are no replicas of those from P's last epoch."""
    runs = SEVERAL_P["runs__pt_large_lr"] | {"label": "P-T of the best", "pretrained_epoch": "best"}
    plan = change_study(**SEVERAL_P | {"runs__pt_large_lr": runs})
    assert [run.name for run in plan.compared("clipart", "fine_tuned")] == ["pt_1", "pt_2"]


def test_a_union_counts_where_its_parts_have_no_runs(plan: Plan, drawn: Any) -> None:
    """A view of one task is the task, and no second one beside it."""
    results = drawn()
    assert Evidence(plan, results).compared_tasks == ["real", "clipart", "chest"]
    assert Evidence(plan, {"real_clipart": results["real_clipart"]}).compared_tasks == ["real_clipart"]


def lines(values: dict[tuple[str, str, str], float], metric: str = "accuracy") -> dict[str, TaskResults]:
    """Cross-domain barriers of P-T by the tasks of the ends and the one evaluated on; the ends reach .6, of ten classes."""
    rows = [
        {"scenario": f"figure_{i}", "task": on, "split": "test", "metric": metric, "barrier": height,
         "checkpoint_a": f"{a}.pt_1@final", "checkpoint_b": f"{b}.pt_1@final", "midpoint_gain": 0.0}
        for i, ((a, b, on), height) in enumerate(values.items())
    ]  # fmt: skip
    ends = [{**row, "alpha": alpha, "value": 0.6} for row in rows for alpha in (0.0, 1.0)]
    tables = {"barriers": pd.DataFrame(rows), "interpolation": pd.DataFrame(ends)}
    tasks = dict.fromkeys(task for a, b, _ in values for task in (a, b))
    classes = pd.DataFrame({"class_name": list("abcdefghij"), "part": "test", "count": 5, "negatives": 45})
    of_task = {"runs": pd.DataFrame({"run": ["pt_1"], "chance": [0.1]}), "class_sizes": classes}
    runs = {task: TaskResults(task, tables=of_task) for task in tasks}
    return runs | {"cross_domain": TaskResults("cross_domain", tables=tables)}


def test_evaluations_of_one_line_are_averaged_and_three_lines_decide(plan: Plan) -> None:
    """A line named from either end is one line; three lines between three domains have an interval, and a largest."""
    three = lines(
        {
            ("real", "clipart", "real"): 0.01,
            ("clipart", "real", "clipart"): 0.02,
            ("real", "chest", "real"): 0.012,
            ("clipart", "chest", "clipart"): 0.013,
        }
    )
    evidence = Evidence(plan, three)
    rows = list(cross_domain.cross_domain_basin(evidence))
    assert sorted(round(one.effect, 6) for one in rows) == [0.024, 0.026, 0.03]
    assert decide(rows, evidence.kinship()).verdict == "holds"
    (largest,) = cross_domain.one_basin(evidence)
    assert np.isclose(largest.effect, 0.03)
    assert decide([largest], evidence.kinship()).verdict == "cannot tell"


def test_one_basin_in_the_loss(plan: Plan) -> None:
    """Rises of the loss against the loss of guessing ten classes, ln 10; a line that only the accuracy has is none."""
    sides = [("real", "clipart", "real"), ("real", "chest", "real"), ("clipart", "chest", "clipart")]
    heights = dict(zip(sides, (0.01, 0.4, 0.02), strict=True))
    evidence = Evidence(plan, lines(heights, "loss"))
    (largest,) = cross_domain.one_basin_loss(evidence)
    assert largest.effect == pytest.approx(0.4 / (np.log(10) - 0.6))
    assert list(cross_domain.one_basin(evidence)) == []
    assert list(cross_domain.one_basin_loss(Evidence(plan, lines(heights)))) == []


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
        f"{first}@final", f"{second}@final", class_name=name, num_predicted_a=predicted, num_predicted_b=0, num_examples=500,
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
    assert np.isclose(one.value, overlap(counts(80, 10, 10))[0] - overlap(counts(30, 10, 10))[0])
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
        tables = results[task].tables | {"runs": runs}
        if "feature_reuse" in tables:
            tables["feature_reuse"] = tables["feature_reuse"].assign(learned=False)
        results[task] = TaskResults(task, tables=tables)
    silent = {
        claim.id
        for claim in registered().values()
        if "not learned" not in {one.note for one in claim.measure(Evidence(plan, results))}
    }
    assert silent == {"reuse_grows_less"}  # about drawings, which the study does not have


def basins(plan: Plan, heights: dict[tuple[str, str], float]) -> list[Any]:
    """`one_basin` of lines with these barriers between ends of accuracy .9, which is .8 above chance."""
    columns = {"scenario": "figure_19", "task": "real", "split": "test", "metric": "accuracy", "pair_kind": "P-T & P-T"}
    lines = [
        columns | {"checkpoint_a": f"{a}@final", "checkpoint_b": f"{b}@final", "barrier": height}
        for (a, b), height in heights.items()
    ]
    barriers = pd.DataFrame(lines).assign(barrier_low=0.0, barrier_high=0.01)
    points = pd.concat([pd.DataFrame(lines).assign(alpha=alpha, value=0.9) for alpha in (0.0, 1.0)])
    runs = pd.DataFrame({"run": ["pt_1"], "chance": 0.1})
    tables = {"barriers": barriers, "interpolation": points}
    results = {
        "cross_domain": TaskResults("cross_domain", tables=tables),
        "real": TaskResults("real", tables={"runs": runs}),
    }
    return list(cross_domain.one_basin(Evidence(plan, results)))


def test_losses_are_counted_from_the_entropy_of_the_labels(
    plan: Plan, drawn: Callable[..., dict[str, TaskResults]]
) -> None:
    """A barrier in the loss is a part of ln 10 (five findings: ln 2) less the loss of the ends, .1."""
    comparisons = list(landscape.barrier_rit_loss(Evidence(plan, drawn())))
    tables = {task: result.tables for task, result in drawn().items()}
    for one in comparisons:
        table = tables[one.place]["barriers"]
        rows = table[(table["pair_kind"] == "RI-T & RI-T") & (table["metric"] == "loss")]
        guessing = np.log(2) if one.place == "chest" else np.log(10)
        assert one.effect == pytest.approx(rows["barrier"].iloc[0] / (guessing - 0.1))
    assert {one.place for one in comparisons} >= {"clipart", "chest"}


def test_guessing_of_a_task_without_runs_is_that_of_its_labels(plan: Plan) -> None:
    """A task on which lines are only evaluated has no history; findings are binary by the plan, classes are not."""
    sizes = pd.DataFrame({"part": "test", "count": [10, 30], "negatives": [30, 50]})
    for task, expected in (
        ("chest", (40 * entropy([1, 3]) + 80 * entropy([3, 5])) / 120),
        ("clipart", entropy([1, 3])),
    ):
        assert evidence(plan, task, class_sizes=sizes).guessing(task, "test", "loss") == pytest.approx(expected)


def test_one_basin_needs_every_line_of_one_run_of_each_domain(plan: Plan) -> None:
    """The largest barrier of each three decides; a line without a number is named, and what lacks one is not compared."""
    sides = ("real.pt_1", "clipart.pt_1"), ("real.pt_1", "chest.pt_1"), ("clipart.pt_1", "chest.pt_1")
    (one,) = basins(plan, dict(zip(sides, (0.008, 0.024, -0.1), strict=True)))
    assert np.isclose(one.effect, 0.03)
    assert {str(run) for run in one.runs} == {"real.pt_1", "clipart.pt_1", "chest.pt_1"}
    assert np.isclose(one.error, 0.01 / 2 / 1.959964 / 0.8)
    (gone,) = basins(plan, dict(zip(sides, (0.008, np.nan, 0.0), strict=True)))
    assert (gone.counted, gone.note) == (False, "no finite value")
    second = {("real.pt_2", "clipart.pt_1"): 0.0, ("real.pt_2", "chest.pt_1"): 0.016}
    comparisons = basins(plan, dict(zip(sides, (0.008, 0.024, -0.1), strict=True)) | second)
    assert np.allclose([one.effect for one in comparisons], [0.03, 0.02])
    assert basins(plan, {sides[0]: 0.0}) == []


def test_features_that_are_linear_in_the_image_do_not_count(plan: Plan) -> None:
    """The mean over layers leaves them out, unless there are no others."""
    rows = [pair("rit_1@final", "rit_2@final", cka=value) for value in (0.9, 0.2, 0.4)]
    table = pd.DataFrame(rows).assign(features="pooled", estimator="debiased", layer=["a", "b", "c"])
    for linear, expected in (([True, False, False], 0.3), ([True] * 3, 0.5), ([False] * 3, 0.5)):
        (effect,) = firsts(similarity.cka_floor(evidence(plan, cka=table.assign(linear=linear))))
        assert np.isclose(effect, expected)


def test_without_a_threshold_that_tells_runs_apart_spectra_are_not_compared(plan: Plan) -> None:
    """All counts are 0 or all values: the runs are named."""
    table = pd.DataFrame({"run": ["pt_1", "rit_1"], "epoch": 1, "module": "all", "num_values": 100, "count_below_1": 0})
    comparisons = list(spectrum.near_zero(evidence(plan, spectrum=table)))
    assert [(one.unit, one.counted) for one in comparisons] == [("clipart.rit_1", False), ("clipart.pt_1", False)]
