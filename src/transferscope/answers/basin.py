"""Do two models lie in one basin, and does permutation or scale explain a barrier?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from transferscope.answers.answer import NO, UNKNOWN, YES, Answer
from transferscope.answers.compared import Compared, Pair
from transferscope.answers.findings import Finding, largest, named, of_verdict, overall
from transferscope.answers.rule import decide, images_that_decide
from transferscope.answers.same_function import Relation, relation
from transferscope.answers.wording import about, count, percent, percent_range, point_range, points, sentence
from transferscope.claims.connection import MOSTLY
from transferscope.experiment.options import BARRIER_MARGIN

EXPLANATIONS = {
    "aligned": "the order of the channels alone",
    "rescaled": "the scale of the channels alone",
    "aligned_rescaled": "order and scale of the channels together",
}
"""Ways of `connection` by what they take out of a barrier, the simplest first."""


def basin(compared: Compared) -> Answer | None:
    """Answer whether the straight line between models has a barrier, by the claims' margin; None where none was walked."""
    findings = [one for pair in compared.pairs if (one := _finding(compared, pair)) is not None]
    if not findings:
        return None
    if len(findings) == 1:
        (shown,) = findings
        question = f"Do {compared.both(shown.pair)} lie in one basin?"
        text = sentence([shown.text])
    else:
        question = "Do the models lie in one basin?"
        text, shown = _of_many(compared, findings)
    return Answer(
        id="basin",
        question=question,
        answer=text,
        verdict=overall(findings, UNKNOWN if of_verdict(findings, UNKNOWN) else NO),
        value=shown.value,
        low=shown.low,
        high=shown.high,
        unit="score",
        measure=f"barrier on the straight line, test {_metric(compared)}",
        models=compared.labels(shown.pair),
        figure=compared.figure("barrier", "connection_"),
        section="figures_12_17",
        would_tell="; ".join(dict.fromkeys(one.would_tell for one in findings if one.would_tell)),
    )


def _of_many(compared: Compared, findings: list[Finding]) -> tuple[str, Finding]:
    words = {
        YES: "no barrier on the straight line between {}",
        NO: "a barrier between {}",
        UNKNOWN: "between {} it cannot be told",
    }
    parts = [
        text.format(named(chosen, compared.both)) for verdict, text in words.items()
        if (chosen := of_verdict(findings, verdict))
    ]  # fmt: skip
    highest = largest(findings)
    shown = f"{points(highest.value)}{point_range(highest.low, highest.high)}"
    parts.append(f"the highest is {shown} of test {_metric(compared)}, between {compared.both(highest.pair)}")
    if reasons := _explained(compared, of_verdict(findings, NO)):
        parts.append(reasons)
    return sentence(parts), highest


def _explained(compared: Compared, high: list[Finding]) -> str:
    """Of how many barriers permutation and scale explain at least most."""
    causes = [cause for one in high if (cause := cause_of(compared, one.pair)) is not None]
    if not causes:
        return ""
    explained = sum(cause.verdict == YES for cause in causes)
    return f"order and scale of the channels explain most of {explained} of these {count(len(causes), 'barrier')}"


def _finding(compared: Compared, pair: Pair) -> Finding | None:
    rows = compared.main_rows("barriers", pair)
    both = compared.both(pair)
    known = relation(compared, pair)
    if known in (Relation.EQUAL, Relation.ROUNDED):
        return Finding(pair, YES, f"yes, {both} are one point, so no line lies between them", 0.0)
    if rows.empty:
        return None
    row = rows.to_dict("records")[0]
    height, low, high = (float(row[name]) for name in ("barrier", "barrier_low", "barrier_high"))
    margin = compared.margin(pair)
    shown = f"{points(height)}{point_range(low, high)}"
    if not margin > 0:
        reason = (
            "one of them does not reach a finite accuracy" if math.isnan(margin) else "they are no better than guessing"
        )
        return Finding(pair, UNKNOWN, f"whether {both} lie in one basin cannot be told: {reason}", height, low, high)
    within = f"the margin of {points(margin)}, {percent(BARRIER_MARGIN)} of what both have learned"
    verdict = decide(height, low, high, (-math.inf, margin))
    metric = _metric(compared)
    if verdict == YES:
        text = (
            f"yes, on the straight line from {compared.label(pair.first)} to {compared.label(pair.second)} test "
            f"{metric} falls by {shown} below the ends at most, less than {within}"
        )
        return Finding(pair, YES, text, height, low, high)
    if verdict == UNKNOWN:
        needed = images_that_decide(height, low, high, margin, float(row["num_examples"]))
        more = f"about {about(needed)} test images" if math.isfinite(needed) else "more test images"
        text = (
            f"whether {both} lie in one basin cannot be told: on the straight line test {metric} falls by {shown}, and "
            f"{within}, lies in that interval"
        )
        return Finding(pair, UNKNOWN, text, height, low, high, would_tell=more)
    text = (
        f"not as they are: on the straight line from {compared.label(pair.first)} to {compared.label(pair.second)} "
        f"test {metric} falls by {shown} below the ends, more than {within}"
    )
    cause = cause_of(compared, pair)
    text += f"; {cause.text}" if cause is not None else ""
    return Finding(pair, NO, text, height, low, high)


@dataclass(frozen=True)
class Cause:
    """Whether permutation or scale explains a barrier (`yes`: all or most of it), in words, and the way that does."""

    verdict: str
    text: str
    way: str


def cause_of(compared: Compared, pair: Pair) -> Cause | None:
    """Explain the barrier between two models by the ways of `connection`; None where none of these was measured."""
    rows = compared.main_rows("connection", pair)
    by_way = {row["way"]: row for row in rows.to_dict("records")} if len(rows) else {}
    present = [way for way in EXPLANATIONS if way in by_way]
    if not present:
        return None
    if relation(compared, pair) is Relation.PERMUTED and "aligned" in by_way:
        return Cause(
            YES, "the order of the channels explains all of it, since the matched networks are equal", "aligned"
        )
    margin = compared.margin(pair)
    for way in present:
        height, low, high = (float(by_way[way][name]) for name in ("barrier", "barrier_low", "barrier_high"))
        if high < margin:
            left = f"{points(height)}{point_range(low, high)} are left of it, less than the margin"
            return Cause(YES, f"{EXPLANATIONS[way]} explain{_s(way)} it: {left}", way)
    best = min(present, key=lambda way: _left(by_way[way])[0] if math.isfinite(_left(by_way[way])[0]) else math.inf)
    left, low, high = _left(by_way[best])
    shown = f"{percent(left)}{percent_range(low, high)} of it {'is' if left < 1 else 'are'} left"
    if high < MOSTLY:
        return Cause(YES, f"{EXPLANATIONS[best]} explain{_s(best)} most of it: {shown}", best)
    if low > MOSTLY:
        return Cause(NO, f"neither order nor scale of the channels explains it: at the least {shown}", best)
    if "aligned_rescaled" not in present:
        return Cause(UNKNOWN, f"channels could not be matched, and of scale alone {shown}", best)
    return Cause(UNKNOWN, f"how much of it order and scale of the channels explain cannot be told: {shown}", best)


def _s(way: str) -> str:
    return "" if way == "aligned_rescaled" else "s"


def _left(row: dict[object, object]) -> tuple[float, float, float]:
    left, low, high = (float(str(row[name])) for name in ("left", "left_low", "left_high"))
    return left, low, high


def _metric(compared: Compared) -> str:
    return "AUC" if compared.metric == "auc" else "accuracy"
