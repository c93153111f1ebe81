"""The report as one HTML file that needs no other file and no network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from transferscope.claims.evidence import CROSS_DOMAIN
from transferscope.claims.results import TaskResults
from transferscope.claims.rules import RULE
from transferscope.report import grids, view
from transferscope.report.view import MARKS

KINDS = ("P-T", "RI-T")
DEFAULT_TITLE = "What is being transferred?"


def write_page(
    study: Mapping[str, Any],
    claims: pd.DataFrame,
    results: Mapping[str, TaskResults],
    *,
    provenance: Mapping[str, Any],
) -> str:
    """The whole report as HTML.

    study: the parameters. claims: of `decide_claims`. results: by task, and `cross_domain`; figures are read from
    disk and embedded. provenance: names and values, shown as they are (mappings as groups).
    """
    return _environment().get_template("report.html.j2").render(context(study, claims, results, provenance))


def context(
    study: Mapping[str, Any],
    claims: pd.DataFrame,
    results: Mapping[str, TaskResults],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """What both templates are filled with."""
    drawn = view.generated_tasks(study, results)
    claim_views = view.claim_views(claims)
    decided = [claim for claim in claim_views if not claim.missing]
    chapters = view.section_views(study, results, decided)
    counts = Counter(claim.verdict for claim in decided)
    return {
        "title": (study.get("report") or {}).get("title") or DEFAULT_TITLE,
        "model": (study.get("model") or {}).get("name", ""),
        "generated": [name for name in results if name in drawn and name != CROSS_DOMAIN],
        "tasks": view.task_grid(study, results),
        "images": view.data_panels(study, results),
        "data": [
            *grids.images.splits(results),
            *grids.images.shared_patients(results),
            *grids.images.shared_images(results),
            *grids.images.dropped_files(results),
        ],
        "data_folded": [
            *grids.images.class_sizes(results),
            *grids.images.label_shift(results),
            *grids.images.label_cooccurrence(results),
        ],
        "claims": decided,
        "claims_not_run": [claim for claim in claim_views if claim.missing],
        "counts": [(verdict, counts[verdict], *MARKS[verdict]) for verdict in MARKS],
        "rule": RULE,
        "chapters": [(chapter, [item for item in views if not item.empty]) for chapter, views in chapters],
        "not_run": view.not_run(study, chapters, results),
        "runs": grids.training.runs(results),
        "unlearned": view.unlearned(results),
        "provenance": view.provenance_groups(provenance),
    }


def keep_together(text: str) -> Markup:
    """Text in which no line breaks inside `RI-T` or `P-T`."""
    words = re.split(r"(RI-T|P-T)", text)
    return Markup("").join(
        Markup('<span class="whole">{}</span>').format(word) if word in KINDS else word for word in words
    )


def code(text: str) -> Markup:
    """What stands between backticks as code."""
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
    return environment
