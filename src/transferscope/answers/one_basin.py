"""Answer whether two models lie in one basin, and whether permutation or scale explains a barrier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transferscope.answers.answer import NO, UNKNOWN, YES, Answer
from transferscope.answers.compared import Compared, Pair, Row
from transferscope.answers.findings import Finding, Places, answer_of, largest, of_every, of_verdict
from transferscope.answers.learned import WOULD_TELL, why_not
from transferscope.answers.line_height import Height, height
from transferscope.answers.rule import among, images_that_decide, ranged
from transferscope.answers.same_function import Relation, relation
from transferscope.answers.wording import at_most, count, percent, percent_range, point_range, points, sentence
from transferscope.claims.connection import MOSTLY

EXPLANATIONS = {
    "aligned": "the order of the channels alone",
    "rescaled": "the scale of the channels alone",
    "aligned_rescaled": "order and scale of the channels together",
}
"""Ways of `connection` by what they take out of a barrier, the simplest first."""
CORRECTED = {
    "aligned": "with channels matched",
    "rescaled": "with channels rescaled",
    "aligned_rescaled": "with channels matched and rescaled",
}

EXPLAINED = "whether order and scale of the channels explain most of the barrier"
CONNECTION = "landscape.connection"

PART = (0.0, math.inf)
"""Possible values of the part of a barrier that is left."""


def basin(compared: Compared) -> Answer | None:
    """Answer whether the straight line between models has a barrier, by the claims' margins; None without a line.

    Of several pairs or tasks all verdicts hold at once, by longer intervals (`line_height.height`).
    """
    measured = [pair for pair in compared.pairs if len(compared.main_rows("barriers", pair))]
    number = sum(not why_not(compared, pair) for pair in measured)
    findings = [one for pair in compared.pairs if (one := _finding(compared, pair, number)) is not None]
    if not findings:
        return None
    places = Places(compared, findings)
    question = f"Do {compared.both(findings[0].pair)} lie in one basin?"
    shown: Finding
    if len(findings) == 1 or (places.of_one_pair and _is_one_point(compared, findings[0].pair)):
        text, shown = sentence([findings[0].text]), findings[0]
    else:
        question = question if places.of_one_pair else "Do the models lie in one basin?"
        text, shown = _of_many(compared, findings, places, number)
    return answer_of(
        shown,
        findings,
        compared,
        id="basin",
        question=question,
        answer=text,
        unit="score",
        measure=f"barrier on the straight line, test {metric_name(compared, shown.pair)}",
        figure=compared.figure("barrier", "connection_", task=shown.pair.task),
        section="figures_12_17",
    )


def _of_many(compared: Compared, findings: list[Basin], places: Places, number: int) -> tuple[str, Finding]:
    """number: as of `_finding`."""
    words = {
        YES: "no barrier on the straight line {}",
        NO: "a barrier {}",
        UNKNOWN: "{} it cannot be told",
    }
    parts = [
        text.format(places.among(chosen)) for verdict, text in words.items()
        if (chosen := of_verdict(findings, verdict))
    ]  # fmt: skip
    for where in (ALONE, SHOWN):
        by_loss = [one for one in findings if one.where == where]
        heights = [one.loss for one in by_loss if one.loss is not None]
        if heights:
            highest_loss = max(heights, key=lambda loss: loss.value)
            parts.append(f"{places.among(by_loss)} the barrier is {where}, {highest_loss.shown} at most")
    highest = largest(findings)
    if highest.value < 0 and math.isfinite(highest.high):
        most = max(one.high for one in findings if math.isfinite(one.high))
        end = "all of their intervals lie below 0" if most <= 0 else f"by their intervals it is {at_most(most)}"
        parts.append(f"none is found in test {metric_name(compared, highest.pair)}: {end}")
    elif math.isfinite(highest.value):
        shown = f"{points(highest.value)}{point_range(highest.low, highest.high)}"
        parts.append(f"the highest is {shown} of test {metric_name(compared, highest.pair)}, {places.at(highest.pair)}")
    high = [one for one in findings if one.verdict == NO and one.loss is None]
    parts.append(_explained(compared, high, highest, places, number))
    if any(one.would_tell == WOULD_TELL for one in findings):
        parts.append("a line to a model that has not learned the images says nothing of basins")
    return sentence(parts), of_every(findings)


def _explained(compared: Compared, high: Sequence[Finding], named: Finding, places: Places, number: int) -> str:
    """Of how many barriers permutation and scale explain at least most, by intervals that hold for all at once.

    named: the barrier of which the sentence speaks before. number: as of `_finding`.
    """
    causes = [(one, cause) for one in high if (cause := cause_of(compared, one.pair, number)) is not None]
    if len(causes) < 2:
        return "".join(
            cause.text if one is named else f"as for the barrier {places.at(one.pair)}, {cause.text}"
            for one, cause in causes
        )
    explained = sum(cause.verdict == YES for _, cause in causes)
    return f"order and scale of the channels explain most of {explained} of these {count(len(causes), 'barrier')}"


def _is_one_point(compared: Compared, pair: Pair) -> bool:
    return relation(compared, pair) in (Relation.EQUAL, Relation.ROUNDED)


@dataclass(frozen=True)
class Basin(Finding):
    """The finding about one pair, whose number is the barrier in the metric that the task is judged by."""

    loss: Height | None = None
    """The barrier in the loss where accuracy (AUC) shows none."""
    where: str = ""
    """`ALONE` where accuracy has none, `SHOWN` where that is not decided; empty where it has one, or none is shown."""


ALONE, SHOWN = "in the loss alone", "shown by the loss"


def _finding(compared: Compared, pair: Pair, number: int) -> Basin | None:
    """No barrier is where accuracy (or AUC) and the loss both have none, and one where either has.

    Of either metric only one end of its interval can err. A wrong *yes* takes the upper end of a metric that has a
    barrier, whatever the other one says. A wrong *no* takes a lower end of either, so lower ends hold for both at once.
    number: of pairs and tasks about which verdicts are given at once.
    """
    rows = compared.main_rows("barriers", pair)
    both = compared.both(pair)
    if _is_one_point(compared, pair):
        return Basin(pair, YES, f"yes, {both} are one point, so no line lies between them", 0.0)
    if rows.empty:
        return None
    if reason := why_not(compared, pair):
        text = f"whether {both} lie in one basin cannot be told, because {reason}"
        return Basin(pair, UNKNOWN, text, would_tell=WOULD_TELL)
    score, loss = (height(compared, pair, metric, number) for metric in (compared.metric(pair.task), "loss"))
    first, second = compared.label(pair.first), compared.label(pair.second)
    images = "" if math.isnan(score.num_examples) else f"on {count(int(score.num_examples), 'test image')} "
    recomputed = ", with BatchNorm's statistics recomputed," if compared.has_batchnorm(pair) else ""
    way = f"{images}the barrier on the straight line from {first} to {second}{recomputed} is"
    ends = score.value, score.low, score.high
    if score.verdict == NO:
        cause = cause_of(compared, pair, number)
        explained = f"; {cause.text}" if cause is not None else ""
        text = f"not as they are: {way} {score.against_margin}{explained}"
        would, left_open = (cause.would_tell, cause.left_open) if cause is not None else ("", "")
        return Basin(pair, NO, text, *ends, would, left_open)
    joined = "and" if score.verdict == loss.verdict else "but"
    numbers = f"{way} {score.against_margin}, {joined} {loss.against_margin}"
    if loss.verdict == NO:
        return Basin(
            pair, NO, f"not in the loss: {numbers}", *ends, loss=loss, where=ALONE if score.verdict == YES else SHOWN
        )
    if score.verdict == loss.verdict == YES:
        return Basin(pair, YES, f"yes, {numbers}", *ends)
    text = f"whether {both} lie in one basin cannot be told: {score.unknown or numbers}"
    return Basin(pair, UNKNOWN, text, *ends, would_tell=_would_tell(compared, pair, score, loss))


def _would_tell(compared: Compared, pair: Pair, *heights: Height) -> str:
    """Images that would decide, if the values stay; empty where images can decide nothing.

    One height above its margin is enough for *no*, so the fewest that show one suffice; that there is no barrier takes
    as many as the slowest one needs.
    """
    undecided = [one for one in heights if one.verdict == UNKNOWN and not one.unknown]
    higher = [one.images_needed(0.8) for one in undecided if one.value > one.margin]
    if higher:
        needed = min((number for number in higher if math.isfinite(number)), default=math.nan)
    elif not undecided or any(one.unknown for one in heights):
        return ""
    else:
        both = 1 - 0.2 / len(undecided)  # so that 80 % of sets of images decide them all
        slowest = [one.images_needed(both) for one in undecided]
        needed = max(slowest) if all(map(math.isfinite, slowest)) else math.nan
    return compared.images_that_tell(pair, needed, heights[0].num_examples, "landscape")


@dataclass(frozen=True)
class Cause:
    """Explanation of a barrier by permutation or scale (`yes`: of all or most of it), and the way that gives it."""

    verdict: str
    text: str
    way: str
    would_tell: str = ""
    left_open: str = ""


def cause_of(compared: Compared, pair: Pair, number: int = 1) -> Cause | None:
    """Explain the barrier between two models by the ways of `connection`; None where none of these was measured.

    A way is chosen on training images and judged on test images, so that choosing among several makes no verdict more
    likely to be wrong; without measurements on training images it is the one that corrects most. That none explains the
    barrier is a statement about each of them. number: of pairs and tasks about which verdicts are given at once,
    whether they have a barrier or not, since the images that judge say which ones have.
    """
    by_way = _by_way(compared, pair, "test")
    present = [way for way in EXPLANATIONS if way in by_way]
    if not present:
        return None
    if relation(compared, pair) is Relation.PERMUTED and "aligned" in by_way:
        return Cause(
            YES, "the order of the channels explains all of it, since the matched networks are equal", "aligned"
        )
    margin = compared.margin(pair)
    way = _chosen(_by_way(compared, pair, "train"), present, margin)
    explanation = EXPLANATIONS[way]
    if way == "aligned" and compared.has_batchnorm(pair):
        explanation = "the order of the channels"  # not alone: recomputed statistics correct the scale
    taken = float(by_way[way].get("num_examples", math.nan))
    height, low, high = among(ranged(by_way[way], "barrier"), number)
    needed = images_that_decide(height, low, high, margin, taken)
    is_open = low <= margin <= high
    measured = _measured_as(by_way)
    if high < margin:
        left = f"{measured}{CORRECTED[way]} {points(height)}{point_range(low, high)} are left, less than the margin"
        return Cause(YES, f"{explanation} explain{_s(way)} it: {left}", way)
    left = f"{points(height)}{point_range(low, high)}"
    beside = "more than the margin"
    if is_open:
        beside = "and the margin lies in that interval, so whether more than the margin is left cannot be told"
    share, low, high = among(ranged(by_way[way], "left"), number, PART)
    shown = f"{percent(share)}{percent_range(low, high)} of it is left, that is {left}, {beside}"
    if high < MOSTLY:
        text = f"{explanation} explain{_s(way)} most of it: {measured}{shown}"
        if not is_open:
            return Cause(YES, text, way)
        would = compared.images_that_tell(pair, needed, taken, CONNECTION)
        return Cause(YES, text, way, would, f"whether {CORRECTED[way]} more than the margin is left")
    shown = f"{measured}{CORRECTED[way]} {shown}"
    if "aligned_rescaled" not in present:
        together = "whether order and scale of the channels together explain it was not measured"
        would = "the way aligned_rescaled of analyses.landscape.connection"
        return Cause(UNKNOWN, f"{together}, and {shown}", way, would, EXPLAINED)
    if all(among(ranged(by_way[one], "left"), number, PART)[1] > MOSTLY for one in present):
        return Cause(NO, f"neither order nor scale of the channels, as far as found, explains it: {shown}", way)
    text = f"whether order and scale of the channels explain most of it cannot be told: {shown}"
    would = compared.images_that_tell(pair, math.nan, taken, CONNECTION)
    return Cause(UNKNOWN, text, way, would, EXPLAINED)


def _measured_as(by_way: Mapping[str, Row]) -> str:
    """`on 192 test images, where it is 47.4 points, `: the barrier of which a way leaves a part, on its own images."""
    row = by_way.get("straight")
    if row is None:
        return ""
    return f"on {count(int(row['num_examples']), 'test image')}, where it is {points(float(row['barrier']))}, "


def _by_way(compared: Compared, pair: Pair, split: str) -> dict[str, Row]:
    rows = compared.main_rows("connection", pair, split)
    return {str(row["way"]): row for row in rows.to_dict("records")} if len(rows) else {}


def _chosen(by_way: Mapping[str, Row], present: Sequence[str], margin: float) -> str:
    """The simplest way that leaves less than the margin, else the one that leaves least, by the training images."""
    measured = [way for way in present if way in by_way]
    enough = [way for way in measured if ranged(by_way[way], "barrier")[2] < margin]
    if enough or not measured:
        return [*enough, present[-1]][0]
    heights = {way: float(by_way[way]["barrier"]) for way in measured}
    return min(measured, key=lambda way: heights[way] if math.isfinite(heights[way]) else math.inf)


def _s(way: str) -> str:
    return "" if way == "aligned_rescaled" else "s"


def metric_name(compared: Compared, pair: Pair) -> str:
    """The metric of the pair's task, as it is printed."""
    return "AUC" if compared.metric(pair.task) == "auc" else "accuracy"
