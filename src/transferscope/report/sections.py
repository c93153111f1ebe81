"""Sections of the page with what they show, the answers that link to them, and the parts of the paper not run."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

from transferscope.answers.answer import Answer, AnswerCard
from transferscope.claims.evidence import CROSS_DOMAIN, Evidence
from transferscope.experiment.names import EntryName, RunName
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import printed_names
from transferscope.report.chapters import CHAPTERS
from transferscope.report.chapters.chapter import Chapter, Section
from transferscope.report.claims_table import ClaimView
from transferscope.report.figure_panels import Panel, panels_of
from transferscope.tables.grid import Grid

PAPERS_SCENARIOS = range(19, 30)
"""Figures of the paper that show a scenario across domains."""


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


def section_views(evidence: Evidence, claims: list[ClaimView]) -> Chapters:
    """Chapters with their sections, those without content included (`empty`).

    Of a study that compares checkpoint files only the sections on files, without the paper's tables and numbers.
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
        every = (panels_of(name, section.title, evidence) for name in section.figures(evidence.plan))
        rows = [[panel for panels in every for panel in panels]]
    else:
        made = dict.fromkeys(name for result in evidence.results.values() for name in result.figures)
        # Some are drawn once per run: <name>_<run>.
        names = [name for one in section.figures for name in made if name == one or name.startswith(f"{one}_")]
        rows = [panels_of(name, section.title, evidence) for name in dict.fromkeys(names)]
    own = [view for view in claims if view.claim.section == section.id]
    shown = [row for row in rows if row]
    return SectionView(section, shown, section.tables(evidence), section.folded(evidence), own)


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
