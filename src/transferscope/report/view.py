"""What the templates show, prepared: panels, sections that have content, facts of tasks, provenance."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from transferscope.claims.decide import CLAIMS
from transferscope.claims.evidence import CROSS_DOMAIN
from transferscope.claims.results import SavedFigure, TaskResults
from transferscope.claims.rules import FAILS, HOLDS, UNKNOWN
from transferscope.report import grids
from transferscope.report.sections import CHAPTERS, Chapter, Section
from transferscope.tables import formats
from transferscope.tables.grid import Grid

Results = Mapping[str, TaskResults]
MARKS = {HOLDS: ("✓", "holds"), FAILS: ("✗", "fails"), UNKNOWN: ("?", "unknown")}
"""Sign and style class of each verdict."""


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
    """A row of the claims table; the paper's and our figures are lists, an item a task."""

    id: str
    text: str
    source: str
    section: str
    paper: list[str]
    sides: str
    ours: list[str]
    interval: str
    verdict: str
    mark: str
    style: str
    rule: str

    @property
    def missing(self) -> bool:
        return self.ours[0].startswith("not run")


@dataclass(frozen=True)
class SectionView:
    """A section with what there is to show."""

    section: Section
    rows: list[list[Panel]]
    ours: list[Grid]
    folded: list[Grid]
    claims: list[ClaimView] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.rows or self.ours)


Chapters = list[tuple[Chapter, list[SectionView]]]


def claim_views(claims: pd.DataFrame) -> list[ClaimView]:
    """The rows of `decide_claims`, also after a round trip through CSV."""
    known = {claim.id: claim for claim in CLAIMS}
    views = []
    for row in claims.fillna("").to_dict("records"):
        mark, style = MARKS.get(row["verdict"], MARKS[UNKNOWN])
        name = str(row.get("id", ""))
        sides = " | ".join(known[name].sides) if name in known else ""
        ours = str(row["ours"]).removeprefix(f"{sides}: ")
        views.append(
            ClaimView(
                id=name,
                text=row["claim"],
                source=row["source"],
                section=known[name].section if name in known else "",
                paper=str(row["paper"]).split("; "),
                sides=sides,
                ours=ours.split("; "),
                interval=str(row["interval"]),
                verdict=row["verdict"],
                mark=mark,
                style=style,
                rule=str(row.get("rule", "")),
            )
        )
    return views


def generated_tasks(study: Mapping[str, Any], results: Results) -> set[str]:
    """Tasks whose images are drawn, unions of such and the cross-domain results of such included."""
    tasks = study.get("tasks") or {}
    drawn = {task for item in (study.get("generated") or {}).values() for task in item.get("tasks", ())}
    drawn |= {name for name, result in results.items() if result.facts.get("generated")}
    drawn |= {name for name, task in tasks.items() if set(task.get("union") or ()) & drawn}
    scenarios = _landscape(study).get("cross_domain") or ()
    if any(set(scenario.get("tasks", ())) & drawn for scenario in scenarios) or (set(tasks) and set(tasks) <= drawn):
        drawn.add(CROSS_DOMAIN)
    return drawn


def _landscape(study: Mapping[str, Any]) -> Mapping[str, Any]:
    return (study.get("analyses") or {}).get("landscape") or {}


def task_grid(study: Mapping[str, Any], results: Results) -> Grid:
    """What the study ran on: a row per task."""
    drawn = generated_tasks(study, results)
    rows = []
    for name, result in results.items():
        if name == CROSS_DOMAIN:
            continue
        options, facts = (study.get("tasks") or {}).get(name) or {}, result.facts
        union = options.get("union")
        layout = f"union of {' and '.join(union)}" if union else str(options.get("format", formats.MISSING))
        classes = facts.get("num_classes") or len(facts.get("class_names") or facts.get("classes") or ()) or None
        table = result.tables.get("runs")
        rows.append((
            name, "GENERATED (drawn)" if name in drawn else "real images", layout,
            "several labels an image" if facts.get("multi_label") else "one label an image",
            formats.cell("classes", classes), formats.cell("num", facts.get("num_train")),
            formats.cell("num", facts.get("num_test") or _num_test(result)),
            str(len(table)) if table is not None else formats.MISSING,
        ))  # fmt: skip
    columns = ("task", "images", "layout", "labels", "classes", "train images", "test images", "runs")
    return Grid("Tasks", columns, tuple(rows), text_columns=4)


def _num_test(result: TaskResults) -> int | None:
    """Test examples by the table of class sizes: every example is positive, negative or ignored for the first class."""
    table = result.tables.get("class_sizes")
    counts = ["count", "negatives", "ignored"]
    if table is None or not {"part", *counts} <= set(table.columns):
        return None
    rows = table[table["part"] == "test"]
    return int(rows[counts].iloc[0].sum()) if len(rows) else None


def data_panels(study: Mapping[str, Any], results: Results) -> list[list[Panel]]:
    """Contact sheets of all tasks, images shuffled, sizes of the classes, and which findings come together."""
    names = (
        "contact_sheet",
        "test_contact_sheet",
        "validation_contact_sheet",
        "shuffled_images",
        "class_sizes",
        "label_cooccurrence",
    )
    rows = [_panels(name, "Images", study, results, {}) for name in names]
    return [row for row in rows if row]


def section_views(study: Mapping[str, Any], results: Results, claims: list[ClaimView]) -> Chapters:
    """Chapters with their sections, those without content included (`empty`)."""
    return [
        (chapter, [_section_view(section, study, results, claims) for section in chapter.sections])
        for chapter in CHAPTERS
    ]


def _section_view(section: Section, study: Mapping[str, Any], results: Results, claims: list[ClaimView]) -> SectionView:
    diverged = diverged_runs(results)
    rows = [_panels(name, section.title, study, results, diverged) for name in _figure_names(section, results)]
    if section.analysis == "landscape.cross_domain":
        # One panel a figure, where other sections have one a task.
        rows = [[panel for row in rows for panel in row]]
    own = [claim for claim in claims if claim.section == section.id]
    return SectionView(section, [row for row in rows if row], section.ours(results), section.folded(results), own)


def _figure_names(section: Section, results: Results) -> list[str]:
    """The section's figures; those drawn once a run, `<name>_<run>`; and scenarios that are not the paper's."""
    made = dict.fromkeys(name for result in results.values() for name in result.figures)
    names = [name for listed in section.figures for name in made if name == listed or name.startswith(f"{listed}_")]
    if section.id == "figures_24_29":
        numbered = {name for chapter in CHAPTERS for other in chapter.sections for name in other.figures}
        names += (
            [name for name in results[CROSS_DOMAIN].figures if name not in numbered] if CROSS_DOMAIN in results else []
        )
    return list(dict.fromkeys(names))


def _panels(
    name: str, title: str, study: Mapping[str, Any], results: Results, diverged: Mapping[str, list[str]]
) -> list[Panel]:
    drawn = generated_tasks(study, results)
    scenarios = {item["figure"]: item["tasks"] for item in _landscape(study).get("cross_domain") or ()}
    found = []
    for task, result in results.items():
        figure = result.figures.get(name)
        if figure is not None and figure.png.is_file():
            words = name.replace("_", " ")
            shown = words.capitalize() if task == CROSS_DOMAIN else task
            note = ", generated images" if task in drawn else ""
            tasks = scenarios.get(name, diverged) if task == CROSS_DOMAIN else [task]
            broken = ", ".join(run for part in tasks for run in diverged.get(part, ()))
            alt = f"{title}: {words}, {task.replace('_', ' ')}{note}"
            found.append(Panel(shown, task in drawn, broken, alt, *_embed(figure)))
    return found


def _embed(figure: SavedFigure) -> tuple[str, int, int]:
    """Data URI, width and height in pixels (from the PNG's header)."""
    content = figure.png.read_bytes()
    width, height = struct.unpack(">II", content[16:24]) if content[:4] == b"\x89PNG" else (0, 0)
    return f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height


def not_run(study: Mapping[str, Any], chapters: Chapters, results: Results) -> list[str]:
    """What the paper has and this plan did not run, one line each."""
    missing = [
        f"{view.section.numbers}: {view.section.title} ({_reason(study, view.section.analysis)})"
        for _, views in chapters
        for view in views
        if view.empty
    ]
    figures = results[CROSS_DOMAIN].figures if CROSS_DOMAIN in results else {}
    present = {name for name in figures if name.startswith("figure_")}
    if present:
        absent = [str(number) for number in range(19, 30) if f"figure_{number}" not in present]
        if absent:
            missing.append(f"Figures {', '.join(absent)}: these pairs of domains are not in the plan")
    return missing


def _reason(study: Mapping[str, Any], analysis: str) -> str:
    """Whether an analysis was left out of the plan, or gave nothing to show."""
    options: Any = study.get("analyses") or {}
    for part in analysis.split("."):
        if part in options and not options[part] and options[part] != {}:
            return f"the plan has no analyses.{analysis}"
        options = options.get(part) or {}
    return f"{analysis} made no figure or table of it"


def diverged_runs(results: Results) -> dict[str, list[str]]:
    """Full names of the runs of each task that diverged."""
    return {
        task: [f"{task}.{run}" for run in table.loc[table["status"] == "diverged", "run"]]
        for task, table in grids.common.each(results, "runs")
        if "status" in table.columns
    }


def unlearned(results: Results) -> list[str]:
    """Runs that diverged or did not learn, by full name."""
    found = []
    for task, table in grids.common.each(results, "runs"):
        for row in table.to_dict("records"):
            diverged = row.get("status") == "diverged"
            if diverged or str(row.get("learned", True)) == "False":
                found.append(f"{task}.{row['run']} ({'diverged' if diverged else 'did not learn'})")
    return found


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
