"""Findings of all pairs of models on all tasks behind one answer, and how several of them are summed up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transferscope.answers.answer import NO, UNKNOWN, YES, Answer, PartialAnswer
from transferscope.answers.compared import Compared, Pair
from transferscope.answers.wording import count, listed


@dataclass(frozen=True)
class Finding:
    """The answer for one pair on one task, as a clause without a full stop, and its number."""

    pair: Pair
    verdict: str
    text: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    would_tell: str = ""
    left_open: str = ""


def answer_of(
    shown: Finding,
    findings: Sequence[Finding],
    compared: Compared,
    *,
    id: str,
    question: str,
    answer: str,
    unit: str,
    measure: str,
    figure: str,
    section: str,
) -> Answer:
    """The answer to a question about all pairs, with the verdict and the number of one finding.

    Args:
        shown: The finding that decides, by `of_every`, `of_some`, `largest` or `smallest`.
        findings: Those of all pairs and tasks; what would tell any of them is named.
        id, question, answer, unit, measure, figure, section: As of `Answer`.
    """
    return Answer(
        id=id,
        question=question,
        answer=answer,
        verdict=shown.verdict,
        value=shown.value,
        low=shown.low,
        high=shown.high,
        unit=unit,
        measure=measure,
        models=compared.labels(shown.pair),
        figure=figure,
        section=section,
        would_tell=would_tell(findings),
        left_open=shown.left_open if len(findings) == 1 else "",
        parts=tuple(_part(compared, one) for one in findings) if len(findings) > 1 else (),
    )


def _part(compared: Compared, one: Finding) -> PartialAnswer:
    models = compared.labels(one.pair)
    return PartialAnswer(one.pair.task, models, one.verdict, one.value, one.low, one.high, one.would_tell)


class Places:
    """Names of the pairs that findings are about, of the tasks of a single pair, or of pairs on tasks."""

    def __init__(
        self,
        compared: Compared,
        findings: Sequence[Finding],
        name: Callable[[Pair], str] | None = None,
        *,
        whatever_task: bool = False,
    ) -> None:
        """name: of a pair; None: `A and B`. whatever_task: each finding is that of a pair, on whatever task it is."""
        self._name = name or compared.both
        self.of_one_pair = not whatever_task and len({compared.key(one.pair) for one in findings}) == 1
        self.on_one_task = whatever_task or len({one.pair.task for one in findings}) == 1

    def name(self, pair: Pair) -> str:
        """`A and B`, `photos`, or `A and B on photos`."""
        if self.of_one_pair:
            return pair.task
        return self._name(pair) if self.on_one_task else f"{self._name(pair)} on {pair.task}"

    def at(self, pair: Pair) -> str:
        """`between A and B`, `on images of photos`, or `between A and B on photos`."""
        return f"on images of {pair.task}" if self.of_one_pair else f"between {self.name(pair)}"

    def among(self, findings: Sequence[Finding]) -> str:
        """`between 2 pairs (A & B and A & C)`, `on images of photos and sketches`, or `in 5 comparisons`."""
        number = len(findings)
        if self.of_one_pair:
            return "on images of " + (
                listed([one.pair.task for one in findings]) if number <= MOST_NAMED else count(number, "task")
            )
        return f"{'between' if self.on_one_task else 'in'} {self.counted(findings)}"

    def counted(self, findings: Sequence[Finding]) -> str:
        """`1 pair (A & C)`, with at most three names."""
        text = count(len(findings), self.noun)
        if 0 < len(findings) <= MOST_NAMED:
            text += f" ({listed([self.name(one.pair).replace(' and ', ' & ') for one in findings])})"
        return text

    @property
    def noun(self) -> str:
        """One of the things that findings are about."""
        if self.of_one_pair:
            return "task"
        return "pair" if self.on_one_task else "comparison"


def of_verdict(findings: Sequence[Finding], verdict: str) -> list[Finding]:
    """The findings of one verdict."""
    return [one for one in findings if one.verdict == verdict]


def largest(findings: Sequence[Finding]) -> Finding:
    """The one of the largest value; NaN counts least."""
    return max(findings, key=lambda one: -math.inf if math.isnan(one.value) else one.value)


def smallest(findings: Sequence[Finding]) -> Finding:
    """The one of the smallest value; NaN counts least."""
    return min(findings, key=lambda one: math.inf if math.isnan(one.value) else one.value)


def of_every(findings: Sequence[Finding]) -> Finding:
    """The finding that decides whether all pairs are so: of `no`, else of `cannot tell`, else of `yes`, the largest."""
    return _first_of((NO, UNKNOWN, YES), findings)


def of_some(findings: Sequence[Finding]) -> Finding:
    """The finding that decides whether some pair is so: of `yes`, else of `cannot tell`, else of `no`, the largest."""
    return _first_of((YES, UNKNOWN, NO), findings)


def _first_of(verdicts: Sequence[str], findings: Sequence[Finding]) -> Finding:
    return largest(next(chosen for verdict in verdicts if (chosen := of_verdict(findings, verdict))))


def would_tell(findings: Sequence[Finding]) -> str:
    """Everything that would decide what the findings leave open, in a few words however many they are."""
    needed = list(dict.fromkeys(one.would_tell for one in findings if one.would_tell))
    images = [one for one in needed if IMAGES in one]
    others = [one for one in needed if one not in images]
    return listed([*(images if len(images) < 2 else [f"more {IMAGES}"]), *others])


IMAGES = "test images"
MOST_NAMED = 3
