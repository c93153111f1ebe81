"""Compare the mistakes of two models (appendix B.2, Tables 3 to 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from transferscope.analysis.intervals import four_counts_interval
from transferscope.system.errors import UserError


@dataclass(frozen=True)
class MistakeComparison:
    """Counts of examples by which of two models is right; numbers, or arrays (num_classes,) for multi-label tasks.

    In the paper's Tables 3 to 5 g1 is `only_a_correct`, g2 is `only_b_correct`, r1 is `uncommon_ratio_a` and r2 is
    `uncommon_ratio_b`. Its Table 6 prints the other convention: there g1 counts the examples that only the first
    model gets wrong.
    """

    num_examples: Any
    accuracy_a: Any
    accuracy_b: Any
    only_a_correct: Any
    """Examples that the first model gets right and the second wrong (g1)."""
    only_b_correct: Any
    """Examples that the second model gets right and the first wrong (g2)."""
    common_mistakes: Any
    """Examples that both get wrong."""
    uncommon_ratio_a: Any
    """The part of the first model's mistakes that the second avoids, g2 / (g2 + common); NaN if it makes none."""
    uncommon_ratio_b: Any
    """The part of the second model's mistakes that the first avoids, g1 / (g1 + common); NaN if it makes none."""
    kappa: Any
    """Cohen's kappa of being correct ("error consistency"): 1 = same mistakes, 0 = as by chance; NaN if undefined."""
    mcnemar_p: Any
    """p-value of McNemar's exact test that both models are right equally often."""

    def to_frame(self, class_names: Sequence[str] | None = None) -> pd.DataFrame:
        """A row per class ("all" where there is one comparison), columns class_name and the fields above."""
        columns = {field.name: np.atleast_1d(getattr(self, field.name)) for field in fields(self)}
        num_rows = len(columns["num_examples"])
        names = _row_names(class_names, num_rows, per_class=np.ndim(self.num_examples) == 1)
        return pd.DataFrame({"class_name": names, **columns})


def compare_mistakes(
    correct_a: ArrayLike, correct_b: ArrayLike, *, valid: ArrayLike | None = None
) -> MistakeComparison:
    """Compare two models by the examples that each gets right.

    correct_a, correct_b: bool (num_examples,), or (num_examples, num_classes) to compare class by class; tensors or
    arrays over the same examples in the same order. valid: bool of the same shape, False where an example has no label
    and is not to be counted.

    Source: appendix B.2. Kappa (scikit-learn) and McNemar's test (statsmodels) are additions.
    """
    a, b = _as_bool("correct_a", correct_a), _as_bool("correct_b", correct_b)
    mask = np.ones(a.shape, dtype=bool) if valid is None else _as_bool("valid", valid)
    if a.shape != b.shape or a.shape != mask.shape:
        shapes = ", ".join(str(array.shape) for array in (a, b, mask))
        raise UserError(f"the two models must be compared on the same examples and classes; shapes: {shapes}")
    if a.ndim not in (1, 2):
        raise UserError(f"correct_a of shape {a.shape}: expected (num_examples,) or (num_examples, num_classes)")
    if a.ndim == 1:
        return _compare(a[mask], b[mask], "the comparison")
    rows = [_compare(a[mask[:, i], i], b[mask[:, i], i], f"class {i}") for i in range(a.shape[1])]
    return MistakeComparison(*(np.array([getattr(row, field.name) for row in rows]) for field in fields(rows[0])))


def compare_predictions(
    logits_a: ArrayLike, logits_b: ArrayLike, labels: ArrayLike, class_names: Sequence[str], *, multi_label: bool
) -> MistakeComparison:
    """`compare_mistakes` of two models' logits, both (num_examples, num_classes); labels as in `correct_from_logits`.

    Raises UserError where the models have other examples or classes than the labels, or a finding has no label at all.
    """
    for name, logits in (("first", logits_a), ("second", logits_b)):
        shape, expected = np.shape(logits), (len(np.asarray(labels)), len(class_names))
        if shape != expected:
            raise UserError(
                f"the {name} model's logits have shape {shape}, but there are {expected[0]} examples of "
                f"{expected[1]} classes: compare models of the same task"
            )
    correct_a, valid = correct_from_logits(logits_a, labels, multi_label=multi_label)
    correct_b, _ = correct_from_logits(logits_b, labels, multi_label=multi_label)
    unlabelled = [name for index, name in enumerate(class_names) if multi_label and not valid[:, index].any()]
    if unlabelled:
        raise UserError(f"no example has a label for {', '.join(unlabelled)}: leave it out, or give more examples")
    return compare_mistakes(correct_a, correct_b, valid=valid)


def _compare(a: NDArray[np.bool_], b: NDArray[np.bool_], what: str) -> MistakeComparison:
    from statsmodels.stats.contingency_tables import mcnemar  # takes a second to import

    if len(a) == 0:
        raise UserError(f"{what} has no example with a label: leave it out, or give more examples")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    neither, both = int((~a & ~b).sum()), int((a & b).sum())
    return MistakeComparison(
        num_examples=len(a),
        accuracy_a=(both + only_a) / len(a),
        accuracy_b=(both + only_b) / len(a),
        only_a_correct=only_a,
        only_b_correct=only_b,
        common_mistakes=neither,
        uncommon_ratio_a=uncommon_ratio(only_b, neither),
        uncommon_ratio_b=uncommon_ratio(only_a, neither),
        kappa=_kappa(a, b),
        mcnemar_p=float(mcnemar([[both, only_a], [only_b, neither]], exact=True).pvalue),
    )


def uncommon_ratio(uncommon_mistakes: int, common_mistakes: int) -> float:
    """Uncommon mistakes over all mistakes of a model, in [0, 1]; NaN for a model without mistakes."""
    mistakes = uncommon_mistakes + common_mistakes
    return uncommon_mistakes / mistakes if mistakes else float("nan")


def _kappa(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """NaN where both models are right, or wrong, on everything: then no agreement beyond chance can be told."""
    if a.all() == b.all() and a.any() == b.any() and a.all() == a.any():
        return float("nan")
    from sklearn.metrics import cohen_kappa_score  # takes a second to import

    return float(cohen_kappa_score(a, b))


def correct_from_logits(
    logits: ArrayLike, labels: ArrayLike, *, multi_label: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Predictions that are right, and those that have a label at all: two bool arrays.

    Single-label: logits (num_examples, num_classes), labels int (num_examples,); both results (num_examples,).
    Multi-label: labels (num_examples, num_classes) of 1, 0 and -1 (no label); a finding is predicted where its
    probability is above .5; both results (num_examples, num_classes). A logit that is not finite is wrong.
    """
    scores, truth = np.asarray(logits), np.asarray(labels)
    expected = scores.shape if multi_label else scores.shape[:1]
    if scores.ndim != 2 or truth.shape != expected:
        raise UserError(f"labels of shape {truth.shape} do not fit logits of shape {scores.shape}")
    if multi_label:
        return ((scores > 0) == (truth == 1)) & np.isfinite(scores), truth != -1
    return (scores.argmax(axis=1) == truth) & np.isfinite(scores).all(axis=1), np.ones(len(truth), dtype=bool)


def num_predicted(logits: ArrayLike) -> NDArray[np.int64]:
    """On how many examples each finding is predicted, (num_classes,); logits (num_examples, num_classes)."""
    numbers: NDArray[np.int64] = (np.asarray(logits) > 0).sum(axis=0)
    return numbers


def bootstrap_intervals(
    comparison: MistakeComparison, *, num_resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Percentile intervals of the ratios, accuracies and kappa, by the Bayesian bootstrap.

    All of these depend on four counts only. Their shares are drawn from the Dirichlet distribution of the counts with
    half an example added to each: drawing the examples themselves again takes a kind of example that was not seen to be
    impossible, and its intervals hold the truth as rarely as in 60 % of test sets where a count is about 1.
    Returns a row per class and statistic: class_index, statistic, value, low, high. `accuracy_difference` is a - b,
    `uncommon_ratio_difference` is r_b - r_a (above 0 where the second model is the weaker one).
    """
    generator = np.random.default_rng(seed)
    rows = []
    for index, counts in enumerate(_four_counts(comparison)):
        ranges = four_counts_interval(counts, _statistics, generator, num_draws=num_resamples, confidence=confidence)
        rows += [(index, name, value[0], *ranges[name]) for name, value in _statistics(counts[None]).items()]
    return pd.DataFrame(rows, columns=["class_index", "statistic", "value", "low", "high"])


def with_intervals(
    table: pd.DataFrame, comparison: MistakeComparison, *, num_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """`to_frame` with the two differences, and for every statistic of `bootstrap_intervals` its `_low` and `_high`."""
    intervals = bootstrap_intervals(comparison, num_resamples=num_resamples, seed=seed)
    columns: dict[str, NDArray[np.float64]] = {}
    for statistic, rows in intervals.groupby("statistic", sort=False):
        columns |= {f"{statistic}_{bound}": rows[bound].to_numpy() for bound in ("low", "high")}
        if statistic not in table:
            columns[str(statistic)] = rows["value"].to_numpy()
    return table.assign(**columns)


COUNTS = ("only_a_correct", "only_b_correct", "common_mistakes")


def spread_over_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and range over all pairs of one kind.

    table: rows of `with_intervals` with columns task and pair_kind. Returns a row per task, pair_kind, class_name and
    statistic (accuracies, ratios, kappa, their differences and the counts): num_pairs, mean, std (NaN for a single
    pair), min, max, low, high. `low` and `high` are the means of the pairs' intervals: as the pairs share their
    examples, no narrower than an interval of the mean (nearly: it holds for standard deviations), and NaN for counts.
    """
    keys = ["task", "pair_kind", "class_name", "statistic"]
    parts = []
    for statistic in (*_statistics(np.ones((1, 4), dtype=np.int64)), *COUNTS):
        columns = {"value": statistic, "low": f"{statistic}_low", "high": f"{statistic}_high"}
        rows = {name: table.get(column, np.nan) for name, column in columns.items()}
        parts.append(table[keys[:3]].assign(statistic=statistic, **rows))
    groups = pd.concat(parts, ignore_index=True).groupby(keys, sort=False)
    spread = groups["value"].agg(num_pairs="size", mean="mean", std="std", min="min", max="max")
    return spread.join(groups[["low", "high"]].mean()).reset_index()


def _four_counts(comparison: MistakeComparison) -> NDArray[np.int64]:
    """Rows (both right, only a, only b, neither), one per class."""
    only_a, only_b, neither, total = (
        np.atleast_1d(getattr(comparison, name))
        for name in ("only_a_correct", "only_b_correct", "common_mistakes", "num_examples")
    )
    return np.stack([total - only_a - only_b - neither, only_a, only_b, neither], axis=1)


def _statistics(counts: NDArray[np.int64] | NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The statistics of n sets of four counts, or of their shares, each (n,); NaN where undefined."""
    both, only_a, only_b, neither = counts.T
    total = counts.sum(axis=1)
    accuracy_a, accuracy_b = (both + only_a) / total, (both + only_b) / total
    by_chance = accuracy_a * accuracy_b + (1 - accuracy_a) * (1 - accuracy_b)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio_a, ratio_b = only_b / (only_b + neither), only_a / (only_a + neither)
        kappa = np.where(by_chance < 1, ((both + neither) / total - by_chance) / (1 - by_chance), np.nan)
    return {
        "accuracy_a": accuracy_a,
        "accuracy_b": accuracy_b,
        "accuracy_difference": accuracy_a - accuracy_b,
        "uncommon_ratio_a": ratio_a,
        "uncommon_ratio_b": ratio_b,
        "uncommon_ratio_difference": ratio_b - ratio_a,
        "kappa": kappa,
    }


def _as_bool(name: str, values: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
        raise UserError(f"{name}: expected True or False for each example, not {array.dtype} values other than 0 and 1")
    return array.astype(bool)


def _row_names(class_names: Sequence[str] | None, num_rows: int, *, per_class: bool) -> list[str]:
    if not per_class:
        return ["all"]
    names = [str(i) for i in range(num_rows)] if class_names is None else list(class_names)
    if len(names) != num_rows:
        raise UserError(f"{len(names)} class names for {num_rows} classes")
    return names
