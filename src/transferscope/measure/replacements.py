"""Answer whether one model can replace another: flips, agreement and calibration from stored predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from transferscope.analysis import agreement
from transferscope.analysis.calibration import calibration_error, reliability
from transferscope.analysis.flips import Grouping, answer, flips, holm
from transferscope.analysis.intervals import four_counts_interval, mean_interval, rate_interval
from transferscope.analysis.outcomes import Outcomes, class_outcomes, finding_outcomes, same_answer, same_state
from transferscope.analysis.power import detectable_difference, images_needed
from transferscope.analysis.sequential import gain_at_every_look
from transferscope.experiment.options import ReplaceOptions
from transferscope.images.example_columns import grouping_column
from transferscope.images.split import PackedSplit

UNDEFINED = (float("nan"), float("nan"))
DEFAULT = ReplaceOptions()


@dataclass(frozen=True)
class Question:
    """A question that a task asks of its examples: their class ("all"), or whether one finding is there.

    rows: the examples that have a label, by index. finding: its column of the logits; None for the class.
    """

    name: str
    rows: NDArray[np.int64]
    finding: int | None

    def outcomes(self, logits: NDArray[np.floating], labels: NDArray[np.integer], threshold: float) -> Outcomes:
        """A model's outcomes on `rows`."""
        if self.finding is None:
            return class_outcomes(logits, labels)
        chosen = logits[self.rows, self.finding], labels[self.rows, self.finding]
        return finding_outcomes(*chosen, threshold=threshold)


def questions(split: PackedSplit) -> list[Question]:
    """One for the class, or one for each finding; of a finding without labels with no rows."""
    if not split.multi_label:
        return [Question("all", np.arange(len(split)), None)]
    labels = np.asarray(split.labels)
    return [Question(name, np.flatnonzero(labels[:, k] != -1), k) for k, name in enumerate(split.class_names)]


def replacement(
    split: PackedSplit,
    logits_a: ArrayLike,
    logits_b: ArrayLike,
    options: ReplaceOptions = DEFAULT,
    *,
    seed: int = 0,
    looks: Sequence[int] = (),
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of the first model replaced by the second: a row per question, and a row per question and group.

    logits_a, logits_b: (num_examples, num_classes), in the order of the split. The first table has the flips of all
    examples, agreement, the gain in the Brier score, the images that would tell the models apart, and the answer. The
    second has the flips of all examples, of each class (of a task with one label an example) and of each value of the
    columns that the options name, with p-values adjusted (Holm) over the rows of a group; see `analysis.flips.flips`.

    looks: numbers of examples after which somebody looked whether to stop, all that were planned; the examples are the
    first ones of the order in which they came. The interval of the gain and the answer hold at every look.
    """
    a, b, labels = np.asarray(logits_a), np.asarray(logits_b), np.asarray(split.labels)
    generator = np.random.default_rng(seed)
    summaries, tables = [], []
    for question in questions(split):
        first, second = (question.outcomes(logits, labels, options.threshold) for logits in (a, b))
        groupings = _groupings(split, question, options.groups_of(split.name))
        by_grouping = [flips(first.correct, second.correct, grouping) for grouping in groupings]
        tables += [table.assign(class_name=question.name) for table in by_grouping]
        same = _same(question, (a, b), (first, second))
        whole = {str(name): value for name, value in by_grouping[0].iloc[0].items()}
        if looks:
            known = [look for look in looks if look <= len(labels)]
            low, high = gain_of(question, first.correct, second.correct, known, len(looks))
            whole |= {"accuracy_gain_low": low, "accuracy_gain_high": high}
        summaries.append(
            {"class_name": question.name} | _summary(whole, first, second, same, split, options, generator)
        )
    table = pd.concat(tables, ignore_index=True)
    table["p_holm"] = table.groupby("group", sort=False)["p_value"].transform(lambda p: holm(p.to_numpy()))
    return pd.DataFrame(summaries), table[["class_name", *(name for name in table if name != "class_name")]]


def gain_of(
    question: Question, correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_], looks: Sequence[int], num_looks: int
) -> tuple[float, float]:
    """Interval of the second model's gain that holds at every look (`analysis.sequential.gain_at_every_look`).

    correct_a, correct_b: of the question's rows. looks: examples of the split after which somebody looked, so far.
    """
    ends = np.searchsorted(question.rows, looks)
    gained, lost = (
        np.concatenate([[0], flips.cumsum()])[ends] for flips in (correct_b & ~correct_a, correct_a & ~correct_b)
    )
    return gain_at_every_look(gained, lost, ends, num_looks)


def _same(question: Question, logits: Sequence[NDArray], outcomes: Sequence[Outcomes]) -> NDArray[np.float64]:
    if question.finding is None:
        return same_answer(*logits)
    return same_state(*(one.true for one in outcomes))


def _groupings(split: PackedSplit, question: Question, columns: Sequence[str]) -> Iterator[Grouping]:
    """All examples; of a task with one label an example its classes; then the columns asked for."""
    yield Grouping.of_all(len(question.rows))
    if question.finding is None:
        yield Grouping("class", split.class_names, np.asarray(split.labels, dtype=np.int64))
    for column in columns:
        values, codes = grouping_column(split.columns, column, split.name)
        yield Grouping(column, values, codes[question.rows])


def _summary(
    whole: dict[str, Any],
    first: Outcomes,
    second: Outcomes,
    same: NDArray[np.float64],
    split: PackedSplit,
    options: ReplaceOptions,
    generator: np.random.Generator,
) -> dict[str, object]:
    """The row of a question: `whole` are its flips on all examples."""
    row = {name: value for name, value in whole.items() if name not in ("group", "value")}
    row["answer"] = answer(row["accuracy_gain_low"], row["accuracy_gain_high"], options.margin)
    row |= _changed(first, second, split.multi_label)
    counts = np.array([(first.correct == x) & (second.correct == y) for x in (True, False) for y in (True, False)])
    counts = counts.sum(axis=1)
    consistency = {name: float(value[0]) for name, value in agreement.consistency(counts[None]).items()}
    ranges = four_counts_interval(counts, agreement.consistency, generator)
    del ranges["kappa_max"]  # it follows from the accuracies
    if row["accuracy_gain_low"] <= 0 <= row["accuracy_gain_high"]:
        # The accuracies may be equal, and kappa_max 1: the overlap of the images at hand is then the larger number.
        ranges["excess_overlap"] = (min(ranges["excess_overlap"][0], ranges["kappa"][0]), ranges["excess_overlap"][1])
    row |= consistency | {f"{name}_{end}": x for name, pair in ranges.items() for end, x in _ends(pair)}
    several = min(first.num_mistakes, second.num_mistakes) >= agreement.MIN_MISTAKES
    num_classes = 2 if split.multi_label else split.num_classes
    kappa_p = agreement.kappa_p(same, first.true, second.true, num_classes)
    row |= _ranged("kappa_p", kappa_p.kappa_p, (kappa_p.low, kappa_p.high) if several else UNDEFINED)
    difference = second.brier - first.brier
    row |= _ranged("brier_rise", _mean(difference), mean_interval(difference) if several else UNDEFINED)
    rates = float(whole["negative_flip_rate"]), float(whole["positive_flip_rate"])
    row["images_needed"] = images_needed(*rates)
    row["detectable_difference"] = detectable_difference(len(first.correct), sum(rates))
    return row


def _changed(first: Outcomes, second: Outcomes, multi_label: bool) -> dict[str, float]:
    """Shares of examples with another prediction, and of common mistakes with the same one (of single labels)."""
    changed = first.predicted != second.predicted
    common = ~first.correct & ~second.correct
    columns: dict[str, float] = {}
    shares = {"changed": (changed, len(changed)), "same_wrong": (common & ~changed, 0 if multi_label else common.sum())}
    for name, (chosen, total) in shares.items():
        count = chosen.sum() if total else 0
        low, high = rate_interval(count, total)
        columns |= _ranged(name, count / total if total else float("nan"), (float(low), float(high)))
    return columns


def calibration(
    split: PackedSplit, logits: ArrayLike, options: ReplaceOptions = DEFAULT
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Calibration of a model, a row per question, and the bins of its reliability diagram, a row per bin.

    Of a task with one label an example the confidence of the predicted class is compared with how often it is right;
    of a finding its probability with how often it is there. overconfidence is the mean confidence less that rate.
    """
    scores, labels = np.asarray(logits), np.asarray(split.labels)
    rows, tables = [], []
    for question in questions(split):
        outcomes = question.outcomes(scores, labels, options.threshold)
        error = calibration_error(outcomes.confidence, outcomes.happened, num_bins=options.bins)
        over = outcomes.confidence - outcomes.happened
        rarer = min(outcomes.happened.sum(), (~outcomes.happened).sum())
        several = rarer >= agreement.MIN_MISTAKES
        rows.append(
            {
                "class_name": question.name,
                "num_examples": len(outcomes.correct),
                "accuracy": _mean(outcomes.correct),
                **_ranged("brier", _mean(outcomes.brier), mean_interval(outcomes.brier) if several else UNDEFINED),
                **_ranged("overconfidence", _mean(over), mean_interval(over) if several else UNDEFINED),
                "ece": error.ece,
                "ece_if_calibrated": error.ece_if_calibrated,
                **_ranged("rms_error", error.rms, (error.rms_low, error.rms_high) if several else UNDEFINED),
            }
        )
        bins = reliability(outcomes.confidence, outcomes.happened, num_bins=options.bins)
        tables.append(bins.assign(class_name=question.name))
    table = pd.concat(tables, ignore_index=True)
    return pd.DataFrame(rows), table[["class_name", *(name for name in table if name != "class_name")]]


def flip_gallery(
    split: PackedSplit, logits_a: ArrayLike, logits_b: ArrayLike, options: ReplaceOptions = DEFAULT
) -> pd.DataFrame:
    """The flips on which the model that is wrong is surest, a row per image, as `uncommon_mistakes_gallery` takes them.

    At most `options.gallery` negative flips (only_correct "a") and as many positive ones ("b"), the surest first. Of
    several findings an image each takes part with each that flips.
    """
    a, b, labels = np.asarray(logits_a), np.asarray(logits_b), np.asarray(split.labels)
    parts = []
    for question in questions(split):
        first, second = (question.outcomes(logits, labels, options.threshold) for logits in (a, b))
        names = _answers(split, question)
        truth = labels if question.finding is None else labels[question.rows, question.finding]
        flipped = np.flatnonzero(first.correct != second.correct)
        negative = first.correct[flipped]
        wrong = np.where(negative, 1 - second.true[flipped], 1 - first.true[flipped])
        columns = {"image": question.rows[flipped], "only_correct": np.where(negative, "a", "b"), "sure": wrong}
        columns["true_label"] = names[truth[flipped]]
        for side, model in (("a", first), ("b", second)):
            chosen = model.predicted[flipped]
            columns[f"prediction_{side}"] = np.where(chosen < 0, "not finite", names[chosen])
            columns[f"confidence_{side}"] = _sureness(model, question)[flipped]
        parts.append(pd.DataFrame(columns))
    table = pd.concat(parts, ignore_index=True).sort_values("sure", ascending=False, kind="stable")
    table["column"] = table.groupby("only_correct").cumcount()
    return table[table["column"] < options.gallery].drop(columns="sure").reset_index(drop=True)


def _answers(split: PackedSplit, question: Question) -> NDArray[np.str_]:
    """Names of the classes; of a finding those of its states 0 and 1."""
    return np.array(split.class_names if question.finding is None else (f"no {question.name}", question.name))


def _sureness(model: Outcomes, question: Question) -> NDArray[np.float64]:
    """The probability given to the prediction."""
    if question.finding is None:
        return model.confidence
    return np.where(model.predicted == 1, model.confidence, 1 - model.confidence)


def _mean(values: NDArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _ends(interval: tuple[float, float]) -> Iterator[tuple[str, float]]:
    return zip(("low", "high"), interval, strict=True)


def _ranged(name: str, value: float, interval: tuple[float, float]) -> dict[str, float]:
    return {name: value} | {f"{name}_{end}": bound for end, bound in _ends(interval)}
