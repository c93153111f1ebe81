"""The contents of the page, prepared for its templates: claims, panels, sections that have content, provenance."""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from transferscope.answers.answer import Answer, AnswerCard
from transferscope.answers.wording import listed
from transferscope.claims.decide import remarks
from transferscope.claims.evidence import CROSS_DOMAIN, Evidence
from transferscope.claims.registry import Claim
from transferscope.claims.verdict import FAILS, HOLDS, UNKNOWN
from transferscope.experiment.names import EntryName, RunName
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import Role, printed_names
from transferscope.plots.rendered import SavedFigure
from transferscope.report.chapters import CHAPTERS, images
from transferscope.report.chapters.chapter import Chapter, Section
from transferscope.system.errors import UserError
from transferscope.tables import formats
from transferscope.tables.formats import Format
from transferscope.tables.grid import Grid

MARKS = {HOLDS: ("✓", "holds"), FAILS: ("✗", "fails"), UNKNOWN: ("?", "unknown")}
"""Sign and style class of each verdict."""

PLURALS = {
    "comparison": "comparisons", "value": "values", "task": "tasks", "pair of domains": "pairs of domains",
    "set of domains": "sets of domains",
}  # fmt: skip

PAPERS_SCENARIOS = range(19, 30)
"""Figures of the paper that show a scenario across domains."""


@dataclass(frozen=True)
class Panel:
    """One image: its source is a data URI, so that the page needs no other file."""

    task: str
    generated: bool
    diverged: str
    """Runs behind the figure that diverged: what is shown of them is their last whole epoch."""
    alt: str
    src: str
    width: int
    height: int

    @property
    def wide(self) -> bool:
        return self.width > 1.7 * self.height


@dataclass(frozen=True)
class ClaimView:
    """A row of the claims table.

    ours: means, an item per place. effect: with its interval, and over how much. why: the verdict in at most two
    sentences, with what was left out and which runs were not trained to the end.
    """

    claim: Claim
    verdict: str
    reason: str
    ours: list[str]
    effect: str
    why: str

    @property
    def sides(self) -> str:
        return " | ".join(self.claim.sides)

    @property
    def mark(self) -> str:
        return MARKS[self.verdict][0]

    @property
    def style(self) -> str:
        return MARKS[self.verdict][1]


@dataclass(frozen=True)
class AnswerView:
    """An answer of the card, with the link to the section that shows more; empty where it has none."""

    answer: Answer
    link: str


@dataclass(frozen=True)
class SectionView:
    """A section with what there is to show."""

    section: Section
    rows: list[list[Panel]]
    tables: list[Grid]
    folded: list[Grid]
    claims: list[ClaimView] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.rows or self.tables)


Chapters = list[tuple[Chapter, list[SectionView]]]


def answer_views(card: AnswerCard | None, chapters: Chapters, others: Container[str]) -> list[AnswerView]:
    """The answers of a card; each links to the section that shows its figure, or to the one that it names.

    others: anchors of the page beside those of the sections.
    """
    views = []
    for answer in card.answers if card is not None else ():
        name = EntryName.parse(answer.figure).of
        sections = [view.section for _, views_of_chapter in chapters for view in views_of_chapter if not view.empty]
        shown = [one.id for one in sections if name and _shows(one, name)]
        named = [one.id for one in sections if one.id == answer.section]
        link = next(iter([*shown, *named]), answer.section if answer.section in others else "")
        views.append(AnswerView(answer, link))
    return views


def _shows(section: Section, figure: str) -> bool:
    """True of the section that has a figure, or one per run."""
    if callable(section.figures):
        return False
    return any(figure == name or figure.startswith(f"{name}_") for name in section.figures)


def claim_views(claims: pd.DataFrame, effects: pd.DataFrame, known: Mapping[str, Claim]) -> list[ClaimView]:
    """The rows of `decide_claims`, with numbers as the page prints them.

    Raises:
        UserError: a claim is not registered here.
    """
    unknown = [name for name in claims["id"] if name not in known]
    if unknown:
        raise UserError(f"claims: {', '.join(unknown)} is not registered; name its module in report.claims")
    return [
        _claim_view(known[row["id"]], row, effects[effects["id"] == row["id"]]) for row in claims.to_dict("records")
    ]


def _claim_view(claim: Claim, row: Mapping[Any, Any], effects: pd.DataFrame) -> ClaimView:
    effects = effects.fillna({"note": ""})
    counted = effects[effects["counted"].astype(bool)]
    places = counted.groupby("place", sort=False)
    ours = [" | ".join([f"{place} {_mean(claim, part, 'first')}", *_second(claim, part)]) for place, part in places]
    notes = remarks(list(effects[["unit", "counted", "note"]].itertuples(index=False, name=None)))
    effect = _effect(claim, row, differences=bool(counted["second"].notna().any()), places=len(places)) if ours else ""
    return ClaimView(claim, str(row["verdict"]), str(row["reason"]), ours, effect, _why(row, "; ".join(notes)))


def _why(row: Mapping[Any, Any], left_out: str) -> str:
    """Give the verdict's reason in at most two sentences, the second on the study that would decide it.

    left_out: End of the reason, about what was left out.
    """
    covers, unfinished, would_tell = (
        str(row[name]) if isinstance(row[name], str) else "" for name in ("covers", "unfinished", "would_tell")
    )
    reason = str(row["reason"]).removesuffix(left_out).removesuffix("; ") + (f", for {covers}" if covers else "")
    rising = f"not trained to the end are {unfinished}" if unfinished else ""
    first = "; ".join(filter(None, (reason, rising, left_out)))
    if row["verdict"] != UNKNOWN or not would_tell or reason.startswith("not run"):
        return _sentence(first)
    return f"{_sentence(first)} {_sentence(would_tell if ': ' in would_tell else f'to tell: {would_tell}')}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _mean(claim: Claim, part: pd.DataFrame, side: str) -> str:
    show: dict[str, Format] = {
        "score": formats.score(str(part["metric"].iloc[0])),
        "points": lambda value: f"{formats.points(value)} points",
        "share": formats.percent,
        "number": formats.significant,
        "coefficient": formats.decimals,
    }
    return show[claim.unit](float(part[side].mean()))


def _second(claim: Claim, part: pd.DataFrame) -> list[str]:
    return [_mean(claim, part, "second")] if part["second"].notna().any() else []


def _effect(claim: Claim, row: Mapping[Any, Any], *, differences: bool, places: int) -> str:
    """`+13.1 points [+10.3, +16.0] (16 comparisons, 4 tasks)`: signs of differences, none where there is a bound."""
    show = _shown(claim, differences)
    low, high = show(float(row["low"])), show(float(row["high"]))
    interval = ", no interval" if formats.MISSING in (low, high) else f" [{low}, {high}]"
    unit = " points" if claim.unit in ("score", "points", "share") else ""
    counts = _count("comparison" if differences else "value", int(row["num_comparisons"])), _count(claim.place, places)
    return f"{show(float(row['effect']))}{unit}{interval} ({', '.join(counts)})"


def _shown(claim: Claim, sign: bool) -> Format:
    if claim.unit == "coefficient":
        return lambda value: f"{value:{'+' if sign else ''}.3f}" if math.isfinite(value) else formats.MISSING
    if claim.unit == "number":
        return lambda value: formats.significant(value, 3, sign=sign)
    return lambda value: formats.points(value, sign=sign)


def _count(word: str, number: int) -> str:
    return f"{number} {word if number == 1 else PLURALS[word]}"


def whole_table(claims: pd.DataFrame) -> str:
    """Say how many verdicts may be false by chance, with and without correction, and how to read unfinished runs."""
    tested, decided = int(claims["p"].notna().sum()), claims[claims["verdict"] != UNKNOWN]
    rising = claims["unfinished"].fillna("").astype(bool).any()
    note = (
        " Of runs that were not trained to the end the brackets hold the points of the train metric that they still "
        "gained per epoch when they were stopped: the effect is partly one of how far training had come."
    )
    if not tested:
        return note.strip() if rising else ""
    kept = int((decided["corrected"] != UNKNOWN).sum())
    return (
        f"Each of the {tested} claims with an interval has a chance of at most 5 % of a false verdict, so in studies "
        f"like this one at most {tested / 20:.1f} are false on average, and at least one with a chance of "
        f"{100 * (1 - 0.95**tested):.0f} % if they were independent; {len(decided)} are decided. "
        f"After Holm's correction, with a chance of 5 % of any false verdict in the whole table, {kept} stay decided "
        "(column corrected of claims.csv)." + (note if rising else "")
    )


ROLES: Mapping[Role, str] = {
    "fine_tuned": "fine-tuned runs", "from_scratch": "runs from scratch", "shared_init": "runs that share their start",
}  # fmt: skip
"""Roles of which claims compare one kind, in words."""


def compared_kinds(plan: Plan) -> str:
    """Name the kinds that claims compare, and those of the same roles that figures alone show; empty without such."""
    parts = []
    for role, words in ROLES.items():
        compared = {run.kind: run.label for task in plan.targets() for run in plan.compared(task, role)}
        others: dict[str, str] = {}
        for task in plan.targets():
            for run in plan.left_out(task, role):
                others[run.kind] = f"{run.label} on {task}" if run.kind in compared else run.label
        if others:
            parts.append(f"of the {words} {_labels(compared)} and not {_labels(others)}")
    if not parts:
        return ""
    return (
        f"The claims compare {'; '.join(parts)}. Kinds that are not compared stand in figures, and in the claims on "
        "learning rates; `compared: true` of a kind chooses it."
    )


def _labels(kinds: Mapping[str, str]) -> str:
    return listed(list(dict.fromkeys(kinds.values())))


def section_views(evidence: Evidence, claims: list[ClaimView]) -> Chapters:
    """Chapters with their sections, those without content included (`empty`).

    Of a study that compares checkpoint files only what speaks of files, without the paper's tables and numbers.
    """
    of_files = evidence.plan.compares_files
    views = [
        (chapter, [_section_view(section, evidence, claims) for section in chapter.sections])
        for chapter in (map(_of_files, CHAPTERS) if of_files else CHAPTERS)
    ]
    if not of_files:
        return views
    names = _names_of_checkpoints(evidence.plan)
    return [(chapter, [_of_these(view, names) for view in sections]) for chapter, sections in views]


def _names_of_checkpoints(plan: Plan) -> dict[str, str]:
    """Printed names of models by the text of their last checkpoint, as `images.m_1@final` and as `m_1@final`."""
    names: dict[str, str] = {}
    for run, name in printed_names(plan.runs.values()).items():
        last = RunName.parse(run).at("final")
        names |= {str(last): name, str(last).removeprefix(f"{last.task}."): name}
    return names


def _of_files(chapter: Chapter) -> Chapter:
    """The chapter in the words of a comparison of files."""
    sections = [
        replace(one, numbers="", see=one.of_files.see, note=one.of_files.note, paper=())
        for one in chapter.sections
        if one.of_files is not None
    ]
    return replace(chapter, appendix="", sections=tuple(sections))


def _of_these(view: SectionView, names: Mapping[str, str]) -> SectionView:
    """Tables whose captions do not set them against the paper's, and whose cells name models as the answers do.

    names: printed names by the text of the checkpoint, as `m_1@final` or `images.m_1@final`.
    """
    checkpoint = re.compile(r"[\w.]+@\w+")

    def cell(text: str) -> str:
        return checkpoint.sub(lambda match: names.get(match[0], match[0]), text)

    def renamed(grids: list[Grid]) -> list[Grid]:
        return [
            replace(
                grid,
                caption=grid.caption.removeprefix("Ours: "),
                rows=tuple(tuple(map(cell, row)) for row in grid.rows),
            )
            for grid in grids
        ]

    return replace(view, tables=renamed(view.tables), folded=renamed(view.folded))


def _section_view(section: Section, evidence: Evidence, claims: list[ClaimView]) -> SectionView:
    if callable(section.figures):
        # Scenarios lie across tasks: one panel per figure, where other sections have one per task.
        every = (_panels(name, section.title, evidence) for name in section.figures(evidence.plan))
        rows = [[panel for panels in every for panel in panels]]
    else:
        made = dict.fromkeys(name for result in evidence.results.values() for name in result.figures)
        # Some are drawn once per run: <name>_<run>.
        names = [name for one in section.figures for name in made if name == one or name.startswith(f"{one}_")]
        rows = [_panels(name, section.title, evidence) for name in dict.fromkeys(names)]
    own = [view for view in claims if view.claim.section == section.id]
    shown = [row for row in rows if row]
    return SectionView(section, shown, section.tables(evidence), section.folded(evidence), own)


def image_panels(evidence: Evidence) -> list[list[Panel]]:
    """A row for each of `images.FIGURES` that some task has."""
    rows = (_panels(name, "Images", evidence) for name in images.FIGURES)
    return [row for row in rows if row]


def _panels(name: str, title: str, evidence: Evidence) -> list[Panel]:
    drawn, diverged = images.generated(evidence), _diverged(evidence)
    landscape = evidence.plan.study.analyses.landscape
    scenarios = {item.figure: item.tasks for item in (landscape.cross_domain if landscape else ())}
    panels = []
    for task, result in evidence.results.items():
        figure = result.figures.get(name)
        if figure is not None and figure.png.is_file():
            words = name.replace("_", " ")
            across = task == CROSS_DOMAIN
            tasks: Iterable[str] = scenarios.get(name, tuple(diverged)) if across else (task,)
            broken = ", ".join(run for part in tasks for run in diverged.get(part, ()))
            alt = f"{title}: {words}, {task.replace('_', ' ')}{', generated images' if task in drawn else ''}"
            shown = words.capitalize() if across else task
            panels.append(Panel(shown, task in drawn, broken, alt, *_embed(figure)))
    return panels


def _embed(figure: SavedFigure) -> tuple[str, int, int]:
    """Data URI, width and height in pixels (from the PNG's header)."""
    content = figure.png.read_bytes()
    width, height = struct.unpack(">II", content[16:24]) if content[:4] == b"\x89PNG" else (0, 0)
    return f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height


def not_run(evidence: Evidence, chapters: Chapters) -> list[str]:
    """The parts of the paper that this plan did not run, one line each."""
    missing = [
        f"{view.section.numbers}: {view.section.title} ({_reason(evidence, view.section)})"
        for chapter, views in chapters
        for view in views
        if view.empty and chapter.appendix
    ]
    present = set(evidence.results[CROSS_DOMAIN].figures) if CROSS_DOMAIN in evidence.results else set()
    numbered = {number: f"figure_{number}" for number in PAPERS_SCENARIOS}
    absent = [str(number) for number, name in numbered.items() if name not in present]
    if absent and any(name.startswith("figure_") for name in present):
        missing.append(f"Figures {', '.join(absent)}: these pairs of domains are not in the plan")
    return missing


def _reason(evidence: Evidence, section: Section) -> str:
    """Say whether an analysis was left out of the plan or gave nothing to show."""
    study, key = evidence.plan.study, section.analysis
    if key in type(study).model_fields:
        return f"{key} made no figure or table of it" if getattr(study, key) else f"the plan has no {key}"
    options = getattr(study.analyses, key, key)
    if options is not None and section.option:
        options, key = getattr(options, section.option), f"{key}.{section.option}"
    return f"{key} made no figure or table of it" if options else f"the plan has no analyses.{key}"


def _diverged(evidence: Evidence) -> dict[str, list[str]]:
    """Full names of the runs of each task that diverged."""
    by_task: dict[str, list[str]] = {}
    for name, facts in evidence.runs.items():
        if facts.diverged:
            by_task.setdefault(name.task, []).append(str(name))
    return by_task


def unlearned(evidence: Evidence) -> list[str]:
    """Runs that diverged or did not learn, by full name."""
    return [
        f"{name} ({'diverged' if facts.diverged else 'did not learn'})"
        for name, facts in evidence.runs.items()
        if not facts.learned
    ]


def provenance_groups(provenance: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Headings with names and values: nested mappings become groups of their own, after the plain values."""
    plain = [(_title(key), _text(value)) for key, value in provenance.items() if not isinstance(value, Mapping)]
    nested = [
        (_title(key), [(str(name), _text(inner)) for name, inner in value.items()])
        for key, value in provenance.items()
        if isinstance(value, Mapping) and value
    ]
    return ([("Run", plain)] if plain else []) + nested


def _title(key: str) -> str:
    words = str(key).replace("_", " ")
    return words[:1].upper() + words[1:]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(inner) for inner in value)
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
