"""What could not be told, and what would tell?"""

from __future__ import annotations

from collections.abc import Sequence

from transferscope.answers.answer import UNKNOWN, Answer
from transferscope.answers.compared import Compared
from transferscope.answers.same_function import facts, relation
from transferscope.answers.wording import count, either, listed, sentence

SUBJECTS = {
    "basin": "whether they lie in one basin",
    "averaging": "whether averaging pays",
    "critical_modules": "which modules are critical",
    "shared_mistakes": "how far their mistakes overlap",
    "replacement": "what a replacement would break",
}
"""What is not known where a question has no answer."""
OPEN = SUBJECTS | {
    "same_function": "whether they are the same function",
    "replacement": "whether the replacement stays within the accepted loss",
}
"""What is open where the verdict is `cannot tell`."""
BY_WEIGHTS = ("basin", "averaging", "critical_modules")
"""Questions that need networks whose weights correspond."""


def open_questions(compared: Compared, answers: Sequence[Answer]) -> Answer:
    """Name what the other answers leave open, with what would tell it, and what the whole card is about."""
    parts = [*_not_defined(compared), *_not_measured(compared, {one.id for one in answers}), *_undecided(answers)]
    nothing = "" if parts else "nothing is open for these files and images of this kind; "
    scope = f"{nothing}whether other training runs behave alike only their files would tell"
    if not compared.has_images:
        scope = "" if parts else "nothing is open, since all of this follows from the weights"
    return Answer(
        id="open",
        question="What could not be told, and what would tell?",
        answer=sentence([*parts, scope]),
        verdict=UNKNOWN if parts else "",
        value=float(len([one for one in answers if one.verdict == UNKNOWN])),
        unit="count",
        measure="answers that cannot be told",
        models=tuple(model.label for model in compared.models.values()),
    )


def _not_defined(compared: Compared) -> list[str]:
    """Pairs of different architectures have no line, no average and no distance."""
    apart = [pair for pair in compared.pairs if (row := facts(compared, pair)) is not None and not row["comparable"]]
    if not apart:
        return []
    if len(compared.pairs) == 1:
        pair = apart[0]
        kinds = [compared.models[run].architecture for run in (pair.first, pair.second)]
        one = " and ".join(kinds) if kinds[0] != kinds[1] and all(kinds) else "networks of different tensors"
        who = f"between {compared.both(pair)} ({one})"
    else:
        who = f"between {count(len(apart), 'pair')} of different architectures"
    return [
        f"{who} there is no line, no average and no distance module by module, since their weights do not correspond"
    ]


def _not_measured(compared: Compared, answered: set[str]) -> list[str]:
    needed = [name for name in SUBJECTS if name not in answered]
    if compared.pairs and all(relation(compared, pair).by_weights for pair in compared.pairs):
        needed = []  # nothing is left to ask of one function
    comparable = [pair for pair in compared.pairs if (row := facts(compared, pair)) is None or row["comparable"]]
    if not comparable:
        needed = [name for name in needed if name not in BY_WEIGHTS]
    if not needed:
        return []
    subjects = listed([SUBJECTS[name] for name in needed])
    if not compared.has_images:
        return [
            f"without images it is not known {either([SUBJECTS[name] for name in needed])}: labelled ones would tell"
        ]
    return [f"not measured is {subjects}: their analyses were left out"]


def _undecided(answers: Sequence[Answer]) -> list[str]:
    parts = []
    for one in answers:
        if one.verdict == UNKNOWN:
            would = f", which {one.would_tell} would tell" if one.would_tell else ""
            parts.append(f"{OPEN.get(one.id, one.id)}{would}")
        elif one.would_tell and one.id == "basin":
            parts.append(f"whether order and scale explain most of the barrier, which {one.would_tell} would tell")
    return [f"open {'is' if len(parts) == 1 else 'are'} {listed(parts)}"] if parts else []
