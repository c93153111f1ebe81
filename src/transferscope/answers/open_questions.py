"""Name the questions that stay open, and what would tell them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from transferscope.answers.answer import UNKNOWN, Answer
from transferscope.answers.compared import Compared
from transferscope.answers.same_function import facts, is_rounded_copy, relation
from transferscope.answers.wording import count, either, listed, network, sentence

SUBJECTS = {
    "basin": "whether they lie in one basin",
    "averaging": "whether averaging pays",
    "critical_modules": "which modules are critical",
    "shared_mistakes": "how far their mistakes overlap",
    "replacement": "what a replacement would break",
}
"""Things that are not known where a question has no answer."""
OPEN = SUBJECTS | {
    "learned": "whether the models have learned these images",
    "same_function": "whether they are the same function",
    "replacement": "whether the replacement stays within the accepted loss",
}
"""Things that are open where the verdict is `cannot tell`."""
OF_SOME = {"basin": "whether they lie in one basin or what explains their whole barrier"}
"""Things that may be open for some pairs or tasks where the verdict is that of others."""
ENOUGH = (
    "each of these numbers is enough in at least 80 % of cases, if the true value is the measured one; of a folder "
    "without parts half of the images are test images"
)
BY_WEIGHTS = ("basin", "averaging", "critical_modules")
"""Questions that need networks whose weights correspond."""


def open_questions(compared: Compared, answers: Sequence[Answer], left_out: Collection[str] = ()) -> Answer:
    """Name what the other answers leave open, with what would tell it, and what the whole card is about.

    left_out: ids of questions that were answered, for which the card has no room.
    """
    parts = [*_not_defined(compared), *_not_measured(compared, {*left_out, *(one.id for one in answers)})]
    parts += _undecided(answers, _scope(compared))
    scope = []
    if compared.has_images:
        whole = [] if parts else ["every question has an answer, on images like these"]
        scope = [*whole, "the answers are about these models alone, not about others trained in the same way"]
    elif not parts:
        scope = ["every question has an answer, which follows from the weights alone"]
    return Answer(
        id="open",
        question="What could not be told, and what would tell?",
        answer=sentence([*parts, *scope]),
        verdict=UNKNOWN if parts else "",
        value=float(len([one for one in answers if one.verdict == UNKNOWN])),
        unit="count",
        measure="answers that cannot be told",
        models=tuple(model.label for model in compared.distinct),
    )


def _not_defined(compared: Compared) -> list[str]:
    """A model alone has no pair, and a pair of different architectures no line, no average and no distance."""
    if not compared.pairs:
        return ["one model alone makes no pair to ask about; its distance from its parent is in the report"]
    apart = [
        pair
        for pair in compared.pairs_of_weights
        if (row := facts(compared, pair)) is not None and not row["comparable"]
    ]
    if not apart:
        return []
    if len(compared.pairs_of_weights) == 1:
        pair = apart[0]
        kinds = [network(compared.models[run].architecture) for run in (pair.first, pair.second)]
        one = " and ".join(kinds) if kinds[0] != kinds[1] and all(kinds) else "networks of different tensors"
        who = f"between {compared.both(pair)} ({one})"
    else:
        who = f"between {count(len(apart), 'pair')} of different architectures"
    return [
        f"{who} there is no line, no average and no distance module by module, since their weights do not correspond, "
        "and no images would change that"
    ]


def _not_measured(compared: Compared, answered: set[str]) -> list[str]:
    needed = [name for name in SUBJECTS if name not in answered]
    if all(relation(compared, pair).by_weights for pair in compared.pairs):
        needed = []  # nothing is left to ask of one function, or of one model
    if all(is_rounded_copy(compared, pair) for pair in compared.pairs):
        needed = [name for name in needed if name != "critical_modules"]  # none differs by more than rounding
    comparable = [pair for pair in compared.pairs if (row := facts(compared, pair)) is None or row["comparable"]]
    if not comparable:
        needed = [name for name in needed if name not in BY_WEIGHTS]
    if not needed:
        return []
    subjects = either([SUBJECTS[name] for name in needed])
    if not compared.has_images:
        return [f"without images it is not known {subjects}: labelled ones would tell"]
    return [f"it is not known {subjects}, since these analyses were left out or gave no result"]


def _scope(compared: Compared) -> str:
    """The things of which an answer may leave some open; empty of a single pair on one task."""
    if len(compared.pairs_of_weights) > 1:
        return "for some of the pairs "
    return "on some of the tasks " if len(compared.pairs) > 1 else ""


def _undecided(answers: Sequence[Answer], scope: str) -> list[str]:
    """The questions without a verdict, and those that an answer leaves open in part, by what would tell them.

    scope: of the latter. Questions that nothing would tell come last, so that none seems to belong to another remedy.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for one in answers:
        would = f" ({one.would_tell} would tell)" if one.would_tell else ""
        if one.verdict == UNKNOWN:
            groups.setdefault((would, ""), []).append(one.left_open or OPEN[one.id])
        elif one.would_tell:
            left = one.left_open or OF_SOME.get(one.id, OPEN[one.id])
            groups.setdefault((would, scope), []).append(left)
    ordered = sorted(groups.items(), key=lambda group: not group[0][0])
    said = [f"{where}{listed(texts)}{would}" for (would, where), texts in ordered]
    open_ = [f"{'nor' if index else 'it cannot be told'} {text}" for index, text in enumerate(said)]
    return [*open_, ENOUGH] if any("about " in would for would, _ in groups) else open_
