"""Say how far the mistakes of two models overlap, and what replacing one by the other would break."""

from __future__ import annotations

import math

import pandas as pd

from transferscope.answers.answer import NO, UNKNOWN, YES, Answer
from transferscope.answers.compared import Compared, Pair, Row
from transferscope.answers.findings import Finding, Places, answer_of, largest, of_every, of_verdict, smallest
from transferscope.answers.learned import WOULD_TELL, neither_learned, why_not
from transferscope.answers.rule import SHARE, among, images_that_decide, ranged
from transferscope.answers.same_function import Relation, facts, is_rounded_copy, relation
from transferscope.answers.wording import (
    count,
    more_images,
    percent,
    percent_range,
    point_range,
    points,
    sentence,
    signed,
)

ANSWERS = {"yes": YES, "no": NO, "cannot tell": UNKNOWN}
LONGEST = 2.0
"""An interval of the overlap longer than from -1 to 1 says nothing: hardly any overlap is possible beyond chance.

Of the interval of one pair, since how many pairs a sentence speaks of changes no accuracy."""


def shared_mistakes(compared: Compared) -> Answer | None:
    """Say how far mistakes overlap beyond chance; None without predictions, and where models are one function."""
    pairs = [pair for pair in compared.pairs if not relation(compared, pair).by_weights]
    number = sum(not why_not(compared, pair) for pair in pairs)
    findings = [one for pair in pairs if (one := _overlap(compared, pair, number)) is not None]
    if not findings:
        return None
    shown = smallest(findings)
    places = Places(compared, findings)
    question = "How far do the mistakes overlap?"
    if places.of_one_pair:
        question = f"How far do the mistakes of {compared.both(shown.pair)} overlap?"
    return answer_of(
        shown,
        findings,
        compared,
        id="shared_mistakes",
        question=question,
        answer=sentence([shown.text]) if len(findings) == 1 else _overlaps_of_many(findings, places),
        unit="share",
        measure="overlap of the mistakes beyond chance, as a part of the largest that both accuracies allow",
        figure=compared.figure("mistakes", task=shown.pair.task),
        section="tables_3_6",
    )


def _overlaps_of_many(findings: list[Finding], places: Places) -> str:
    known = [one for one in findings if not math.isnan(one.value)]
    if not known:
        if any(one.would_tell for one in findings):
            return sentence(["how far mistakes overlap cannot be told where a model has not learned the images"])
        where = "on no task do they" if places.of_one_pair else "no two models"
        return sentence([f"{where} make enough mistakes to tell how far they overlap"])
    few = len(findings) - len(known)
    ends = [f"{_shown(one)} ({places.name(one.pair)})" for one in (smallest(known), largest(known))]
    overlap = ends[0] if len(known) == 1 else f"{ends[0]} to {ends[1]}"
    return sentence(
        [
            f"beyond chance, mistakes overlap by {overlap} of what the accuracies of two models allow",
            f"in {count(few, places.noun)} that cannot be told" if few else "",
        ]
    )


def _shown(one: Finding) -> str:
    ends = "" if math.isnan(one.low) else f" [{percent(one.low)}, {percent(one.high)}]"
    return f"{percent(one.value)}{ends}"


def _overlap(compared: Compared, pair: Pair, number: int) -> Finding | None:
    """number: of pairs and tasks whose intervals hold at once."""
    row = _least_overlap(compared.rows("replacement", compared.written("replacement", pair)))
    counts = compared.rows("mistakes", pair)
    if row is None or counts.empty:
        return None
    if reason := why_not(compared, pair):
        text = f"how far the mistakes of {compared.both(pair)} overlap cannot be told, because {reason}"
        return Finding(pair, UNKNOWN, text, would_tell=WOULD_TELL)
    of = counts[counts["class_name"] == row["class_name"]].to_dict("records")[0]
    common, only_a, only_b = (int(of[name]) for name in ("common_mistakes", "only_b_correct", "only_a_correct"))
    first, second = compared.labels(pair)
    finding = "" if row["class_name"] == "all" else f", for {row['class_name']}, the finding with the least overlap,"
    images = count(int(row["num_examples"]), "test image")
    text = (  # a sentence never begins with a label, whose first letter would be changed
        f"on {images}{finding} {first} makes {count(common + only_a, 'mistake')} and {second} {common + only_b}, "
        f"{common} of them on the same images"
    )
    alone = ranged(row, "excess_overlap")
    value, low, high = among(alone, number, (-math.inf, 1.0))
    if math.isnan(value) or math.isnan(low):
        few = f"{text}: too few to tell how far they overlap beyond chance"
        return Finding(pair, "", few, value if not math.isnan(low) else math.nan)
    if alone[2] - alone[1] > LONGEST:
        apart = f"{text}: with accuracies so far apart it cannot be told how far they overlap beyond chance"
        return Finding(pair, "", apart)
    text += (
        f"; beyond chance that is {percent(value)}{percent_range(low, high)} of the largest overlap that both "
        "accuracies allow"
    )
    same = float(row["same_wrong"])
    if not math.isnan(same) and common:
        text += f", and on {round(same * common) or 'none'} of the common ones both give the same wrong class"
    return Finding(pair, "", text, value, low, high)


def _least_overlap(rows: pd.DataFrame) -> Row | None:
    """The row of a pair; of several findings the one whose mistakes overlap least."""
    ordered = rows.sort_values("excess_overlap") if len(rows) else rows  # NaN comes last
    return next(iter(ordered.to_dict("records")), None)


def replacing(compared: Compared) -> Answer | None:
    """Say what turns wrong when the second model replaces the first, and whether it may; None without predictions."""
    pairs = [compared.written("replacement", pair) for pair in compared.pairs]
    pairs = [pair for pair in pairs if _deciding(compared.rows("replacement", pair)) is not None]
    number = sum(not neither_learned(compared, pair) for pair in pairs)
    findings = [_replaced(compared, pair, number) for pair in pairs]
    if not findings:
        return None
    shown = of_every(findings)
    places = Places(compared, findings, lambda pair: _by(compared, pair))
    first, second = compared.labels(shown.pair)
    known = len(findings) == 1 or (places.of_one_pair and relation(compared, shown.pair).by_weights)
    return answer_of(
        shown,
        findings,
        compared,
        id="replacement",
        question=f"What would replacing {first} by {second} break?"
        if places.of_one_pair
        else "What would replacing one model by another break?",
        answer=sentence([shown.text]) if known else _replaced_of_many(findings, places),
        unit="share",
        measure="test images that the first model gets right and the second wrong (negative flips)",
        figure=compared.figure("flips", "mistakes", task=shown.pair.task),
        section="replacement",
    )


def _replaced_of_many(findings: list[Finding], places: Places) -> str:
    least, most = smallest(findings), largest(findings)
    parts = ["neither model of any two has learned the images"]
    if not math.isnan(least.value):
        ends = [f"{_shown(one)} ({places.name(one.pair)})" for one in (least, most)]
        parts = [f"between {ends[0]} and {ends[1]} of the test images would turn wrong"]
    words = {
        YES: "the replacement is within the accepted loss {}",
        NO: "it is not {}",
        UNKNOWN: "it cannot be told {}",
    }
    for verdict, text in words.items():
        if chosen := of_verdict(findings, verdict):
            where = places.among(chosen) if places.of_one_pair else f"for {places.counted(chosen)}"
            parts.append(text.format(where))
    return sentence(parts)


def _by(compared: Compared, pair: Pair) -> str:
    return f"{compared.label(pair.first)} by {compared.label(pair.second)}"


def _deciding(rows: pd.DataFrame) -> Row | None:
    """The row of a pair; of several findings that which forbids the replacement, else leaves it open, by most loss."""
    known = [row for row in rows.to_dict("records") if not math.isnan(float(row["negative_flip_rate"]))]
    order = ("no", "cannot tell", "yes")
    return min(known, key=lambda row: (order.index(row["answer"]), row["accuracy_gain"]), default=None)


def _replaced(compared: Compared, pair: Pair, number: int) -> Finding:
    """number: of pairs and tasks whose verdicts hold at once; of a single one the verdict is that of the table."""
    row = _deciding(compared.rows("replacement", pair))
    assert row is not None
    first, second = compared.labels(pair)
    images = count(int(row["num_examples"]), "test image")
    lost, low, high = among(ranged(row, "negative_flip_rate"), number, SHARE)
    known = relation(compared, pair)
    if known.by_weights and not row["negative_flips"] and not row["positive_flips"]:
        text = f"nothing, since {first} and {second} are one function: no prediction changes, on {images} or any other"
        text += ", but for ties within rounding" if known is not Relation.EQUAL else ""
        if known is Relation.PERMUTED:
            text += "; what reads hidden channels by position (a head on features, a pruning mask) has to be reordered"
        return Finding(pair, YES, text, lost)
    if neither_learned(compared, pair):
        text = f"it cannot be told, because {why_not(compared, pair)}: there is nothing to break"
        return Finding(pair, UNKNOWN, text, would_tell=WOULD_TELL)
    of = "" if row["class_name"] == "all" else f" in the finding {row['class_name']}, which decides,"
    text = f"of {images}{of} {percent(lost)}{percent_range(low, high)} turn wrong"
    won, won_low, won_high = ranged(row, "positive_flip_rate")
    text += f" and {percent(won)}{percent_range(won_low, won_high)} turn right"
    verdict, margin = ANSWERS[str(row["answer"])], compared.accepted_loss
    gain, gain_low, gain_high = among(ranged(row, "accuracy_gain"), number)
    if gain_low <= -margin <= gain_high and number > 1:
        verdict = UNKNOWN
    change = f"{signed(gain)} points{point_range(gain_low, gain_high, sign=True)}"
    accepted = f"the accepted loss of {points(margin)} (replace.margin)"
    would = ""
    if verdict == YES:
        text += f"; accuracy changes by {change}, so {second} can replace {first} within {accepted}"
    elif verdict == NO:
        text += f"; accuracy changes by {change}, so {second} cannot replace {first} within {accepted}"
    else:
        text += f"; accuracy changes by {change}, so whether {second} stays within {accepted} cannot be told"
        needed = images_that_decide(gain, gain_low, gain_high, -margin, float(row["num_examples"]))
        would = more_images(needed)
    rounded = facts(compared, pair)
    if rounded is not None and is_rounded_copy(compared, pair):
        half = str(rounded["rounded_to"])
        text += f"; both were run in one precision, so what arithmetic in {half} changes was not tested"
        if verdict != UNKNOWN:
            left_open = f"what arithmetic in {half} changes"
            return Finding(pair, verdict, text, lost, low, high, f"a run in {half}", left_open)
    return Finding(pair, verdict, text, lost, low, high, would)
