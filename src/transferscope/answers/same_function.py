"""Answer whether two models are the same function."""

from __future__ import annotations

import math
from enum import Enum

from transferscope.answers.answer import NO, UNKNOWN, YES, Answer
from transferscope.answers.compared import Compared, Model, Pair, Row
from transferscope.answers.findings import (
    MOST_NAMED,
    Finding,
    Places,
    answer_of,
    largest,
    of_every,
    of_some,
    of_verdict,
    smallest,
)
from transferscope.answers.rule import NOTHING, SHARE, Numbers, among, ranged
from transferscope.answers.wording import count, listed, percent, percent_range, sentence, tiny
from transferscope.tables import formats

ROUNDING = 1e-5
"""Weights that differ by less of their norm are equal but for rounding."""
SAME_OUTPUT = 1e-4
"""Outputs that differ by less, in standard deviations of the logits, are equal but for rounding."""


class Relation(Enum):
    """Ways in which two models belong together."""

    EQUAL = "the same weights"
    ROUNDED = "the same weights but for rounding"
    PERMUTED = "the same weights in another order of channels"
    SAME_OUTPUTS = "the same outputs of other weights"
    DIFFERENT = "different functions"
    UNKNOWN = "not known"

    @property
    def by_weights(self) -> bool:
        """True if that follows from the weights, for every input."""
        return self in (Relation.EQUAL, Relation.ROUNDED, Relation.PERMUTED)


def relation(compared: Compared, pair: Pair) -> Relation:
    """Find out how two models belong together, by their table `identity`, else by their predictions."""
    row = facts(compared, pair)
    if row is None:
        return Relation.UNKNOWN if changed(compared, pair) is None else Relation.DIFFERENT
    if row["equal"]:
        return Relation.EQUAL
    difference = float(row["output_difference"])
    if difference > SAME_OUTPUT:
        return Relation.DIFFERENT
    if float(row["relative"]) <= ROUNDING:
        return Relation.ROUNDED
    if float(row["relative_matched"]) <= ROUNDING:
        return Relation.PERMUTED
    if math.isnan(difference):  # not compared: different numbers of outputs are different functions
        return Relation.DIFFERENT if "outputs" in str(row["not_compared"]) else Relation.UNKNOWN
    return Relation.SAME_OUTPUTS if row["inputs"] == "test images" else Relation.UNKNOWN


def is_rounded_copy(compared: Compared, pair: Pair) -> bool:
    """True where the weights, channels in the order of the files, are equal in half precision and not in theirs."""
    row = facts(compared, pair)
    return row is not None and bool(row["rounded_to"]) and float(row["moved"]) == 0 and not row["equal"]


def facts(compared: Compared, pair: Pair) -> Row | None:
    """The pair's row of the table `identity`."""
    rows = compared.rows("identity", compared.written("identity", pair))
    texts = dict.fromkeys(("not_matched", "rounded_to", "not_compared"), "")
    return rows.fillna(texts).to_dict("records")[0] if len(rows) else None


def changed(compared: Compared, pair: Pair) -> Row | None:
    """Predictions that differ: the pair's row of `replacement`, of several findings that with the most."""
    rows = compared.rows("replacement", compared.written("replacement", pair))
    known = rows[rows["changed"].notna()] if len(rows) else rows
    if known.empty:
        return None
    row: Row = known.sort_values("changed", ascending=False).to_dict("records")[0]
    return row


def same_function(compared: Compared) -> Answer | None:
    """Answer whether models are the same function, a permuted copy included; None without tables that tell.

    Of two models that are judged on several tasks one difference is enough, and equal weights are equal on all.
    """
    number = sum(changed(compared, pair) is not None for pair in compared.pairs)
    by_models: dict[frozenset[Model], list[Finding]] = {}
    for pair in compared.pairs:
        one, before = _finding(compared, pair, number), by_models.setdefault(compared.key(pair), [])
        if one is not None and not (before and relation(compared, pair).by_weights):
            before.append(one)
    groups = [findings for findings in by_models.values() if findings]
    if not groups:
        return None
    decided = [of_every(findings) for findings in groups]
    shown = of_some(decided)
    if len(groups) > 1:
        question = f"Are some of the {len(compared.distinct)} models the same function?"
        text = _of_many(compared, decided)
    else:
        question = f"Are {compared.both(shown.pair)} the same function?"
        text = sentence([shown.text]) if len(groups[0]) == 1 else _on_tasks(compared, groups[0], shown)
    measure = "test images with another predicted class" if changed(compared, shown.pair) is not None else ""
    figure = compared.figure("flips", "mistakes", "distance_per_module", task=shown.pair.task)
    return answer_of(
        shown,
        [one for findings in groups for one in findings],
        compared,
        id="same_function",
        question=question,
        answer=text,
        unit="share" if measure else "",
        measure=measure,
        figure=figure,
        section="replacement" if compared.figure("flips") else "table_2",
    )


def _on_tasks(compared: Compared, findings: list[Finding], shown: Finding) -> str:
    """Two models that are judged on several tasks."""
    both, differ = compared.both(shown.pair), [one for one in findings if one.verdict == NO]
    same = [one.pair.task for one in of_verdict(findings, YES)]
    if not differ:
        where = listed(same) if len(same) <= MOST_NAMED else count(len(same), "task")
        return sentence([f"yes on these images: {both} give the same outputs on the test images of {where}"] if same
                        else [shown.text])  # fmt: skip
    measured = [one for one in differ if not math.isnan(one.value)]
    if not measured:
        return sentence([f"{shown.text} (images of {shown.pair.task})"])
    if len(measured) <= MOST_NAMED:
        shares = [
            f"{percent(one.value)}{percent_range(one.low, one.high)} of those of {one.pair.task}" for one in measured
        ]
        text = f"no, of the test images {both} predict differently on {listed(shares)}"
    else:
        ends = [f"{percent(one.value)} ({one.pair.task})" for one in (smallest(measured), largest(measured))]
        text = f"no, {both} predict differently on {ends[0]} to {ends[1]} of the test images of {len(measured)} tasks"
    return sentence([text, f"their outputs are the same on images of {listed(same)}" if same else ""])


def _of_many(compared: Compared, findings: list[Finding]) -> str:
    """findings: one of each two models, on the task that decides."""
    pairs = Places(compared, findings, whatever_task=True)
    place = Places(compared, findings).name
    same, different = of_verdict(findings, YES), of_verdict(findings, NO)
    number = count(len(findings), "pair")
    parts = [f"of {number} {pairs.counted(same)} compute{'s' if len(same) == 1 else ''} the same"]
    if not same:
        parts = [
            f"of {number} none {'computes' if len(different) == len(findings) else 'is known to compute'} the same"
        ]
    measured = [one for one in different if not math.isnan(one.value)]
    if measured:
        least, most = smallest(measured), largest(measured)
        images = {compared.num_examples(one.pair) for one in measured}
        of = count(images.pop(), "test image") if len(images) == 1 else "the test images"
        parts.append(
            f"{'the others' if same else 'two models'} predict different classes on {percent(least.value)} "
            f"({place(least.pair)}) to {percent(most.value)} ({place(most.pair)}) of {of}"
        )
    unknown = of_verdict(findings, UNKNOWN)
    if unknown:
        parts.append(f"of {pairs.counted(unknown)} it cannot be told")
    return sentence(parts)


def _finding(compared: Compared, pair: Pair, number: int) -> Finding | None:
    """number: of pairs and tasks with predictions, whose intervals hold at once."""
    pair = compared.written("identity", pair)
    row, flips = facts(compared, pair), changed(compared, pair)
    if row is None and flips is None:
        return None
    known = relation(compared, pair)
    both = compared.both(pair)
    first, second = compared.labels(pair)
    numbers = NOTHING if flips is None else among(ranged(flips, "changed"), number, SHARE)
    if known is Relation.UNKNOWN or row is None:
        if flips is not None:
            return Finding(pair, NO, f"no, {both} {_predict_otherwise(flips)}", *numbers)
        return _unknown(pair, both, row)
    outputs = _outputs(row)
    if known is Relation.EQUAL:
        return Finding(pair, YES, f"yes, {both} have the same weights, number by number", *_none(numbers))
    if known is Relation.ROUNDED:
        differ = f"yes, the weights of {both} differ only by rounding, {tiny(float(row['relative']))} of their norm"
        return Finding(pair, YES, f"{differ}{outputs}", *_none(numbers))
    if known is Relation.PERMUTED:
        left = float(row["relative_matched"])
        equal = (
            f"equal those of {first}" if left == 0 else f"differ from those of {first} by {tiny(left)} of their norm"
        )
        moved = (
            f"yes, {second} is {first} with {percent(float(row['moved']))} of its channels in another order: put back "
            f"in the order of {first}, its weights {equal}"
        )
        return Finding(pair, YES, f"{moved}{outputs}", *_none(numbers))
    if known is Relation.SAME_OUTPUTS:
        weights = f", though their weights differ by {percent(float(row['relative']))} of their norm"
        weights = "" if math.isnan(float(row["relative"])) else weights
        text = f"yes on these images: {both} give the same outputs{outputs}{weights}"
        return Finding(pair, YES, text, *numbers)
    cause = f"; rounded to {row['rounded_to']} their weights are equal" if row["rounded_to"] else ""
    if flips is not None and float(flips["changed"]) > 0:
        return Finding(pair, NO, f"no, {both} {_predict_otherwise(flips)}{cause}", *numbers)
    if flips is not None:
        images = count(int(flips["num_examples"]), "test image")
        agree = (
            f"no, the outputs of {both} differ by up to {_deviations(row)}{_on_inputs(row)}, but they predict the same "
            f"class on all {images}, and, with 95 % confidence, different ones on at most {percent(numbers[2])} of "
            "further images like these"
        )
        return Finding(pair, NO, f"{agree}{cause}", *numbers)
    if math.isnan(float(row["output_difference"])):
        return Finding(pair, NO, f"no, {both} have {row['not_compared']}")
    return Finding(pair, NO, f"no,{_on_inputs(row)} the outputs of {both} differ by up to {_deviations(row)}{cause}")


def _on_inputs(row: Row) -> str:
    """` on 256 test images`: the inputs whose outputs were compared; empty where none were."""
    number = float(row["num_inputs"])
    return "" if math.isnan(number) else f" on {count(int(number), str(row['inputs']).removesuffix('s'))}"


def _none(numbers: Numbers) -> Numbers:
    """Nothing changes where the weights are the same, on any image, so there is no interval."""
    return numbers[0], math.nan, math.nan


def _predict_otherwise(flips: Row) -> str:
    images = count(int(flips["num_examples"]), "test image")
    shown = percent(float(flips["changed"])) + percent_range(float(flips["changed_low"]), float(flips["changed_high"]))
    if flips["class_name"] != "all":
        return f"answer {flips['class_name']} differently on {shown} of {images}"
    return f"predict different classes on {shown} of {images}"


def _outputs(row: Row) -> str:
    """`, and on 40 test images their outputs differ by at most 2e-07 of the logits' spread`."""
    difference = float(row["output_difference"])
    if math.isnan(difference):
        return ""
    return (
        f", and{_on_inputs(row)} their outputs differ by at most {tiny(difference)} standard deviations of the logits"
    )


def _deviations(row: Row) -> str:
    difference = float(row["output_difference"])
    shown = tiny(difference) if difference < 0.01 else formats.rough(difference)
    return f"{shown} standard deviations of the logits"


def _unknown(pair: Pair, both: str, row: Row | None) -> Finding:
    if row is not None and not row["not_compared"] and math.isfinite(float(row["output_difference"])):
        # Equal on noise, other weights: scales of channels may be exchanged, or the noise may not reach a difference.
        text = (
            f"whether {both} are the same function cannot be told without images: their outputs on "
            f"{count(int(row['num_inputs']), str(row['inputs']).removesuffix('s'))} agree to "
            f"{tiny(float(row['output_difference']))}, and their weights do not"
        )
        return Finding(pair, UNKNOWN, text, would_tell="images of the task")
    reason = str(row["not_compared"]) if row is not None else "their outputs were not compared"
    return Finding(pair, UNKNOWN, f"whether {both} are the same function cannot be told ({reason})")
