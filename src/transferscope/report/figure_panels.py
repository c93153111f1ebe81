"""Figures of the page, embedded so that it needs no other file."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from transferscope.claims.evidence import CROSS_DOMAIN, Evidence
from transferscope.plots.rendered import SavedFigure
from transferscope.report.chapters import images


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


def image_panels(evidence: Evidence) -> list[list[Panel]]:
    """A row for each of `images.FIGURES` that some task has; of files without those of the study's own tasks."""
    left_out = images.OF_STUDIES if evidence.plan.compares_files else ()
    rows = (panels_of(name, "Images", evidence) for name in images.FIGURES if name not in left_out)
    return [row for row in rows if row]


def panels_of(name: str, title: str, evidence: Evidence) -> list[Panel]:
    """The figure of that name of each task that has it; title: of the section, for the description of the image."""
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


def _diverged(evidence: Evidence) -> dict[str, list[str]]:
    """Full names of the runs of each task that diverged."""
    by_task: dict[str, list[str]] = {}
    for name, facts in evidence.runs.items():
        if facts.diverged:
            by_task.setdefault(name.task, []).append(str(name))
    return by_task
