"""The card of some models: every question that their tables answer, in at most eight sentences."""

from __future__ import annotations

from collections.abc import Callable

from transferscope.answers.answer import MOST, Answer, AnswerCard, card
from transferscope.answers.averaging import averaging
from transferscope.answers.changed_modules import changed_modules, critical_modules
from transferscope.answers.compared import Compared
from transferscope.answers.learned import learned
from transferscope.answers.one_basin import basin
from transferscope.answers.open_questions import open_questions
from transferscope.answers.same_function import same_function
from transferscope.answers.shared_mistakes import replacing, shared_mistakes

QUESTIONS: tuple[Callable[[Compared], Answer | None], ...] = (
    learned, same_function, basin, averaging, changed_modules, critical_modules, shared_mistakes, replacing,
)  # fmt: skip
"""In the order of the card; the last answer is what they leave open."""


def answer_questions(compared: Compared, title: str = "") -> AnswerCard:
    """Answer what the tables answer about the models, by the rule and the margins of the claims."""
    answers = [one for question in QUESTIONS if (one := question(compared)) is not None]
    models = [model.as_dict() for model in compared.distinct]
    left_out = {"critical_modules"} if len(answers) == MOST else set()  # a card that begins with models that guess
    answers = [one for one in answers if one.id not in left_out]
    return card(title or _title(compared), models, [*answers, open_questions(compared, answers, left_out)])


def _title(compared: Compared) -> str:
    labels = [model.label for model in compared.distinct]
    return f"{', '.join(labels[:-1])} and {labels[-1]}" if len(labels) > 1 else "".join(labels)
