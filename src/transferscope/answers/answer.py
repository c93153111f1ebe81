"""One answer in a sentence with its number, and a card of at most eight of them."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from transferscope.answers.wording import listed
from transferscope.experiment.names import EntryName
from transferscope.system.errors import UserError

VERSION = 1
"""Of the layout of answers.json; raised when a key changes its meaning."""
MOST = 8
"""Sentences of a card."""
ONE_TASK = "images"
"""Name of the task where models are compared on the images of one that has no other name."""
SINGLE = ("learned", "averaging")
"""Answers in which each interval holds by itself."""
YES, NO, UNKNOWN, NONE = "yes", "no", "cannot tell", ""
"""Verdicts; NONE of an answer that gives an amount."""


@dataclass(frozen=True)
class PartialAnswer:
    """The number and the verdict of one pair of models on one task, behind an answer about several."""

    task: str
    models: tuple[str, ...]
    verdict: str = NONE
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    """Unit and measure are those of the answer; docs/answers.md says which intervals hold at once."""
    would_tell: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; numbers that do not exist are None."""
        return _plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PartialAnswer:
        """The inverse of `as_dict`."""
        known = {key: value for key, value in values.items() if value is not None}
        return cls(**known | {"models": tuple(known["models"])})


@dataclass(frozen=True)
class Answer:
    """The answer to one question, as a sentence and as a number with its 95 % interval."""

    id: str
    """Names the question for programs, as `same_function`; the same in every card."""
    question: str
    """Ends with a question mark."""
    answer: str
    """One sentence."""
    verdict: str = NONE
    """`yes`, `no` or `cannot tell`; empty where the question asks for an amount."""
    value: float = math.nan
    """The number behind the verdict; NaN where nothing was measured."""
    low: float = math.nan
    high: float = math.nan
    """Ends of the 95 % interval; NaN where the number follows from weights alone, or nothing gives an interval."""
    unit: str = ""
    """Of the three numbers.

    `share` (0.02 is 2 %), `score` (0.02 is two points of accuracy or AUC), `coefficient` or `count`."""
    measure: str = ""
    """The quantity that `value` is, in words."""
    models: tuple[str, ...] = ()
    """The models that `value` is of, by label."""
    figure: str = ""
    """Catalog entry of the figure that shows it, or its key in `Comparison.figures`; empty where there is none."""
    section: str = ""
    """Section of the report that shows more."""
    file: str = ""
    """Path of a file that the answer speaks of, as the merged weights."""
    would_tell: str = ""
    """Images, or a study, that would decide what `cannot tell` leaves open, or what is open beside the verdict."""
    left_open: str = ""
    """The thing that is open beside the verdict of a single pair, as `whether ...`; empty where there is none."""
    parts: tuple[PartialAnswer, ...] = ()
    """Of several pairs, or of several tasks, each of them; empty where there is one."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; numbers that do not exist are None."""
        return _plain(self) | {"parts": [part.as_dict() for part in self.parts]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Answer:
        """The inverse of `as_dict`."""
        known = {key: value for key, value in values.items() if value is not None}
        parts = tuple(PartialAnswer.from_dict(part) for part in known.get("parts", ()))
        return cls(**known | {"models": tuple(known.get("models", ())), "parts": parts})


def _plain(one: Answer | PartialAnswer) -> dict[str, Any]:
    values = asdict(one) | {"models": list(one.models)}
    for name in ("value", "low", "high"):
        values[name] = values[name] if math.isfinite(values[name]) else None
    return values


@dataclass(frozen=True)
class AnswerCard:
    """At most eight answers about some models, or about a study."""

    title: str
    models: tuple[Mapping[str, str], ...]
    """`label`, `file` and `architecture` of each model; none of a study."""
    answers: tuple[Answer, ...]

    def __post_init__(self) -> None:
        assert len(self.answers) <= MOST, f"{len(self.answers)} answers: a card has at most {MOST}"

    def __getitem__(self, question: str) -> Answer:
        """The answer to a question by its id. Raises UserError that names the ids that are there."""
        for answer in self.answers:
            if answer.id == question:
                return answer
        there = ", ".join(answer.id for answer in self.answers)
        raise UserError(f"the card has no answer {question!r}, only {there}")

    def to_json(self) -> str:
        """The content of answers.json: `version`, `title`, `models` and `answers`, a list of `Answer.as_dict`."""
        content = {
            "version": VERSION,
            "title": self.title,
            "models": [dict(model) for model in self.models],
            "answers": [answer.as_dict() for answer in self.answers],
        }
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "answers.json") -> AnswerCard:
        """Read what `to_json` wrote. Raises UserError for another version or content."""
        try:
            content = json.loads(text)
            version = content["version"]
            known = {one.name for one in fields(Answer)}
            answers = [Answer.from_dict(one) for one in content["answers"] if set(one) <= known]
            models = tuple(dict(model) for model in content["models"])
            title = str(content["title"])
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{where} is no file of answers ({error}): make it again") from error
        if version != VERSION or len(answers) != len(content["answers"]):
            raise UserError(f"{where} has version {version} of the layout, not {VERSION}: make it again")
        return cls(title, models, tuple(answers))

    @property
    def note(self) -> str:
        """Say what the intervals of a card about models cover, and which of them hold at once; empty without any."""
        if not any(math.isfinite(one.low) for one in self.answers):
            return ""
        there = {one.id for one in self.answers if math.isfinite(one.low)}
        together = {
            "those of several pairs or tasks": any(one.parts for one in self.answers if one.id not in SINGLE),
            "those of all modules": "critical_modules" in there,
            "the lower ends of a barrier in both metrics": "basin" in there,
        }
        at_once = listed([text for text, said in together.items() if said])
        within = f"; within an answer {at_once} hold at once" if at_once else ""
        return f"In brackets 95 % intervals over test images{within}."

    def __str__(self) -> str:
        lines = [f"{number}. {one.question}\n   {one.answer}" for number, one in enumerate(self.answers, start=1)]
        return "\n".join([self.title, *lines, *([self.note] if self.models and self.note else [])])

    def _repr_html_(self) -> str:
        """The card in a notebook: question, answer, and the figure's name."""
        return (
            f"<p><strong>{html.escape(self.title)}</strong></p><ol>{''.join(map(_item, self.answers))}</ol>"
            f"{f'<p><small>{self.note}</small></p>' if self.models and self.note else ''}"
        )


def _item(answer: Answer) -> str:
    entry = EntryName.parse(answer.figure)
    figure = entry.of if entry.task == ONE_TASK else entry.owner  # with the task where there are several
    shown = f" <code>figures[&quot;{html.escape(figure)}&quot;]</code>" if figure else ""
    return f"<li><strong>{html.escape(answer.question)}</strong> {html.escape(answer.answer)}{shown}</li>"


def card(title: str, models: Sequence[Mapping[str, str]], answers: Sequence[Answer | None]) -> AnswerCard:
    """A card of the questions that have an answer."""
    return AnswerCard(title, tuple(models), tuple(one for one in answers if one is not None))
