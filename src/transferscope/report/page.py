"""The report as one HTML file that needs no other file and no network, and in short as Markdown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from transferscope.answers.answer import AnswerCard
from transferscope.claims.evidence import Evidence, TaskResults
from transferscope.claims.registry import registered
from transferscope.claims.verdict import RULE
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import printed_names
from transferscope.report import claims_table, sections
from transferscope.report.chapters import images, training
from transferscope.report.figure_panels import image_panels
from transferscope.report.provenance import provenance_groups
from transferscope.tables.grid import Grid
from transferscope.tables.markdown import escape, markdown_table

Results = Mapping[str, TaskResults]
Provenance = Mapping[str, Any]

ACRONYM = re.compile(r"(\b[A-Z]+-[A-Z]\b)")
"""Words such as RI-T, in which no line may break."""


def write_page(
    plan: Plan,
    claims: pd.DataFrame,
    effects: pd.DataFrame,
    results: Results,
    *,
    provenance: Provenance,
    answers: AnswerCard | None = None,
) -> str:
    """The whole report as HTML.

    claims, effects: of `decide_claims`. results: by task, and `cross_domain`; figures are read from disk and embedded.
    provenance: names and values, shown as they are (mappings as groups). answers: the card that it opens with.
    """
    return _render("report.html.j2", plan, claims, effects, results, provenance, answers)


def write_markdown(
    plan: Plan,
    claims: pd.DataFrame,
    effects: pd.DataFrame,
    results: Results,
    *,
    provenance: Provenance,
    answers: AnswerCard | None = None,
) -> str:
    """The same claims and key tables as the page, without figures and long tables."""
    return _render("summary.md.j2", plan, claims, effects, results, provenance, answers)


def _render(
    template: str,
    plan: Plan,
    claims: pd.DataFrame,
    effects: pd.DataFrame,
    results: Results,
    provenance: Provenance,
    answers: AnswerCard | None,
) -> str:
    evidence = Evidence(plan, results)
    claim_views = claims_table.claim_views(claims, effects, registered(plan.study.report.claims))
    decided = [claim for claim in claim_views if claim.ours]
    chapters = sections.section_views(evidence, decided)
    counts = Counter(claim.verdict for claim in decided)
    drawn = images.generated(evidence)
    of_files = plan.compares_files
    content = {
        "of_files": of_files,
        "models": _models(plan) if of_files else None,
        "answers": sections.answer_views(answers, chapters, {"claims"} if decided else ()),
        "intervals": answers.note if answers is not None and of_files else "In brackets 95 % intervals.",
        "title": plan.study.report.title,
        "model": plan.study.model.name,
        "generated": [task for task in evidence.tasks if task in drawn],
        "tasks": images.tasks(evidence),
        "images": image_panels(evidence),
        "data": images.tables(evidence),
        "data_folded": images.folded(evidence),
        "claims": decided,
        "claims_not_run": [] if of_files else [claim for claim in claim_views if not claim.ours],
        "counts": [(verdict, counts[verdict], *mark) for verdict, mark in claims_table.MARKS.items()],
        "rule": RULE,
        "whole_table": claims_table.whole_table(claims),
        "compared": claims_table.compared_kinds(plan),
        "chapters": [(chapter, [item for item in views if not item.empty]) for chapter, views in chapters],
        "anchors": {item.section.id for _, views in chapters for item in views if not item.empty},
        "not_run": [] if of_files else sections.not_run(evidence, chapters),
        "runs": training.runs(evidence),
        "unlearned": training.unlearned(evidence),
        "provenance": provenance_groups(provenance),
    }
    return _environment().get_template(template).render(content)


def _models(plan: Plan) -> Grid:
    """The checkpoint files that are compared, a row each."""
    names = printed_names(plan.runs.values())
    rows = tuple((names[run.full_name], run.checkpoint or "", run.model.name) for run in plan.runs.values())
    rows = tuple(dict.fromkeys(rows))  # a file is there once, on however many tasks
    return Grid("Models", ("model", "file", "architecture"), rows, text_columns=3)


def keep_together(text: str) -> Markup:
    """Text in which no line breaks inside an `ACRONYM`."""
    frames = (Markup("{}"), Markup('<span class="whole">{}</span>'))
    return Markup("").join(frames[index % 2].format(part) for index, part in enumerate(ACRONYM.split(text)))


def code(text: str) -> Markup:
    """Text in which all between backticks is code."""
    frames = (Markup("{}"), Markup("<code>{}</code>"))
    return Markup("").join(frames[index % 2].format(part) for index, part in enumerate(text.split("`")))


def units(text: str) -> str:
    """Text in which no line breaks between a number and its unit."""
    return re.sub(r"(?<=\d) (?=%|points)", "\u00a0", text)


def ranges(cell: str) -> list[str]:
    """A number, and what is shown smaller below it: its ranges, in brackets of either kind."""
    return re.split(r" (?=[(\[])", cell)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("transferscope.report"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"keep_together": keep_together, "code": code, "units": units, "ranges": ranges}
    environment.globals |= {"table": markdown_table, "cell": escape}
    return environment
